"""Servers as processes: ours, and that of the first generation."""

import argparse
import contextlib
import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import requests
import rig

from imagesieve.errors import ClassifierError
from imagesieve.model import versions
from serving_rig import first_generation, load

_START_SECONDS = 180.0
_STOP_SECONDS = 30.0


class ServiceError(ClassifierError):
    """A server under test did not do what it has to."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a service is asked."""

    path: str
    form: str
    expected: str  # of a `load.Scenario`


OURS = Kind("/v1/predict", load.RAW, '"probabilities"')
OLD_ROUTE = Kind(first_generation.PATH, load.BASE64, '"00"')


@dataclasses.dataclass(frozen=True)
class Service:
    """A running server."""

    port: int  # on 127.0.0.1
    kind: Kind  # how it is asked
    process: subprocess.Popen[bytes]  # of the server
    start_seconds: float  # from the start of the process to its first good answer

    def memory_mib(self, field: str = "VmHWM") -> float:
        """Return the highest resident memory it has had, or with `VmRSS` what it has now."""
        return rig.proc_status(self.process.pid)[field] / 1024

    def num_threads(self) -> int:
        """Return the number of its threads."""
        return rig.proc_status(self.process.pid)["Threads"]

    def num_descriptors(self) -> int:
        """Return the number of its open files, sockets among them."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Return the CPU time it has taken, its own and the system's on its behalf."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()  # behind the name, which may hold spaces
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def predicts(self, image: bytes) -> bool:
        """Ask about an image; return whether the answer was a good one."""
        return _ask(self.port, self.kind, image)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; after 30 s the process is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what runs our server."""
    add = parser.add_argument
    add("--model", type=Path, default=Path("modelFile"), help="a model folder or one version")
    add("--python", default=sys.executable, metavar="FILE", help="what runs our server (this one)")
    more = "more options of main.py, in one argument"
    add("--server-options", type=shlex.split, default=[], metavar="TEXT", help=more)


def ours(
    model: Path,
    image: bytes,
    folder: Path,
    options: Sequence[str] = (),
    python: str = sys.executable,
) -> AbstractContextManager[Service]:
    """Return a context with our server, which has answered one image."""
    port = free_port()
    command = [python, str(rig.PROJECT / "main.py"), "--quiet", "--model", str(model.resolve())]
    return _running([*command, "--port", str(port), *options], folder, port, OURS, image)


def of_the_first_generation(
    model: Path, image: bytes, folder: Path
) -> AbstractContextManager[Service]:
    """Return a context with the first generation's server, which has answered one image."""
    port = free_port()
    version = versions.load(model)
    path = version.file(versions.KERAS_MODEL)
    if path is None:
        raise ServiceError(f"{version.path} has no Keras model.")
    script = str(Path(first_generation.__file__).resolve())
    command = [sys.executable, script, str(path.resolve()), str(port), *version.manifest.classes]
    return _running(command, folder, port, OLD_ROUTE, image)


def free_port() -> int:
    """Return a free port."""
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
                words = lines[-1] if lines else "it printed nothing"
                raise ServiceError(f"{Path(command[1]).name} answered no image: {words}")
            time.sleep(0.02)
        yield Service(port, kind, process, time.perf_counter() - start)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def post(port: int, kind: Kind, image: bytes) -> requests.Response:
    """Ask a service about an image."""
    how: dict[str, Any] = {"data": image, "headers": {"Content-Type": "application/octet-stream"}}
    if kind.form == load.BASE64:
        how = {"data": {first_generation.FIELD: b64encode(image)}}
    with requests.Session() as session:
        session.trust_env = False  # a proxy knows no loopback
        return session.post(f"http://127.0.0.1:{port}{kind.path}", timeout=60, **how)


def label(service: Service, image: bytes) -> str:
    """Return the label of an image."""
    return str(post(service.port, service.kind, image).json()["label"])


def _ask(port: int, kind: Kind, image: bytes) -> bool:
    """Return whether an image gets a good answer."""
    try:
        response = post(port, kind, image)
    except requests.ConnectionError:
        return False
    return response.ok and kind.expected in response.text
