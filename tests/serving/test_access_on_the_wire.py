"""The bytes of real requests, through the real HTTP server."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
import waitress
from guarding import DESK, LOCAL, SHOP, app_with, ring
from waitress import wasyncore

from imagesieve.serving.access.checks import Access


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    access = Access(ring(), allowed_hosts=LOCAL, allowed_origins=["https://shop.example"])
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: dict[int, object] = {}
    server = waitress.create_server(app_with(access), map=sockets, sockets=[listener], threads=2)
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.is_set():
            wasyncore.loop(timeout=0.05, map=sockets, count=1)

    thread = threading.Thread(target=loop)
    thread.start()
    yield listener.getsockname()[1]
    stopping.set()
    thread.join()
    server.task_dispatcher.shutdown(timeout=1)
    wasyncore.close_all(sockets)


def ask(port: int, *lines: bytes, body: bytes = b"") -> http.client.HTTPResponse:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        with contextlib.closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            response.read()
    return response


POST = b"POST /predict HTTP/1.1"
HOST = b"Host: localhost"
KEY = f"X-API-Key: {SHOP}".encode()
WIRE: dict[str, tuple[list[bytes], int]] = {
    "good": ([POST, HOST, KEY], 200),
    "good, names in capitals": ([POST, HOST.upper(), KEY.replace(b"X-API", b"x-ApI")], 200),
    "good, absolute URI": ([b"POST http://localhost/predict HTTP/1.1", HOST, KEY], 200),
    "good, HTTP/1.0": ([b"POST /predict HTTP/1.0", HOST, KEY], 200),
    "no key": ([POST, HOST], 401),
    "two keys": ([POST, HOST, KEY, KEY], 401),
    "two bearers": ([POST, HOST] + [f"Authorization: Bearer {SHOP}".encode()] * 2, 401),
    "bearer and other key": ([POST, HOST, KEY, f"Authorization: Bearer {DESK}".encode()], 401),
    "underscores": ([POST, HOST, KEY.replace(b"-API-", b"_API_")], 401),
    "key in Latin-1": ([POST, HOST, b"X-API-Key: \xe9\xff0123456789abcdef"], 401),
    "long key": ([POST, HOST, b"X-API-Key: " + b"k" * 200_000], 401),
    "a megabyte of key": ([POST, HOST, b"X-API-Key: " + b"k" * 2**20], 431),
    "header in a key": ([POST, HOST, b"X-API-Key: x\rHost: evil"], 400),
    "folded key": ([POST, HOST, b"X-API-Key:", b" " + SHOP.encode()], 200),
    "scope": ([b"POST /admin HTTP/1.1", HOST, KEY], 403),
    "no host": ([POST, KEY], 400),
    "empty host": ([POST, b"Host:", KEY], 400),
    "two hosts": ([POST, HOST, b"Host: evil.example", KEY], 400),
    "two equal hosts": ([POST, HOST, HOST, KEY], 400),
    "foreign host": ([POST, b"Host: evil.example", KEY], 400),
    "user": ([POST, b"Host: user@localhost", KEY], 400),
    "absolute URI of another": ([b"POST http://evil.example/predict HTTP/1.1", HOST, KEY], 400),
    "absolute URI, junk": ([b"POST http://a@localhost/predict HTTP/1.1", HOST, KEY], 400),
    "foreign page": ([POST, HOST, KEY, b"Origin: https://evil.example"], 403),
    "two origins": ([POST, HOST, KEY] + [b"Origin: https://shop.example"] * 2, 403),
    "listed page": ([POST, HOST, KEY, b"Origin: https://shop.example"], 200),
    "cross-site": ([POST, HOST, KEY, b"Sec-Fetch-Site: cross-site"], 403),
    "two sites": ([POST, HOST, KEY] + [b"Sec-Fetch-Site: same-origin"] * 2, 403),
}


@pytest.mark.parametrize("case", WIRE)
def test_bytes_on_the_wire(port: int, case: str) -> None:
    lines, status = WIRE[case]
    response = ask(port, *lines)
    assert response.status == status
    assert (response.getheader("WWW-Authenticate") == "Bearer") == (status == 401)
    assert (response.getheader("Access-Control-Allow-Origin") is not None) == (
        case == "listed page"
    )
    assert ask(port, POST, HOST, KEY).status == 200
