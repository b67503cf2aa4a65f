"""Waitress around the application: bound before the model loads, drained before it leaves."""

import copy
import ctypes
import errno
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import flask
import waitress
from waitress import wasyncore

from imagesieve.errors import PortError
from imagesieve.serving.limits import MAX_BATCH_BYTES, MAX_BODY_BYTES, ServingLimits
from imagesieve.serving.waitress_parts import Bodies, Connection, Dispatcher

_log = logging.getLogger(__name__)

_BIND_FAILURES = {
    errno.EADDRINUSE: "another program uses it: stop that one or choose another --port",
    errno.EACCES: "permission is denied: choose a --port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another --host",
}
_RECEIVE_BYTES = 65536  # eight times waitress's own: images arrive in fewer rounds
_MARGIN_BYTES = 2**20  # the application's own limit comes first, with its better words
# When the last request in flight is answered: clients that were asked to close their connections do
# so in this time, and those in the middle of sending get an answer too.
_QUIET_SECONDS = 0.3
_MOST_QUIET_SECONDS = 5.0
_OTHER_FILES = 200  # open at the same time as connections: bodies on disk, log, model, libraries

# glibc gives each thread a heap of its own, and once a large block was freed it takes the next one
# of that size from such a heap and keeps it there. Eight threads that have decoded an image of 25
# megapixels each then hold 2.4 GB for ever; with these settings, less than 10 MB. The numbers are
# those of <malloc.h>.
_MALLOC_SETTINGS = (
    (-8, 2),  # M_ARENA_MAX: heaps; threads that hold Python's lock rarely wait for one
    (-3, 2**20),  # M_MMAP_THRESHOLD, bytes: larger blocks go back as soon as they are freed
    (-1, 4 * 2**20),  # M_TRIM_THRESHOLD, bytes: so much may stay at the end of a heap
)


def return_freed_memory() -> None:
    """Let glibc return large blocks to the system; call it before threads are started."""
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for number, value in _MALLOC_SETTINGS:
            set_option(number, value)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one. Raise PortError if there is none."""
    passive = socket.AI_PASSIVE
    try:
        family, *_, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, passive)[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: not a host name, such as a..b
        reason = getattr(error, "strerror", None) or "that is not a host name"
        raise PortError(f"Cannot listen on {host}: {reason}.") from error
    is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=is_dual)
    except OSError as error:
        reason = _BIND_FAILURES.get(error.errno or 0, error.strerror or str(error))
        raise PortError(f"Cannot listen on {host} port {port}: {reason}.") from error


class Server:
    """Serves an application until a signal or `stop`; requests in flight are answered first.

    SIGTERM and Ctrl-C are its own between entering and leaving it as a context.
    """

    def __init__(self, app: flask.Flask, listener: socket.socket, limits: ServingLimits) -> None:
        self._limits = limits
        self._sockets: dict[int, Any] = {}
        dispatcher = Dispatcher()
        dispatcher.set_thread_count(limits.num_threads)
        self._waitress = waitress.create_server(
            app,
            _dispatcher=dispatcher,
            map=self._sockets,
            sockets=[listener],
            connection_limit=_possible_connections(limits.max_connections),
            channel_timeout=limits.idle_seconds,
            cleanup_interval=5,
            max_request_body_size=MAX_BODY_BYTES + _MARGIN_BYTES,
            inbuf_overflow=2 * 2**20,  # bytes; larger bodies wait in a temporary file
            recv_bytes=_RECEIVE_BYTES,
            channel_request_lookahead=1,
            log_socket_errors=False,
            ident=None,
            asyncore_use_poll=True,
        )
        self._waitress.channel_class = Connection
        self._waitress.is_leaving = False  # for `AnswerTask`
        settings = self._waitress.adj  # for `RequestParser`
        settings.bodies = Bodies(limits.max_waiting_bytes)
        settings.for_batches = copy.copy(settings)
        settings.for_batches.max_request_body_size = MAX_BATCH_BYTES + _MARGIN_BYTES
        self._error: Exception | None = None
        self._interrupted = False
        self._stopping = False

    def __enter__(self) -> "Server":
        self._previous_handlers = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_error: object) -> None:
        self._waitress.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._sockets)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def run(self, before_stop: Callable[[], None]) -> None:
        """Serve from the main thread until SIGTERM, Ctrl-C or `stop`; then finish what is there.

        `before_stop` is called once when stopping begins. KeyboardInterrupt is raised after Ctrl-C,
        and the error that was given to `stop`.
        """
        while not self._stopping:
            self._poll(1.0)
        before_stop()
        self._waitress.is_leaving = True
        self._drain()
        if self._interrupted:
            raise KeyboardInterrupt
        if self._error is not None:
            raise self._error

    def stop(self, error: Exception | None = None) -> None:
        """Let `run` come to its end, from any thread; `error` is what it shall raise."""
        self._error = error
        self._stopping = True
        self._waitress.pull_trigger()

    def _drain(self) -> None:
        """Answer what was requested, then stop listening, then answer those who were just in time.

        As long as the socket listens, every client that connects gets an answer, if only that the
        server is leaving; a connection that waits unseen when it closes would be reset.
        """
        deadline = time.monotonic() + self._limits.drain_seconds
        while self._is_busy() and time.monotonic() < deadline:
            self._poll(0.05)
        self._accept_all()
        self._waitress.accepting = False
        self._waitress.del_channel(self._sockets)
        self._waitress.socket.close()
        quiet_since = time.monotonic()
        deadline = min(deadline, quiet_since + _MOST_QUIET_SECONDS)
        while time.monotonic() < min(deadline, quiet_since + _QUIET_SECONDS):
            if self._is_busy(or_receiving=True):
                quiet_since = time.monotonic()
            self._poll(0.05)

    def _accept_all(self) -> None:
        """Take every connection that the kernel holds for us."""
        for _ in range(self._limits.max_connections):
            before = len(self._waitress.active_channels)
            self._waitress.handle_accept()
            if len(self._waitress.active_channels) == before:
                return

    def _poll(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._sockets, count=1)

    def _is_busy(self, *, or_receiving: bool = False) -> bool:
        return any(
            channel.requests or channel.total_outbufs_len or (or_receiving and channel.request)
            for channel in list(self._waitress.active_channels.values())
        )

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._stopping and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C: its sender does not want to wait
        self._interrupted = number == signal.SIGINT
        self.stop(self._error)


def _possible_connections(limit: int) -> int:
    """Let this process open enough files; return how many connections it can take.

    A connection that the server cannot accept keeps it from sleeping and others from connecting.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * limit + _OTHER_FILES  # each connection may have a body on disk
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY or soft >= limit + _OTHER_FILES:
        return limit
    limit = max(1, soft - _OTHER_FILES)
    about = "%d connections at once: raise that limit (ulimit -n)"
    _log.warning(f"warning: this process may open %d files, so it takes {about}.", soft, limit)
    return limit


def url_of(listener: socket.socket) -> str:
    """Return the URL at which a browser on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
