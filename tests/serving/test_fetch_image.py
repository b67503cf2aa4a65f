"""Images by URL: what an honest host sees, rows 43 to 48 of the attack table, and the options."""

import contextlib
import copy
import gc
import gzip
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import app_of
from hostile import RED_JPEG
from tls_host import EXPIRED, IMAGES, LOCALHOST, speaking_tls, trusting
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

from imagesieve import console
from imagesieve.errors import ClassifierError, UsageError
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import config
from imagesieve.serving.errors import (
    DeadlineExceededError,
    FetchFailedError,
    OverloadedError,
    UrlNotAllowedError,
    problem_for,
)
from imagesieve.serving.fetch_image import FAILED, NOT_ALLOWED, TOO_SLOW, UrlFetcher
from imagesieve.serving.limits import ServingLimits

URL = "http://images.example/a"
MAX_BYTES = 10 * 2**20
PUBLIC = "93.184.215.14"
JPEG_START = RED_JPEG[:64]
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"
LARGE = JPEG_START + bytes(60 * 2**20)  # far more than the buffers between two sockets hold

PROBLEMS = {
    UrlNotAllowedError: (NOT_ALLOWED, 422, "url-not-allowed"),
    FetchFailedError: (FAILED, 502, "fetch-failed"),
    DeadlineExceededError: (TOO_SLOW, 504, "deadline-exceeded"),
}

Place = tuple[Any, ...]


def place(address: str, port: int = 80) -> Place:
    """Return one answer of a resolver."""
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[Place] | OSError) -> list[str]:
    """Answer look-ups in this order, the last one for ever; return the names asked for."""
    left, asked = list(answers), []

    def look_up(name: str, *_arguments: Any, **_options: Any) -> list[Place]:
        asked.append(name)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHost]:
    """Yield a running server that every name leads to, whatever the port."""
    with WebHost() as server:
        resolver(monkeypatch, [place("127.0.0.1", server.port)])
        yield server


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the addresses that are connected to, which never works."""
    tried: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


def fetcher(allowed_hosts: list[str] | None = None, **changes: Any) -> UrlFetcher:
    """Return one that may visit this machine."""
    settings = {"allow_private": True, "total_seconds": 30.0, **changes}
    return UrlFetcher(MAX_BYTES, allowed_hosts, **settings)


def error_of(url: str = URL, mine: UrlFetcher | None = None, **changes: Any) -> ClassifierError:
    """Return the error of a fetch, which has the one sentence of its kind and the right status."""
    with pytest.raises(ClassifierError) as caught:
        (mine or fetcher(**changes)).fetch(url)
    problem = problem_for(caught.value)
    found = (str(caught.value), problem.status, problem.slug)
    assert found == PROBLEMS[type(caught.value)]
    return caught.value


def assert_fails(kind: type[ClassifierError], url: str = URL, *more: Any, **changes: Any) -> None:
    assert type(error_of(url, *more, **changes)) is kind


def assert_refused(url: str, mine: UrlFetcher) -> None:
    assert_fails(UrlNotAllowedError, url, mine)


# An honest host.


def test_image_is_fetched_as_it_is(host: WebHost) -> None:
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    host.routes |= {
        "/a%20b?c=1&d=%2F@x": send(RED_JPEG),
        "/chunks": send_raw(b"HTTP/1.1 200 OK\r\n" + chunks % (len(RED_JPEG), RED_JPEG)),
    }
    assert fetcher().fetch("HTTP://Images.Example:80/a%20b?c=1&d=%2F@x") == RED_JPEG
    (headers,) = host.headers
    assert headers["Host"] == "images.example"
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Authorization", "Cookie"} & set(headers)
    assert fetcher().fetch("http://images.example/chunks") == RED_JPEG


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


def post(predictor: Predictor, fetch: Callable[[str], bytes] | None, **fields: str) -> Any:
    """Send a URL to `/v1/predict` of a service."""
    return app_of(predictor, fetch=fetch).test_client().post("/v1/predict", json=fields)


def test_batch_of_urls_does_not_take_more_places_than_there_are(predictor: Predictor) -> None:
    wide = Predictor(predictor.version, copy.copy(predictor.engine))
    wide.engine.num_streams = 16
    places, threads = threading.Semaphore(ServingLimits().max_fetches), set()

    def fetch(_url: str) -> bytes:
        threads.add(threading.get_ident())
        assert places.acquire(blocking=False)
        time.sleep(0.02)
        places.release()
        return RED_JPEG

    images = [{"url": f"{URL}/{number}"} for number in range(32)]
    client = app_of(wide, fetch=fetch).test_client()
    answer = client.post("/v1/predict/batch", json={"images": images}).get_json()
    assert (answer["ok"], answer["failed"]) == (32, 0)
    assert len(threads) > 1


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        (":22/a", UrlNotAllowedError),
        ("/moved", UrlNotAllowedError),
        ("/gone", FetchFailedError),
        ("/late", DeadlineExceededError),
    ],
)
def test_service_predicts_or_tells_one_problem_of_each_kind(
    host: WebHost, predictor: Predictor, path: str, kind: type[ClassifierError] | None
) -> None:
    host.routes |= {
        "/": send(RED_JPEG), "/moved": redirect("/"), "/late": later(send(RED_JPEG), 60.0),
    }  # fmt: skip
    fetch = fetcher(total_seconds=0.3 if path == "/late" else 30.0).fetch
    response = post(predictor, fetch, url=f"http://images.example{path}")
    value = response.get_json(force=True)
    if kind is None:
        assert (response.status_code, value["label"]) == (200, "red")
    else:
        slug = value["type"].removeprefix("/problems/")
        assert (value["detail"], response.status_code, slug) == PROBLEMS[kind]


# Row 43.


def test_url_is_refused_where_none_is_taken_and_never_taken_for_an_image(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    response = post(predictor, None, url=URL)
    assert response.status_code == 400
    assert response.get_json(force=True)["type"] == "/problems/bad-parameter"
    assert post(predictor, UrlFetcher(MAX_BYTES).fetch, image=URL).status_code == 400
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
    error = error_of(f"{scheme}://{literal}/a.jpg", UrlFetcher(MAX_BYTES))
    assert type(error) is UrlNotAllowedError
    assert getattr(error.__cause__, "reason", "") == "private address"
    assert connected == []


NO_URLS = [
    "", "a.jpg", "//images.example/a", "images.example/a", "http:images.example/a",
    "http:/images.example/a", "http:///images.example/a", "http://", "http://?", "http:///",
    # other schemes
    "ftp://images.example/a", "file:///etc/passwd", "file://images.example/etc/passwd",
    "gopher://images.example:70/_", "data:image/png;base64,iVBORw0KGgo=", "javascript:alert(1)",
    "dict://images.example:2628/d", "ldap://images.example/", "httpx://images.example/",
    "https+unix://images.example/", "jar:http://images.example/!/a", "view-source:" + URL,
    # other ports
    "http://images.example:22/a", "http://images.example:6379/a", "https://h.example:8443/a",
    "http://images.example:0/a", "http://images.example:65536/a", "http://h.example:80:80/a",
    "http://images.example:/a", "http://images.example:-80/a", "http://h.example:8 0/a",
    "http://images.example:+80/a", "http://images.example:٨٠/a",
    # numbers that resolvers take for 127.0.0.1
    "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://0x7f.1/",
    "http://127.1/", "http://127.0.1/", "http://0177.0.0.1/", "http://0x7f.0x0.0x0.0x1/",
    "http://127.0.0.0x1/", "http://127.0.0.01/", "http://0300.0250.1.1/", "http://1.1.1.1.1/",
    "http://256.1.1.1/", "http://127.0.0.1./", "http://0/", "http://h.example.0x7f/",
    # names of this machine and of its network alone
    "http://localhost/", "http://localhost./", "http://LOCALHOST/", "http://intranet/a",
    "http://images.example./a", "http://.images.example/", "http://images..example/",
    # Unicode that readers of addresses turn into something else
    "http://127。0。0。1/", "http://127．0．0．1/", "http://images。example/a",
    "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://bücher.example/", "http://images.exampleſ/",
    "http://\u212aids.example/", "http://images.example/寿", "http://images.example\uff0f@h/",
    "http://h.example\u200b/", "http://images.example\u2100.h.example/", "http\uff1a//h.example/",
    # a second reader may find another host
    "http://user@images.example/a", "http://user:word@images.example/a", "http://@h.example/",
    "http://127.0.0.1@images.example/", "http://images.example@127.0.0.1/",
    "http://images.example#@127.0.0.1/", "http://images.example/a#b", "http://h.example#",
    "http://images.example\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http://h.example/a\\b",
    "http://images.example\\.h.example/", "http://127.0.0.1%2f.h.example/",
    "http://images.example%00.h.example/", "http://pic%74ures.example/", "http://h.example;/",
    "http://[::1%25lo]/", "http://[fe80::1%eth0]/", "http://[::1]x/", "http://[v1.a]/",
    "http://[127.0.0.1]/", "http://[::1", "http://::1/", "http://[]/", "http://[::1]:80:80/",
    # blanks and control characters
    " " + URL, URL + " ", URL + "\n", "\t" + URL, "ht\ttp://images.example/a",
    "http://images.\texample/a", "http://images.example/a b", "http://images.example/a\tb",
    "http://images.example/a\r\nX-Injected: 1", "http://images.example/\0", "\0" + URL,
    "http://images.example/a?b\x7f", "http://images.example/\x85", "http:// h.example/",
    "http://images.example/\ud800",
    # too long
    URL + "a" * 2048, f"http://{'a' * 64}.example/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_plain_url_is_refused_without_asking_anybody(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    assert_refused(url, fetcher())
    assert (asked, connected) == ([], [])


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example", "https://images.example/", "http://images.example:443?a=b",
        "https://xn--bcher-kva.example/%E5%AF%BF.jpg",
        "http://a_b-c.images.example/@2x/{a}|b.jpg?c[]=\"<'^`>",
    ],
)  # fmt: skip
def test_plain_url_of_a_public_host_is_asked(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str
) -> None:
    resolver(monkeypatch, [place(PUBLIC)])
    assert_fails(FetchFailedError, url, UrlFetcher(MAX_BYTES))
    assert connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("literal", [PUBLIC, "[2606:4700::1111]", "[::ffff:8.8.8.8]"])
def test_public_ip_address_is_asked(connected: list[Any], literal: str) -> None:
    assert_fails(FetchFailedError, f"http://{literal}/", UrlFetcher(MAX_BYTES))
    assert [address[0] for address in connected] == [literal.strip("[]")]


# Row 45.


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fec0::1"])
@pytest.mark.parametrize("order", [1, -1])
def test_name_of_public_and_private_places_is_refused(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], private: str, order: int
) -> None:
    resolver(monkeypatch, [place(PUBLIC), place(private)][::order])
    assert_refused(URL, UrlFetcher(MAX_BYTES))
    assert connected == []


def test_name_that_changes_its_place_after_the_check_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)], [place("127.0.0.1")])
    assert_fails(FetchFailedError, URL, UrlFetcher(MAX_BYTES))
    assert (asked, connected) == (["images.example"], [(PUBLIC, 80)])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ([place("10.1.2.3")], UrlNotAllowedError),
        # Not to be told from a name inside a network.
        (socket.gaierror(socket.EAI_NONAME, "unknown"), UrlNotAllowedError),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), FetchFailedError),
    ],
    ids=["inside", "no such name", "no answer for now"],
)
def test_only_a_name_server_that_fails_for_now_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], answer: Any, kind: type[ClassifierError]
) -> None:
    resolver(monkeypatch, answer)
    for allowed_hosts in (None, ["images.example"]):  # allowing a name allows no private place
        assert_fails(kind, URL, UrlFetcher(MAX_BYTES, allowed_hosts))
    assert connected == []


# Row 46; schemes and ports stand among the URLs above.


@pytest.mark.parametrize(
    "answer",
    [
        *(send(b"", status, Location="/b") for status in (300, 301, 302, 303, 304, 307, 308, 399)),
        *(
            redirect(target)
            for target in (
                "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "https://[::1]/",
                "file:///etc/passwd", "ftp://images.example/", "gopher://h.example/", "data:,x",
                "http://images.example:22/", "http://images.example:6379/", "/a", "", "//",
                "http://[",
            )
        ),
    ],
)  # fmt: skip
def test_no_redirect_is_followed_wherever_it_leads(host: WebHost, answer: Answer) -> None:
    host.routes |= {"/a": answer, "/b": send(RED_JPEG)}
    assert_refused(URL, fetcher())
    assert host.requests == ["/a"]


# Row 47.


def test_endless_body_is_read_up_to_the_limit(host: WebHost) -> None:
    host.routes["/a"] = send_in_parts(LARGE)
    assert_fails(FetchFailedError)
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
    assert_fails(FetchFailedError, total_seconds=20.0)  # and not the deadline


def _go_on(handler: Any) -> None:
    while not handler.server.owner.is_closed:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


DRIPPING = {
    "header": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "body": HEADER,
    "body of an image": HEADER + JPEG_START,
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + JPEG_START,
    "redirect": b"HTTP/1.1 302 Found\r\nX-Slow: ",
    "continue": b"HTTP/1.1 100 Continue\r\nX-Slow: ",
}
SLOW: dict[str, Answer] = {
    **{name: drip(first, every=0.1, at_most=60.0) for name, first in DRIPPING.items()},
    "endless answers before the answer": _go_on,
    "silence": later(send(RED_JPEG), 60.0),
}


@pytest.mark.parametrize("name", SLOW)
def test_deadline_holds_however_a_host_drips(host: WebHost, name: str) -> None:
    host.routes["/a"] = SLOW[name]
    start = time.monotonic()
    assert_fails(DeadlineExceededError, total_seconds=0.3)
    assert time.monotonic() - start < 20.0


def test_silent_name_server_ends_at_the_deadline_and_nobody_is_asked_later(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, speak = socket.getaddrinfo, threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: speak.wait(20) and look_up(*a, **k))
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(total_seconds=0.3, max_at_once=1)
    assert_fails(DeadlineExceededError, URL, mine)
    with pytest.raises(OverloadedError):  # the look-up goes on and keeps its place
        mine.fetch(URL)
    speak.set()
    for thread in threading.enumerate():
        if thread.name == "fetch-url":
            thread.join(20)
    assert host.requests == []
    with contextlib.suppress(DeadlineExceededError):  # the machine may be busy
        assert mine.fetch(URL) == RED_JPEG


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {}], ids=["named", "unnamed"])
def test_gzip_bomb_is_not_inflated(host: WebHost, headers: dict[str, str]) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    host.routes["/a"] = send(bomb, **headers)
    tracemalloc.start()
    try:
        assert_fails(FetchFailedError)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "answer",
    [
        *(
            send(body, Content_Encoding=encoding)
            for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP", "x")
            for body in (gzip.compress(RED_JPEG), RED_JPEG)
        ),
        *(send(RED_JPEG, status) for status in (201, 203, 206, 404, 500, 503)),
        send(RED_JPEG, Content_Length=str(len(RED_JPEG) + 1)),
        send(RED_JPEG, Content_Length=str(10**30)),
        send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n" + RED_JPEG),
        send(b"<html><img src='/a.jpg'></html>", Content_Type="text/html"),
        send(b"<html></html>" * 1000, Content_Type="image/jpeg"),
        send(b"gone", 404),
        send(b"", 204),
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
    assert_fails(FetchFailedError)


def test_length_that_is_too_short_gives_no_more_than_it_says(host: WebHost) -> None:
    host.routes["/a"] = send(RED_JPEG, Content_Length="100")
    assert fetcher().fetch(URL) == RED_JPEG[:100]


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


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason"),
    [
        (IMAGES, IMAGES, ""),
        (LOCALHOST, LOCALHOST, "not valid for 'images.example'"),
        (EXPIRED, EXPIRED, "has expired"),
        (IMAGES, LOCALHOST, "self-signed"),
    ],
    ids=["good", "wrong name", "expired", "self-signed"],
)
def test_only_a_host_that_proves_its_name_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, trusted: str, reason: str
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(RED_JPEG), RED_JPEG)
    url = "https://images.example/a"
    with speaking_tls(certificate, answer, tmp_path) as port, trusting(trusted, tmp_path):
        resolver(monkeypatch, [place("127.0.0.1", port)])
        if not reason:
            assert fetcher().fetch(url) == RED_JPEG
            return
        error = error_of(url)
    assert type(error) is FetchFailedError
    assert isinstance(error.__cause__.__cause__, ssl.SSLCertVerificationError)
    assert reason in str(error.__cause__)


# Beside the table: places, proxies, hosts, the log.


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


def test_every_place_comes_back_after_failures(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.routes |= {"/a": send(RED_JPEG), "/moved": redirect("/a")}
    mine = fetcher(max_at_once=1)
    for path in ("gone", "moved", "gone"):
        error_of(f"http://images.example/{path}", mine)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OverloadedError):
            mine.fetch(URL)
    assert mine.fetch(URL) == RED_JPEG


def test_proxies_of_the_environment_are_not_used(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.routes["/a"] = send(RED_JPEG)
    assert fetcher().fetch(URL) == RED_JPEG


def test_only_listed_hosts_are_asked(host: WebHost) -> None:
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(["images.example", "2606:4700::1111"])
    assert mine.fetch("http://IMAGES.example/a") == RED_JPEG
    assert mine.fetch("http://[2606:4700:0:0::1111]/a") == RED_JPEG
    for name in ("other.example", "a.images.example", "images.example.other.example",
                 "ximages.example", "127.0.0.1"):  # fmt: skip
        assert_refused(f"http://{name}/a", mine)
    assert len(host.requests) == 2


def test_log_tells_the_reason_in_one_plain_line(
    host: WebHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.routes["/a"] = send_raw(b"\x1b[31mHTTP\x07 " + b"x" * 5000 + b"\r\n\r\n")
    with caplog.at_level(logging.DEBUG, logger="imagesieve"):
        error_of()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("no image from images.example: BadStatusLine(")
    assert message.isprintable()
    assert len(message) < 400


# The command line.


def from_options(*arguments: str) -> UrlFetcher | None:
    parser = console.argument_parser("Serve.", "examples")
    config.add_options(parser)
    return config.fetcher_from_options(parser.parse_args(arguments), ServingLimits())


def test_fetcher_of_the_command_line_has_its_hosts_and_visits_no_private_one(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    assert from_options() is None
    assert from_options("--allow-url") is not None
    mine = from_options("--allow-url", "--allow-url-host", "A.example", "--allow-url-host", "b.cd")
    asked = resolver(monkeypatch, [place("127.0.0.1")])
    for name in ("a.example", "b.cd", "c.example"):
        assert_refused(f"http://{name}/", mine)
    assert (asked, connected) == (["a.example", "b.cd"], [])


@pytest.mark.parametrize(
    "name", ["", "https://images.example", "images.example/", "a b", "a:80", "bücher.example"]
)
def test_host_that_is_none_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="is not a host"):
        from_options("--allow-url", "--allow-url-host", name)


def test_hosts_without_permission_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="goes with --allow-url"):
        from_options("--allow-url-host", "images.example")
