"""One safe fetch of a URL: bounded in time, bytes, speed and redirects, off private networks.

The URLs come from strangers, so each connection of each redirect hop is opened here: the name is
looked up once, every IP address it has is checked, and the connection goes to one of those. A name
that changes its IP address between check and use gains nothing.

Each request has a connection of its own: nearly every image lives on another host, and one that
does not waits longer for its turn at the host than a new connection takes.

The system's name resolution has its own time limit, which nothing can cut short: a caller who
cannot wait for it calls `fetch` in a thread of its own. Proxies from the environment are not used,
since a proxy would look names up by itself.
"""

import contextlib
import dataclasses
import datetime
import email.utils
import http.client
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

import urllib3

from imagesieve.errors import UsageError
from imagesieve.files import output_error
from imagesieve.web import connections, urls
from imagesieve.web.connections import USER_AGENT, Connection
from imagesieve.web.urls import FetchError, ParsedUrl, RefusedHostError

__all__ = ["FetchError", "FetchSettings", "Fetched", "Fetcher", "RefusedHostError"]

LARGE_BYTES = 2**20
START_BYTES = 16  # enough to recognise any file format

_CHUNK_BYTES = 64 * 1024
_MOST_RETRY_AFTER = 86_400.0  # seconds
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# The first row that fits counts: some of these are each other's ancestors.
_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError, urllib3.exceptions.TimeoutError), "timeout"),
    ((ssl.SSLError, urllib3.exceptions.SSLError), "no safe connection"),
    ((urllib3.exceptions.DecodeError,), "damaged compression"),
    ((OSError, http.client.IncompleteRead, urllib3.exceptions.ProtocolError), "connection lost"),
    ((http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError), "damaged answer"),
)
_FAILURES = tuple(kind for kinds, _ in _REASONS for kind in kinds)

Headers = Sequence[tuple[str, str]]
OpenResponse = Callable[
    [ParsedUrl, dict[str, str], Connection],
    contextlib.AbstractContextManager[urllib3.BaseHTTPResponse],
]


@dataclasses.dataclass(frozen=True)
class FetchSettings:
    """What a download may cost, where it may go, and what its caller does meanwhile."""

    connect_seconds: float = 5.0  # for all IP addresses of a host together
    read_seconds: float = 10.0  # longest silence
    total_seconds: float = 20.0  # by the clock on the wall, redirects included
    max_bytes: int = 20 * 2**20  # after inflating
    keeps_start: bool = False  # return the first `max_bytes` of a body that has more
    memory_bytes: int = LARGE_BYTES  # a body beyond fills a temporary file while it arrives
    min_bytes_per_second: int = 2_000  # 0: any speed
    grace_seconds: float = 5.0  # the speed of a body counts only after this
    max_redirects: int = 5  # 0: none is followed
    accepts_compressed: bool = True  # a body with a Content-Encoding, though none is asked for
    allow_private_hosts: bool = False
    user_agent: str = USER_AGENT
    # Called with the URL and the header lines of a response with status 200, before one byte of its
    # body is read; refuses it by raising FetchError.
    check: Callable[[str, Headers], None] = lambda url, headers: None
    # Called once with the first `START_BYTES` of the body, or all if it has fewer; where it returns
    # False the rest is not read.
    check_start: Callable[[bytes], bool] = lambda start: True
    # Called with each redirect target on another origin than the first; what it returns is entered
    # before the request (a TimeoutError there is a timeout of the download) and left when that hop
    # is over. Waiting there counts like waiting for a server.
    hop: Callable[[str], contextlib.AbstractContextManager[None]] = lambda url: (
        contextlib.nullcontext()
    )
    # Called when a body of more than `memory_bytes` has arrived and is to be read into memory; may
    # wait until there is room.
    before_large: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if not (self.user_agent.isascii() and self.user_agent.isprintable()):
            raise UsageError(
                f"The user agent {self.user_agent!r} cannot be sent: use one line of plain ASCII."
            )


@dataclasses.dataclass(frozen=True)
class Fetched:
    url: str  # where it came from after all redirects
    body: bytes  # inflated if it was sent compressed
    seconds: float  # from the call to the last byte


class Fetcher:
    """Downloads, from any number of threads, until it is stopped."""

    def __init__(
        self,
        settings: FetchSettings | None = None,
        open_response: OpenResponse = connections.open_response,
    ) -> None:
        self.settings = settings or FetchSettings()
        self._open_response = open_response
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        # Set by `stop`, before the downloads that are running fail.
        self.stopped = threading.Event()

    def fetch(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        settings: FetchSettings | None = None,
    ) -> Fetched:
        """Download `url`, following redirects; with `settings` in place of the fetcher's own.

        Raises:
            RefusedHostError: the host of the URL, or of a redirect, does not exist or is private.
            FetchError: anything else but a whole response with status 200 within the settings.
                Its `reason` is "timeout" where one of the time limits ended it; a redirect beyond
                `max_redirects` and any other status have their `status`.
        """
        start = time.monotonic()
        settings = settings or self.settings
        with self._connection(settings) as connection:
            download = _Download(settings, connection, self._open_response, dict(headers or {}))
            final_url, body = download.follow(url)
        return Fetched(final_url, body, time.monotonic() - start)

    def stop(self) -> None:
        """End the downloads that are running and refuse any other."""
        with self._lock:
            self.stopped.set()
            for connection in self._connections:
                connection.cut()

    @contextlib.contextmanager
    def _connection(self, settings: FetchSettings) -> Iterator[Connection]:
        connection = Connection(
            settings.connect_seconds,
            settings.read_seconds,
            settings.total_seconds,
            settings.allow_private_hosts,
        )
        with self._lock:
            self._connections.add(connection)
            if self.stopped.is_set():
                connection.cut()
        try:
            yield connection
        finally:
            with self._lock:
                self._connections.remove(connection)


@dataclasses.dataclass(frozen=True)
class _Download:
    settings: FetchSettings
    connection: Connection
    open_response: OpenResponse
    headers: dict[str, str]

    def follow(self, text: str) -> tuple[str, bytes]:
        visited: list[ParsedUrl] = []
        while True:
            url = urls.parse(text)
            if url in visited:
                raise FetchError(text, "too many redirects", "they go in a circle")
            visited.append(url)
            with contextlib.ExitStack() as hop:
                if url.origin != visited[0].origin:
                    try:
                        hop.enter_context(self.settings.hop(text))
                    except TimeoutError as error:
                        raise FetchError(text, "timeout", str(error)) from error
                found = self._visit(url, num_redirects=len(visited) - 1)
            if isinstance(found, bytes):
                return text, found
            text = found

    def _visit(self, url: ParsedUrl, num_redirects: int) -> bytes | str:
        """Return the body, or the URL to which the response redirects."""
        headers = {
            "User-Agent": self.settings.user_agent,
            "Accept-Encoding": "identity",  # images are compressed already
            "Connection": "close",
            **self.headers,
        }
        with contextlib.ExitStack() as stack:
            with self._named_failures(url):
                self.connection.check(url)
                response = stack.enter_context(self.open_response(url, headers, self.connection))
                self.connection.check(url)  # one that was cut can look like the end of the headers
            if response.status in _REDIRECTS:
                if num_redirects == self.settings.max_redirects:
                    raise FetchError(
                        url.text, "too many redirects", f"after {num_redirects}", response.status
                    )
                return urls.redirect_target(url.text, response.headers.get("Location", ""))
            self._check_head(url, response)
            with self._named_failures(url):
                return self._read(url, response)

    def _check_head(self, url: ParsedUrl, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status != 200:
            wait = _retry_after(response.headers.get("Retry-After", ""))
            raise FetchError(url.text, f"http status {status}", status=status, retry_after=wait)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding != "identity" and not self.settings.accepts_compressed:
            raise FetchError(url.text, "compressed", encoding)
        self.settings.check(url.text, list(response.headers.iteritems()))
        self._check_size(url, response.length_remaining or 0, "announced")

    def _check_size(self, url: ParsedUrl, num_bytes: int, what: str) -> None:
        if num_bytes > self.settings.max_bytes and not self.settings.keeps_start:
            raise FetchError(url.text, "too many bytes", f"{num_bytes} {what}")

    def _read(self, url: ParsedUrl, response: urllib3.BaseHTTPResponse) -> bytes:
        # A body without end fills a nameless file, and not the memory.
        with tempfile.SpooledTemporaryFile(self.settings.memory_bytes) as body:
            num_bytes = self._receive(url, response, body)
            self._check_size(url, num_bytes, "or more")
            if num_bytes > self.settings.memory_bytes:
                self.settings.before_large()
            body.seek(0)
            return body.read(self.settings.max_bytes)

    def _receive(self, url: ParsedUrl, response: urllib3.BaseHTTPResponse, body: IO[bytes]) -> int:
        """Write the body to a file until it ends or is too much; returns the number of bytes."""
        num_bytes = 0
        start = b""
        began = time.monotonic()
        # `read1` returns what one receive brought, so that the speed is checked while it drips.
        while num_bytes <= self.settings.max_bytes and (
            chunk := response.read1(_CHUNK_BYTES, decode_content=True)
        ):
            try:
                num_bytes += body.write(chunk)
            except OSError as error:  # which is not the network's
                raise output_error(tempfile.gettempdir(), error) from error
            if len(start) < START_BYTES:
                start += chunk[: START_BYTES - len(start)]
                self._check_start(url, start, is_whole=len(start) == START_BYTES)
            self._check_speed(url, num_bytes, time.monotonic() - began)
        self.connection.check(url)  # one that was cut can look like the end of the body
        self._check_start(url, start, is_whole=len(start) < START_BYTES)
        return num_bytes

    def _check_start(self, url: ParsedUrl, start: bytes, *, is_whole: bool) -> None:
        if is_whole and not self.settings.check_start(start):
            raise FetchError(url.text, "unexpected content", f"it starts with {start!r}")

    def _check_speed(self, url: ParsedUrl, num_bytes: int, seconds: float) -> None:
        counts = seconds > self.settings.grace_seconds
        if counts and num_bytes < seconds * self.settings.min_bytes_per_second:
            raise FetchError(url.text, "too slow", f"{num_bytes} bytes in {seconds:.1f} s")

    @contextlib.contextmanager
    def _named_failures(self, url: ParsedUrl) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            reason = next(reason for kinds, reason in _REASONS if isinstance(error, kinds))
            reason = "stopped" if self.connection.is_cut else reason
            raise FetchError(url.text, reason, str(error)) from error


def _retry_after(text: str) -> float | None:
    """Return the header Retry-After, a number of seconds or a date, as seconds from now."""
    if text.strip().isdecimal():
        return min(float(text.strip()), _MOST_RETRY_AFTER)  # `float` leaves some blanks
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max(0.0, moment.timestamp() - time.time()), _MOST_RETRY_AFTER)
