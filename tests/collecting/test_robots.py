"""Robots: what headers and robots.txt forbid is not fetched, and each file is requested once."""

import concurrent.futures
import random
import socket
import threading
import time
import tracemalloc

import pytest
from fake_bing import FakeBing
from web_host import Answer, bytes_sent, drip, later, redirect, send, send_in_parts, send_raw

from imagesieve.collecting.robots import RobotsPolicy, opt_out, parse_robots
from imagesieve.web.connections import AGENT_TOKEN
from imagesieve.web.fetch import Fetcher, FetchError, FetchSettings

LARGE = bytes(30 * 2**20)  # more than the buffers between two sockets hold
FORBIDDING = b"User-agent: *\nDisallow: /\n"


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(FetchSettings(allow_private_hosts=True))


FORBIDDEN = {  # directive that is found -> lines of headers, each a test of its own
    "noai": [
        ["noai"], ["NoAI"], ["noarchive; noai"], ["imagesieve: noai"], ["*: noai"],
        ["ImageSieve/0.1 : nofollow, noai"], ["max-image-preview:large, noai"],
        ["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"],
        ["unavailable_after: Wed, 01 Jan 2030 00:00:00 GMT, noai"],
    ],
    "noimageai": [["noimageai"], ["all, noarchive ,NOIMAGEAI"]],
    "noindex": [
        ["noindex"], ["all", "noindex"], ["max-snippet: 20, max-video-preview:-1, noindex"],
    ],
    "noimageindex": [["noimageindex"]],
    "noml": [
        ["noml"], ["otherbot: noai", "imagesieve: noml"], ["otherbot: noai, imagesieve: noml"],
    ],
    "none": [["none"]],
    "": [
        [], [""], ["all"], ["nofollow, noarchive"], ["noairplanes"], ["otherbot: noai"],
        ["otherbot: nofollow, noai"], ["my-imagesieve: noai"], ["max-image-preview:none"],
        ["unavailable_after: 25 Jun 2010 15:00:00 PST"],
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("directive", "lines"), [(key, lines) for key in FORBIDDEN for lines in FORBIDDEN[key]]
)
def test_directive_that_forbids_is_found(lines: list[str], directive: str) -> None:
    for name in ("X-Robots-Tag", "x-robots-tag", "X-ROBOTS-TAG"):
        headers = [("Content-Type", "noai"), *[(name, line) for line in lines]]
        assert opt_out(headers, AGENT_TOKEN) == directive


def test_reservation_of_text_and_data_mining_forbids() -> None:
    values = ("1", " 1 ", "0", "", "10")
    found = [opt_out([("TDM-Reservation", value)], AGENT_TOKEN) for value in values]
    assert found == ["tdm-reservation"] * 2 + [""] * 3


def test_body_that_is_opted_out_is_not_read(bing: FakeBing, fetcher: Fetcher) -> None:
    bing.routes["/a"] = send_in_parts(LARGE, [("tdm-reservation", "1")])
    bing.routes["/b"] = send_in_parts(bytes(2**20), [("X-Robots-Tag", "otherbot: noai")])
    check = RobotsPolicy().check_headers
    settings = FetchSettings(allow_private_hosts=True, max_bytes=2 * len(LARGE), check=check)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(f"{bing.url}/a", settings=settings)
    assert (caught.value.reason, caught.value.is_passing) == ("opted out", False)
    assert 0 < bytes_sent(bing) < len(LARGE) // 2
    assert len(fetcher.fetch(f"{bing.url}/b", settings=settings).body) == 2**20


def test_host_is_left_alone_after_three_opt_outs() -> None:
    robots = RobotsPolicy()
    for number in range(3):
        robots.check_host(f"http://h.example/{number}")
        with pytest.raises(FetchError, match="noml"):
            robots.check_headers(f"http://h.example/{number}", [("X-Robots-Tag", "noml")])
    with pytest.raises(FetchError, match=r"opted out .noml"):
        robots.check_host("https://H.example:8443/4")
    robots.check_host("http://other.example/")


RULES = b"""\xef\xbb\xbfUser-agent: otherbot\r\nDisallow: /\r\n\r
User-agent: ImageSieve # that is us\r\nDisallow: /private/\r\nAllow: /private/open\r
Disallow: /*.png$\r\n\r\nUser-agent: *\r\nDisallow: /all/\r\n"""


def test_rules_are_those_for_us(bing: FakeBing, fetcher: Fetcher) -> None:
    bing.robots["127.0.0.1"] = send(RULES)
    robots = RobotsPolicy()
    expected = {"/a.jpg": True, "/all/a.jpg": True, "/private/a.jpg": False}
    expected |= {"/private/open/a.jpg": True, "/a.png": False, "/a.png?x=1": True}
    assert {path: robots.allows(bing.url + path, fetcher) for path in expected} == expected
    assert bing.requests == ["/robots.txt"]


ANSWERS = {
    "forbids": (send(FORBIDDING), False),
    "404": (send(FORBIDDING, 404), True),
    "401": (send(FORBIDDING, 401), True),
    "403": (send(FORBIDDING, 403), True),
    "204": (send(b"", 204), True),
    "429": (send(b"", 429), False),
    "500": (send(b"", 500), False),
    "503": (send(b"", 503), False),
    "silent": (later(send(b""), 5.0), False),
    "drips": (drip(b"HTTP/1.0 200 OK\r\nX: "), False),
    "lost": (send_raw(b""), False),
    "no http": (send_raw(b"SSH-2.0-OpenSSH_9.9\r\n"), False),
    "empty": (send(b""), True),
    "page": (send(b"<html>no such page</html>"), True),
    "binary": (send(b"\x89PNG\r\n\0\0" + FORBIDDING), True),
    "no utf-8": (send(b"\xff\xfe caf\xe9\n" + FORBIDDING), False),
    "circle": (redirect("/robots.txt"), True),
    "ftp": (redirect("ftp://h.example/robots.txt"), True),
    "closed port": (redirect("http://127.0.0.1:1/robots.txt"), False),
}


@pytest.mark.parametrize(("answer", "is_allowed"), ANSWERS.values(), ids=ANSWERS)
def test_answer_for_robots_allows_or_forbids(
    bing: FakeBing, fetcher: Fetcher, answer: Answer, is_allowed: bool
) -> None:
    bing.robots["127.0.0.1"] = answer
    robots, start = RobotsPolicy(robots_seconds=0.4), time.monotonic()
    assert [robots.allows(f"{bing.url}/{name}", fetcher) for name in "ab"] == [is_allowed] * 2
    assert time.monotonic() - start < 4.0
    assert bing.requests == ["/robots.txt"]


@pytest.mark.parametrize(("num_redirects", "is_allowed"), [(5, False), (6, True)])
def test_five_redirects_to_robots_are_followed(
    bing: FakeBing, fetcher: Fetcher, num_redirects: int, is_allowed: bool
) -> None:
    bing.robots["127.0.0.1"] = redirect(f"{bing.host(1)}/1")
    for number in range(1, num_redirects):
        bing.routes[f"/{number}"] = redirect(f"/{number + 1}")
    bing.routes[f"/{num_redirects}"] = send(FORBIDDING)
    assert RobotsPolicy().allows(f"{bing.url}/a", fetcher) == is_allowed


def test_of_a_huge_file_the_start_counts(
    bing: FakeBing, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"User-agent: *\nDisallow: /first\nDisallow: /cut-here\n"
    bing.robots["127.0.0.1"] = send(start + b"# more\n" * 10**6 + b"Disallow: /last\n")
    whole = RobotsPolicy()
    assert not whole.allows(f"{bing.url}/cut-here", fetcher)
    assert whole.allows(f"{bing.url}/last", fetcher)
    monkeypatch.setattr("imagesieve.collecting.robots._MAX_BYTES", start.index(b"-here"))
    robots = RobotsPolicy()
    assert not robots.allows(f"{bing.url}/first", fetcher)
    assert robots.allows(f"{bing.url}/cut-and-dried", fetcher)  # no half of a line


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\xe2\x80\xa8"], ids=["LF", "CR", "LS"])
def test_file_of_many_agents_does_not_fill_the_memory(end: bytes) -> None:
    agents = [b"User-agent: %d" % number for number in range(2000)]
    agents += [b"user agent " + b"*" * number + b"imagesieve" for number in range(100)]
    rules = [b"Disallow: /%d/" % number for number in range(1500)]
    tracemalloc.start()
    try:
        parsed = parse_robots(end.join([*agents, *rules, b""]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not parsed.can_fetch("http://h.example/77/a.jpg", AGENT_TOKEN)
    assert peak < 16 * 2**20


def test_random_rules_are_read() -> None:
    dice = random.Random(5)
    words = [b"User-agent", b"Disallow", b"Allow", b"Crawl-delay", b"Request-rate", b"Sitemap"]
    words += [b":", b"*", b"$", b"/", b"%", b"%zz", b"http://[", b"#", b" ", b"\n", b"\r", b"\xff"]
    for _ in range(500):
        body = b"".join(dice.choice(words) for _ in range(dice.randrange(40)))
        allowed = parse_robots(b"User-agent: *\n" + body).can_fetch("http://h/a%20b?%", AGENT_TOKEN)
        assert allowed in (True, False)


def test_each_origin_is_asked_once_however_many_want_to_know(
    bing: FakeBing, fetcher: Fetcher
) -> None:
    urls = [f"{bing.host(number)}/a" for number in (1, 2)] * 8
    bing.robots["127.0.1.1"] = later(send(FORBIDDING), 0.2)
    robots = RobotsPolicy()
    with concurrent.futures.ThreadPoolExecutor(len(urls)) as pool:
        answers = list(pool.map(lambda url: robots.allows(url, fetcher), urls))
    assert answers == [False, True] * 8
    assert sorted(visit.host for visit in bing.visits) == ["127.0.1.1", "127.0.1.2"]


def refusals(robots: RobotsPolicy, url: str, fetcher: Fetcher) -> list[str]:
    reasons = []
    for _ in range(2):
        with pytest.raises(FetchError) as caught:
            robots.allows(url, fetcher)
        reasons.append(caught.value.reason)
    return reasons


def test_host_that_cannot_be_reached_is_called_that(
    bing: FakeBing, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with FakeBing() as gone:
        pass
    for url, by, reason in (
        (gone.url, fetcher, "no connection"),
        (bing.url.replace("http:", "https:"), fetcher, "no safe connection"),
        (bing.url, Fetcher(), "private address"),
        ("ftp://h/", fetcher, "not http or https"),
        ("http://h.example/", fetcher, "unknown host"),
    ):
        if reason == "unknown host":
            monkeypatch.setattr(socket, "getaddrinfo", look_up)
        assert refusals(RobotsPolicy(), url, by) == [reason] * 2
    assert bing.requests == []


def test_waiting_for_robots_can_be_stopped_and_is_not_remembered(
    bing: FakeBing, fetcher: Fetcher
) -> None:
    bing.robots["127.0.0.1"] = later(send(b""), 10.0)
    robots = RobotsPolicy()
    threading.Timer(0.1, fetcher.stop).start()
    assert refusals(robots, bing.url, fetcher) == ["stopped"] * 2
    bing.robots["127.0.0.1"] = send(b"")
    assert robots.allows(bing.url, Fetcher(FetchSettings(allow_private_hosts=True)))
