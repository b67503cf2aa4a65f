"""Connections: TLS that is proved, places tried in turn, and deadlines that one thread keeps."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from fake_bing import FakeBing, later, send

from classifier.collecting import connections
from classifier.collecting.connections import Line, Watchdog
from classifier.collecting.fetch import Fetcher, FetchError, FetchSettings

# For the name `localhost` until 2126; made for these tests, and it opens nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDz1Wze5RdqRZg7U3
H5x6qjfbDs6W7+V3n+4+/XyeYR2hRANCAAQzwSEdZiXftYnpCt3tJWDW/+v8s/7A
KWs0ARYa3GSs5ZPov39WYfCpBejBJBkOyxMJhMFjJUwwKx0sGO8SVDsP
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBpDCCAUugAwIBAgIUN07FSn/q+4BhJER3za0I9AmHJK8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE1NDQzMVoYDzIxMjYxMDI4
MTU0NDMxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQzwSEdZiXftYnpCt3tJWDW/+v8s/7AKWs0ARYa3GSs5ZPov39WYfCp
BejBJBkOyxMJhMFjJUwwKx0sGO8SVDsPo3kwdzAdBgNVHQ4EFgQUHDb3qnXzZjCZ
qRmhez9XJG76svowHwYDVR0jBBgwFoAUHDb3qnXzZjCZqRmhez9XJG76svowDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwDgYDVR0PAQH/BAQD
AgKEMAoGCCqGSM49BAMCA0cAMEQCICCASYh00ZjNFF75Ckma8IwOMoMuicQemu6l
wPVF/PVNAiBf1I5obBB/ZgUeigF4EzHC32oR/R8/YxtiPTVuurh5lw==
-----END CERTIFICATE-----
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


def fetch(url: str, **changes: Any) -> bytes:
    settings = FetchSettings(**{"allow_private_hosts": True, "total_seconds": 5.0, **changes})
    return Fetcher(settings).fetch(url).body


def reason_of(url: str, **changes: Any) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(url, **changes)
    return caught.value.reason


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "localhost.pem"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
def safe_port(certificate: Path) -> Iterator[int]:
    """Give the port of a server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as safe:
                safe.recv(65536)
                safe.sendall(ANSWER)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)


@pytest.fixture
def _trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(certifi, "where", lambda: str(certificate))
    connections._new_tls_context.cache_clear()
    yield
    connections._new_tls_context.cache_clear()


@pytest.mark.usefixtures("_trusted")
def test_certificate_of_the_name_is_accepted(safe_port: int) -> None:
    assert fetch(f"https://localhost:{safe_port}/") == b"yes"


@pytest.mark.usefixtures("_trusted")
def test_certificate_of_another_name_is_refused(safe_port: int) -> None:
    assert reason_of(f"https://127.0.0.1:{safe_port}/") == "no safe connection"


def test_certificate_of_a_stranger_is_refused(safe_port: int) -> None:
    assert reason_of(f"https://localhost:{safe_port}/") == "no safe connection"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port whose queue is full: connecting there takes for ever."""
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
    bing: FakeBing, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeBing() as gone:
        closed_port = int(gone.url.rpartition(":")[2])
    bing.routes["/a"] = send(b"yes")
    places(monkeypatch, closed_port, silent_port, int(bing.url.rpartition(":")[2]))
    assert fetch("http://three.example/a", connect_seconds=0.6) == b"yes"


def test_all_places_together_have_one_time_to_connect(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places(monkeypatch, *[silent_port] * 4)
    start = time.monotonic()
    assert reason_of("http://four.example/", connect_seconds=0.4) == "no connection"
    assert time.monotonic() - start < 3.0


def test_name_is_looked_up_once(bing: FakeBing, monkeypatch: pytest.MonkeyPatch) -> None:
    bing.routes["/a"] = send(b"yes")
    look_up, asked = socket.getaddrinfo, []
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *a, **k: asked.append(a) or look_up(*a, **k),  # type: ignore[func-returns-value]
    )
    fetch(f"{bing.url}/a")
    assert len(asked) == 1


def test_many_downloads_share_one_more_thread(bing: FakeBing) -> None:
    bing.routes["/a"] = later(send(b"yes"), 0.2)
    bodies: list[bytes] = []
    workers = [
        threading.Thread(target=lambda: bodies.append(fetch(f"{bing.url}/a"))) for _ in range(12)
    ]
    for worker in workers:
        worker.start()
    names = [thread.name for thread in threading.enumerate()]
    for worker in workers:
        worker.join()
    assert names.count("deadlines") == 1
    assert bodies == [b"yes"] * 12


def line() -> Line:
    return Line(1.0, allow_private=True)


def wait_for_cut(cut: Line) -> str:
    end = time.monotonic() + 5.0
    while not cut.cut_reason and time.monotonic() < end:
        time.sleep(0.005)
    return cut.cut_reason


def test_each_line_is_cut_at_its_own_deadline() -> None:
    watchdog = Watchdog()
    late, soon = line(), line()
    with watchdog.watching(late, 60.0), watchdog.watching(soon, 0.05):
        assert (wait_for_cut(soon), late.cut_reason) == ("timeout", "")


def test_line_whose_download_has_ended_is_left_alone() -> None:
    watchdog = Watchdog()
    ended, other = line(), line()
    with watchdog.watching(ended, 0.05):
        pass
    with watchdog.watching(other, 0.1):
        assert wait_for_cut(other) == "timeout"
    assert ended.cut_reason == ""


def test_watchdog_that_slept_wakes_for_a_new_line() -> None:
    watchdog = Watchdog()
    for _ in range(2):
        mine = line()
        with watchdog.watching(mine, 0.02):
            assert wait_for_cut(mine) == "timeout"


def test_first_reason_for_a_cut_stays() -> None:
    mine = line()
    mine.cut("stopped")
    mine.cut("timeout")
    assert mine.cut_reason == "stopped"
