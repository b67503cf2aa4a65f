"""One download: whole or refused by name, within its time, and never from a private network."""

import gzip
import socket
import threading
import time
from typing import Any

import pytest
from fake_bing import FakeBing, drip, later, redirect, send

from classifier.collecting import fetch
from classifier.collecting.fetch import Fetcher, FetchError, FetchSettings

HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"


def fetcher(**changes: Any) -> Fetcher:
    return Fetcher(FetchSettings(**{"allow_private_hosts": True, **changes}))


def reason_of(url: str, **changes: Any) -> str:
    with pytest.raises(FetchError) as caught:
        fetcher(**changes).fetch(url)
    return caught.value.reason


def test_body_comes_whole(bing: FakeBing) -> None:
    bing.routes["/a"] = send(b"0123456789" * 50_000)
    assert fetcher().fetch(f"{bing.url}/a").body == b"0123456789" * 50_000


@pytest.mark.parametrize(
    ("written", "requested"),
    [
        ("/a?x=1&y=2", "/a?x=1&y=2"),
        ("/a%20b%25", "/a%20b%25"),
        ("/a b", "/a%20b"),
        ("/寿", "/%E5%AF%BF"),
        ("/a#fragment", "/a"),
    ],
)
def test_the_very_address_is_requested(bing: FakeBing, written: str, requested: str) -> None:
    bing.routes[requested] = send(b"yes")
    assert fetcher().fetch(bing.url + written).body == b"yes"


@pytest.mark.parametrize("status", [204, 403, 404, 410, 500])
def test_status_is_named(bing: FakeBing, status: int) -> None:
    bing.routes["/a"] = send(b"", status)
    with pytest.raises(FetchError) as caught:
        fetcher().fetch(f"{bing.url}/a")
    assert (caught.value.reason, caught.value.status) == (f"http status {status}", status)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:image/png,x", ""])
def test_only_http_is_fetched(url: str) -> None:
    assert reason_of(url) == "not http or https"


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999/", "http://[::1/", "http://*/"])
def test_impossible_address_is_named(url: str) -> None:
    assert reason_of(url) in ("not a valid address", "unknown host")


def test_redirects_are_followed(bing: FakeBing) -> None:
    bing.routes |= {"/a": redirect("/b/c"), "/b/c": redirect("d?e=1"), "/b/d?e=1": send(b"yes")}
    fetched = fetcher().fetch(f"{bing.url}/a")
    assert (fetched.body, fetched.url) == (b"yes", f"{bing.url}/b/d?e=1")


def test_redirect_loop_ends_after_six_requests(bing: FakeBing) -> None:
    bing.routes["/a"] = redirect("/a")
    assert reason_of(f"{bing.url}/a") == "too many redirects"
    assert len(bing.requests) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x"])
def test_redirect_to_another_scheme_is_refused(bing: FakeBing, target: str) -> None:
    bing.routes["/a"] = redirect(target)
    assert reason_of(f"{bing.url}/a") == "not http or https"


def test_endless_body_of_a_redirect_is_not_read(bing: FakeBing) -> None:
    header = b"HTTP/1.0 302 Found\r\nLocation: /b\r\n\r\n"
    bing.routes |= {"/a": drip(header), "/b": send(b"yes")}
    assert fetcher().fetch(f"{bing.url}/a").body == b"yes"


def test_announced_size_is_refused_before_the_body(bing: FakeBing) -> None:
    bing.routes["/a"] = send(b"", Content_Length="1001")
    assert reason_of(f"{bing.url}/a", max_bytes=1000) == "too many bytes"


def test_size_that_was_not_announced_is_capped(bing: FakeBing) -> None:
    bing.routes["/a"] = drip(HEADER + b"x" * 5000)
    assert reason_of(f"{bing.url}/a", max_bytes=1000) == "too many bytes"


def test_compressed_body_is_capped_as_it_inflates(bing: FakeBing) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    bing.routes["/a"] = send(bomb, Content_Encoding="gzip")
    assert reason_of(f"{bing.url}/a", max_bytes=1_000_000) == "too many bytes"


def test_compressed_body_is_inflated(bing: FakeBing) -> None:
    bing.routes["/a"] = send(gzip.compress(b"yes"), Content_Encoding="gzip")
    assert fetcher().fetch(f"{bing.url}/a").body == b"yes"


def test_damaged_compression_is_named(bing: FakeBing) -> None:
    bing.routes["/a"] = send(b"not gzip", Content_Encoding="gzip")
    assert reason_of(f"{bing.url}/a") == "damaged compression"


def test_body_shorter_than_announced_is_refused(bing: FakeBing) -> None:
    bing.routes["/a"] = send(b"x" * 500, Content_Length="1000")
    assert reason_of(f"{bing.url}/a") == "connection lost"


def test_dripping_body_is_too_slow(bing: FakeBing) -> None:
    bing.routes["/a"] = drip(HEADER)
    assert reason_of(f"{bing.url}/a", grace_seconds=0.2) == "too slow"


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.0 200 OK\r\nX-Slow: ",
        HEADER,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00",
    ],
    ids=["header", "body", "chunk size"],
)
def test_deadline_holds_however_a_server_drips(bing: FakeBing, first: bytes) -> None:
    bing.routes["/a"] = drip(first, at_most=30.0)
    start = time.monotonic()
    assert reason_of(f"{bing.url}/a", total_seconds=0.4) == "timeout"
    assert time.monotonic() - start < 10.0


def test_silence_is_a_timeout(bing: FakeBing) -> None:
    bing.routes["/a"] = later(send(b"late"), 10.0)
    assert reason_of(f"{bing.url}/a", read_seconds=0.2) == "timeout"


def test_nobody_listening_is_no_connection() -> None:
    with FakeBing() as gone:
        url = gone.url
    assert reason_of(url) == "no connection"


def test_server_without_tls_is_no_safe_connection(bing: FakeBing) -> None:
    assert reason_of(bing.url.replace("http:", "https:")) == "no safe connection"


def test_deadline_holds_within_a_tls_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        assert reason_of(f"https://127.0.0.1:{port}/", total_seconds=0.4) == "timeout"
    assert time.monotonic() - start < 4.0  # the 5 s of the connection's own timeout


def test_stop_ends_a_download_and_refuses_the_next(bing: FakeBing) -> None:
    bing.routes["/a"] = later(send(b"late"), 10.0)
    mine = fetcher()
    threading.Timer(0.2, mine.stop).start()
    for _ in range(2):
        with pytest.raises(FetchError) as caught:
            mine.fetch(f"{bing.url}/a")
        assert caught.value.reason == "stopped"
    assert len(bing.requests) == 1


def test_same_fetcher_serves_again_after_a_failure(bing: FakeBing) -> None:
    bing.routes |= {"/slow": later(send(b"late"), 10.0), "/a": send(b"yes")}
    mine = fetcher(total_seconds=0.3)
    with pytest.raises(FetchError):
        mine.fetch(f"{bing.url}/slow")
    assert mine.fetch(f"{bing.url}/a").body == b"yes"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::]"]
)
def test_private_host_gets_no_request(bing: FakeBing, host: str) -> None:
    port = bing.url.rpartition(":")[2]
    reason = reason_of(f"http://{host}:{port}/a", allow_private_hosts=False)
    assert reason in ("private address", "unknown host")
    assert bing.requests == []


def test_one_private_address_among_public_ones_refuses_the_host(
    bing: FakeBing, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(bing.url.rpartition(":")[2])
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("8.8.8.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    assert reason_of("http://two.example/", allow_private_hosts=False) == "private address"
    assert bing.requests == []


def test_redirect_to_a_private_host_is_refused(
    bing: FakeBing, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_private = fetch.is_private
    monkeypatch.setattr(fetch, "is_private", lambda ip: ip != "127.0.0.1" and is_private(ip))
    bing.routes["/a"] = redirect("http://169.254.169.254/latest/meta-data/")
    assert reason_of(f"{bing.url}/a", allow_private_hosts=False) == "private address"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ],
)
def test_address_is_private(address: str) -> None:
    assert fetch.is_private(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_address_is_public(address: str) -> None:
    assert not fetch.is_private(address)
