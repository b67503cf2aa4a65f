"""Pictures by address: rows 43 to 48 of the attack table, and what an honest host sees."""

import argparse
import contextlib
import gc
import gzip
import logging
import random
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import RED_JPEG
from tls_host import EXPIRED, LOCALHOST, PICTURES, speaking_tls, trusting
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

from classifier import console
from classifier.errors import ClassifierError, UsageError
from classifier.serving import url_options
from classifier.serving.app import create_app
from classifier.serving.models import Models
from classifier.serving.predictor import Predictor
from classifier.serving.problems import (
    DeadlineExceededError,
    FetchFailedError,
    OverloadedError,
    UrlNotAllowedError,
    problem_for,
)
from classifier.serving.service import Service
from classifier.serving.url_input import FAILED, NOT_ALLOWED, TOO_SLOW, UrlFetcher, UrlSettings

URL = "http://pictures.example/a"
MAX_BYTES = 10 * 2**20
JPEG_START = RED_JPEG[:64]
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"
LARGE = JPEG_START + bytes(60 * 2**20)  # far more than the buffers between two sockets hold
PUBLIC = "93.184.215.14"

Place = tuple[Any, ...]


def place(address: str, port: int = 80) -> Place:
    """Give one answer of a resolver."""
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHost]:
    """Give a running server that every name leads to, whatever the port."""
    with WebHost() as server:
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *a, **k: [place("127.0.0.1", server.port)]
        )
        yield server


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give the addresses that somebody tries to connect to, which never works."""
    tried: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[Place] | OSError) -> list[str]:
    """Answer look-ups in this order, the last one for ever; gives the names that are asked for."""
    left, asked = list(answers), []

    def look_up(name: str, *_arguments: Any, **_options: Any) -> list[Place]:
        asked.append(name)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def fetcher(allowed_hosts: list[str] | None = None, **changes: Any) -> UrlFetcher:
    """Give one that may visit this machine."""
    settings = UrlSettings(**{"allow_private": True, "total_seconds": 30.0, **changes})
    return UrlFetcher(MAX_BYTES, allowed_hosts, settings)


def assert_told(error: ClassifierError) -> None:
    """See that an error tells the one sentence of its kind, with the right status."""
    sentence, status, slug = {
        UrlNotAllowedError: (NOT_ALLOWED, 422, "url-not-allowed"),
        FetchFailedError: (FAILED, 502, "fetch-failed"),
        DeadlineExceededError: (TOO_SLOW, 504, "deadline-exceeded"),
    }[type(error)]
    problem = problem_for(error)
    assert (str(error), problem.status, problem.slug) == (sentence, status, slug)


def error_of(url: str = URL, mine: UrlFetcher | None = None, **changes: Any) -> ClassifierError:
    with pytest.raises(ClassifierError) as caught:
        (mine or fetcher(**changes)).fetch(url)
    assert_told(caught.value)
    return caught.value


def assert_refused(url: str, mine: UrlFetcher) -> None:
    assert type(error_of(url, mine)) is UrlNotAllowedError


def test_picture_is_fetched_as_it_is(host: WebHost) -> None:
    host.routes["/a%20b?c=1&d=%2F@x"] = send(RED_JPEG)
    assert fetcher().fetch("HTTP://Pictures.Example:80/a%20b?c=1&d=%2F@x") == RED_JPEG
    (headers,) = host.headers
    assert headers["Host"] == "pictures.example"
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers
    assert "Cookie" not in headers


def test_chunked_picture_is_fetched(host: WebHost) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(RED_JPEG), RED_JPEG)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    host.routes["/a"] = send_raw(head + chunks)
    assert fetcher().fetch(URL) == RED_JPEG


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


def post(predictor: Predictor, fetch: Callable[[str], bytes] | None, **fields: str) -> Any:
    """Send an address to `/v1/predict` of a service."""
    client = create_app(Service(Models.of(predictor), fetch=fetch)).test_client()
    return client.post("/v1/predict", json=fields)


def test_service_judges_the_picture_at_an_address(host: WebHost, predictor: Predictor) -> None:
    host.routes["/a"] = send(RED_JPEG)
    response = post(predictor, fetcher().fetch, url=URL)
    assert (response.status_code, response.get_json()["label"]) == (200, "red")


@pytest.mark.parametrize(
    ("url", "status", "slug", "detail"),
    [
        ("http://pictures.example:22/a", 422, "url-not-allowed", NOT_ALLOWED),
        ("http://pictures.example/moved", 422, "url-not-allowed", NOT_ALLOWED),
        ("http://pictures.example/gone", 502, "fetch-failed", FAILED),
        ("http://pictures.example/late", 504, "deadline-exceeded", TOO_SLOW),
    ],
)
def test_service_tells_one_problem_of_each_kind(
    host: WebHost, predictor: Predictor, url: str, status: int, slug: str, detail: str
) -> None:
    host.routes |= {"/moved": redirect("/a"), "/late": later(send(RED_JPEG), 60.0)}
    seconds = 0.3 if url.endswith("late") else 30.0
    response = post(predictor, fetcher(total_seconds=seconds).fetch, url=url)
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (status, f"/problems/{slug}")
    assert value["detail"] == detail


# Row 43.


def test_address_is_refused_where_none_is_taken(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolver(monkeypatch, OSError("no name server"))
    response = post(predictor, None, url=URL)
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (400, "/problems/bad-parameter")
    assert asked == []


def test_address_is_never_taken_for_a_picture(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    response = post(predictor, UrlFetcher(MAX_BYTES).fetch, image=URL)
    assert response.status_code == 400
    assert (asked, connected) == ([], [])


# Row 44.

LITERALS = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.1", "192.0.0.9"),
    *("192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::8.8.8.8]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::ffff:0:127.0.0.1]", "[::ffff:0:7f00:1]"),
    *("[fec0::1]", "[feff::1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]"),
    *("[ff0e::1]", "[100::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[4000::1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]"),
    *("[2001::1]", "[2001:0:7f00:1::]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]"),
    *("[2002:7f00:1::]", "[2002:a9fe:a9fe::]", "[2002:808:808::]"),
]  # fmt: skip


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_address_that_is_not_public_is_refused_before_any_connection(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], scheme: str, literal: str
) -> None:
    look_up = socket.getaddrinfo
    monkeypatch.setattr(  # a name would need a name server, and fail the test
        socket,
        "getaddrinfo",
        lambda name, port, **k: look_up(name, port, flags=socket.AI_NUMERICHOST, **k),
    )
    mine = UrlFetcher(MAX_BYTES)
    error = error_of(f"{scheme}://{literal}/a.jpg", mine)
    assert type(error) is UrlNotAllowedError
    assert getattr(error.__cause__, "reason", "") == "private address"
    assert connected == []


NO_URLS = [
    "", "a.jpg", "//pictures.example/a", "pictures.example/a", "http:pictures.example/a",
    "http:/pictures.example/a", "http:///pictures.example/a", "http://", "http://?", "http:///",
    # other schemes
    "ftp://pictures.example/a", "file:///etc/passwd", "file://pictures.example/etc/passwd",
    "gopher://pictures.example:70/_", "data:image/png;base64,iVBORw0KGgo=", "javascript:alert(1)",
    "dict://pictures.example:2628/d", "ldap://pictures.example/", "httpx://pictures.example/",
    "https+unix://pictures.example/", "jar:http://pictures.example/!/a", "view-source:" + URL,
    # other ports
    "http://pictures.example:22/a", "http://pictures.example:6379/a", "https://h.example:8443/a",
    "http://pictures.example:0/a", "http://pictures.example:65536/a", "http://h.example:80:80/a",
    "http://pictures.example:/a", "http://pictures.example:-80/a", "http://h.example:8 0/a",
    "http://pictures.example:+80/a", "http://pictures.example:٨٠/a",
    # numbers that resolvers take for 127.0.0.1
    "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://0x7f.1/",
    "http://127.1/", "http://127.0.1/", "http://0177.0.0.1/", "http://0x7f.0x0.0x0.0x1/",
    "http://127.0.0.0x1/", "http://127.0.0.01/", "http://0300.0250.1.1/", "http://1.1.1.1.1/",
    "http://256.1.1.1/", "http://127.0.0.1./", "http://0/", "http://h.example.0x7f/",
    # names of this machine and of its network alone
    "http://localhost/", "http://localhost./", "http://LOCALHOST/", "http://intranet/a",
    "http://pictures.example./a", "http://.pictures.example/", "http://pictures..example/",
    # Unicode that readers of addresses turn into something else
    "http://127。0。0。1/", "http://127．0．0．1/", "http://pictures。example/a",
    "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://bücher.example/", "http://pictures.exampleſ/",
    "http://\u212aids.example/", "http://pictures.example/寿", "http://pictures.example\uff0f@h/",
    "http://h.example\u200b/", "http://pictures.example\u2100.h.example/", "http\uff1a//h.example/",
    # a second reader may find another host
    "http://user@pictures.example/a", "http://user:word@pictures.example/a", "http://@h.example/",
    "http://127.0.0.1@pictures.example/", "http://pictures.example@127.0.0.1/",
    "http://pictures.example#@127.0.0.1/", "http://pictures.example/a#b", "http://h.example#",
    "http://pictures.example\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http://h.example/a\\b",
    "http://pictures.example\\.h.example/", "http://127.0.0.1%2f.h.example/",
    "http://pictures.example%00.h.example/", "http://pic%74ures.example/", "http://h.example;/",
    "http://[::1%25lo]/", "http://[fe80::1%eth0]/", "http://[::1]x/", "http://[v1.a]/",
    "http://[127.0.0.1]/", "http://[::1", "http://::1/", "http://[]/", "http://[::1]:80:80/",
    # blanks and control characters
    " " + URL, URL + " ", URL + "\n", "\t" + URL, "ht\ttp://pictures.example/a",
    "http://pictures.\texample/a", "http://pictures.example/a b", "http://pictures.example/a\tb",
    "http://pictures.example/a\r\nX-Injected: 1", "http://pictures.example/\0", "\0" + URL,
    "http://pictures.example/a?b\x7f", "http://pictures.example/\x85", "http:// h.example/",
    "http://pictures.example/\ud800",
    # too long
    URL + "a" * 2048, f"http://{'a' * 64}.example/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_plain_address_is_refused_without_asking_anybody(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    assert_refused(url, fetcher())
    assert (asked, connected) == ([], [])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://pictures.example", (PUBLIC, 80)),
        ("https://pictures.example/", (PUBLIC, 80)),
        ("http://pictures.example:443?a=b", (PUBLIC, 80)),
        ("https://xn--bcher-kva.example/%E5%AF%BF.jpg", (PUBLIC, 80)),
        ("http://a_b-c.pictures.example/@2x/{a}|b.jpg?c[]=\"<'^`>", (PUBLIC, 80)),
    ],
)
def test_plain_address_of_a_public_host_is_asked(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str, target: tuple[str, int]
) -> None:
    resolver(monkeypatch, [place(PUBLIC)])
    assert type(error_of(url, UrlFetcher(MAX_BYTES))) is FetchFailedError
    assert connected == [target]


@pytest.mark.parametrize("literal", [PUBLIC, "[2606:4700::1111]", "[::ffff:8.8.8.8]"])
def test_public_ip_address_is_asked(connected: list[Any], literal: str) -> None:
    assert type(error_of(f"http://{literal}/", UrlFetcher(MAX_BYTES))) is FetchFailedError
    assert [address[0] for address in connected] == [literal.strip("[]")]


# Row 45.


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fec0::1"])
@pytest.mark.parametrize("public_first", [True, False])
def test_name_of_public_and_private_places_is_refused(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], private: str, public_first: bool
) -> None:
    both = [place(PUBLIC), place(private)]
    resolver(monkeypatch, both if public_first else both[::-1])
    assert_refused(URL, UrlFetcher(MAX_BYTES))
    assert connected == []


def test_name_that_changes_its_place_after_the_check_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)], [place("127.0.0.1")])
    assert type(error_of(URL, UrlFetcher(MAX_BYTES))) is FetchFailedError
    assert asked == ["pictures.example"]
    assert connected == [(PUBLIC, 80)]


def test_name_inside_a_network_cannot_be_told_from_one_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    for answer in ([place("10.1.2.3")], socket.gaierror(socket.EAI_NONAME, "unknown")):
        resolver(monkeypatch, answer)
        assert_refused("http://wiki.corp.example/", UrlFetcher(MAX_BYTES))
    assert connected == []


def test_name_server_that_fails_for_now_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert type(error_of()) is FetchFailedError


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
        *("file:///etc/passwd", "ftp://pictures.example/", "gopher://h.example/", "data:,x"),
        *(
            "http://pictures.example:22/",
            "http://pictures.example:6379/",
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
    assert_refused("http://pictures.example/0", fetcher())
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
def test_what_cannot_become_a_picture_is_not_waited_for(host: WebHost, first: bytes) -> None:
    host.routes["/a"] = drip(first, every=0.1, at_most=60.0)
    assert type(error_of(total_seconds=20.0)) is FetchFailedError  # and not the deadline


def test_picture_of_just_the_largest_size_is_fetched(host: WebHost) -> None:
    host.routes |= {"/a": send_in_parts(RED_JPEG), "/b": send(RED_JPEG)}
    settings = UrlSettings(allow_private=True)
    for path in ("a", "b"):
        url = f"http://pictures.example/{path}"
        assert UrlFetcher(len(RED_JPEG), None, settings).fetch(url) == RED_JPEG
        error = error_of(url, UrlFetcher(len(RED_JPEG) - 1, None, settings))
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
    ids=["header", "body", "body of a picture", "chunk size", "length", "redirect", "continue"],
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
def test_answer_without_a_whole_picture_is_one_failure(host: WebHost, answer: Answer) -> None:
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


# Row 48.

SAFE_URL = "https://pictures.example/a"
SAFE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(RED_JPEG), RED_JPEG)


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason"),
    [
        (LOCALHOST, LOCALHOST, "not valid for 'pictures.example'"),
        (EXPIRED, EXPIRED, "has expired"),
        (PICTURES, LOCALHOST, "self-signed"),
    ],
    ids=["wrong name", "expired", "self-signed"],
)
def test_host_that_does_not_prove_its_name_is_a_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    trusted: str,
    reason: str,
) -> None:
    with speaking_tls(certificate, SAFE_ANSWER, tmp_path) as port, trusting(trusted, tmp_path):
        resolver(monkeypatch, [place("127.0.0.1", port)])
        error = error_of(SAFE_URL)
    assert type(error) is FetchFailedError
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert reason in str(error.__cause__)


def test_host_that_proves_its_name_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speaking_tls(PICTURES, SAFE_ANSWER, tmp_path) as port, trusting(PICTURES, tmp_path):
        resolver(monkeypatch, [place("127.0.0.1", port)])
        assert fetcher().fetch(SAFE_URL) == RED_JPEG


def test_host_without_tls_is_a_failure(host: WebHost) -> None:
    assert type(error_of(SAFE_URL)) is FetchFailedError


# The fetcher beside the table.


def test_as_many_fetches_as_allowed_run_at_once(host: WebHost) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def wait(handler: Any) -> None:
        arrived.release()
        go_on.wait(20)
        send(RED_JPEG)(handler)

    host.routes["/a"] = wait
    mine, bodies = fetcher(total_seconds=30.0), []
    callers = [threading.Thread(target=lambda: bodies.append(mine.fetch(URL))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert arrived.acquire(timeout=20)
    with pytest.raises(OverloadedError):
        mine.fetch(URL)
    go_on.set()
    for caller in callers:
        caller.join(20)
    assert bodies == [RED_JPEG] * 4
    assert mine.fetch(URL) == RED_JPEG
    assert len(host.requests) == 5


def test_every_place_comes_back_after_failures(host: WebHost) -> None:
    host.routes |= {"/a": send(RED_JPEG), "/gone": send(b"", 404), "/moved": redirect("/a")}
    mine = fetcher(max_at_once=1)
    for path in ("gone", "moved", "gone"):
        error_of(f"http://pictures.example/{path}", mine)
    assert mine.fetch(URL) == RED_JPEG


def test_server_without_a_thread_to_spare_is_busy_for_now(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(max_at_once=1)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OverloadedError):
            mine.fetch(URL)
    assert mine.fetch(URL) == RED_JPEG


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_proxies_of_the_environment_are_not_used(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.routes["/a"] = send(RED_JPEG)
    assert fetcher().fetch(URL) == RED_JPEG


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a",
        "http://a.pictures.example/a",
        "http://pictures.example.other.example/a",
        "http://xpictures.example/a",
        "http://127.0.0.1/a",
    ],
)
def test_only_listed_hosts_are_asked(host: WebHost, url: str) -> None:
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(["pictures.example", "2606:4700::1111"])
    assert mine.fetch("http://PICTURES.example/a") == RED_JPEG
    assert mine.fetch("http://[2606:4700:0:0::1111]/a") == RED_JPEG
    assert_refused(url, mine)
    assert len(host.requests) == 2


def test_listed_host_is_refused_all_the_same_when_it_is_private(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    resolver(monkeypatch, [place("10.0.0.1")])
    assert_refused(URL, UrlFetcher(MAX_BYTES, ["pictures.example"]))
    assert connected == []


def test_log_tells_the_reason_in_one_plain_line(
    host: WebHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.routes["/a"] = send_raw(b"\x1b[31mHTTP\x07 " + b"x" * 5000 + b"\r\n\r\n")
    with caplog.at_level(logging.DEBUG, logger="classifier"):
        error_of()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("no picture from pictures.example: BadStatusLine(")
    assert message.isprintable()
    assert len(message) < 400


# The command line.


def options(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("Serve.", "examples")
    url_options.add_options(parser)
    return parser.parse_args(arguments)


def test_addresses_are_taken_only_when_asked_for() -> None:
    assert url_options.from_options(options(), MAX_BYTES) is None
    assert url_options.from_options(options("--allow-url"), MAX_BYTES) is not None


def test_fetcher_of_the_command_line_has_its_hosts_and_visits_no_private_one(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    given = options("--allow-url", "--allow-url-host", "A.example", "--allow-url-host", "b.example")
    mine = url_options.from_options(given, MAX_BYTES)
    assert mine is not None
    asked = resolver(monkeypatch, [place("127.0.0.1")])
    for name in ("a", "b", "c"):
        assert_refused(f"http://{name}.example/", mine)
    assert (asked, connected) == (["a.example", "b.example"], [])


@pytest.mark.parametrize(
    "name", ["", "https://pictures.example", "pictures.example/", "a b", "a:80", "bücher.example"]
)
def test_host_that_is_none_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="is no host"):
        options("--allow-url", "--allow-url-host", name)


def test_hosts_without_permission_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="goes with --allow-url"):
        url_options.from_options(options("--allow-url-host", "pictures.example"), MAX_BYTES)
