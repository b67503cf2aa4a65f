"""URLs: parsed without a change to what is requested; public hosts and private ones."""

import socket

import pytest

from imagesieve.web import urls
from imagesieve.web.urls import FetchError, ParsedUrl, RefusedHostError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h.example/a", ParsedUrl("http", "h.example", 80, "/a")),
        ("HTTPS://H.Example", ParsedUrl("https", "h.example", 443, "/")),
        ("http://h.example:8080?x=1&y=%20", ParsedUrl("http", "h.example", 8080, "/?x=1&y=%20")),
        ("http://h.example:0/", ParsedUrl("http", "h.example", 0, "/")),
        ("http://user:word@h.example/a#part", ParsedUrl("http", "h.example", 80, "/a")),
        ("http://[2001:DB8::1]:81/", ParsedUrl("http", "2001:db8::1", 81, "/")),
        ("http://bücher.example/ü", ParsedUrl("http", "xn--bcher-kva.example", 80, "/%C3%BC")),
        ("http://h.example/100%/%zz", ParsedUrl("http", "h.example", 80, "/100%/%zz")),
        ("http://h.example//a//b", ParsedUrl("http", "h.example", 80, "//a//b")),
    ],
)
def test_url_is_parsed_into_its_parts(url: str, expected: ParsedUrl) -> None:
    assert urls.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://h.example/", "not http or https"),
        ("file:///etc/passwd", "not http or https"),
        ("javascript:alert(1)", "not http or https"),
        ("data:image/png;base64,AAAA", "not http or https"),
        ("//h.example/", "not http or https"),
        ("/a.jpg", "not http or https"),
        ("", "not http or https"),
        ("http://", "not a valid URL"),
        ("http:///a", "not a valid URL"),
        ("http://h.example:65536/", "not a valid URL"),
        ("http://h.example:x/", "not a valid URL"),
        ("http://[::1/", "not a valid URL"),
        ("http://a b/", "not a valid URL"),
        ("http://a\0b/", "not a valid URL"),
        ("http://.h.example/", "not a valid URL"),
        ("http://a..b/a.jpg", "not a valid URL"),
        (f"http://{'a' * 64}.example/", "not a valid URL"),
        (f"http://{'ü' * 64}.example/", "not a valid URL"),
        ("http://h.example/\ud800", "not a valid URL"),
    ],
)
def test_what_is_no_url_is_named(url: str, reason: str) -> None:
    with pytest.raises(FetchError) as caught:
        urls.parse(url)
    assert caught.value.reason == reason
    assert urls.normalize(url) is None


@pytest.mark.parametrize("value", [None, 5, ["http://h.example/a.jpg"]])
def test_what_is_no_text_is_no_url(value: object) -> None:
    assert urls.normalize(value) is None


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h.example:80/a", "http://h.example"),
        ("https://h.example:443/a", "https://h.example"),
        ("https://h.example:80/a", "https://h.example:80"),
        ("http://[::1]:81/a", "http://[::1]:81"),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert str(urls.parse(url).origin) == origin


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b", "http://h.example/b"),
        ("b?c=1#d", "http://h.example/x/b?c=1"),
        ("//other.example/", "http://other.example/"),
        ("/b\xc3\xbc", "http://h.example/bü"),  # UTF-8, read as the Latin-1 of a header
        ("/b\xfc", "http://h.example/bü"),
    ],
)
def test_redirect_is_read_from_where_it_was_found(location: str, target: str) -> None:
    assert urls.redirect_target("http://h.example/x/a", location) == target


@pytest.mark.parametrize(
    ("location", "reason"), [("", "redirect to nowhere"), ("http://[::1/", "not a valid URL")]
)
def test_redirect_that_cannot_be_followed_is_named(location: str, reason: str) -> None:
    with pytest.raises(FetchError) as caught:
        urls.redirect_target("http://h.example/", location)
    assert caught.value.reason == reason


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


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_ip_address_is_public(address: str) -> None:
    assert not urls.is_private(address)


@pytest.mark.parametrize("address", [
    "169.254.169.254", "fe80::1", "fe80::1%eth0", "::169.254.169.254", "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
])  # fmt: skip
def test_ip_address_is_link_local_however_it_is_wrapped(address: str) -> None:
    assert urls.is_link_local(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::", "fd00::1", "8.8.8.8"])
def test_ip_address_is_not_link_local(address: str) -> None:
    assert not urls.is_link_local(address)


def look_up(monkeypatch: pytest.MonkeyPatch, host: str, answer: object) -> FetchError:
    def getaddrinfo(*_arguments: object, **_options: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(FetchError) as caught:
        urls.resolve(urls.parse(f"http://{host}/"), allow_private=False)
    return caught.value


def test_host_that_is_none_or_private_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = look_up(monkeypatch, "h.example", socket.gaierror(socket.EAI_NONAME, "no such name"))
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]
    private = look_up(monkeypatch, "h.example", places)
    assert (missing.reason, private.reason) == ("unknown host", "private address")
    assert isinstance(missing, RefusedHostError)
    assert isinstance(private, RefusedHostError)


def test_silent_name_server_may_speak_later(monkeypatch: pytest.MonkeyPatch) -> None:
    error = look_up(monkeypatch, "h.example", socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert error.reason == "unknown host"
    assert not isinstance(error, RefusedHostError)


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("H.Example:8080", ("h.example", 8080)),
        ("h.example.", ("h.example", None)),
        ("[2001:DB8::0001]:81", ("2001:db8::1", 81)),
        ("h.example:65536", None),
        ("[::1", None),
        ("[1.2.3.4]", None),
        ("user@h.example", None),
        ("\u212aelvin", None),
        ("a." * 200, None),
    ],
)
def test_authority_is_host_and_port(text: str, authority: tuple[str, int | None] | None) -> None:
    assert urls.parse_authority(text) == authority


def test_host_stands_alone() -> None:
    assert [urls.parse_host(text) for text in ("H.Example", "::1", "[::1]")] == [
        *("h.example", "::1", "::1")
    ]
    assert urls.parse_host("h.example:80") is None


def test_origin_has_a_scheme_and_no_path() -> None:
    assert urls.parse_origin("HTTPS://h.example") == ("https", "h.example", 443)
    assert [urls.parse_origin(text) for text in ("null", "ftp://h", "http://h/a")] == [None] * 3


@pytest.mark.parametrize(
    ("host", "is_disguised"),
    [("127.1", True), ("0x7f.0.0.1", True), ("8.8.8.8", False), ("::1", False), ("h.ex", False)],
)
def test_name_that_resolvers_take_for_an_ip_address_is_found(host: str, is_disguised: bool) -> None:
    assert urls.is_disguised_ip(host) is is_disguised


@pytest.mark.parametrize("host", ["127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"])
def test_this_machine_is_loopback(host: str) -> None:
    assert urls.is_loopback(host)
    assert not urls.is_loopback("8.8.8.8")
