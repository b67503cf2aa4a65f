"""Connections: TLS that is proved, places tried in turn, and deadlines that one thread keeps."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tls_host import LOCALHOST, speaking_tls, trusting
from web_host import WebHost, send

from imagesieve.web import urls
from imagesieve.web.connections import Connection, open_response
from imagesieve.web.urls import FetchError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


def new_connection(connect_seconds: float = 5.0, total_seconds: float = 5.0) -> Connection:
    return Connection(
        connect_seconds=connect_seconds,
        read_seconds=10.0,
        total_seconds=total_seconds,
        allow_private=True,
    )


def fetch(url: str, connect_seconds: float = 5.0, total_seconds: float = 5.0) -> bytes:
    connection = new_connection(connect_seconds, total_seconds)
    try:
        with open_response(urls.parse(url), {}, connection) as answer:
            return answer.read()
    except (OSError, urllib3.exceptions.HTTPError):
        connection.check(urls.parse(url))  # raises FetchError if the deadline was the cause
        raise


def reason_of(url: str, **seconds: float) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(url, **seconds)
    return caught.value.reason


@pytest.fixture
def safe_port(tmp_path: Path) -> Iterator[int]:
    """Yield the port of a server that speaks TLS and is called localhost."""
    with speaking_tls(LOCALHOST, ANSWER, tmp_path) as port:
        yield port


def test_only_a_certificate_of_the_name_that_is_trusted_is_accepted(
    safe_port: int, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        fetch(f"https://localhost:{safe_port}/")
    with trusting(LOCALHOST, tmp_path):
        assert fetch(f"https://localhost:{safe_port}/") == b"yes"
        with pytest.raises(ssl.SSLCertVerificationError, match="is not valid for"):
            fetch(f"https://127.0.0.1:{safe_port}/")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port whose queue is full: connecting there takes for ever."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [({"connect_seconds": 0.2}, "no connection"), ({"total_seconds": 0.2}, "timeout")],
)
@pytest.mark.parametrize("num_places", [1, 4])
def test_connecting_to_all_places_together_takes_no_longer_than_it_may(
    silent_port: int,
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[str, float],
    reason: str,
    num_places: int,
) -> None:
    places(monkeypatch, *[silent_port] * num_places)
    start = time.monotonic()
    assert reason_of("http://silent.example/", **seconds) == reason
    assert time.monotonic() - start < 3.0


def places(monkeypatch: pytest.MonkeyPatch, *ports: int) -> list[str]:
    """Have every name lead to these ports of this machine; returns the names that are asked for."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    asked: list[str] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> Any:
        asked.append(name)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_place_that_refuses_or_is_silent_leaves_time_for_the_next(
    host: WebHost, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebHost() as gone:
        closed_port = gone.port
    host.routes["/a"] = send(b"yes")
    asked = places(monkeypatch, closed_port, silent_port, host.port)
    assert fetch("http://three.example/a", connect_seconds=0.6) == b"yes"
    assert asked == ["three.example"]


def test_socket_that_was_connected_too_late_for_tls_is_closed(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, connected = new_connection(), []
    connect = mine._connect

    def late(*arguments: Any) -> Any:
        connected.append(connect(*arguments))
        mine._end = time.monotonic()
        return connected[0]

    monkeypatch.setattr(mine, "_connect", late)
    with pytest.raises(TimeoutError, match="deadline"):
        mine.open(urls.parse(host.url.replace("http:", "https:")))
    mine.release()
    assert connected[0].fileno() == -1


def test_connection_that_was_cut_during_a_slow_look_up_connects_to_nothing(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, mine = socket.getaddrinfo, new_connection()

    def slow(*arguments: Any, **options: Any) -> Any:
        mine.cut()
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it connected"))
    with pytest.raises(FetchError, match="stopped"):
        mine.open(urls.parse(host.url))
