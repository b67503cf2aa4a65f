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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from web_host import (
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


def test_body_comes_whole(host: WebHost) -> None:
    host.routes["/a"] = send(b"0123456789" * 50_000)
    assert fetcher().fetch(f"{host.url}/a").body == b"0123456789" * 50_000


def test_fetched_has_its_url_and_its_time(host: WebHost) -> None:
    host.routes["/a"] = later(send(b"yes"), 0.05)
    fetched = fetcher().fetch(f"{host.url}/a")
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
    ],
)
def test_time_to_wait_is_read_from_a_number_or_a_date(
    host: WebHost, text: str, seconds: float | None
) -> None:
    host.routes["/a"] = send(b"", 429, Retry_After=text)
    found = error_of(f"{host.url}/a").retry_after
    assert found == seconds


def test_time_to_wait_counts_from_now_to_a_date(host: WebHost) -> None:
    moment = email.utils.formatdate(time.time() + 600, usegmt=True)
    host.routes["/a"] = send(b"", 429, Retry_After=moment)
    assert error_of(f"{host.url}/a").retry_after == pytest.approx(600.0, abs=60.0)


def test_redirects_are_followed(host: WebHost) -> None:
    host.routes |= {"/a": redirect("/b/c"), "/b/c": redirect("d?e=1"), "/b/d?e=1": send(b"yes")}
    fetched = fetcher().fetch(f"{host.url}/a")
    assert (fetched.body, fetched.url) == (b"yes", f"{host.url}/b/d?e=1")


def test_redirects_in_a_circle_end_at_once(host: WebHost) -> None:
    host.routes |= {"/a": redirect("/b"), "/b": redirect("/a#again")}
    assert reason_of(f"{host.url}/a") == "too many redirects"
    assert host.requests == ["/a", "/b"]


def test_five_redirects_are_followed_and_no_more(host: WebHost) -> None:
    for number in range(6):
        host.routes[f"/{number}"] = redirect(f"/{number + 1}")
    host.routes["/6"] = send(b"yes")
    assert reason_of(f"{host.url}/0") == "too many redirects"
    assert len(host.requests) == 6
    assert fetcher().fetch(f"{host.url}/1").body == b"yes"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (redirect(""), "redirect to nowhere"),
        (send(b"", 301), "redirect to nowhere"),
        (redirect("file:///etc/passwd"), "not http or https"),
        (redirect("ftp://h/x"), "not http or https"),
        (redirect("data:image/png,x"), "not http or https"),
    ],
)
def test_redirect_that_leads_to_no_page_is_named(
    host: WebHost, answer: Callable[[Any], None], reason: str
) -> None:
    host.routes["/a"] = answer
    assert reason_of(f"{host.url}/a") == reason


def test_endless_body_of_a_redirect_is_not_read(host: WebHost) -> None:
    header = b"HTTP/1.0 302 Found\r\nLocation: /b\r\n\r\n"
    host.routes |= {"/a": drip(header), "/b": send(b"yes")}
    assert fetcher().fetch(f"{host.url}/a").body == b"yes"


def test_announced_size_is_refused_before_the_body(host: WebHost) -> None:
    body = LARGE * 2
    host.routes["/a"] = send_in_parts(body, [("Content-Length", str(len(body)))])
    assert reason_of(f"{host.url}/a") == "too many bytes"
    assert bytes_sent(host) < len(body) // 4


def test_size_that_was_not_announced_is_capped(host: WebHost) -> None:
    host.routes["/a"] = send_in_parts(LARGE * 2)
    assert reason_of(f"{host.url}/a", max_bytes=2**20) == "too many bytes"
    assert bytes_sent(host) < len(LARGE)


def test_body_of_just_the_largest_size_is_accepted(host: WebHost) -> None:
    host.routes["/a"] = send(bytes(1000))
    assert len(fetcher(max_bytes=1000).fetch(f"{host.url}/a").body) == 1000
    assert reason_of(f"{host.url}/a", max_bytes=999) == "too many bytes"


@pytest.mark.parametrize("headers", [[("Content-Length", "5000")], []])
def test_start_of_a_large_body_can_be_kept(host: WebHost, headers: list[tuple[str, str]]) -> None:
    host.routes["/a"] = send_in_parts(b"0123456789" * 500, headers)
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


def test_damaged_compression_is_named(host: WebHost) -> None:
    host.routes["/a"] = send(b"not gzip", Content_Encoding="gzip")
    assert reason_of(f"{host.url}/a") == "damaged compression"


@pytest.mark.parametrize(
    "answer",
    [
        send(b"x" * 500, Content_Length="1000"),
        send(b"x" * 999, Content_Length="1000"),
        send(b"", Content_Length="1000"),
        send_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        send_raw(b""),
    ],
    ids=["half", "one byte", "all", "last chunk", "even the header"],
)
def test_what_is_missing_is_a_lost_connection_and_worth_another_try(
    host: WebHost, answer: Callable[[Any], None]
) -> None:
    host.routes["/a"] = answer
    error = error_of(f"{host.url}/a")
    assert (error.reason, error.is_passing) == ("connection lost", True)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nyes",
    ],
    ids=["no http", "no status", "long line", "many lines", "two lengths"],
)
def test_answer_that_is_no_http_is_named(host: WebHost, data: bytes) -> None:
    host.routes["/a"] = send_raw(data)
    error = error_of(f"{host.url}/a")
    assert (error.reason, error.is_passing) == ("damaged answer", False)


def test_random_answers_are_fetched_or_named(host: WebHost) -> None:
    dice = random.Random(3)
    words = [b"HTTP/1.1 ", b"200 ", b"302 ", b"OK", b"\r\n", b"\r\n\r\n", b"Location: ", b"://"]
    words += [
        b"[",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"ff",
    ]
    words += [b"-1", b"5", b"\0", b"\xff", b"\n ", b"Retry-After: ", b"\x1f\x8b", b"x" * 300, b";"]
    mine = fetcher(read_seconds=1.0)
    for _ in range(150):
        data = b"".join(dice.choice(words) for _ in range(dice.randrange(30)))
        host.routes["/a"] = send_raw(b"HTTP/1.1 200 OK\r\n" * dice.randrange(2) + data)
        with contextlib.suppress(FetchError):
            assert isinstance(mine.fetch(f"{host.url}/a"), Fetched)


def test_dripping_body_is_too_slow(host: WebHost) -> None:
    host.routes["/a"] = drip(HEADER)
    start = time.monotonic()
    assert reason_of(f"{host.url}/a", grace_seconds=0.2) == "too slow"
    assert 0.2 < time.monotonic() - start < 4.0


def test_endless_body_that_is_fast_enough_ends_at_the_deadline(host: WebHost) -> None:
    host.routes["/a"] = drip(HEADER, every=0.001, at_most=30.0)
    changes = {"grace_seconds": 0.0, "min_bytes_per_second": 0, "total_seconds": 0.4}
    assert reason_of(f"{host.url}/a", **changes) == "timeout"


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.0 200 OK\r\nX-Slow: ",
        HEADER,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00",
    ],
    ids=["header", "body", "chunk size"],
)
def test_deadline_holds_however_a_server_drips(host: WebHost, first: bytes) -> None:
    host.routes["/a"] = drip(first, at_most=30.0)
    start = time.monotonic()
    assert reason_of(f"{host.url}/a", total_seconds=0.4) == "timeout"
    assert time.monotonic() - start < 10.0


def test_silence_is_a_timeout(host: WebHost) -> None:
    host.routes["/a"] = later(send(b"late"), 10.0)
    assert reason_of(f"{host.url}/a", read_seconds=0.2) == "timeout"


def test_closed_port_is_no_connection_and_worth_another_try() -> None:
    with WebHost() as gone:
        url = gone.url
    error = error_of(url)
    assert (error.reason, error.is_passing) == ("no connection", True)


def test_server_without_tls_is_no_safe_connection(host: WebHost) -> None:
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
    port = int(host.url.rpartition(":")[2])
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("8.8.8.8", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    assert reason_of("http://two.example/", allow_private_hosts=False) == "private address"
    assert host.requests == []


@pytest.mark.parametrize("name", ["169.254.169.254", "169.254.10.20", "[fe80::1]"])
def test_redirect_to_a_private_host_is_refused(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    is_private = urls.is_private
    monkeypatch.setattr(urls, "is_private", lambda ip: ip != "127.0.0.1" and is_private(ip))
    host.routes["/a"] = redirect(f"http://{name}/latest/meta-data/")
    error = error_of(f"{host.url}/a", allow_private_hosts=False)
    assert (error.reason, error.is_passing) == ("private address", False)
    assert error.url == f"http://{name}/latest/meta-data/"


@pytest.mark.parametrize("name", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_a_link_local_host_is_refused_even_where_private_ones_are_not(
    host: WebHost, name: str
) -> None:
    host.routes["/a"] = redirect(f"http://{name}/latest/meta-data/")
    assert reason_of(f"{host.url}/a") == "private address"


def test_check_sees_every_header_line_before_the_body(host: WebHost) -> None:
    lines = [("X-Robots-Tag", "noai"), ("Content-Type", "image/png"), ("x-robots-tag", "noindex")]
    host.routes |= {"/a": redirect("/b"), "/b": send_in_parts(LARGE, lines)}
    seen: list[tuple[str, list[str]]] = []

    def check(url: str, headers: Sequence[tuple[str, str]]) -> None:
        seen.append((url, [value for name, value in headers if name.lower() == "x-robots-tag"]))
        raise FetchError(url, "opted out", "noai")

    with pytest.raises(FetchError) as caught:
        fetcher(check=check).fetch(f"{host.url}/a")
    assert caught.value.reason == "opted out"
    assert seen == [(f"{host.url}/b", ["noai", "noindex"])]
    assert bytes_sent(host) < len(LARGE) // 2


def test_check_is_asked_only_about_images(host: WebHost) -> None:
    host.routes |= {"/a": send(b"", 404), "/b": send(b"yes")}
    seen: list[str] = []
    mine = fetcher(check=lambda url, headers: seen.append(url))
    with pytest.raises(FetchError):
        mine.fetch(f"{host.url}/a")
    body = mine.fetch(f"{host.url}/b").body
    assert (body, seen) == (b"yes", [f"{host.url}/b"])


def test_redirects_to_other_origins_are_entered_and_left(host: WebHost) -> None:
    home, other = host.host(1), host.host(2)
    host.routes |= {
        "/a": redirect("/b"),
        "/b": redirect(f"{other}/c"),
        "/c": redirect("/d"),
        "/d": redirect(f"{home}/e"),
        "/e": send(b"yes"),
    }
    events: list[str] = []

    @contextlib.contextmanager
    def hop(url: str) -> Iterator[None]:
        events.append(f"{url} after {len(host.requests)} requests")
        yield
        events.append(f"left after {len(host.requests)}")

    assert fetcher(hop=hop).fetch(f"{home}/a").body == b"yes"
    assert events == [
        f"{other}/c after 2 requests",
        "left after 3",
        f"{other}/d after 3 requests",
        "left after 4",
    ]


def test_hop_that_is_refused_makes_no_request(host: WebHost) -> None:
    host.routes["/a"] = redirect(f"{host.host(2)}/b")

    def refuse(url: str) -> contextlib.AbstractContextManager[None]:
        raise FetchError(url, "robots.txt")

    def wait_in_vain(url: str) -> contextlib.AbstractContextManager[None]:
        raise TimeoutError(f"{url} stayed busy")

    for hop, reason in ((refuse, "robots.txt"), (wait_in_vain, "timeout")):
        with pytest.raises(FetchError) as caught:
            fetcher(hop=hop).fetch(f"{host.url}/a")
        assert caught.value.reason == reason
    assert host.requests == ["/a", "/a"]


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


@pytest.mark.parametrize("user_agent", ["two\nlines", "bücher"])
def test_user_agent_that_cannot_be_sent_is_refused(user_agent: str) -> None:
    with pytest.raises(UsageError, match="user agent"):
        FetchSettings(user_agent=user_agent)
