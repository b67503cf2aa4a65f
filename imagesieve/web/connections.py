"""Connections to checked IP addresses that can be cut, and one thread that cuts them in time.

The timeout of a socket starts anew with every byte. Only shutting the connection down from another
thread ends a server that drips its header, or its side of a TLS handshake, one byte at a time.
"""

import contextlib
import functools
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection

from imagesieve.web import urls
from imagesieve.web.urls import FetchError, ParsedUrl

AGENT_TOKEN = "imagesieve"  # noqa: S105 (the name that robots.txt and headers speak of)
USER_AGENT = f"Mozilla/5.0 (compatible; {AGENT_TOKEN}/0.1)"

_LEAST_SECONDS = 0.01  # for the last of many IP addresses; 0 would mean not to wait


class Connection:
    """The sockets of one download, which any thread can cut."""

    def __init__(self, connect_seconds: float, *, allow_private: bool) -> None:
        self._connect_seconds = connect_seconds
        self._allow_private = allow_private
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.cut_reason = ""  # why it was cut, or ""

    def open(self, url: ParsedUrl) -> socket.socket:
        """Return a socket connected to one of the checked IP addresses of a host.

        The name is looked up once.

        Raises:
            FetchError: unknown host, private address, no connection, or the connection was cut.
        """
        places = urls.resolve(url, allow_private=self._allow_private)
        self.check(url)  # looking a host up can take longer than its user waits
        end = time.monotonic() + self._connect_seconds
        problem: OSError | None = None
        for tried, (family, place) in enumerate(places):
            # An equal share of what is left: a silent one must not use up the time of the next.
            share = (end - time.monotonic()) / (len(places) - tried)
            try:
                return self._connect(url, family, place, max(_LEAST_SECONDS, share))
            except OSError as error:
                self.check(url)
                problem = error
        raise FetchError(url.text, "no connection", str(problem)) from problem

    def cut(self, reason: str) -> None:
        """Shut every socket down, now and from now on; threads that wait for bytes wake up."""
        with self._lock:
            self.cut_reason = self.cut_reason or reason
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # not connected yet, or not any more
                    sock.shutdown(socket.SHUT_RDWR)

    def check(self, url: ParsedUrl) -> None:
        """Raise FetchError if the connection was cut."""
        if self.cut_reason:
            raise FetchError(url.text, self.cut_reason)

    def release(self) -> None:
        """Forget the sockets, once their user has closed them."""
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def _connect(
        self, url: ParsedUrl, family: socket.AddressFamily, place: tuple[Any, ...], seconds: float
    ) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
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
        sock.settimeout(self._connect_seconds)
        return sock


class Deadlines:
    """One thread that cuts connections when their time is over, for any number of fetchers.

    It starts with the first connection, and sleeps as long as none is due.
    """

    def __init__(self) -> None:
        # One that ends well is taken out at once, which a heap of deadlines could not do; there
        # are never more connections than threads, so that looking at all of them is cheap.
        self._ends: dict[Connection, float] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def limit(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Cut `connection` for its "timeout" unless the block ends within this time."""
        end = time.monotonic() + seconds
        with self._changed:
            self._ends[connection] = end
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif end < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(connection, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for connection in [each for each, end in self._ends.items() if end <= now]:
                    connection.cut("timeout")
                    del self._ends[connection]
                self._wakes_at = min(self._ends.values(), default=math.inf)
                # Woken by the deadline of a connection that has ended, it only looks for the next.
                idle = math.isinf(self._wakes_at)
                self._changed.wait(None if idle else self._wakes_at - now)


class _PlainConnection(HTTPConnection):
    """An HTTP connection of urllib3 whose socket a `Connection` opens."""

    def __init__(self, url: ParsedUrl, connection: Connection, read_seconds: float) -> None:
        super().__init__(url.host, url.port, timeout=read_seconds)
        self._url = url
        self._connection = connection

    def connect(self) -> None:
        self.sock = self._connection.open(self._url)


class _TlsConnection(_PlainConnection):
    """The same with TLS; the host must prove the name that was asked for."""

    default_port = urls.PORTS["https"]  # type: ignore[misc]  # urllib3 does so itself

    def connect(self) -> None:
        # Not through urllib3, which changes the context again and again while others use it.
        plain = self._connection.open(self._url)
        self.sock = _tls_context().wrap_socket(plain, server_hostname=self.host)


def http_connection(url: ParsedUrl, connection: Connection, read_seconds: float) -> HTTPConnection:
    """Return an HTTP connection to the host of `url` that `connection` opens when it is used."""
    kind = _TlsConnection if url.scheme == "https" else _PlainConnection
    return kind(url, connection, read_seconds)


@contextlib.contextmanager
def open_response(
    url: ParsedUrl, headers: dict[str, str], connection: Connection, read_seconds: float
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Send a GET request, and yield the response while its body is still on the way.

    The socket, which `connection` can cut, may be silent for `read_seconds`.

    Raises:
        FetchError: see `Connection.open`.
        OSError, http.client.HTTPException, urllib3.exceptions.HTTPError: no response can be read.
    """
    http = http_connection(url, connection, read_seconds)
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
    return context
