"""One download: whole or refused by name, within its time, and never from a private network."""

import contextlib
import email.utils
import gzip
import random
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
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

from imagesieve.errors import UsageError
from imagesieve.web import urls
from imagesieve.web.fetch import (
    Fetched,
    Fetcher,
    FetchError,
    FetchSettings,
    RefusedHostError,
)

HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"
LARGE = bytes(30 * 2**20)  # more than the buffers between two sockets hold


def fetcher(**changes: Any) -> Fetcher:
    return Fetcher(FetchSettings(**{"allow_private_hosts": True, **changes}))


def error_of(url: str, **changes: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetcher(**changes).fetch(url)
    return caught.value


def reason_of(url: str, **changes: Any) -> str:
    return error_of(url, **changes).reason


def test_body_comes_whole_with_its_url_and_its_time(host: WebHost) -> None:
    host.routes["/a"] = later(send(b"0123456789" * 50_000), 0.05)
    fetched = fetcher().fetch(f"{host.url}/a")
    assert fetched.body == b"0123456789" * 50_000
    assert fetched.url == f"{host.url}/a"
    assert 0.05 <= fetched.seconds < 5.0


@pytest.mark.parametrize(
    ("status", "is_passing"),
    [
        *((status, False) for status in (204, 206, 403, 404, 410)),
        *((status, True) for status in (408, 429, 500, 503)),
    ],
)
def test_status_is_named_and_says_whether_to_try_again(
    host: WebHost, status: int, is_passing: bool
) -> None:
    host.routes["/a"] = send(b"", status)
    error = error_of(f"{host.url}/a")
    assert (error.reason, error.status) == (f"http status {status}", status)
    assert error.is_passing == is_passing
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 86_400.0),
        ("Thu, 01 Jan 2004 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2004 00:00:00", 0.0),
        ("9" * 500, 86_400.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Thu, 99 Jan 2004 00:00:00 GMT", None),
        (f"Thu, 01 Jan {'9' * 20} 00:00:00 GMT", None),
        (f"Thu, 01 Jan 2004 00:00:00 +{'9' * 20}", None),
        (f"Thu, 01 Jan 2004 {'9' * 20}:00:00 GMT", None),
        (f"Thu, 01 Jan {'9' * 5000} 00:00:00 GMT", None),
        ("\x1f7", 7.0),
    ],
)
def test_time_to_wait_is_read_from_a_number_or_a_date(
    host: WebHost, text: str, seconds: float | None
) -> None:
    host.routes["/a"] = send(b"", 429, Retry_After=text)
    assert error_of(f"{host.url}/a").retry_after == seconds


def test_time_to_wait_is_counted_from_now(host: WebHost) -> None:
    date = email.utils.formatdate(time.time() + 600, usegmt=True)
    host.routes["/a"] = send(b"", 429, Retry_After=date)
    assert error_of(f"{host.url}/a").retry_after == pytest.approx(590.0, abs=10.0)


def test_redirects_in_a_circle_end_at_once(host: WebHost) -> None:
    host.routes |= {"/a": redirect("/b"), "/b": redirect("/a#again")}
    assert reason_of(f"{host.url}/a") == "too many redirects"
    assert host.requests == ["/a", "/b"]


def test_five_redirects_are_followed_and_no_more(host: WebHost) -> None:
    steps = ["/", "/1/b", "c?d=1", "/1/c?d=2", "e", "/f"]
    paths = ["/", "/1/b", "/1/c?d=1", "/1/c?d=2", "/1/e", "/f"]
    for path, step in zip(["/start", *paths], [*steps, "/end"], strict=True):
        host.routes[path] = redirect(step)
    host.routes["/end"] = send(b"yes")
    assert reason_of(f"{host.url}/start") == "too many redirects"
    assert host.requests == ["/start", *paths[:5]]
    fetched = fetcher().fetch(f"{host.url}/1/b")
    assert (fetched.body, fetched.url) == (b"yes", f"{host.url}/end")


@pytest.mark.parametrize("is_announced", [True, False])
def test_size_is_capped_before_the_body_or_within_it(host: WebHost, is_announced: bool) -> None:
    body = LARGE * 2
    headers = [("Content-Length", str(len(body)))] if is_announced else []
    host.routes["/a"] = send_in_parts(body, headers)
    assert reason_of(f"{host.url}/a", max_bytes=2**20) == "too many bytes"
    assert bytes_sent(host) < len(body) // (4 if is_announced else 2)


@pytest.mark.parametrize("headers", [[("Content-Length", "1000")], []])
def test_body_of_just_the_largest_size_is_accepted_or_its_start(
    host: WebHost, headers: list[tuple[str, str]]
) -> None:
    host.routes["/a"] = send_in_parts(b"0123456789" * 100, headers)
    assert len(fetcher(max_bytes=1000).fetch(f"{host.url}/a").body) == 1000
    assert reason_of(f"{host.url}/a", max_bytes=999) == "too many bytes"
    fetched = fetcher(max_bytes=15, keeps_start=True).fetch(f"{host.url}/a")
    assert fetched.body == b"012345678901234"


def bomb(num_bytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(2**20)) for _ in range(num_bytes // 2**20)]
    return b"".join(parts) + packer.flush()


@pytest.mark.parametrize("layers", [1, 2], ids=["once", "twice"])
def test_compressed_bomb_does_not_fill_the_memory(host: WebHost, layers: int) -> None:
    body = bomb(100 * 2**20)
    for _ in range(layers - 1):
        body = gzip.compress(body)
    host.routes["/a"] = send(body, Content_Encoding=", ".join(["gzip"] * layers))
    tracemalloc.start()
    try:
        assert reason_of(f"{host.url}/a") == "too many bytes"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOST, DAMAGED = ("connection lost", True), ("damaged answer", False)  # reason, may it pass
BROKEN = {
    "half is missing": (send(b"x" * 500, Content_Length="1000"), *LOST),
    "one byte is missing": (send(b"x" * 999, Content_Length="1000"), *LOST),
    "all is missing": (send(b"", Content_Length="1000"), *LOST),
    "the last chunk is missing": (send_raw(CHUNKED + b"5\r\nhello\r\n"), *LOST),
    "even the header is missing": (send_raw(b""), *LOST),
    "no http": (send_raw(b"SSH-2.0-OpenSSH_9.9\r\n"), *DAMAGED),
    "no status": (send_raw(b"HTTP/1.1 abc\r\n\r\n"), *DAMAGED),
    "long line": (send_raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), *DAMAGED),
    "many lines": (send_raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), *DAMAGED),
    "two lengths": (
        send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nyes"),
        *DAMAGED,
    ),
    "no gzip": (send(b"not gzip", Content_Encoding="gzip"), "damaged compression", False),
    "no place": (redirect(""), "redirect to nowhere", False),
    "no header for it": (send(b"", 301), "redirect to nowhere", False),
    "to a file": (redirect("file:///etc/passwd"), "not http or https", False),
    "to ftp": (redirect("ftp://h/x"), "not http or https", False),
    "to data": (redirect("data:image/png,x"), "not http or https", False),
    "to no URL": (redirect("http://[::1/"), "not a valid URL", False),
}


@pytest.mark.parametrize(("answer", "reason", "is_passing"), BROKEN.values(), ids=BROKEN)
def test_broken_answer_is_named_and_says_whether_to_try_again(
    host: WebHost, answer: Answer, reason: str, is_passing: bool
) -> None:
    host.routes["/a"] = answer
    error = error_of(f"{host.url}/a")
    assert (error.reason, error.is_passing) == (reason, is_passing)


WORDS = [
    b"HTTP/1.1 ", b"200 ", b"302 ", b"OK", b"\r\n", b"\r\n\r\n", b"Location: ", b"://", b"[",
    b"Content-Length: ", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"ff", b"-1",
    b"5", b"\0", b"\xff", b"\n ", b"Retry-After: ", b"\x1f\x8b", b"x" * 300, b";",
]  # fmt: skip


def test_random_answers_are_fetched_or_named(host: WebHost) -> None:
    dice = random.Random(3)
    mine = fetcher(read_seconds=1.0)
    for _ in range(150):
        data = b"".join(dice.choices(WORDS, k=dice.randrange(30)))
        host.routes["/a"] = send_raw(b"HTTP/1.1 200 OK\r\n" * dice.randrange(2) + data)
        with contextlib.suppress(FetchError):
            assert isinstance(mine.fetch(f"{host.url}/a"), Fetched)


FAST = {"grace_seconds": 0.0, "min_bytes_per_second": 0, "total_seconds": 0.4}
SLOW = {
    "too slow": (drip(HEADER), {"grace_seconds": 0.2}, "too slow"),
    "fast, but endless": (drip(HEADER, every=0.001, at_most=30.0), FAST, "timeout"),
    "header": (drip(b"HTTP/1.0 200 OK\r\nX-Slow: "), {"total_seconds": 0.4}, "timeout"),
    "body": (drip(HEADER), {"total_seconds": 0.4}, "timeout"),
    "chunk size": (drip(CHUNKED + b"00"), {"total_seconds": 0.4}, "timeout"),
    "silence": (later(send(b"late"), 10.0), {"read_seconds": 0.2}, "timeout"),
}


@pytest.mark.parametrize(("answer", "settings", "reason"), SLOW.values(), ids=SLOW)
def test_deadline_holds_however_a_server_drips(
    host: WebHost, answer: Answer, settings: dict[str, Any], reason: str
) -> None:
    host.routes |= {"/a": answer, "/from": drip(b"HTTP/1.0 302 Found\r\nLocation: /a\r\n\r\n")}
    start = time.monotonic()
    assert reason_of(f"{host.url}/from", **settings) == reason
    assert 0.2 <= time.monotonic() - start < 8.0


def test_what_does_not_connect_is_named(host: WebHost) -> None:
    with WebHost() as gone:
        pass
    error = error_of(gone.url)
    assert (error.reason, error.is_passing) == ("no connection", True)
    assert reason_of(host.url.replace("http:", "https:")) == "no safe connection"


def test_deadline_holds_within_a_tls_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        assert reason_of(f"https://127.0.0.1:{port}/", total_seconds=0.4) == "timeout"
    assert time.monotonic() - start < 4.0  # the 5 s of the connection's own timeout


def test_stop_ends_a_download_and_refuses_the_next(host: WebHost) -> None:
    host.routes["/a"] = later(send(b"late"), 10.0)
    mine = fetcher()
    threading.Timer(0.2, mine.stop).start()
    for _ in range(2):
        with pytest.raises(FetchError) as caught:
            mine.fetch(f"{host.url}/a")
        assert caught.value.reason == "stopped"
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::]", "10.0.0.1"],
)
def test_private_host_gets_no_request(host: WebHost, name: str) -> None:
    error = error_of(f"http://{name}:{host.port}/a", allow_private_hosts=False)
    assert isinstance(error, RefusedHostError)
    assert error.reason in ("private address", "unknown host")
    assert host.requests == []


def test_one_private_address_among_public_ones_refuses_the_host(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [("8.8.8.8", host.port), ("127.0.0.1", host.port)]
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    assert reason_of("http://two.example/", allow_private_hosts=False) == "private address"
    assert host.requests == []


@pytest.mark.parametrize(
    "name", ["169.254.169.254", "169.254.10.20", "[fe80::1]", "[::ffff:169.254.169.254]"]
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_redirect_to_a_private_host_is_refused_and_to_a_link_local_one_always(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, name: str, allow_private: bool
) -> None:
    is_private = urls.is_private
    monkeypatch.setattr(urls, "is_private", lambda ip: ip != "127.0.0.1" and is_private(ip))
    host.routes["/a"] = redirect(f"http://{name}/latest/meta-data/")
    error = error_of(f"{host.url}/a", allow_private_hosts=allow_private)
    assert (error.reason, error.is_passing) == ("private address", False)
    assert error.url == f"http://{name}/latest/meta-data/"


def test_check_sees_every_header_line_of_an_image_before_its_body(host: WebHost) -> None:
    lines = [("X-Robots-Tag", "noai"), ("Content-Type", "image/png"), ("x-robots-tag", "noindex")]
    host.routes |= {"/a": redirect("/b"), "/b": send_in_parts(LARGE, lines)}
    seen: list[tuple[str, list[str]]] = []

    def check(url: str, headers: Sequence[tuple[str, str]]) -> None:
        seen.append((url, [value for name, value in headers if name.lower() == "x-robots-tag"]))
        raise FetchError(url, "opted out", "noai")

    assert reason_of(f"{host.url}/gone", check=check) == "http status 404"
    assert reason_of(f"{host.url}/a", check=check) == "opted out"
    assert seen == [(f"{host.url}/b", ["noai", "noindex"])]
    assert bytes_sent(host) < len(LARGE) // 2


def test_redirects_to_other_origins_are_entered_and_left(host: WebHost) -> None:
    home, other = host.host(1), host.host(2)
    ways = {"/a": "/b", "/b": f"{other}/c", "/c": "/d", "/d": f"{home}/e"}
    host.routes |= {path: redirect(target) for path, target in ways.items()}
    host.routes["/e"] = send(b"yes")
    events: list[str] = []

    @contextlib.contextmanager
    def hop(url: str) -> Iterator[None]:
        events.append(f"{url} after {len(host.requests)} requests")
        yield
        events.append(f"left after {len(host.requests)}")

    assert fetcher(hop=hop).fetch(f"{home}/a").body == b"yes"
    assert events == [
        *(f"{other}/c after 2 requests", "left after 3"),
        *(f"{other}/d after 3 requests", "left after 4"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FetchError("/b", "robots.txt"), "robots.txt"), (TimeoutError("stayed busy"), "timeout")],
)
def test_hop_that_is_refused_makes_no_request(host: WebHost, error: Exception, reason: str) -> None:
    host.routes["/a"] = redirect(f"{host.host(2)}/b")

    def hop(url: str) -> contextlib.AbstractContextManager[None]:
        raise error

    assert reason_of(f"{host.url}/a", hop=hop) == reason
    assert host.requests == ["/a"]


@pytest.mark.parametrize("location", ["/b", "", "file:///etc/passwd", "http://["])
def test_redirect_can_be_refused_wherever_it_leads(host: WebHost, location: str) -> None:
    host.routes |= {"/a": redirect(location), "/b": send(b"yes")}
    error = error_of(f"{host.url}/a", max_redirects=0)
    assert (error.reason, error.status) == ("too many redirects", 302)
    assert host.requests == ["/a"]


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "x"])
def test_compressed_body_can_be_refused(host: WebHost, encoding: str) -> None:
    host.routes["/a"] = send(gzip.compress(b"yes"), Content_Encoding=encoding)
    assert reason_of(f"{host.url}/a", accepts_compressed=False) == "compressed"
    host.routes["/a"] = send(b"yes", Content_Encoding="Identity")
    assert fetcher(accepts_compressed=False).fetch(f"{host.url}/a").body == b"yes"


@pytest.mark.parametrize("body", [b"GIF89a" + bytes(50), b"GIF", b""])
def test_start_of_a_body_is_checked_once(host: WebHost, body: bytes) -> None:
    host.routes["/a"] = send_in_parts(body)
    starts: list[bytes] = []

    def check(start: bytes) -> bool:
        starts.append(start)
        return True

    assert fetcher(check_start=check).fetch(f"{host.url}/a").body == body
    assert starts == [body[:16]]


def test_body_with_a_wrong_start_is_not_waited_for(host: WebHost) -> None:
    host.routes["/a"] = drip(HEADER + b"<!doctype html><html>", every=0.1)
    reason = reason_of(f"{host.url}/a", check_start=lambda start: start.startswith(b"GIF"))
    assert reason == "unexpected content"


def test_user_agent_that_cannot_be_sent_is_refused() -> None:
    for user_agent in ("two\nlines", "bücher"):
        with pytest.raises(UsageError, match="user agent"):
            FetchSettings(user_agent=user_agent)
