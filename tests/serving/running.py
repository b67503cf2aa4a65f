"""The real server as a process of its own: `main.py` on a free port."""

import contextlib
import functools
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import requests

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 20  # generous: the machine may be busy


class RunningServer:
    """A started `main.py`; `lines` is what it has written to standard error so far."""

    def __init__(self, folder: Path, *options: str, script: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *options],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def log(self) -> str:
        """Return the log file's text so far; it has the lines that `--quiet` hides, too."""
        return "".join(path.read_text() for path in self.folder.glob("log/main-*.log"))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for the pattern in the log file."""
        deadline = time.monotonic() + SECONDS
        while not (match := re.search(pattern, self.log())):
            assert time.monotonic() < deadline, (pattern, self.printed())
            assert self.process.poll() is None, self.printed()
            time.sleep(0.02)
        return match

    def printed(self) -> str:
        """Return standard error so far."""
        return "".join(self.lines)

    @functools.cached_property
    def url(self) -> str:
        """The address it listens on."""
        return self.wait_for(r"Listening on (http://\S+);")[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code


@contextlib.contextmanager
def running(
    folder: Path, *options: str, script: Path = REPOSITORY / "main.py"
) -> Iterator[RunningServer]:
    """Return a server that is ended when the block is left, however that happens."""
    server = RunningServer(folder, *options, script=script)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.exit_code()
        assert server.process.stderr
        server.process.stderr.close()


@contextlib.contextmanager
def serving(folder: Path, model: Path, *options: str) -> Iterator[RunningServer]:
    """Return a server whose model is loaded."""
    with running(folder, "--model", str(model), "--port", "0", *options) as server:
        server.wait_for(" Serving ")
        assert requests.get(f"{server.url}/readyz", timeout=SECONDS).ok
        yield server
