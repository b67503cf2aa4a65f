"""Servers as processes: ours, and that of the first generation."""

import argparse
import contextlib
import dataclasses
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagesieve.errors import ClassifierError
from imagesieve.model import versions
from serving_rig import first_generation, load

_PROJECT = Path(__file__).resolve().parents[2]
_RIG = Path(__file__).resolve().parent
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0


class ServiceError(ClassifierError):
    """A server under test did not do what it has to."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a service is asked.

    Attributes:
        path, form, expected: of a `load.Scenario`.
    """

    path: str
    form: str
    expected: str


OURS = Kind("/v1/predict", load.RAW, '"probabilities"')
OLD_ROUTE = Kind(first_generation.PATH, load.BASE64, '"00"')


@dataclasses.dataclass(frozen=True)
class Service:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        kind: how it is asked.
        process: of the server.
        start_seconds: from the start of the process to its first good answer.
    """

    port: int
    kind: Kind
    process: subprocess.Popen[bytes]
    start_seconds: float

    def memory_mib(self, field: str = "VmHWM") -> float:
        """Give the highest resident memory it has had, or with `VmRSS` what it has now."""
        for line in self._proc("status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise ServiceError(f"Process {self.process.pid} tells nothing about its memory.")

    def cpu_seconds(self) -> float:
        """Give the CPU time it has taken, its own and the system's on its behalf."""
        # Behind the name, which may hold spaces and ends with a bracket.
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def num_threads(self) -> int:
        """Count its threads."""
        return sum(1 for _ in self._proc("task").iterdir())

    def num_descriptors(self) -> int:
        """Count its open files, sockets among them."""
        return sum(1 for _ in self._proc("fd").iterdir())

    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self.process.poll() is None

    def judges(self, image: bytes) -> bool:
        """Ask about an image; tells whether the answer was a good one."""
        return _ask(self.port, self.kind, image)

    def asked_as(self, kind: Kind) -> "Service":
        """Give the same server, asked in another way."""
        return dataclasses.replace(self, kind=kind)

    def stop(self) -> int:
        """Send SIGTERM and give the exit code; one that does not leave is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the options of what runs our server."""
    add = parser.add_argument
    add("--model", type=Path, default=Path("modelFile"), help="a model folder or one version")
    add("--python", default=sys.executable, metavar="FILE", help="what runs our server (this one)")
    add(
        "--server-options",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="more options of main.py, in one argument",
    )


@contextlib.contextmanager
def ours(
    model: Path,
    image: bytes,
    folder: Path,
    options: Sequence[str] = (),
    python: str = sys.executable,
) -> Iterator[Service]:
    """Give our server, which has answered one image.

    Args:
        model: a model folder or a version.
        image: what it is asked about.
        folder: it runs there, so its log lies there.
        options: more of `main.py`.
        python: what runs it.

    Raises:
        ServiceError: it did not answer.
    """
    port = free_port()
    command = [python, str(_PROJECT / "main.py"), "--quiet", "--model", str(model.resolve())]
    command += ["--port", str(port), *options]
    with _running(command, folder, port, OURS, image) as service:
        yield service


@contextlib.contextmanager
def of_the_first_generation(model: Path, image: bytes, folder: Path) -> Iterator[Service]:
    """Give the first generation's server, which has answered one image.

    Raises:
        ServiceError: it did not answer, or the version has no Keras model.
    """
    port = free_port()
    version = versions.load(model)
    path = version.file(versions.KERAS_MODEL)
    if path is None:
        raise ServiceError(f"{version.path} has no Keras model.")
    script = str(_RIG / "first_generation.py")
    command = [sys.executable, script, str(path.resolve()), str(port), *version.manifest.classes]
    with _running(command, folder, port, OLD_ROUTE, image) as service:
        yield service


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(
    command: Sequence[str], folder: Path, port: int, kind: Kind, image: bytes
) -> Iterator[Service]:
    output = folder / f"output-{port}.txt"
    with output.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        while not _ask(port, kind, image):
            if process.poll() is not None or time.perf_counter() - start > _START_SECONDS:
                lines = output.read_text(errors="replace").strip().splitlines()
                words = lines[-1] if lines else "no word"
                raise ServiceError(f"{Path(command[1]).name} judged no image: {words}")
            time.sleep(0.02)
        yield Service(port, kind, process, time.perf_counter() - start)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _ask(port: int, kind: Kind, image: bytes) -> bool:
    """Tell whether an image gets a good answer."""
    body, content_type = image, "application/octet-stream"
    if kind.form == load.BASE64:
        body = urllib.parse.urlencode({first_generation.FIELD: b64encode(image)}).encode()
        content_type = "application/x-www-form-urlencoded"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", kind.path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return kind.expected.encode() in response.read() and response.status == 200
    except (ConnectionError, http.client.HTTPException):
        return False
    finally:
        connection.close()
