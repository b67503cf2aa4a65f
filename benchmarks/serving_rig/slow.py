"""Slow callers: connections that send a header or a body byte by byte, or nothing at all."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

NUM_SLOW = 300  # a third each: headers, bodies, nothing

_TICK_SECONDS = 1.0
_CONNECT_SECONDS = 5.0

_OPENINGS = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    b"Content-Length: 500000\r\n\r\n",
    b"",
)


class _Caller:
    """One connection, and what it begins with; when it is thrown out, it comes back."""

    def __init__(self, port: int, opening: bytes) -> None:
        self._port, self._opening = port, opening
        self.num_thrown_out = 0
        self._connect()

    def _connect(self) -> None:
        self._has_opened = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", self._port))  # in progress, and it may stay so

    def is_connected(self) -> bool:
        try:
            return bool(self.socket.getpeername())
        except OSError:
            return False

    def tick(self) -> None:
        """Send a byte; connect again if the server has closed the connection."""
        if not self.is_connected():
            return
        try:
            if self._opening:
                self.socket.send(b"y" if self._has_opened else self._opening)
            self._has_opened = True
            self.socket.recv(65536)  # an answer, or the end: nothing good either way
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self.num_thrown_out += 1
        self.socket.close()
        self._connect()


@contextlib.contextmanager
def slow_callers(port: int, number: int = NUM_SLOW) -> Iterator[dict[str, int]]:
    """Keep so many slow connections open during the block, by a thread that ticks every second.

    Yields `num_connected`, after some seconds at most; `num_thrown_out` is there after the block.
    """
    callers = [_Caller(port, _OPENINGS[index % 3]) for index in range(number)]
    end = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < end and not all(caller.is_connected() for caller in callers):
        time.sleep(0.05)
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(_TICK_SECONDS):
            for caller in callers:
                caller.tick()

    for caller in callers:
        caller.tick()
    figures = {"num_connected": sum(caller.is_connected() for caller in callers)}
    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        yield figures
    finally:
        is_over.set()
        ticking.join()
        figures["num_thrown_out"] = sum(caller.num_thrown_out for caller in callers)
        for caller in callers:
            caller.socket.close()
