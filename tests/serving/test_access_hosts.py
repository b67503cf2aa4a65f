"""Hosts that a request may ask for, and pages of other sites: which may write, and CORS."""

import io

import flask
import pytest
from guarding import (
    BOSS,
    LOCAL,
    SHOP,
    VIEWS,
    app_with,
    assert_refused,
    bearer,
    client_of,
    cors,
    preflight,
    ring,
    with_host,
)

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


def test_known_hosts_are_served_and_foreign_ones_where_any_is_allowed() -> None:
    local, anyone = client_of(Access(allowed_hosts=LOCAL)), client_of(Access())
    for host in GOOD_HOSTS:
        assert with_host(local, host).status_code == 200, host
    for host in FOREIGN_HOSTS:
        assert_refused(with_host(local, host), 400, "bad-host", "--allow-host NAME")
    for host in GOOD_HOSTS + FOREIGN_HOSTS:
        assert with_host(anyone, host).status_code == 200, host


@pytest.mark.parametrize("allowed", [None, LOCAL, frozenset()], ids=["any", "local", "none"])
def test_junk_is_no_host_even_where_any_is_allowed(allowed: frozenset[str] | None) -> None:
    client = client_of(Access(allowed_hosts=allowed))
    for host in JUNK_HOSTS:
        response = with_host(client, host)
        assert_refused(response, 400, "bad-host")
        assert len(response.data) < 400
        assert "X-Evil" not in response.headers


def test_a_request_without_a_host_is_a_probe_of_a_load_balancer() -> None:
    def status(app: flask.Flask, protocol: str) -> int:
        environ = app.test_client().get("/open", base_url="http://localhost").request.environ
        environ = {k: v for k, v in environ.items() if not k.startswith(("HTTP_", "werkzeug"))}
        environ |= {"SERVER_PROTOCOL": protocol, "wsgi.input": io.BytesIO()}
        with app.request_context(environ):
            return app.full_dispatch_request().status_code

    anyone, local = app_with(Access()), app_with(Access(allowed_hosts=LOCAL))
    assert [status(anyone, "HTTP/1.0"), status(anyone, "HTTP/1.1")] == [200, 400]
    assert [status(local, "HTTP/1.0"), status(local, "HTTP/1.1")] == [400, 400]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/open", 200),
        ("/open?next=http://evil.example/", 200),
        ("//evil.example/open", 200),  # a path: only the Host header names the host
        ("http://localhost/open", 200),
        ("HTTP://LOCALHOST:80?x", 200),
        ("http://evil.example/open", 400),
        ("http://localhost@evil.example/", 400),
        ("http://user:pass@localhost/open", 400),
        ("http:///open", 400),
        ("evil.example:443", 400),
        ("http://evil.example?://localhost/", 400),
    ],
)
def test_host_in_the_request_line_must_be_the_same(target: str, expected: int) -> None:
    client = client_of(Access())
    for uris in ({"REQUEST_URI": target, "RAW_URI": ""}, {"REQUEST_URI": "", "RAW_URI": target}):
        assert with_host(client, "localhost", **uris).status_code == expected


def test_host_is_checked_before_all_else() -> None:
    client = client_of(Access(ring(), LOCAL, ["https://shop.example"]))
    headers = {"Host": "evil.example", "Origin": "https://shop.example"}
    headers["Access-Control-Request-Method"] = "POST"
    for method, path in (("POST", "/admin"), ("GET", "/nothing"), ("OPTIONS", "/predict")):
        assert_refused(client.open(path, method=method, headers=headers), 400, "bad-host")


OWN = "http://127.0.0.1:8133"
CROSS = "https://evil.example"
GOOD_SITES: dict[str, dict[str, str]] = {
    "a program": {},
    "own page": {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
    "own page of an old browser": {"Origin": OWN},
    "own page through TLS of a proxy": {"Origin": "https://127.0.0.1:8133"},
    "typed address": {"Sec-Fetch-Site": "none"},
    "listed": {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"},
}
OTHER_SITES: dict[str, dict[str, str]] = {
    "other site": {"Origin": CROSS, "Sec-Fetch-Site": "cross-site"},
    "other site of an old browser": {"Origin": CROSS},
    "no origin told": {"Sec-Fetch-Site": "cross-site"},
    "same site": {"Sec-Fetch-Site": "same-site"},
    "same site, own host": {"Origin": OWN, "Sec-Fetch-Site": "same-site"},
    "unknown word": {"Sec-Fetch-Site": "same-origin, cross-site"},
    "sandbox or file": {"Origin": "null"},
    "empty": {"Origin": ""},
    "other port": {"Origin": "http://127.0.0.1:3000"},
    "no port": {"Origin": "http://127.0.0.1"},
    "other name of ours": {"Origin": "http://localhost:8133"},
    "own host as user": {"Origin": "http://127.0.0.1:8133@evil.example"},
    "own host as beginning": {"Origin": "http://127.0.0.1:8133.evil.example"},
    "own host in a path": {"Origin": "http://evil.example/127.0.0.1:8133"},
    "two": {"Origin": f"{OWN}, {OWN}"},
    "extension": {"Origin": "chrome-extension://abcdefgh"},
    "listed, other scheme": {"Origin": "http://shop.example"},
    "listed, other port": {"Origin": "https://shop.example:444"},
    "listed, below it": {"Origin": "https://a.shop.example"},
    "megabyte": {"Origin": "http://" + "a" * 2**20},
}


@pytest.mark.parametrize("site", GOOD_SITES | OTHER_SITES)
def test_only_own_and_listed_pages_may_write(site: str) -> None:
    client = client_of(Access(ring(), allowed_origins=["https://shop.example"]))
    headers = (GOOD_SITES | OTHER_SITES)[site] | bearer(BOSS.replace(";", "_"))
    for path, (method, _) in VIEWS.items():
        response = client.open(path, method=method, base_url=OWN, headers=headers)
        if site in GOOD_SITES or method == "GET":
            assert response.status_code == 200, path
        else:
            assert_refused(response, 403, "forbidden", "another site", "--allow-origin ORIGIN")
            assert "evil" not in response.text


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://shop.example:8443", "shop.example", 200),
        ("https://shop.example", "shop.example:443", 200),
        ("http://[::1]:8133", "[0::1]:8133", 200),
        ("https://shop.example", "shop.example:80", 403),
        ("https://shop.example", "other.example", 403),
    ],
)
def test_port_left_out_by_a_proxy_does_not_count(origin: str, host: str, expected: int) -> None:
    headers = {"Origin": origin, "Host": host}
    assert client_of(Access()).post("/predict", headers=headers).status_code == expected


def test_listed_origin_gets_its_headers_refusals_and_preflight_included() -> None:
    client = client_of(Access(ring(), allowed_origins=["https://shop.example", "http://a:81"]))
    for origin in ("https://shop.example", "http://a:81"):
        for headers, status in ((bearer(SHOP), 200), ({}, 401)):
            response = client.post("/predict", headers={"Origin": origin, **headers})
            assert response.status_code == status
            assert response.headers.getlist("Access-Control-Allow-Origin") == [origin]
            assert response.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        asked = preflight(client, origin)
        assert (asked.status_code, asked.data) == (204, b"")
        assert cors(asked) == {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, X-API-Key, Content-Type",
            "Access-Control-Expose-Headers": "X-Request-Id, Retry-After, X-Label",
            "Access-Control-Max-Age": "600",
        }
    plain = client.options("/predict", headers={"Origin": "https://shop.example"})
    assert plain.status_code == 405  # no preflight: it names no method
    assert "Access-Control-Allow-Methods" not in plain.headers


def test_unlisted_origin_gets_nothing() -> None:
    shop = "https://shop.example"
    unlisted = ("https://evil.example", "null", "*", "", "https://SHOP.example", f"{shop}/",
                f"{shop}, https://evil.example", f"{shop}.evil.example")  # fmt: skip
    closed, listing = client_of(Access()), client_of(Access(allowed_origins=[shop]))
    for origin in unlisted:
        for client in (closed, listing):
            asked = preflight(client, origin)
            assert (asked.status_code, cors(asked)) == (405, {})
            assert cors(client.get("/open", headers={"Origin": origin})) == {}
    assert "Vary" not in closed.get("/open", headers={"Origin": shop}).headers
    assert listing.get("/open").headers["Vary"] == "Origin"  # a cache may keep it for the page
