"""URLs: parsed without a change to what is requested; public hosts and private ones."""

import socket

import pytest

from imagesieve.web import urls
from imagesieve.web.urls import FetchError, ParsedUrl, RefusedHostError


def test_url_is_parsed_into_its_parts() -> None:
    parts = {
        "http://h.example/a": ("http", "h.example", 80, "/a"),
        "HTTPS://H.Example": ("https", "h.example", 443, "/"),
        "http://h.example:8080?x=1&y=%20": ("http", "h.example", 8080, "/?x=1&y=%20"),
        "http://h.example:0/": ("http", "h.example", 0, "/"),
        "http://user:word@h.example/a#part": ("http", "h.example", 80, "/a"),
        "http://[2001:DB8::1]:81/": ("http", "2001:db8::1", 81, "/"),
        "http://bücher.example/ü": ("http", "xn--bcher-kva.example", 80, "/%C3%BC"),
        "http://h.example/100%/%zz": ("http", "h.example", 80, "/100%/%zz"),
        "http://h.example//a//b": ("http", "h.example", 80, "//a//b"),
    }
    assert {url: urls.parse(url) for url in parts} == {
        url: ParsedUrl(*part) for url, part in parts.items()
    }


NO_URLS = {
    "not http or https": (
        *("ftp://h.example/", "file:///etc/passwd", "javascript:alert(1)", "//h.example/"),
        *("data:image/png;base64,AAAA", "/a.jpg", ""),
    ),
    "not a valid URL": (
        *("http://", "http:///a", "http://h.example:65536/", "http://h.example:x/", "http://[::1/"),
        *("http://a b/", "http://a\0b/", "http://.h.example/", "http://a..b/a.jpg"),
        *(f"http://{'a' * 64}.example/", f"http://{'ü' * 64}.example/", "http://h.example/\ud800"),
    ),
}


@pytest.mark.parametrize(("reason", "url"), [(key, url) for key in NO_URLS for url in NO_URLS[key]])
def test_what_is_no_url_is_named(url: str, reason: str) -> None:
    with pytest.raises(FetchError) as caught:
        urls.parse(url)
    assert caught.value.reason == reason
    assert [urls.normalize(value) for value in (url, None, 5, [url])] == [None] * 4


def test_origin_is_scheme_host_and_port() -> None:
    origins = {
        "http://h.example:80/a": "http://h.example",
        "https://h.example:443/a": "https://h.example",
        "https://h.example:80/a": "https://h.example:80",
        "http://[::1]:81/a": "http://[::1]:81",
    }
    assert {url: str(urls.parse(url).origin) for url in origins} == origins


def test_redirect_is_read_from_where_it_was_found() -> None:
    targets = {
        "/b": "http://h.example/b",
        "b?c=1#d": "http://h.example/x/b?c=1",
        "//other.example/": "http://other.example/",
        "/b\xc3\xbc": "http://h.example/bü",  # UTF-8, read as the Latin-1 of a header
        "/b\xfc": "http://h.example/bü",
    }
    base = "http://h.example/x/a"
    assert {place: urls.redirect_target(base, place) for place in targets} == targets


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fd00::1", "ff02::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:808:808::", "2001:0:808:808::1",
    "2001:db8::1", "3fff::1", "5f00::1", "fec0::1", "::8.8.8.8", "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8", "::ffff:192.88.99.1", "192.0.0.9", "192.88.99.1", "198.18.0.1",
])  # fmt: skip
def test_ip_address_is_private(address: str) -> None:
    assert urls.is_private(address)


def test_ip_address_is_public() -> None:
    public = ("8.8.8.8", "2606:4700::1111", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808")
    assert not any(map(urls.is_private, public))


@pytest.mark.parametrize("address", [
    "169.254.169.254", "fe80::1", "fe80::1%eth0", "::169.254.169.254", "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
])  # fmt: skip
def test_ip_address_is_link_local_however_it_is_wrapped(address: str) -> None:
    assert urls.is_link_local(address)


def test_ip_address_is_not_link_local() -> None:
    others = ("127.0.0.1", "10.0.0.1", "::1", "::", "fd00::1", "8.8.8.8")
    assert not any(map(urls.is_link_local, others))


PLACES = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]


@pytest.mark.parametrize(
    ("answer", "reason", "is_for_good"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "unknown host", True),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "unknown host", False),
        (PLACES, "private address", True),
    ],
)
def test_host_that_is_none_or_private_is_refused_for_good(
    monkeypatch: pytest.MonkeyPatch, answer: object, reason: str, is_for_good: bool
) -> None:
    def getaddrinfo(*_arguments: object, **_options: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(FetchError) as caught:
        urls.resolve(urls.parse("http://h.example/"), allow_private=False)
    assert caught.value.reason == reason
    assert isinstance(caught.value, RefusedHostError) == is_for_good


def test_authority_is_host_and_port() -> None:
    authorities = {
        "H.Example:8080": ("h.example", 8080),
        "h.example.": ("h.example", None),
        "[2001:DB8::0001]:81": ("2001:db8::1", 81),
    }
    authorities |= dict.fromkeys(("h.example:65536", "[::1", "[1.2.3.4]", "user@h.example"))
    authorities |= dict.fromkeys(("\u212aelvin", "a." * 200))
    assert {text: urls.parse_authority(text) for text in authorities} == authorities


def test_host_stands_alone_and_an_origin_has_a_scheme_and_no_path() -> None:
    hosts = {"H.Example": "h.example", "::1": "::1", "[::1]": "::1", "h.example:80": None}
    assert {text: urls.parse_host(text) for text in hosts} == hosts
    assert urls.parse_origin("HTTPS://h.example") == ("https", "h.example", 443)
    assert [urls.parse_origin(text) for text in ("null", "ftp://h", "http://h/a")] == [None] * 3


def test_name_that_resolvers_take_for_an_ip_address_is_found() -> None:
    hosts = ("127.1", "0x7f.0.0.1", "8.8.8.8", "::1", "h.ex")
    assert [urls.is_disguised_ip(host) for host in hosts] == [True, True, False, False, False]


def test_this_machine_is_loopback() -> None:
    hosts = ("127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "8.8.8.8")
    assert [urls.is_loopback(host) for host in hosts] == [True] * 4 + [False]
