"""A Bing of our own on 127.0.0.1: result pages in its wire format, and pictures of every kind."""

import collections
import contextlib
import dataclasses
import html
import io
import json
import random
import socketserver
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageDraw

Answer = Callable[["FakeHandler"], None]

_CAPTCHA = "<html><title>Bing</title><div class='captcha'>One last step</div></html>"
_CHANGED = "<html>" + "<div class='newGrid' data-pic='x'>picture</div>" * 200 + "</html>"
_EMPTY = "<html><div>There are no results for this.</div></html>"


def draw(seed: int, picture_format: str = "JPEG", size: tuple[int, int] = (96, 80)) -> bytes:
    """Draw a picture that no other seed gives; `size` is (width, height)."""
    dice = random.Random(seed)
    image = Image.new("RGB", size, tuple(dice.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        corner = (dice.randrange(size[0]), dice.randrange(size[1]))
        pen.ellipse(
            (*corner, corner[0] + dice.randrange(5, 40), corner[1] + dice.randrange(5, 40)),
            fill=tuple(dice.randrange(256) for _ in range(3)),
        )
    buffer = io.BytesIO()
    image.save(buffer, picture_format)
    return buffer.getvalue()


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Answer with a body; header names are written with underscores."""

    def answer(handler: "FakeHandler") -> None:
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

    def answer(handler: "FakeHandler") -> None:
        handler.send_response(200)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        for start in range(0, len(body), 65536):
            handler.wfile.write(body[start : start + 65536])

    return answer


def send_raw(data: bytes) -> Answer:
    """Answer with these bytes, which need not be HTTP."""

    def answer(handler: "FakeHandler") -> None:
        handler.wfile.write(data)

    return answer


def redirect(location: str) -> Answer:
    """Answer with a redirect."""
    return send(b"", 302, Location=location)


def drip(first: bytes, *, every: float = 0.02, at_most: float = 6.0) -> Answer:
    """Send `first`, then a byte now and then."""

    def answer(handler: "FakeHandler") -> None:
        handler.wfile.write(first)
        end = time.monotonic() + at_most
        while time.monotonic() < end and not handler.server.bing.is_closed:
            handler.wfile.write(b"x")
            time.sleep(every)

    return answer


def later(answer: Answer, seconds: float) -> Answer:
    """Answer after a while, or at once when the server closes."""

    def delayed(handler: "FakeHandler") -> None:
        handler.server.bing.closing.wait(seconds)
        answer(handler)

    return delayed


def in_turn(*answers: Answer) -> Answer:
    """Give the first answer to the first request, and so on; the last one from then on."""
    left = collections.deque(answers)

    def answer(handler: "FakeHandler") -> None:
        (left.popleft() if len(left) > 1 else left[0])(handler)

    return answer


def item(url: str, **fields: str) -> dict[str, str]:
    """Give the JSON of one result."""
    return {"purl": "http://page.example/", "murl": url, "t": "A title", **fields}


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


class FakeHandler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        bing = self.server.bing
        visit = Visit(str(self.server.server_address[0]), self.path, time.monotonic())
        with bing.lock:
            bing.visits.append(visit)
            bing.requests.append(self.path)
            bing.headers.append(dict(self.headers))
        self.wfile = _CountingFile(self.wfile, visit)  # type: ignore[assignment]
        try:
            if self.path.startswith("/images/async?"):
                bing.answer_search(self)
            elif self.path == "/robots.txt":
                bing.robots.get(visit.host, send(b"", 404))(self)
            else:
                bing.routes.get(self.path, send(b"gone", 404))(self)
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
    bing: "FakeBing"

    def server_bind(self) -> None:
        """Bind without asking a name server for our name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class FakeBing:
    """A server to be used as a context manager.

    Attributes:
        items: results of every query that is not in `items_of`, in order.
        items_of: query -> its own results.
        routes: path -> answer, on every host, for everything but searches and robots.txt.
        robots: host -> answer to /robots.txt; the others have none (404).
        search_answer: replaces all result pages when set.
        search_answer_of: query -> replaces its result pages.
        requests, headers, visits: of each request so far.
        page_size: items on a page.
        has_next_url: whether a page names the next one.
        repeats_last_page: what Bing does at the end, instead of an empty page.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self.items_of: dict[str, list[dict[str, str]]] = {}
        self.routes: dict[str, Answer] = {}
        self.robots: dict[str, Answer] = {}
        self.search_answer: Answer | None = None
        self.search_answer_of: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.visits: list[Visit] = []
        self.page_size = 35
        self.has_next_url = True
        self.repeats_last_page = False
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._servers = contextlib.ExitStack()
        self._hosts: set[str] = set()
        self._port = 0
        self._port = self._serve("127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "FakeBing":
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self._servers.close()

    def host(self, number: int) -> str:
        """Give the address of one more host, 127.0.1.<number>, which serves the same paths."""
        host = f"127.0.1.{number}"
        if host not in self._hosts:
            self._serve(host)
        return f"http://{host}:{self._port}"

    def _serve(self, host: str) -> int:
        server = _Server((host, self._port), FakeHandler)
        server.bing = self
        self._hosts.add(host)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.callback(server.server_close)
        self._servers.callback(server.shutdown)
        return server.server_port

    @property
    def is_closed(self) -> bool:
        return self.closing.is_set()

    @property
    def picture_requests(self) -> list[str]:
        others = ("/images/async", "/robots.txt")
        return [path for path in self.requests if not path.startswith(others)]

    @property
    def page_requests(self) -> list[dict[str, str]]:
        paths = [path for path in self.requests if path.startswith("/images/async")]
        return [
            dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query, keep_blank_values=True))
            for path in paths
        ]

    def add(
        self,
        path: str,
        answer: Answer | bytes,
        *,
        query: str | None = None,
        host: int | None = None,
        **fields: str,
    ) -> str:
        """Serve something at `path` and list it as the next result; gives its address.

        Args:
            path: starts with a slash.
            answer: or the body of a plain one.
            query: list it only there; by default wherever nothing else is listed.
            host: a number for `host`; by default the server's own.
            fields: of the item's JSON, besides the usual ones.
        """
        self.routes[path] = send(answer) if isinstance(answer, bytes) else answer
        url = (self.url if host is None else self.host(host)) + path
        items = self.items if query is None else self.items_of.setdefault(query, [])
        items.append(item(url, **fields))
        return url

    def add_pictures(
        self, count: int, start: int = 0, *, query: str | None = None, num_hosts: int = 20
    ) -> None:
        """Serve and list good pictures, spread over hosts so that none is asked too often."""
        for number in range(start, start + count):
            host = 1 + number % num_hosts if num_hosts else None
            self.add(f"/{number}.jpg", draw(number), query=query, host=host)

    def show(self, page: str) -> None:
        """Answer every search with this page."""
        self.search_answer = send(page.encode(), Content_Type="text/html; charset=utf-8")

    def ask_for_captcha(self) -> None:
        self.show(_CAPTCHA)

    def change_markup(self) -> None:
        self.show(_CHANGED)

    def find_nothing(self) -> None:
        self.show(_EMPTY)

    def answer_search(self, handler: FakeHandler) -> None:
        query_string = urllib.parse.urlsplit(handler.path).query
        asked = dict(urllib.parse.parse_qsl(query_string, keep_blank_values=True))
        answer = self.search_answer_of.get(asked["q"]) or self.search_answer
        answer = answer or send(self._page(asked).encode(), Content_Type="text/html")
        answer(handler)

    def _page(self, asked: dict[str, str]) -> str:
        items = self.items_of.get(asked["q"], self.items)
        first = int(asked["first"]) - 1
        if self.repeats_last_page and first >= len(items):
            first = max(0, len(items) - self.page_size)
        shown = items[first : first + self.page_size]
        return page_of(shown, first + 1 + len(shown) if self.has_next_url else None)


def page_of(items: list[dict[str, str]], next_first: int | None = None) -> str:
    """Write a result page in Bing's format."""
    next_url = f"/images/async?q=x&first={next_first}&count=35&mmasync=1"
    attribute = f' data-nextUrl="{html.escape(next_url)}"' if next_first else ""
    rows = "".join(
        f'<li data-idx={number}><div class="iuscp varh"><div class="imgpt">'
        f'<a class="iusc" m="{html.escape(json.dumps(fields))}" href="/images/search?q=x">'
        "</a></div></div></li>"
        for number, fields in enumerate(items, 1)
    )
    return (
        f'<div id="mmComponent_images_1" class="dgControl hover"{attribute}>'
        f'<ul class="dgControl_list ">{rows}</ul></div>'
    )
