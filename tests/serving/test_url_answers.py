"""Rows 46 and 47 of the attack table: redirects, and answers that never become an image."""

import contextlib
import gc
import gzip
import random
import socket
import threading
import time
import tracemalloc
from typing import Any

import pytest
from fetching import MAX_BYTES, URL, assert_refused, assert_told, error_of, fetcher, place, resolver
from hostile import RED_JPEG
from web_host import (
    Answer,
    WebHost,
    bytes_sent,
    drip,
    later,
    redirect,
    send,
    send_in_parts,
    send_raw,
)

from imagesieve.serving.errors import (
    DeadlineExceededError,
    FetchFailedError,
    OverloadedError,
    UrlNotAllowedError,
)
from imagesieve.serving.fetch_image import UrlFetcher

JPEG_START = RED_JPEG[:64]
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"
LARGE = JPEG_START + bytes(60 * 2**20)  # far more than the buffers between two sockets hold


# Row 46; schemes and ports stand among the addresses above.


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_no_redirect_is_followed(host: WebHost, status: int) -> None:
    host.routes |= {"/a": send(b"", status, Location="/b"), "/b": send(RED_JPEG)}
    assert_refused(URL, fetcher())
    assert host.requests == ["/a"]


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "https://[::1]/"),
        *("file:///etc/passwd", "ftp://images.example/", "gopher://h.example/", "data:,x"),
        *(
            "http://images.example:22/",
            "http://images.example:6379/",
            "/a",
            "",
            "//",
            "http://[",
        ),
    ],
)
def test_redirect_is_refused_wherever_it_leads(host: WebHost, target: str) -> None:
    host.routes["/a"] = redirect(target)
    assert_refused(URL, fetcher())
    assert host.requests == ["/a"]


def test_chain_of_redirects_ends_at_its_first(host: WebHost) -> None:
    host.routes |= {f"/{number}": redirect(f"/{number + 1}") for number in range(10)}
    host.routes["/10"] = send(RED_JPEG)
    assert_refused("http://images.example/0", fetcher())
    assert host.requests == ["/0"]


# Row 47.


def test_endless_body_is_read_up_to_the_limit(host: WebHost) -> None:
    host.routes["/a"] = send_in_parts(LARGE)
    assert type(error_of()) is FetchFailedError
    assert bytes_sent(host) < len(LARGE) // 2


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BYTES + 1) + JPEG_START,
        HEADER + b"<!doctype html><html>",
    ],
    ids=["announced size", "page"],
)
def test_what_cannot_become_an_image_is_not_waited_for(host: WebHost, first: bytes) -> None:
    host.routes["/a"] = drip(first, every=0.1, at_most=60.0)
    assert type(error_of(total_seconds=20.0)) is FetchFailedError  # and not the deadline


def test_image_of_just_the_largest_size_is_fetched(host: WebHost) -> None:
    host.routes |= {"/a": send_in_parts(RED_JPEG), "/b": send(RED_JPEG)}
    for path in ("a", "b"):
        url = f"http://images.example/{path}"
        assert UrlFetcher(len(RED_JPEG), allow_private=True).fetch(url) == RED_JPEG
        error = error_of(url, UrlFetcher(len(RED_JPEG) - 1, allow_private=True))
        assert type(error) is FetchFailedError


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        HEADER,
        HEADER + JPEG_START,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + JPEG_START,
        b"HTTP/1.1 302 Found\r\nX-Slow: ",
        b"HTTP/1.1 100 Continue\r\nX-Slow: ",
    ],
    ids=["header", "body", "body of an image", "chunk size", "length", "redirect", "continue"],
)
def test_deadline_holds_however_a_host_drips(host: WebHost, first: bytes) -> None:
    host.routes["/a"] = drip(first, every=0.1, at_most=60.0)
    start = time.monotonic()
    assert type(error_of(total_seconds=0.4)) is DeadlineExceededError
    assert time.monotonic() - start < 20.0


def test_endless_answers_before_the_answer_end_at_the_deadline(host: WebHost) -> None:
    def go_on(handler: Any) -> None:
        while not handler.server.owner.is_closed:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    host.routes["/a"] = go_on
    assert type(error_of(total_seconds=0.4)) is DeadlineExceededError


def test_silence_ends_at_the_deadline(host: WebHost) -> None:
    host.routes["/a"] = later(send(RED_JPEG), 60.0)
    assert type(error_of(total_seconds=0.3)) is DeadlineExceededError


def test_silent_name_server_ends_at_the_deadline_and_nobody_is_asked_later(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, speak = socket.getaddrinfo, threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: speak.wait(20) and look_up(*a, **k))
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(total_seconds=0.3, max_at_once=1)
    assert type(error_of(URL, mine)) is DeadlineExceededError
    with pytest.raises(OverloadedError):  # the look-up goes on and keeps its place
        mine.fetch(URL)
    speak.set()
    for thread in threading.enumerate():
        if thread.name == "fetch-url":
            thread.join(20)
    assert host.requests == []
    with contextlib.suppress(DeadlineExceededError):  # the machine may be busy
        assert mine.fetch(URL) == RED_JPEG


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP", "x"])
def test_compressed_answer_is_refused_unread(host: WebHost, encoding: str) -> None:
    for body in (gzip.compress(RED_JPEG), RED_JPEG):
        host.routes["/a"] = send(body, Content_Encoding=encoding)
        assert type(error_of()) is FetchFailedError


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {}], ids=["named", "unnamed"])
def test_gzip_bomb_is_not_inflated(host: WebHost, headers: dict[str, str]) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    host.routes["/a"] = send(bomb, **headers)
    tracemalloc.start()
    try:
        assert type(error_of()) is FetchFailedError
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "answer",
    [
        send(RED_JPEG, Content_Length=str(len(RED_JPEG) + 1)),
        send(RED_JPEG, Content_Length=str(10**30)),
        send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n" + RED_JPEG),
        send(b"<html><img src='/a.jpg'></html>", Content_Type="text/html"),
        send(b"<html></html>" * 1000, Content_Type="image/jpeg"),
        send(b"gone", 404),
        send(RED_JPEG, 404),
        send(RED_JPEG, 201),
        send(RED_JPEG, 203),
        send(RED_JPEG, 206),
        send(b"", 204),
        send(RED_JPEG, 500),
        send(RED_JPEG, 503),
        send(b""),
        send(b"\xff\xd8"),
        send_raw(b""),
        send_raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        send_raw(b"HTTP/1.1 abc\r\n\r\n"),
        send_raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
        send_raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        send_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + RED_JPEG),
        send_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + RED_JPEG),
    ],
)
def test_answer_without_a_whole_image_is_one_failure(host: WebHost, answer: Answer) -> None:
    host.routes["/a"] = answer
    assert type(error_of()) is FetchFailedError


def test_length_that_is_too_short_gives_no_more_than_it_says(host: WebHost) -> None:
    host.routes["/a"] = send(RED_JPEG, Content_Length="100")
    assert fetcher().fetch(URL) == RED_JPEG[:100]


def test_nobody_there_is_a_failure(host: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with WebHost() as gone:
        port = gone.port
    resolver(monkeypatch, [place("127.0.0.1", port)])
    assert type(error_of()) is FetchFailedError


def test_random_answers_are_fetched_or_refused(host: WebHost) -> None:
    dice = random.Random(5)
    words = [
        *(b"HTTP/1.1 ", b"200 ", b"302 ", b"OK", b"\r\n", b"\r\n\r\n", b"Location: ", b"[", b"://"),
        *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"ff"),
        *(b"-1", b"5", b"\0", b"\xff\xd8\xff", b"\n ", b"\x1f\x8b", b"x" * 300, b";", RED_JPEG),
    ]
    mine = fetcher(total_seconds=5.0)
    for _ in range(150):
        data = b"".join(dice.choice(words) for _ in range(dice.randrange(30)))
        host.routes["/a"] = send_raw(b"HTTP/1.1 200 OK\r\n" * dice.randrange(2) + data)
        try:
            assert mine.fetch(URL).startswith(b"\xff\xd8\xff")
        except (UrlNotAllowedError, FetchFailedError) as error:
            assert_told(error)


def test_failed_fetches_keep_no_memory(host: WebHost) -> None:
    host.routes["/a"] = send(JPEG_START + bytes(5 * 2**20), Content_Length=str(6 * 2**20))
    mine = fetcher()
    error_of(URL, mine)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            with contextlib.suppress(FetchFailedError):  # unlike pytest, it keeps no error
                mine.fetch(URL)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(host.requests) == 5
    assert kept < 4 * 2**20
