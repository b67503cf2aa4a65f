"""Run a process to its end, or to its deadline, and see what it costs."""

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SAMPLE_SECONDS = 0.05

_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a process took.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of its own and the system's on its behalf.
        peak_threads, peak_mib: the most that was seen, looking every 50 ms.
        exit_code: None when it was killed at the deadline.
        last_words: the last line that it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_threads: int
    peak_mib: float
    exit_code: int | None
    last_words: str

    @property
    def end(self) -> str:
        """How it ended: its exit code, or "killed"."""
        return "killed" if self.exit_code is None else str(self.exit_code)


def run(command: Sequence[str], folder: Path, max_seconds: float) -> Cost:
    """Run a command in `folder`, where its output goes too; nothing of it is left behind."""
    output = folder / "output.txt"
    environment = {name: value for name, value in os.environ.items() if not _is_proxy(name)}
    with output.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            is_over, threads, mib = _watch(process.pid, start + max_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and so have its children
                os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    return Cost(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_threads=threads,
        peak_mib=mib,
        exit_code=process.returncode if is_over else None,
        last_words=_last_line(output),
    )


def _watch(pid: int, end: float) -> tuple[bool, int, float]:
    """Sample until the process has ended or the time is over; tells whether it has ended."""
    threads, mib = 0, 0.0
    with _opened(pid) as descriptor:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        while time.perf_counter() < end:
            now_threads, now_mib = _sample(pid)
            threads, mib = max(threads, now_threads), max(mib, now_mib)
            if ended.poll(SAMPLE_SECONDS * 1000):
                return True, threads, mib
    return False, threads, mib


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sample(pid: int) -> tuple[int, float]:
    """Give the threads and the highest resident memory until now; none of a process that ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["Threads"]), int(fields.get("VmHWM", "0 kB").split()[0]) / 1024


def _is_proxy(name: str) -> bool:
    return name.lower() in _PROXIES


def _last_line(path: Path) -> str:
    # A progress bar overwrites its line with carriage returns.
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
