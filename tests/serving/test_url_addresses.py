"""Rows 44 and 45 of the attack table: addresses and names that nobody is asked about."""

import socket
from typing import Any

import pytest
from fetching import MAX_BYTES, PUBLIC, URL, assert_refused, error_of, fetcher, place, resolver

from imagesieve.serving.errors import FetchFailedError, UrlNotAllowedError
from imagesieve.serving.fetch_image import UrlFetcher

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
def test_what_is_no_plain_address_is_refused_without_asking_anybody(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any], url: str
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    assert_refused(url, fetcher())
    assert (asked, connected) == ([], [])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://images.example", (PUBLIC, 80)),
        ("https://images.example/", (PUBLIC, 80)),
        ("http://images.example:443?a=b", (PUBLIC, 80)),
        ("https://xn--bcher-kva.example/%E5%AF%BF.jpg", (PUBLIC, 80)),
        ("http://a_b-c.images.example/@2x/{a}|b.jpg?c[]=\"<'^`>", (PUBLIC, 80)),
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
    assert asked == ["images.example"]
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
