"""Runs of downloaders: the fake Bing's process, a new folder for each run, and what it costs."""

import contextlib
import dataclasses
import multiprocessing
import os
import select
import signal
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rig

from downloads_rig import found, web
from downloads_rig.links import Link
from downloads_rig.tools import TOOLS, InstallError, Tool, command, python_of

SAMPLE_SECONDS = 0.05

_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one tool."""

    seconds: float  # from the start of its process to its end
    cpu_seconds: float  # of its own and the system's on its behalf
    peak_threads: int
    peak_mib: float  # the most that was seen, looking every 50 ms
    end: str  # its exit code, or "killed" at the deadline
    last_line: str  # that it printed
    files: list[found.File]  # that it left
    seen: dict[str, Any]  # by the hosts; see `web.Web.seen`


@dataclasses.dataclass(frozen=True)
class Bing:
    """The process of the fake Bing."""

    connection: Connection
    base_url: str  # of the search
    links: list[dict[str, Any]]  # what it lists; see `found`

    def seen(self) -> dict[str, Any]:
        """Return what it has seen since the last call."""
        self.connection.send("seen")
        return self.connection.recv()


@contextlib.contextmanager
def running_bing(
    make_links: Callable[[], list[Link]], num_hosts: int | None = None, page_seconds: float = 0.0
) -> Iterator[Bing]:
    """Run a fake Bing for the length of the block; it has a host for each link by default."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=web.run, args=(its, make_links, num_hosts, page_seconds))
    process.start()
    its.close()  # so that an end of the process is an end of the connection
    try:
        yield Bing(ours, **ours.recv())
    finally:
        process.kill()
        process.join()


def install(options: Namespace) -> tuple[list[Tool], dict[str, str]]:
    """Return the tools that can run, and why the others cannot."""
    tools, missing = [], {}
    for name in options.only:
        try:
            python_of(TOOLS[name], options.cache)
        except InstallError as error:
            missing[name] = str(error)
        else:
            tools.append(TOOLS[name])
    return tools, missing


def run(tool: Tool, bing: Bing, limit: int, max_seconds: float, options: Namespace) -> Run:
    """Let a tool fill a new folder."""
    rig.say(options, f"{tool.name}: {limit} images")
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        images, output = Path(folder, "images"), Path(folder, "output.txt")
        words = command(tool, bing.base_url, images, limit, options)
        bing.seen()  # of a killed tool's last moments
        cost = _measure(words, output, max_seconds)
        last_line = _last_line(output)
        return Run(**cost, last_line=last_line, files=found.files_in(images), seen=bing.seen())


def _measure(words: Sequence[str], output: Path, max_seconds: float) -> dict[str, Any]:
    """Run a command to its end, or to its deadline; no process of it is left."""
    environment = {k: value for k, value in os.environ.items() if k.lower() not in _PROXIES}
    start = time.perf_counter()
    with output.open("wb") as file:
        process = subprocess.Popen(
            words,
            cwd=output.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        has_ended, threads, mib = _watch(process.pid, start + max_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and so have its children
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_threads": threads,
        "peak_mib": mib,
        "end": str(process.returncode) if has_ended else "killed",
    }


def _watch(pid: int, end: float) -> tuple[bool, int, float]:
    """Sample until the process has ended or the time is over; return whether it has ended."""
    threads, kib = 0, 0
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        while time.perf_counter() < end:
            status = rig.proc_status(pid)
            threads = max(threads, status["Threads"])
            kib = max(kib, status.get("VmHWM", 0))  # a process that has ended has none
            if ended.poll(SAMPLE_SECONDS * 1000):
                return True, threads, kib / 1024
        return False, threads, kib / 1024
    finally:
        os.close(descriptor)


def _last_line(path: Path) -> str:
    # A progress bar overwrites its line with carriage returns.
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
