"""A web server of our own on 127.0.0.1, which answers as well or as badly as a test wants."""

import collections
import contextlib
import dataclasses
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = Callable[["Handler"], None]


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Answer with a body; header names are written with underscores."""

    def answer(handler: "Handler") -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def send_in_parts(body: bytes, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """Answer with a large body, so that `Visit.num_bytes` tells how much of it was taken.

    Header lines may come more than once; a length is announced only there.
    """

    def answer(handler: "Handler") -> None:
        handler.send_response(200)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        for start in range(0, len(body), 65536):
            handler.wfile.write(body[start : start + 65536])

    return answer


def send_raw(data: bytes) -> Answer:
    """Answer with these bytes, which need not be HTTP."""

    def answer(handler: "Handler") -> None:
        handler.wfile.write(data)

    return answer


def redirect(location: str) -> Answer:
    """Answer with a redirect."""
    return send(b"", 302, Location=location)


def drip(first: bytes, *, every: float = 0.02, at_most: float = 6.0) -> Answer:
    """Send `first`, then a byte now and then."""

    def answer(handler: "Handler") -> None:
        handler.wfile.write(first)
        end = time.monotonic() + at_most
        while time.monotonic() < end and not handler.server.owner.is_closed:
            handler.wfile.write(b"x")
            time.sleep(every)

    return answer


def later(answer: Answer, seconds: float) -> Answer:
    """Answer after a while, or at once when the server closes."""

    def delayed(handler: "Handler") -> None:
        handler.server.owner.closing.wait(seconds)
        answer(handler)

    return delayed


def in_turn(*answers: Answer) -> Answer:
    """Send the first answer to the first request, and so on; the last one from then on."""
    left = collections.deque(answers)

    def answer(handler: "Handler") -> None:
        (left.popleft() if len(left) > 1 else left[0])(handler)

    return answer


@dataclasses.dataclass
class Visit:
    """One request as its host saw it; times are those of `time.monotonic`."""

    host: str
    path: str
    started: float
    ended: float = 0.0
    num_bytes: int = 0  # sent, headers included


class _CountingFile:
    def __init__(self, file: Any, visit: Visit) -> None:
        self._file = file
        self._visit = visit

    def write(self, data: bytes) -> int:
        count = self._file.write(data)
        self._visit.num_bytes += len(data)
        return int(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        owner = self.server.owner
        visit = Visit(str(self.server.server_address[0]), self.path, time.monotonic())
        with owner.lock:
            owner.visits.append(visit)
            owner.requests.append(self.path)
            owner.headers.append(dict(self.headers))
        self.wfile = _CountingFile(self.wfile, visit)  # type: ignore[assignment]
        try:
            owner.find(self.path, visit.host)(self)
        except OSError:
            pass  # the client has had enough
        finally:
            visit.ended = time.monotonic()

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: "WebHost"

    def server_bind(self) -> None:
        """Bind without asking a name server for our name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class WebHost:
    """A server to be used as a context manager."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {}  # by path, on every host; others are not found (404)
        self.requests: list[str] = []  # paths; these three are in the order of the requests
        self.headers: list[dict[str, str]] = []
        self.visits: list[Visit] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._servers = contextlib.ExitStack()
        self._hosts: set[str] = set()
        self.port = 0
        self.port = self._serve("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self._servers.close()

    def find(self, path: str, host: str) -> Answer:
        """Return the answer to a request; `host` is the address that it came to."""
        return self.routes.get(path, send(b"gone", 404))

    def host(self, number: int) -> str:
        """Return the address of one more host, 127.0.1.<number>, which serves the same paths."""
        host = f"127.0.1.{number}"
        if host not in self._hosts:
            self._serve(host)
        return f"http://{host}:{self.port}"

    def _serve(self, host: str) -> int:
        server = _Server((host, self.port), Handler)
        server.owner = self
        self._hosts.add(host)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.callback(server.server_close)
        self._servers.callback(server.shutdown)
        return server.server_port

    @property
    def is_closed(self) -> bool:
        return self.closing.is_set()


def bytes_sent(host: WebHost) -> int:
    """Wait until the last request is over; tell what was sent for it."""
    end = time.monotonic() + 5.0
    while not host.visits[-1].ended and time.monotonic() < end:
        time.sleep(0.005)
    assert host.visits[-1].ended
    return host.visits[-1].num_bytes
