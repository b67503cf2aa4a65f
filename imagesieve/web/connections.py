"""Connections to checked IP addresses that keep to a deadline, and that any thread can cut."""

import contextlib
import dataclasses
import functools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import urllib3
from urllib3.connection import HTTPConnection

from imagesieve.web import urls
from imagesieve.web.urls import FetchError, ParsedUrl

AGENT_TOKEN = "imagesieve"  # noqa: S105 (the name that robots.txt and headers speak of)
USER_AGENT = f"Mozilla/5.0 (compatible; {AGENT_TOKEN}/0.1)"

_LEAST_SECONDS = 0.01  # for the last of many IP addresses; 0 would mean not to wait


@dataclasses.dataclass(eq=False)
class Connection:
    """The sockets of one download, whose `total_seconds` begin now."""

    connect_seconds: float  # for all IP addresses of a host together
    read_seconds: float  # longest silence
    total_seconds: float
    allow_private: bool

    def __post_init__(self) -> None:
        self.is_cut = False
        self._end = time.monotonic() + self.total_seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def open(self, url: ParsedUrl) -> socket.socket:
        """Return a socket connected to one of the checked IP addresses of a host.

        The name is looked up once. With https, the host must prove the name that was asked for.

        Raises:
            FetchError: unknown host, private address, no connection, stopped, or timeout.
            OSError: there is no safe connection, or not in time.
        """
        places = urls.resolve(url, allow_private=self.allow_private)
        self.check(url)  # looking a host up can take longer than its user waits
        end = time.monotonic() + self.seconds_left(self.connect_seconds)
        problem: OSError | None = None
        for tried, (family, place) in enumerate(places):
            # An equal share of what is left: a silent one must not use up the time of the next.
            share = (end - time.monotonic()) / (len(places) - tried)
            try:
                sock = self._connect(url, family, place, max(_LEAST_SECONDS, share))
            except OSError as error:
                self.check(url)
                problem = error
                continue
            return self._secure(sock, url.host) if url.scheme == "https" else sock
        raise FetchError(url.text, "no connection", str(problem)) from problem

    def seconds_left(self, most: float) -> float:
        """Return `most`, or the seconds up to the deadline if fewer; TimeoutError after it."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline is over")
        return min(most, left)

    def cut(self) -> None:
        """Shut every socket down, now and from now on; threads that wait for bytes wake up."""
        with self._lock:
            self.is_cut = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # not connected yet, or not any more
                    sock.shutdown(socket.SHUT_RDWR)

    def check(self, url: ParsedUrl) -> None:
        """Raise FetchError if the connection was cut, or the deadline is over."""
        if self.is_cut:
            raise FetchError(url.text, "stopped")
        if time.monotonic() > self._end:
            raise FetchError(url.text, "timeout")

    def release(self) -> None:
        """Forget the sockets, once their user has closed them."""
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def _connect(
        self, url: ParsedUrl, family: socket.AddressFamily, place: tuple[Any, ...], seconds: float
    ) -> "_Socket":
        sock = _Socket(family, socket.SOCK_STREAM)
        sock.connection = self
        try:
            # A duplicate, since the original changes hands in a TLS handshake, and its number may
            # belong to another connection by the time that it is cut.
            with self._lock:
                self._sockets.append(sock.dup())
            sock.settimeout(seconds)
            sock.connect(place)
            self.check(url)  # a cut that came before the socket was connected
        except BaseException:
            sock.close()
            self.release()
            raise
        return sock

    def _secure(self, plain: "_Socket", host: str) -> "_TlsSocket":
        # Not through urllib3, which changes the context again and again while others use it.
        with plain:  # from which the wrapped one takes the connection
            plain.settimeout(self.seconds_left(self.connect_seconds))  # for the whole handshake
            sock = cast(_TlsSocket, _tls_context().wrap_socket(plain, server_hostname=host))
        sock.connection = self
        return sock


# The timeout of a socket starts anew with every byte, so that a server could drip its header for
# hours. These are given what is left each time.


class _Socket(socket.socket):
    connection: Connection

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.connection.seconds_left(self.connection.read_seconds))
        return super().recv_into(*arguments)


class _TlsSocket(ssl.SSLSocket):
    connection: Connection

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.connection.seconds_left(self.connection.read_seconds))
        return super().recv_into(*arguments)


class CheckedConnection(HTTPConnection):
    """An HTTP connection of urllib3 whose socket a `Connection` opens when it is used."""

    def __init__(self, url: ParsedUrl, connection: Connection) -> None:
        super().__init__(url.host, url.port, timeout=connection.read_seconds)
        self.default_port = urls.PORTS[url.scheme]  # type: ignore[misc]  # not named in `Host`
        self._url = url
        self._connection = connection

    def connect(self) -> None:
        self.sock = self._connection.open(self._url)


@contextlib.contextmanager
def open_response(
    url: ParsedUrl, headers: dict[str, str], connection: Connection
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Send a GET request, and yield the response while its body is still on the way.

    Raises:
        FetchError: see `Connection.open`.
        OSError, http.client.HTTPException, urllib3.exceptions.HTTPError: no response can be read.
    """
    http = CheckedConnection(url, connection)
    try:
        http.request("GET", url.target, headers=headers, preload_content=False)
        with contextlib.closing(http.getresponse()) as response:
            yield response
    finally:
        http.close()
        connection.release()


_tls_lock = threading.Lock()


def _tls_context() -> ssl.SSLContext:
    with _tls_lock:  # reading the roots takes a while: once is enough
        return _new_tls_context()


@functools.cache
def _new_tls_context() -> ssl.SSLContext:
    import certifi

    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TlsSocket
    return context
