"""Slow callers: connections that never come to their point, a third of each kind.

    python slow.py PORT NUMBER

Some send a header, some a body, a byte a second each; some say nothing at all. Whoever is thrown
out comes back. Prints how many are connected once they all are, or cannot be within some seconds;
when standard input ends, prints how many were thrown out and leaves. Lines are JSON.
"""

import itertools
import json
import selectors
import socket
import sys
import time

_TICK_SECONDS = 1.0
_CONNECT_SECONDS = 5.0

_OPENINGS = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    b"Content-Length: 500000\r\n\r\n",
    b"",
)


class _Caller:
    """One connection, and what it begins with."""

    def __init__(self, port: int, opening: bytes) -> None:
        self._port = port
        self._opening = opening
        self.num_thrown_out = 0
        self._connect()

    def _connect(self) -> None:
        self._has_opened = False
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.connect_ex(("127.0.0.1", self._port))  # in progress, and it may stay so

    @property
    def is_connected(self) -> bool:
        try:
            self._socket.getpeername()
        except OSError:
            return False
        return True

    def tick(self) -> None:
        """Say a little; come back if the server has had enough."""
        if not self.is_connected:
            return
        try:
            if self._opening:
                self._socket.send(b"y" if self._has_opened else self._opening)
            self._has_opened = True
            self._socket.recv(65536)  # an answer, or the end: nothing good either way
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self.num_thrown_out += 1
        self._socket.close()
        self._connect()


def main(port: int, number: int) -> None:
    """Hold so many connections until standard input ends."""
    openings = itertools.islice(itertools.cycle(_OPENINGS), number)
    callers = [_Caller(port, opening) for opening in openings]
    end = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < end and not all(caller.is_connected for caller in callers):
        time.sleep(0.05)
    for caller in callers:
        caller.tick()
    print(json.dumps({"num_connected": sum(caller.is_connected for caller in callers)}), flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(_TICK_SECONDS):
            for caller in callers:
                caller.tick()
    print(json.dumps({"num_thrown_out": sum(caller.num_thrown_out for caller in callers)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
