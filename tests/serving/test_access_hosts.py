"""Hosts: which names a request may ask for, and which texts are no name at all."""

import argparse
import io

import flask
import pytest
from guarding import LOCAL, app_with, assert_refused, client_of, ring, with_host

from imagesieve.serving import config
from imagesieve.serving.access import Access

GOOD_HOSTS = [
    "localhost", "LocalHost:8133", "localhost.", "localhost.:80", "localhost:", "127.0.0.1:1",
    "127.0.0.1.", "[::1]", "[::1]:8133", "[0:0:0:0:0:0:0:1]", "[::0001]:65535",
]  # fmt: skip
FOREIGN_HOSTS = [
    "evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "127.1", "2130706433",
    "0x7f000001", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "xn--lcalhost-8ya", "local_host",
]  # fmt: skip
JUNK_HOSTS = [
    "", " ", ":80", ".", "localhost..", ".localhost", "localhost:80:80", "localhost:http",
    "localhost:65536", "localhost:-1", "localhost:999999", "user@localhost", "localhost@evil",
    "localhost, localhost", "localhost,evil.example", "localhost evil", "localhost/",
    "http://localhost", "localhost?", "localhost#", "localhost\\", "local%68ost", "localhost%00",
    "[::1", "::1", "[::1]]", "[::1%25lo]", "[::1%lo]", "[localhost]", "[]", "[:]", "[1.2.3.4]",
    "[::1]evil", "localhost\t", "localhost\n", "localhost\r\nX-Evil: 1", "localhost\0", "*",
    "löcalhost", "ﬂoat", "\u212aelvin", "１２７.0.0.1", "localhost:８０", "<script>",
    "a" * 64, "a." * 131, "a." * 2**19, "1" * 2**20,
]  # fmt: skip


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_known_host_is_served(host: str) -> None:
    assert with_host(client_of(Access(allowed_hosts=LOCAL)), host).status_code == 200
    assert with_host(client_of(Access()), host).status_code == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_host_is_refused_where_hosts_are_known(host: str) -> None:
    response = with_host(client_of(Access(allowed_hosts=LOCAL)), host)
    assert_refused(response, 400, "bad-host", "--allow-host NAME")
    assert with_host(client_of(Access()), host).status_code == 200


@pytest.mark.parametrize("host", JUNK_HOSTS)
@pytest.mark.parametrize("allowed", [None, LOCAL, frozenset()])
def test_junk_is_no_host_even_where_any_is_allowed(host: str, allowed) -> None:
    response = with_host(client_of(Access(allowed_hosts=allowed)), host)
    assert_refused(response, 400, "bad-host")
    assert len(response.data) < 400
    assert "X-Evil" not in response.headers


def test_request_without_host() -> None:
    app = app_with(Access())
    app_of_local = app_with(Access(allowed_hosts=LOCAL))

    def status(app: flask.Flask, protocol: str) -> int:
        environ = app.test_client().get("/open", base_url="http://localhost").request.environ
        environ = {k: v for k, v in environ.items() if not k.startswith(("HTTP_", "werkzeug"))}
        environ |= {"SERVER_PROTOCOL": protocol, "wsgi.input": io.BytesIO()}
        with app.request_context(environ):
            return app.full_dispatch_request().status_code

    assert status(app, "HTTP/1.0") == 200  # a load balancer's probe
    assert status(app, "HTTP/1.1") == 400
    assert status(app_of_local, "HTTP/1.0") == 400
    assert status(app_of_local, "HTTP/1.1") == 400


@pytest.mark.parametrize("variable", ["REQUEST_URI", "RAW_URI"])
@pytest.mark.parametrize(
    ("target", "is_good"),
    [
        ("/open", True),
        ("/open?next=http://evil.example/", True),
        ("//evil.example/open", True),  # a path: only the Host header names the host
        ("http://localhost/open", True),
        ("HTTP://LOCALHOST:80?x", True),
        ("http://evil.example/open", False),
        ("http://localhost@evil.example/", False),
        ("http://user:pass@localhost/open", False),
        ("http:///open", False),
        ("evil.example:443", False),
        ("http://evil.example?://localhost/", False),
    ],
)
def test_host_in_the_request_line_must_be_the_same(variable, target, is_good) -> None:
    client = client_of(Access())
    uris = {"REQUEST_URI": "", "RAW_URI": "", variable: target}
    response = with_host(client, "localhost", **uris)
    if is_good:
        assert response.status_code == 200
    else:
        assert_refused(response, 400, "bad-host")


def test_host_is_checked_before_all_else() -> None:
    client = client_of(Access(ring(), allowed_hosts=LOCAL))
    for method, path in (("POST", "/admin"), ("GET", "/nothing"), ("OPTIONS", "/predict")):
        response = client.open(path, method=method, headers={"Host": "evil.example"})
        assert_refused(response, 400, "bad-host")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", LOCAL),
        ("::1", LOCAL),
        ("127.0.1.1", LOCAL | {"127.0.1.1"}),
        ("::ffff:127.0.0.1", LOCAL | {"::ffff:7f00:1"}),
        ("0.0.0.0", None),
        ("::", None),
        ("192.168.1.5", None),
        ("fe80::1%eth0", None),
    ],
)
def test_default_hosts_guard_loopback_only(address: str, expected) -> None:
    options = argparse.Namespace(allow_host=[], host=address)
    assert config.allowed_hosts(options, address) == expected
