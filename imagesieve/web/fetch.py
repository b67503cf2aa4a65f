"""One safe HTTP download: bounded in time, bytes, speed and redirects, off private networks.

Addresses come from strangers, so each connection of each redirect hop is opened here: the name is
looked up once, every place it has is checked, and the connection goes to one of those very places.
A name that changes its place between check and use gains nothing.

Each request has a connection of its own: nearly every image lives on another host, and one that
does not waits longer for its host's next turn than a new connection takes.

What is not covered: the system's name resolution has its own time limit, which nothing can cut
short; and proxies from the environment are not used, since a proxy would look names up by itself.
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

from imagesieve.errors import ClassifierError, UsageError
from imagesieve.files import output_error
from imagesieve.web import urls
from imagesieve.web.connections import USER_AGENT, Line, Watchdog, asking
from imagesieve.web.urls import Address, AddressError

Headers = Sequence[tuple[str, str]]
Check = Callable[[str, Headers], None]
Hop = Callable[[str], contextlib.AbstractContextManager[None]]

LARGE_BYTES = 2**20  # a body beyond is kept in a file while it comes

_CHUNK_BYTES = 64 * 1024
_MOST_RETRY_AFTER = 86_400.0  # seconds
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING_REASONS = frozenset({"no connection", "connection lost"})
_PASSING_STATUSES = frozenset({408, 429, *range(500, 600)})

# The first row that fits counts: some of these are each other's ancestors.
_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError, urllib3.exceptions.TimeoutError), "timeout"),
    ((ssl.SSLError, urllib3.exceptions.SSLError), "no safe connection"),
    ((urllib3.exceptions.DecodeError,), "damaged compression"),
    ((OSError, http.client.IncompleteRead, urllib3.exceptions.ProtocolError), "connection lost"),
    ((http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError), "damaged answer"),
)
_FAILURES = tuple(kind for kinds, _ in _REASONS for kind in kinds)

_watchdog = Watchdog()


@dataclasses.dataclass(frozen=True)
class FetchSettings:
    """What one download may cost."""

    connect_seconds: float = 5.0  # for all places of a host together
    read_seconds: float = 10.0  # longest silence
    total_seconds: float = 20.0  # by the clock on the wall, redirects included
    max_bytes: int = 20 * 2**20  # after inflating
    min_bytes_per_second: int = 2_000
    grace_seconds: float = 5.0  # the speed of a body counts only after this
    max_redirects: int = 5
    allow_private_hosts: bool = False
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        if not (self.user_agent.isascii() and self.user_agent.isprintable()):
            raise UsageError(f"{self.user_agent!r} is no user agent: give one line of plain ASCII.")


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An answer with status 200.

    Attributes:
        url: where it came from after all redirects.
        body: inflated if it was sent compressed.
        status: the HTTP status.
        seconds: from the call to the last byte.
    """

    url: str
    body: bytes
    status: int
    seconds: float


class FetchError(ClassifierError):
    """One address gave nothing usable.

    Attributes:
        url: where it failed, after the redirects that were followed.
        reason: a few words that are the same for all such failures, for counting.
        status: the HTTP status when the server gave one other than 200, else None.
        retry_after: seconds, up to a day, that the server asks us to wait, or None.
    """

    def __init__(
        self,
        url: str,
        reason: str,
        detail: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{url}: {reason}{f' ({detail})' if detail else ''}")
        self.url = url
        self.reason = reason
        self.status = status
        self.retry_after = retry_after

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self.reason in _PASSING_REASONS or self.status in _PASSING_STATUSES


class Fetcher:
    """Downloads, from any number of threads, until it is stopped."""

    def __init__(self, settings: FetchSettings | None = None) -> None:
        self.settings = settings or FetchSettings()
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._is_stopped = False

    def fetch(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        check: Check | None = None,
        hop: Hop | None = None,
        keep_start: bool = False,
        before_large: Callable[[], None] | None = None,
        settings: FetchSettings | None = None,
    ) -> Fetched:
        """Download `url`, following redirects.

        Args:
            url: http or https.
            headers: of the request, besides the usual ones.
            check: called with the address and the header lines of an answer with status 200, before
                one byte of its body is read; refuses it by raising FetchError.
            hop: called with each redirect target on another origin than the first; what it gives is
                entered before the request (a TimeoutError there is a timeout of the download) and
                left when that hop is over. Waiting there counts like waiting for a server.
            keep_start: of a body over `max_bytes`, give the first `max_bytes`.
            before_large: called when a body of more than `LARGE_BYTES` has come and is to be read
                into memory; may wait until there is room.
            settings: for this download, in place of the fetcher's own.

        Raises:
            FetchError: anything but a whole answer with status 200 within the settings.
        """
        start = time.monotonic()
        settings = settings or self.settings
        with self._line(settings) as line:
            download = _Download(
                settings, line, dict(headers or {}), check, hop, keep_start, before_large
            )
            final_url, body = download.follow(url)
        return Fetched(final_url, body, 200, time.monotonic() - start)

    def stop(self) -> None:
        """End the downloads that are running and refuse any other."""
        with self._lock:
            self._is_stopped = True
            for line in self._lines:
                line.cut("stopped")

    @contextlib.contextmanager
    def _line(self, settings: FetchSettings) -> Iterator[Line]:
        line = Line(settings.connect_seconds, allow_private=settings.allow_private_hosts)
        with self._lock:
            self._lines.add(line)
            if self._is_stopped:
                line.cut("stopped")
        try:
            with _watchdog.watching(line, settings.total_seconds):
                yield line
        finally:
            with self._lock:
                self._lines.remove(line)


@dataclasses.dataclass(frozen=True)
class _Download:
    """One call of `Fetcher.fetch`; its arguments."""

    settings: FetchSettings
    line: Line
    headers: dict[str, str]
    check: Check | None
    hop: Hop | None
    keep_start: bool
    before_large: Callable[[], None] | None

    def follow(self, url: str) -> tuple[str, bytes]:
        """Give the final address and the body."""
        visited: list[Address] = []
        for _ in range(self.settings.max_redirects + 1):
            with self._named_failures(url):
                address = urls.parse(url)
            if address in visited:
                raise FetchError(url, "too many redirects", "they go in a circle")
            visited.append(address)
            with contextlib.ExitStack() as hop:
                if address.origin != visited[0].origin:
                    self._enter_hop(url, hop)
                found = self._visit(url, address)
            if isinstance(found, bytes):
                return url, found
            url = found
        raise FetchError(url, "too many redirects", f"more than {self.settings.max_redirects}")

    def _enter_hop(self, url: str, stack: contextlib.ExitStack) -> None:
        if self.hop is None:
            return
        try:
            stack.enter_context(self.hop(url))
        except TimeoutError as error:
            raise FetchError(url, "timeout", str(error)) from error

    def _visit(self, url: str, address: Address) -> bytes | str:
        """Give the body, or the address to which the answer sends us."""
        with contextlib.ExitStack() as stack:
            with self._named_failures(url):
                self.line.check()
                asked = asking(address, self._headers(), self.line, self.settings.read_seconds)
                answer = stack.enter_context(asked)
                if answer.status in _REDIRECTS:
                    return urls.redirect_target(url, answer.headers.get("Location", ""))
            _check_status(url, answer)
            if self.check is not None:
                self.check(url, list(answer.headers.iteritems()))
            with self._named_failures(url):
                return self._read(url, answer)

    def _headers(self) -> dict[str, str]:
        return {
            "User-Agent": self.settings.user_agent,
            "Accept-Encoding": "identity",  # images are compressed already
            "Connection": "close",
            **self.headers,
        }

    def _read(self, url: str, answer: urllib3.BaseHTTPResponse) -> bytes:
        most = self.settings.max_bytes
        if (answer.length_remaining or 0) > most and not self.keep_start:
            raise FetchError(url, "too many bytes", f"{answer.length_remaining} announced")
        # Whoever sends without end fills a nameless file, and not the memory.
        with tempfile.SpooledTemporaryFile(LARGE_BYTES) as body:
            num_bytes = self._receive(url, answer, body)
            if num_bytes > most and not self.keep_start:
                raise FetchError(url, "too many bytes", f"more than {most}")
            if num_bytes > LARGE_BYTES and self.before_large is not None:
                self.before_large()
            body.seek(0)
            return body.read(most)

    def _receive(self, url: str, answer: urllib3.BaseHTTPResponse, body: IO[bytes]) -> int:
        """Write what comes, until it ends or is too much; gives the number of bytes."""
        num_bytes = 0
        start = time.monotonic()
        # `read1` gives what one receive brought, so that the speed is checked while it drips.
        while num_bytes <= self.settings.max_bytes and (
            chunk := answer.read1(_CHUNK_BYTES, decode_content=True)
        ):
            try:
                num_bytes += body.write(chunk)
            except OSError as error:  # which is none of the network
                raise output_error(tempfile.gettempdir(), error) from error
            self._check_speed(url, num_bytes, time.monotonic() - start)
        self.line.check()  # a connection that was cut can look like the end of the body
        return num_bytes

    def _check_speed(self, url: str, num_bytes: int, seconds: float) -> None:
        is_judged = seconds > self.settings.grace_seconds
        if is_judged and num_bytes < seconds * self.settings.min_bytes_per_second:
            raise FetchError(url, "too slow", f"{num_bytes} bytes in {seconds:.1f} s")

    @contextlib.contextmanager
    def _named_failures(self, url: str) -> Iterator[None]:
        try:
            yield
        except AddressError as error:
            raise FetchError(url, error.reason, error.detail) from error
        except _FAILURES as error:
            reason = self.line.cut_reason or _reason(error)
            raise FetchError(url, reason, str(error)) from error


def _reason(error: Exception) -> str:
    return next(reason for kinds, reason in _REASONS if isinstance(error, kinds))


def _check_status(url: str, answer: urllib3.BaseHTTPResponse) -> None:
    status = answer.status
    if status != 200:
        wait = _retry_after(answer.headers.get("Retry-After", ""))
        raise FetchError(url, f"http status {status}", status=status, retry_after=wait)


def _retry_after(text: str) -> float | None:
    """Read the header Retry-After, a number of seconds or a date, as seconds from now."""
    if text.strip().isdecimal():
        return min(float(text), _MOST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max(0.0, moment.timestamp() - time.time()), _MOST_RETRY_AFTER)
