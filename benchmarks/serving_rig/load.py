"""A load generator: clients that each ask again as soon as they have been answered.

All clients live in one thread, as coroutines: it has to cost little beside a server on the same
cores. Each image is sent with a number of its own behind its end, so that no cache has its content.
"""

import asyncio
import base64
import collections
import dataclasses
import itertools
import math
import os
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RAW, BASE64, GET = "raw", "base64", "get"

RESET = "reset"  # the connection was refused, or ended before the answer did
SILENT = "silent"  # no answer within `patience_seconds`
WRONG = "wrong"  # status 200 over something else than a predicted image

_NONCE_BYTES = 8
_COUNTER_BYTES = 7  # with the nonce a multiple of three, so that Base64 needs no padding
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


def requests(scenario: Scenario) -> Iterator[bytes]:
    """Yield one request after another, no two with the same content."""
    nonce = os.urandom(_NONCE_BYTES)
    host = f"Host: 127.0.0.1:{scenario.port}\r\n"
    host += "" if scenario.keep_alive else "Connection: close\r\n"
    if scenario.form == GET:
        yield from itertools.repeat(f"GET {scenario.path} HTTP/1.1\r\n{host}\r\n".encode())
    is_raw = scenario.form == RAW
    kind = "application/octet-stream" if is_raw else "application/x-www-form-urlencoded"
    bodies = [_body(Path(path).read_bytes(), is_raw) for path in scenario.images]
    start = f"POST {scenario.path} HTTP/1.1\r\n{host}Content-Type: {kind}\r\nContent-Length: "
    for number in itertools.count():
        body = bodies[number % len(bodies)]
        end = nonce + number.to_bytes(_COUNTER_BYTES)
        if not is_raw:
            end = urllib.parse.quote_plus(base64.b64encode(end)).encode()
        head = f"{start}{len(body) + len(end)}\r\n\r\n"
        yield b"".join((head.encode(), body, end))


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
    """One caller: at most one request under way, on the same connection while there is one."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[str, bytes]:
        """Return a request's outcome and the body of the answer."""
        try:
            async with asyncio.timeout(self._scenario.patience_seconds):
                status, body = await self._exchange(request)
        except TimeoutError:
            self._hang_up()
            return SILENT, b""
        except (OSError, EOFError):
            self._hang_up()
            return RESET, b""
        is_wrong = status == "200" and self._scenario.expected.encode() not in body
        return WRONG if is_wrong else status, body

    async def _exchange(self, request: bytes) -> tuple[str, bytes]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self._hang_up()
            address = ("127.0.0.1", self._scenario.port)
            self._reader, self._writer = await asyncio.open_connection(*address)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.lower().split(b"\r\n")
        headers = {name: value.strip() for name, _, value in (row.partition(b":") for row in lines)}
        body = await self._reader.readexactly(int(headers[b"content-length"]))
        if first.startswith(b"http/1.0") or headers.get(b"connection") == b"close":
            self._hang_up()
        return first.split()[1].decode(), body

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class _Load:
    """All clients, and what they have seen."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._requests = requests(scenario)
        self._is_counting, self._is_asking = False, True
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._num_cached = self._num_good_in_all = 0
        self._good_ms: list[float] = []
        self._refused_ms: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Warm up, count, wait for the rest; return what was counted."""
        scenario = self._scenario
        answered = [asyncio.Event() for _ in range(scenario.num_clients)]
        asking = asyncio.gather(*map(self._ask_on, answered))
        first_answers = asyncio.gather(*(event.wait() for event in answered))
        await asyncio.wait([asking, first_answers], return_when=asyncio.FIRST_COMPLETED)
        self._is_counting = True
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.wait([asking], timeout=scenario.seconds)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        self._is_counting = self._is_asking = False
        await asking
        return {
            "num_clients": scenario.num_clients,
            "seconds": seconds,
            "outcomes": dict(self._outcomes),
            "good_per_second": len(self._good_ms) / seconds,
            "p50_ms": percentile(self._good_ms, 0.5),
            "p99_ms": percentile(self._good_ms, 0.99),
            "refused_p50_ms": percentile(self._refused_ms, 0.5),
            "num_cached": self._num_cached,
            "num_good_in_all": self._num_good_in_all,
            "cpu_share": cpu / seconds,
        }

    async def _ask_on(self, answered: asyncio.Event) -> None:
        """Ask until the end of counting; set the event at the first answer after warming up."""
        scenario, client = self._scenario, _Client(self._scenario)
        warm = time.perf_counter() + scenario.warm_up_seconds
        while self._is_asking:
            start = time.perf_counter()
            outcome, body = await client.ask(next(self._requests))
            now = time.perf_counter()
            self._note(outcome, body, 1000 * (now - start))
            if now >= warm:
                answered.set()
            is_busy = outcome in ("503", RESET)
            await asyncio.sleep(scenario.busy_seconds if is_busy else scenario.pause_seconds)

    def _note(self, outcome: str, body: bytes, milliseconds: float) -> None:
        self._num_good_in_all += outcome == "200"
        if not self._is_counting:
            return
        self._outcomes[outcome] += 1
        if outcome == "200":
            self._good_ms.append(milliseconds)
            self._num_cached += _CACHED in body
        elif outcome == "503":
            self._refused_ms.append(milliseconds)


def run(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario and return its figures."""
    return asyncio.run(_Load(scenario).run())
