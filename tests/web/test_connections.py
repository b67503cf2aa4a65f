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


@pytest.fixture
def _trusted(tmp_path: Path) -> Iterator[None]:
    with trusting(LOCALHOST, tmp_path):
        yield


@pytest.mark.usefixtures("_trusted")
def test_certificate_of_the_name_is_accepted(safe_port: int) -> None:
    assert fetch(f"https://localhost:{safe_port}/") == b"yes"


@pytest.mark.usefixtures("_trusted")
def test_certificate_of_another_name_is_refused(safe_port: int) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="is not valid for"):
        fetch(f"https://127.0.0.1:{safe_port}/")


def test_certificate_of_a_stranger_is_refused(safe_port: int) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        fetch(f"https://localhost:{safe_port}/")


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


def test_connecting_takes_no_longer_than_it_may(silent_port: int) -> None:
    url = f"http://127.0.0.1:{silent_port}/"
    assert reason_of(url, connect_seconds=0.2) == "no connection"


def test_deadline_cuts_an_attempt_to_connect(silent_port: int) -> None:
    start = time.monotonic()
    assert reason_of(f"http://127.0.0.1:{silent_port}/", total_seconds=0.2) == "timeout"
    assert time.monotonic() - start < 4.0


def places(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Have every name lead to these ports of this machine."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)


def test_place_that_refuses_or_is_silent_leaves_time_for_the_next(
    host: WebHost, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WebHost() as gone:
        closed_port = gone.port
    host.routes["/a"] = send(b"yes")
    places(monkeypatch, closed_port, silent_port, host.port)
    assert fetch("http://three.example/a", connect_seconds=0.6) == b"yes"


def test_all_places_together_have_one_time_to_connect(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places(monkeypatch, *[silent_port] * 4)
    start = time.monotonic()
    assert reason_of("http://four.example/", connect_seconds=0.4) == "no connection"
    assert time.monotonic() - start < 3.0


def test_name_is_looked_up_once(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.routes["/a"] = send(b"yes")
    look_up, asked = socket.getaddrinfo, []
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *a, **k: asked.append(a) or look_up(*a, **k),  # type: ignore[func-returns-value]
    )
    fetch(f"{host.url}/a")
    assert len(asked) == 1


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
