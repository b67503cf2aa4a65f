"""A load generator: clients that each ask again as soon as they have been answered.

All clients live in one thread on sockets that never block: it has to cost little beside a server on
the same cores. Each image is sent with a number of its own behind its end, so that no cache has its
content.
"""

import base64
import collections
import dataclasses
import heapq
import itertools
import math
import os
import selectors
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

RAW, BASE64, GET = "raw", "base64", "get"

RESET = "reset"  # the connection was refused, or ended before the answer did
SILENT = "silent"  # no answer within `patience_seconds`
WRONG = "wrong"  # status 200 over something else than a predicted image

_NONCE_BYTES = 8
_COUNTER_BYTES = 7  # with the nonce a multiple of three, so that Base64 needs no padding
_OVERDUE_EVERY_SECONDS = 0.5
_CACHED = b'"cached": true'


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is asked, by how many, and for how long."""

    port: int  # on 127.0.0.1
    path: str  # where to
    # `raw` posts the image's bytes, `base64` the first generation's form field, `get` nothing
    form: str
    expected: str  # a text that stands in every good answer
    images: Sequence[str] = ()  # paths of the images, sent in turn
    num_clients: int = 1  # as many requests are under way at once
    # of counting. Before it the clients ask until each has had an answer, after it they wait for
    # what is still under way
    seconds: float = 5.0
    warm_up_seconds: float = 1.0  # at least so long before counting
    pause_seconds: float = 0.0  # between an answer and the same client's next request
    busy_seconds: float = 0.05  # the same after a 503 or a broken connection
    patience_seconds: float = 60.0  # how long an answer is waited for
    keep_alive: bool = True  # go on with the same connection


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer; `is_last` when the server closes the connection behind it."""

    status: int
    body: bytes
    is_last: bool


def read_answer(data: bytes) -> Answer | None:
    """Take an answer apart; None while it is not complete."""
    head, blank_line, body = data.partition(b"\r\n\r\n")
    if not blank_line:
        return None
    first, *lines = head.split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if b"content-length" not in headers:
        raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
    length = int(headers[b"content-length"])
    if len(body) < length:
        return None
    is_last = first.startswith(b"HTTP/1.0") or headers.get(b"connection", b"").lower() == b"close"
    return Answer(int(first.split()[1]), body[:length], is_last)


def requests(scenario: Scenario) -> Iterator[list[bytes]]:
    """Yield one request after another, each as a few pieces, no two with the same content."""
    nonce = os.urandom(_NONCE_BYTES)
    host = f"Host: 127.0.0.1:{scenario.port}\r\n"
    host += "" if scenario.keep_alive else "Connection: close\r\n"
    if scenario.form == GET:
        yield from itertools.repeat([f"GET {scenario.path} HTTP/1.1\r\n{host}\r\n".encode()])
    is_raw = scenario.form == RAW
    kind = "application/octet-stream" if is_raw else "application/x-www-form-urlencoded"
    bodies = [_body(Path(path).read_bytes(), is_raw) for path in scenario.images]
    start = f"POST {scenario.path} HTTP/1.1\r\n{host}Content-Type: {kind}\r\nContent-Length: "
    for number in itertools.count():
        body = bodies[number % len(bodies)]
        end = nonce + number.to_bytes(_COUNTER_BYTES)
        if not is_raw:
            end = urllib.parse.quote_plus(base64.b64encode(end)).encode()
        yield [f"{start}{len(body) + len(end)}\r\n\r\n".encode(), body, end]


def _body(image: bytes, is_raw: bool) -> bytes:
    if is_raw:
        return image
    padded = image + bytes(-len(image) % 3)
    return b"imageBase64String=" + urllib.parse.quote_plus(base64.b64encode(padded)).encode()


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that so large a share of all does not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class _Client:
    """One caller: at most one request under way."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._port, self._selector = port, selector
        self._socket: socket.socket | None = None
        self._unsent: list[memoryview] = []
        self._received = bytearray()
        self.is_busy = self.has_answer = False
        self.started = 0.0

    def ask(self, request: Sequence[bytes]) -> None:
        """Begin a request, on the connection of before if there is one."""
        self.started = time.perf_counter()
        self.is_busy = True
        self._unsent = [memoryview(piece) for piece in request]
        self._received.clear()
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.connect_ex(("127.0.0.1", self._port))  # in progress; errors come later
            self._selector.register(self._socket, both, self)
        else:
            self._selector.modify(self._socket, both, self)

    def go_on(self, events: int) -> Answer | None:
        """Send and read what can be; the answer, once it is there."""
        assert self._socket is not None
        if events & selectors.EVENT_READ:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("closed before the answer")
            self._received += data
            answer = read_answer(bytes(self._received))
            if answer:
                self.end(is_last=answer.is_last or bool(self._unsent))
                return answer
        if events & selectors.EVENT_WRITE:
            self._send()
        return None

    def _send(self) -> None:
        assert self._socket is not None
        num_sent = self._socket.sendmsg(self._unsent)
        while self._unsent and num_sent >= len(self._unsent[0]):
            num_sent -= len(self._unsent.pop(0))
        if self._unsent:
            self._unsent[0] = self._unsent[0][num_sent:]
        else:
            self._selector.modify(self._socket, selectors.EVENT_READ, self)

    def end(self, is_last: bool = True) -> None:
        """End the request, and the connection if it was the last there."""
        self.is_busy = False
        self.has_answer = True
        if is_last and self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


class _Load:
    """All clients, and what they have seen."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._requests = requests(scenario)
        self._selector = selectors.DefaultSelector()
        self._clients = [
            _Client(scenario.port, self._selector) for _ in range(scenario.num_clients)
        ]
        # When a client asks next, and its number.
        self._waiting = [(0.0, number) for number in range(scenario.num_clients)]
        self._numbers = {client: number for number, client in enumerate(self._clients)}
        self._next_overdue = 0.0
        self._is_counting, self._is_asking = False, True
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._num_cached = self._num_good_in_all = 0
        self._good_ms: list[float] = []
        self._refused_ms: list[float] = []

    def run(self) -> dict[str, Any]:
        """Warm up, count, wait for the rest; return what was counted."""
        scenario = self._scenario
        begin = time.perf_counter()
        warm = begin + scenario.warm_up_seconds
        is_warm = self._serve_clients(
            begin + scenario.patience_seconds,
            lambda: (
                time.perf_counter() >= warm and all(client.has_answer for client in self._clients)
            ),
        )
        self._is_counting = True
        start, cpu = time.perf_counter(), time.process_time()
        self._serve_clients(start + scenario.seconds)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        self._is_counting = self._is_asking = False
        end = time.perf_counter() + scenario.patience_seconds
        self._serve_clients(end, lambda: not any(client.is_busy for client in self._clients))
        return {
            "num_clients": scenario.num_clients,
            "seconds": seconds,
            "outcomes": dict(self._outcomes),
            "good_per_second": len(self._good_ms) / seconds,
            "p50_ms": percentile(self._good_ms, 0.5),
            "p99_ms": percentile(self._good_ms, 0.99),
            "max_ms": max(self._good_ms, default=None),
            "refused_p50_ms": percentile(self._refused_ms, 0.5),
            "num_cached": self._num_cached,
            "num_good_in_all": self._num_good_in_all,
            "is_warm": is_warm,
            "num_unanswered": sum(client.is_busy for client in self._clients),
            "cpu_share": cpu / seconds,
        }

    def _serve_clients(self, deadline: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Let the clients work until the deadline or until `is_over`; return whether it is."""
        while (now := time.perf_counter()) < deadline:
            if is_over():
                return True
            while self._is_asking and self._waiting and self._waiting[0][0] <= now:
                self._clients[heapq.heappop(self._waiting)[1]].ask(next(self._requests))
            self._give_up_the_overdue(now)
            next_due = self._waiting[0][0] if self._waiting and self._is_asking else deadline
            for key, events in self._selector.select(max(0.0, min(next_due - now, 0.1))):
                self._go_on(key.data, events)
        return is_over()

    def _give_up_the_overdue(self, now: float) -> None:
        if now < self._next_overdue:
            return
        self._next_overdue = now + _OVERDUE_EVERY_SECONDS
        for client in self._clients:
            if client.is_busy and now - client.started > self._scenario.patience_seconds:
                client.end()
                self._note(client, SILENT)

    def _go_on(self, client: _Client, events: int) -> None:
        if not client.is_busy:  # the server has closed a idle connection
            client.end()
            return
        try:
            answer = client.go_on(events)
        except BlockingIOError:  # not ready after all
            return
        except OSError:
            client.end()
            self._note(client, RESET)
            return
        if answer:
            is_wrong = answer.status == 200 and self._scenario.expected.encode() not in answer.body
            self._note(client, WRONG if is_wrong else str(answer.status), answer)

    def _note(self, client: _Client, outcome: str, answer: Answer | None = None) -> None:
        now = time.perf_counter()
        is_busy = outcome in ("503", RESET)
        pause = self._scenario.busy_seconds if is_busy else self._scenario.pause_seconds
        heapq.heappush(self._waiting, (now + pause, self._numbers[client]))
        self._num_good_in_all += outcome == "200"
        if not self._is_counting:
            return
        self._outcomes[outcome] += 1
        milliseconds = 1000 * (now - client.started)
        if outcome == "200":
            self._good_ms.append(milliseconds)
            self._num_cached += answer is not None and _CACHED in answer.body
        elif outcome == "503":
            self._refused_ms.append(milliseconds)


def run(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario and return its figures."""
    return _Load(scenario).run()
