"""Images that a request names by address: fetched from public hosts, within bounds, or refused.

Whoever may name an address sends this machine where they cannot go themselves: to the neighbours
behind its firewall, to its cloud's secrets. So only plain addresses are read, each place of the
host is checked, and the connection goes to one that was checked (`imagesieve.web`). There is one
sentence for all refusals and one for all failures: neither says what is there.
"""

import ipaddress
import logging
import re
import threading
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException

import urllib3

from imagesieve import images
from imagesieve.serving.access import hosts
from imagesieve.serving.errors import (
    DeadlineExceededError,
    FetchFailedError,
    OverloadedError,
    UrlNotAllowedError,
)
from imagesieve.web import urls
from imagesieve.web.connections import USER_AGENT, Connection, open_response
from imagesieve.web.urls import FetchError, ParsedUrl, RefusedHostError

NOT_ALLOWED = (
    "The address is not one that images are fetched from: give one of http or https on its usual "
    "port, of a public host that is allowed here, in plain ASCII, without user name, fragment and "
    "redirect."
)
FAILED = (
    "The address gave no image: it must answer with status 200 and with a JPEG, PNG, GIF, WebP "
    "or BMP that is not compressed once more and within the size limit."
)
TOO_SLOW = "The address took too long to give its image."

# What is not here has no place in an address, or is read in two ways by two readers of addresses:
# user names, fragments, backslashes, blanks, control characters, names without a dot, a dot at
# their end, and all that Unicode would turn into a dot, a slash or a letter.
_URL = re.compile(
    r"https?://"
    r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)+|\[[0-9a-f:.]+\])"
    r"(?::[0-9]{1,5})?"
    r"(?:[/?][!\"$-\[\]-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_CHUNK_BYTES = 64 * 1024
_LOG_CHARS = 300  # of what went wrong; a host's own words may be in it
_MAGIC_BYTES = 16  # so many tell whether an image comes
# What asking and reading may raise besides FetchError.
_FAILURES = (OSError, ValueError, HTTPException, urllib3.exceptions.HTTPError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UrlSettings:
    """What one fetch may cost."""

    connect_seconds: float = 3.0  # for all places of a host together
    total_seconds: float = 8.0  # by the clock on the wall, from the call to the last byte
    max_at_once: int = 4
    max_chars: int = 2048  # of an address
    allow_private: bool = False  # hosts of this machine and its networks: for tests alone


class _NoImageError(Exception):
    """What came is of no use; says why, for the log alone."""


class UrlFetcher:
    """Fetches images, from any number of threads."""

    def __init__(
        self,
        max_bytes: int,
        allowed_hosts: Collection[str] | None = None,
        settings: UrlSettings | None = None,
    ) -> None:
        """Prepare to fetch; nothing is asked yet.

        Args:
            max_bytes: of an image.
            allowed_hosts: names as `hosts.parse_host` gives them; None is any public host.
            settings: the defaults of `UrlSettings` when None.
        """
        self._max_bytes = max_bytes
        self._allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
        self._settings = settings or UrlSettings()
        self._places = threading.BoundedSemaphore(self._settings.max_at_once)

    def fetch(self, url: str) -> bytes:
        """Give the encoded image at an address.

        Raises:
            UrlNotAllowedError: the address is none that is fetched, or it redirects.
            FetchFailedError: its host gave no image within the size limit.
            DeadlineExceededError: it took too long.
            OverloadedError: as many fetches as allowed are under way.
        """
        address = self._checked(url)
        if not self._places.acquire(blocking=False):
            raise OverloadedError(
                f"{self._settings.max_at_once} images are being fetched already: try again in a "
                "moment."
            )
        line = Connection(
            self._settings.connect_seconds, allow_private=self._settings.allow_private
        )
        fetched: Future[bytes] = Future()
        self._start(address, line, fetched)
        try:
            return fetched.result(self._settings.total_seconds)
        except TimeoutError as error:
            line.cut("timeout")
            raise DeadlineExceededError(TOO_SLOW) from error
        finally:
            del fetched  # an error in it knows this frame: the circle would keep a body for a while

    def _start(self, address: ParsedUrl, line: Connection, fetched: "Future[bytes]") -> None:
        """Fetch in a thread of its own, which gives the caller's place back.

        Cutting the line ends it at once, but for the look-up of a name, which nothing can cut
        short: where a name server keeps silent, the thread keeps the place, and the caller goes.
        """
        thread = threading.Thread(
            target=self._work, args=(address, line, fetched), name="fetch-url", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._places.release()
            raise OverloadedError(
                "The server has no thread left to fetch the image: try again in a moment."
            ) from error

    def _checked(self, url: str) -> ParsedUrl:
        """Take an address apart without asking anybody about it."""
        if len(url) > self._settings.max_chars or not _URL.fullmatch(url):
            raise UrlNotAllowedError(NOT_ALLOWED)
        try:
            address = urls.parse(url)
        except FetchError as error:
            raise UrlNotAllowedError(NOT_ALLOWED) from error
        host = hosts.parse_host(address.host)
        if (
            host is None
            or _is_disguised(host)
            or address.port not in urls.PORTS.values()
            or (self._allowed_hosts is not None and host not in self._allowed_hosts)
        ):
            raise UrlNotAllowedError(NOT_ALLOWED)
        return address

    def _work(self, address: ParsedUrl, line: Connection, fetched: "Future[bytes]") -> None:
        try:
            try:
                body = self._download(address, line)
            finally:
                self._places.release()  # before the caller hears of it, who may fetch another
            fetched.set_result(body)
        except Exception as error:
            reason = repr(error.__cause__ or error)[:_LOG_CHARS]
            _log.debug("no image from %s: %s", address.host, reason)
            fetched.set_exception(error)
        finally:
            del fetched  # as in `fetch`

    def _download(self, address: ParsedUrl, line: Connection) -> bytes:
        silence = 2 * self._settings.total_seconds  # the caller's patience ends sooner
        try:
            with open_response(address, _HEADERS, line, silence) as answer:
                return self._read(answer)
        except RefusedHostError as error:
            raise UrlNotAllowedError(NOT_ALLOWED) from error
        except (FetchError, _NoImageError, *_FAILURES) as error:
            raise FetchFailedError(FAILED) from error

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """Give the body as it was sent, unless it is soon seen to be no image or too large."""
        if 300 <= answer.status < 400:
            raise UrlNotAllowedError(NOT_ALLOWED)
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if answer.status != 200 or encoding != "identity":
            raise _NoImageError(f"status {answer.status}, encoding {encoding}")
        if (answer.length_remaining or 0) > self._max_bytes:
            raise _NoImageError(f"{answer.length_remaining} bytes announced")
        body = bytearray()
        try:
            self._receive(answer, body)
        except BaseException:
            body.clear()  # since Python 3.12 an error of urllib3 keeps this frame for a while
            raise
        return bytes(body)

    def _receive(self, answer: urllib3.BaseHTTPResponse, body: bytearray) -> None:
        while chunk := answer.read1(
            min(_CHUNK_BYTES, self._max_bytes + 1 - len(body)), decode_content=False
        ):
            body += chunk
            if len(body) > self._max_bytes:
                raise _NoImageError(f"more than {self._max_bytes} bytes")
            if len(body) >= _MAGIC_BYTES and not _is_image(body):
                break
        if not _is_image(body):
            raise _NoImageError(f"it starts with {bytes(body[:_MAGIC_BYTES])!r}")


def _is_image(body: bytearray) -> bool:
    return images.sniff(bytes(body[:_MAGIC_BYTES])) is not None


def _is_disguised(host: str) -> bool:
    """Tell whether resolvers take a name for an IPv4 address, such as 127.1 or 0x7f.0.0.1."""
    if not host.rpartition(".")[2][:1].isdigit() or ":" in host:
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False
