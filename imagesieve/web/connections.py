"""Connections to checked addresses that can be cut from outside, and one thread that cuts them.

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
from imagesieve.web.urls import Address, AddressError

AGENT_TOKEN = "imagesieve"  # noqa: S105 (the name that robots.txt and headers speak of)
USER_AGENT = f"Mozilla/5.0 (compatible; {AGENT_TOKEN}/0.1)"

_LEAST_SECONDS = 0.01  # for the last of many places; no time at all would mean not to wait


class Line:
    """The connections of one download, which any thread can cut.

    Attributes:
        cut_reason: why it was cut, or "".
    """

    def __init__(self, connect_seconds: float, *, allow_private: bool) -> None:
        self._connect_seconds = connect_seconds
        self._allow_private = allow_private
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.cut_reason = ""

    def connect(self, host: str, port: int) -> socket.socket:
        """Give a connection to one of the checked places of a host, which is looked up once.

        Raises:
            AddressError: unknown host, private address, no connection, or the line was cut.
        """
        places = urls.resolve(host, port, allow_private=self._allow_private)
        self.check()  # looking a host up can take longer than its user waits
        end = time.monotonic() + self._connect_seconds
        problem: OSError | None = None
        for tried, (family, place) in enumerate(places):
            # An equal share of what is left: a silent place must not use up the time of the next.
            share = (end - time.monotonic()) / (len(places) - tried)
            try:
                return self._connect_to(family, place, max(_LEAST_SECONDS, share))
            except OSError as error:
                self.check()
                problem = error
        raise AddressError("no connection", str(problem)) from problem

    def cut(self, reason: str) -> None:
        """Shut every connection down, now and from now on; whoever waits for bytes wakes up."""
        with self._lock:
            self.cut_reason = self.cut_reason or reason
            for connection in self._sockets:
                with contextlib.suppress(OSError):  # not connected yet, or not any more
                    connection.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise AddressError if the line was cut."""
        if self.cut_reason:
            raise AddressError(self.cut_reason)

    def release(self) -> None:
        """Let go of the connections, once their user has closed them."""
        with self._lock:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()

    def _connect_to(
        self, family: socket.AddressFamily, place: tuple[Any, ...], seconds: float
    ) -> socket.socket:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A duplicate, since the original changes hands in a TLS handshake, and its number may
            # belong to another connection by the time that it is cut.
            with self._lock:
                self._sockets.append(connection.dup())
            connection.settimeout(seconds)
            connection.connect(place)
            self.check()  # a cut that came before the connection was there
        except BaseException:
            connection.close()
            self.release()
            raise
        connection.settimeout(self._connect_seconds)
        return connection


class Watchdog:
    """One thread that cuts lines at their deadlines, for any number of fetchers.

    It starts with the first line, and sleeps as long as none is due.
    """

    def __init__(self) -> None:
        # A line that ends well is taken out at once, which a heap of deadlines could not do; there
        # are never more lines than threads, so that looking at all of them is cheap.
        self._deadlines: dict[Line, float] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, line: Line, seconds: float) -> Iterator[None]:
        """Cut `line` for its "timeout" unless the block ends within this time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._deadlines[line] = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._deadlines.pop(line, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for line in [line for line, end in self._deadlines.items() if end <= now]:
                    line.cut("timeout")
                    del self._deadlines[line]
                self._wakes_at = min(self._deadlines.values(), default=math.inf)
                # Woken by the deadline of a line that has ended, it only looks for the next.
                idle = math.isinf(self._wakes_at)
                self._changed.wait(None if idle else self._wakes_at - now)


class _PlainConnection(HTTPConnection):
    """An HTTP connection of urllib3 that is opened by a line."""

    def __init__(self, address: Address, line: Line, read_seconds: float) -> None:
        super().__init__(address.host, address.port, timeout=read_seconds)
        self._line = line

    def connect(self) -> None:
        """Connect to one of the host's checked places."""
        self.sock = self._line.connect(self.host, self.port)


class _SafeConnection(_PlainConnection):
    """The same with TLS, which must prove the name that was asked for."""

    default_port = urls.PORTS["https"]  # type: ignore[misc]  # urllib3 does so itself

    def connect(self) -> None:
        """Connect to one of the host's checked places, and shake hands."""
        # Not through urllib3, which changes the context again and again while others use it.
        plain = self._line.connect(self.host, self.port)
        self.sock = _tls_context().wrap_socket(plain, server_hostname=self.host)


_CONNECTIONS = {"http": _PlainConnection, "https": _SafeConnection}


@contextlib.contextmanager
def asking(
    address: Address, headers: dict[str, str], line: Line, read_seconds: float
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Ask for an address, and give the answer while its body is still on the way.

    Args:
        address: of a host that is looked up now.
        headers: of the request.
        line: opens the connection.
        read_seconds: longest silence.

    Raises:
        AddressError: see `Line.connect`.
        OSError, http.client.HTTPException, urllib3.exceptions.HTTPError: no answer can be read.
    """
    connection = _CONNECTIONS[address.scheme](address, line, read_seconds)
    try:
        connection.request("GET", address.target, headers=headers, preload_content=False)
        with contextlib.closing(connection.getresponse()) as answer:
            yield answer
    finally:
        connection.close()
        line.release()


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
