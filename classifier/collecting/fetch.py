"""One safe HTTP download: bounded in time, bytes, speed and redirects, off private networks.

Addresses come from strangers, so each connection of each redirect hop is opened here: the name is
resolved once, every address it has is checked, and the connection goes to one of those very
addresses. A name that changes its address between check and use gains nothing.

What is not covered: the system's name resolution has its own time limit, which nothing can cut
short; and proxies from the environment are not used, since a proxy would resolve names by itself.
"""

import contextlib
import dataclasses
import ipaddress
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from classifier.errors import ClassifierError

USER_AGENT = "Mozilla/5.0 (compatible; picture-sorter/0.1)"

_CHUNK_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits


@dataclasses.dataclass(frozen=True)
class FetchSettings:
    """What one download may cost."""

    connect_seconds: float = 5.0
    read_seconds: float = 10.0  # longest silence
    total_seconds: float = 20.0  # by the clock on the wall, redirects included
    max_bytes: int = 20 * 2**20  # after inflating
    min_bytes_per_second: int = 2_000
    grace_seconds: float = 5.0  # the speed of a body counts only after this
    max_redirects: int = 5
    allow_private_hosts: bool = False
    user_agent: str = USER_AGENT


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An answer with status 200.

    Attributes:
        url: where it came from after all redirects.
        body: inflated if it was sent compressed.
    """

    url: str
    body: bytes


class FetchError(ClassifierError):
    """One address gave nothing usable.

    Attributes:
        reason: a few words that are the same for all such failures, for counting.
        status: the HTTP status when the server gave one other than 200, else None.
    """

    def __init__(self, url: str, reason: str, detail: str = "", status: int | None = None) -> None:
        super().__init__(f"{url}: {reason}{f' ({detail})' if detail else ''}")
        self.reason = reason
        self.status = status


class Fetcher:
    """Downloads one after another; give each thread its own. Any thread may call `stop`."""

    def __init__(self, settings: FetchSettings | None = None) -> None:
        self.settings = settings or FetchSettings()
        self._line = _Line(self.settings)
        self._is_stopped = False
        self._adapter = _Adapter(lambda host, port: self._line.connect(host, port))

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """Download `url`, following redirects.

        Raises:
            FetchError: anything but a whole answer with status 200 within the settings.
        """
        line = self._line = _Line(self.settings)
        if self._is_stopped:
            line.cut("stopped")
        # Socket timeouts start anew with every byte. Only closing the connection from outside ends
        # a server that drips its header, or its side of a TLS handshake, one byte at a time.
        alarm = threading.Timer(self.settings.total_seconds, line.cut, ["timeout"])
        alarm.daemon = True
        alarm.start()
        try:
            return self._follow(url, headers or {}, line)
        finally:
            alarm.cancel()
            line.close()

    def stop(self) -> None:
        """End the download that is running and refuse any other."""
        self._is_stopped = True
        self._line.cut("stopped")

    def _follow(self, url: str, headers: Mapping[str, str], line: "_Line") -> Fetched:
        for _ in range(self.settings.max_redirects + 1):
            with _named_failures(url, line):
                answer = self._get(url, headers)
                with contextlib.closing(answer):
                    if answer.status_code not in _REDIRECTS:
                        return Fetched(url, self._read(url, answer, line))
                    url = _redirect_target(url, answer)
        raise FetchError(url, "too many redirects", f"more than {self.settings.max_redirects}")

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        if urllib.parse.urlsplit(url).scheme.lower() not in ("http", "https"):
            raise FetchError(url, "not http or https")
        # `Session.send` would read the body of a redirect without any limit: hence the adapter.
        request = requests.Request("GET", url, headers=self._headers() | dict(headers)).prepare()
        timeout = (self.settings.connect_seconds, self.settings.read_seconds)
        return self._adapter.send(request, stream=True, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        return {
            "User-Agent": self.settings.user_agent,
            "Accept-Encoding": "identity",  # pictures are compressed already
            "Connection": "close",  # nearly every picture lives on another host
        }

    def _read(self, url: str, answer: requests.Response, line: "_Line") -> bytes:
        if answer.status_code != 200:
            status = answer.status_code
            raise FetchError(url, f"http status {status}", status=status)
        announced = answer.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > self.settings.max_bytes:
            raise FetchError(url, "too many bytes", f"{announced} announced")
        body = bytearray()
        start = time.monotonic()
        # `read1` returns what one receive brought, so that the checks below run while it drips.
        while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            self._check_progress(url, len(body), time.monotonic() - start)
        line.check(url)  # a connection that was cut can look like the end of the body
        return bytes(body)

    def _check_progress(self, url: str, num_bytes: int, seconds: float) -> None:
        if num_bytes > self.settings.max_bytes:
            raise FetchError(url, "too many bytes", f"more than {self.settings.max_bytes}")
        is_judged = seconds > self.settings.grace_seconds
        if is_judged and num_bytes < seconds * self.settings.min_bytes_per_second:
            raise FetchError(url, "too slow", f"{num_bytes} bytes in {seconds:.1f} s")


class _Line:
    """The connections of one download, which another thread can cut."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._cut_reason = ""

    def connect(self, host: str, port: int) -> socket.socket:
        """Give a connection to one of the checked addresses of `host`."""
        problem: OSError | None = None
        for family, address in self._addresses(host, port):
            self.check(host)
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(self._settings.connect_seconds)
            try:
                connection.connect(address)
            except OSError as error:
                connection.close()
                problem = error
            else:
                self._register(connection, host)
                return connection
        reason = "timeout" if isinstance(problem, TimeoutError) else "no connection"
        raise FetchError(host, reason, str(problem)) from problem

    def cut(self, reason: str) -> None:
        """Shut every connection down; whoever waits for bytes wakes up."""
        with self._lock:
            self._cut_reason = self._cut_reason or reason
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def check(self, url: str) -> None:
        """Raise FetchError if the line was cut."""
        if self._cut_reason:
            raise FetchError(url, self._cut_reason)

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()

    def _addresses(self, host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchError(host, "unknown host", str(error)) from error
        if not self._settings.allow_private_hosts:
            for *_, address in found:
                if is_private(str(address[0])):
                    raise FetchError(host, "private address", str(address[0]))
        return [(family, address) for family, _, _, _, address in found]

    def _register(self, connection: socket.socket, host: str) -> None:
        # A duplicate, because TLS takes the original over before its handshake.
        with self._lock:
            self._sockets.append(connection.dup())
        if self._cut_reason:
            connection.close()
            self.check(host)


class _Adapter(HTTPAdapter):
    """An adapter of `requests` whose connections are opened by `connect`."""

    def __init__(self, connect: Callable[[str, int], socket.socket]) -> None:
        self._connect = connect
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Build the pools that `requests` asks for, with our connections in them."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self._connect)


def _pool_classes(
    connect: Callable[[str, int], socket.socket],
) -> dict[str, type[HTTPConnectionPool]]:
    # `_new_conn` is what urllib3's own SOCKS support overrides; TLS still sees the host's name.
    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self.host.strip("[]"), self.port)

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self.host.strip("[]"), self.port)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": PlainPool, "https": SecurePool}


def is_private(address: str) -> bool:
    """Tell whether an IP address is anything but one of the public internet.

    Private, loopback, link-local, multicast, reserved and unspecified addresses count, also when
    they are wrapped in an IPv6 address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_private(str(wrapped))
    return not ip.is_global or ip.is_multicast


@contextlib.contextmanager
def _named_failures(url: str, line: _Line) -> Iterator[None]:
    try:
        yield
    except FetchError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        line.check(url)
        raise FetchError(url, _reason(error), str(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return "no safe connection"
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "damaged compression"
    # After the others, some of which are a ValueError by accident of their ancestors.
    return "not a valid address" if isinstance(error, ValueError) else "connection lost"


def _redirect_target(url: str, answer: requests.Response) -> str:
    location = answer.headers.get("Location", "")
    if not location:
        raise FetchError(url, "redirect to nowhere", status=answer.status_code)
    # Header bytes arrive as Latin-1, while servers that send more than ASCII mean UTF-8.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    return urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
