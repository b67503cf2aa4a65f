"""A running server under attack: what it answers on the wire, and whether it is unharmed after."""

import base64
import contextlib
import dataclasses
import http.client
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
from hostile import RED_JPEG
from running import SECONDS, RunningServer

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
TEXT = base64.b64encode(RED_JPEG).decode()
MEGABYTE = 2**20

# Of the server that asks for keys.
PREDICT_KEY, HASTY_KEY, ADMIN_KEY = "p" * 20, "h" * 20, "a" * 20
RATE, BURST = 20, 150

MOST_GROWN = 64.0  # MB of memory that may stay behind: caches and the allocator keep some
MOST_MORE = 2  # files or threads, for what is just being put away


@dataclasses.dataclass(frozen=True)
class Used:
    """What a process holds: memory in MB, and numbers of open files and threads."""

    memory: float
    files: int
    threads: int


@dataclasses.dataclass
class Cost:
    """What a block of requests took: processor seconds, MB of memory at its peak, MB written."""

    seconds: float = 0.0
    memory: float = 0.0
    written: float = 0.0


@dataclasses.dataclass
class Target:
    """A server to attack."""

    server: RunningServer
    headers: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # go along with each request
    admin: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # what an administrator sends instead

    def __post_init__(self) -> None:
        self._process = Path(f"/proc/{self.server.process.pid}")
        self.warm_up()

    def ask(self, method: str, path: str, **options) -> requests.Response:
        """Send one request on a connection of its own."""
        headers = {**self.headers, "Connection": "close", **options.pop("headers", {})}
        url = self.server.url + path
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def predict(self, data: object, query: str = "", kind: str = "image/jpeg", **options):
        """Send a body to be judged."""
        headers = {"Content-Type": kind, **options.pop("headers", {})}
        return self.ask("POST", f"/v1/predict{query}", data=data, headers=headers, **options)

    def predict_old(self, data: bytes) -> requests.Response:
        """Send an image as the first generation's callers do."""
        form = {"imageBase64String": base64.b64encode(data)}
        return self.ask("POST", "/image/detection", data=form)

    def upload(self, *files: tuple[str, object], path: str = "/v1/predict"):
        """Send files of a form."""
        return self.ask("POST", path, files=files)

    def connect(self) -> socket.socket:
        address = urlsplit(self.server.url)
        return socket.create_connection((address.hostname, address.port), SECONDS)

    def raw(self, *parts: bytes) -> http.client.HTTPResponse:
        """Send bytes as they are, and read the first answer; its body is in `body`."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.body = response.read()
        return response

    def head(self, path: str = "/v1/predict", *lines: str) -> bytes:
        """Return the first lines of a POST."""
        keys = [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(
            [f"POST {path} HTTP/1.1", "Host: localhost", *keys, *lines, "", ""]
        ).encode()

    def figure(self, name: str) -> float:
        """Return one of the figures at /metrics."""
        text = self.ask("GET", "/metrics", headers=self.admin).text
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])

    def used(self) -> Used:
        status = (self._process / "status").read_text()
        number = {key: int(value) for key, value in re.findall(r"(\w+):\s+(\d+)", status)}
        files = sum(1 for _ in (self._process / "fd").iterdir())
        return Used(number["VmRSS"] / 1024, files, number["Threads"])

    @contextlib.contextmanager
    def costing(self) -> Iterator[Cost]:
        """Measure what the server spends on the requests of the block."""
        cost, memory = Cost(), self.used().memory
        (self._process / "clear_refs").write_text("5")  # the peak begins here
        seconds, written = self._seconds(), self._written()
        yield cost
        peak = re.search(r"VmHWM:\s+(\d+)", (self._process / "status").read_text())
        cost.memory = int(peak[1]) / 1024 - memory
        cost.seconds = self._seconds() - seconds
        cost.written = self._written() - written

    def assert_unharmed(self) -> None:
        """Check that it lives, is ready, judges right, and holds no more than when it was warm."""
        assert self.server.process.poll() is None, self.server.printed()
        assert self.ask("GET", "/readyz").status_code == 200
        good = self.predict(RED_JPEG + os.urandom(8))
        assert (good.status_code, good.json()["label"]) == (200, "red")
        assert good.json()["cached"] is False
        wait_until(lambda: self.figure("classifier_in_flight") == 0)
        wait_until(lambda: self._has_put_away(self.used()), lambda: (self._used, self.used()))
        assert "Traceback" not in self.server.printed()

    def _has_put_away(self, now: Used) -> bool:
        return (
            now.memory <= self._used.memory + MOST_GROWN
            and now.files <= self._used.files + MOST_MORE
            and now.threads <= self._used.threads + MOST_MORE
        )

    def warm_up(self) -> None:
        """Ask a little of all kinds, and note what the server then holds."""
        for data in (RED_JPEG, b"no image"):
            self.predict(data)
            self.predict_old(data)
        self.upload(("image", ("a.jpg", RED_JPEG)), path="/v1/predict/batch")
        form = {"label": (None, "red"), "image": ("a.jpg", RED_JPEG)}
        done = self.ask("POST", "/v1/feedback", files=form)  # its database stays open
        if done.ok:
            self.ask("DELETE", f"/v1/feedback/{done.json()['sha256']}")
        self.ask("GET", "/")
        self.figure("classifier_in_flight")
        self._used = self.used()

    def _seconds(self) -> float:
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _written(self) -> float:
        return int(re.search(r"wchar: (\d+)", (self._process / "io").read_text())[1]) / 2**20


def wait_until(is_so: Callable[[], bool], seen: Callable[[], object] = lambda: "") -> None:
    """Wait for something that takes a moment; `seen` tells what there was instead."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.02)


def slug(response: requests.Response) -> str:
    """Name the problem of a refusal, having checked its form."""
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    value = response.json()
    assert value["status"] == response.status_code
    return value["type"].removeprefix("/problems/")


def assert_refused(response: requests.Response, status: int, name: str) -> None:
    assert (response.status_code, slug(response)) == (status, name)


def assert_old_failure(response: requests.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (200, "98"), response.text


ATTACKS: dict[int, Callable[[Target], None]] = {}
GUARDED: set[int] = set()


def attack(row: int, *, guarded: bool = False) -> Callable[..., Callable[[Target], None]]:
    """Make a function the attack of a row; guarded ones go for the server with keys."""

    def put(function: Callable[[Target], None]) -> Callable[[Target], None]:
        ATTACKS[row] = function
        if guarded:
            GUARDED.add(row)
        return function

    return put
