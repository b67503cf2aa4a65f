"""Pages of other sites: who may write, and CORS for those that are listed."""

import pytest
from guarding import (
    BOSS,
    LOCAL,
    SHOP,
    VIEWS,
    assert_refused,
    bearer,
    client_of,
    cors,
    preflight,
    ring,
)

from imagesieve.serving.access import Access

OWN = "http://127.0.0.1:8133"
SITES: dict[str, tuple[dict[str, str], bool]] = {
    "a program": ({}, True),
    "own page": ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
    "own page of an old browser": ({"Origin": OWN}, True),
    "own page through TLS of a proxy": ({"Origin": "https://127.0.0.1:8133"}, True),
    "typed address": ({"Sec-Fetch-Site": "none"}, True),
    "listed": ({"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}, True),
    "other site": ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, False),
    "other site of an old browser": ({"Origin": "https://evil.example"}, False),
    "no origin told": ({"Sec-Fetch-Site": "cross-site"}, False),
    "same site": ({"Sec-Fetch-Site": "same-site"}, False),
    "same site, own host": ({"Origin": OWN, "Sec-Fetch-Site": "same-site"}, False),
    "unknown word": ({"Sec-Fetch-Site": "same-origin, cross-site"}, False),
    "sandbox or file": ({"Origin": "null"}, False),
    "empty": ({"Origin": ""}, False),
    "other port": ({"Origin": "http://127.0.0.1:3000"}, False),
    "no port": ({"Origin": "http://127.0.0.1"}, False),
    "other name of ours": ({"Origin": "http://localhost:8133"}, False),
    "own host as user": ({"Origin": "http://127.0.0.1:8133@evil.example"}, False),
    "own host as beginning": ({"Origin": "http://127.0.0.1:8133.evil.example"}, False),
    "own host in a path": ({"Origin": "http://evil.example/127.0.0.1:8133"}, False),
    "two": ({"Origin": f"{OWN}, {OWN}"}, False),
    "extension": ({"Origin": "chrome-extension://abcdefgh"}, False),
    "listed, other scheme": ({"Origin": "http://shop.example"}, False),
    "listed, other port": ({"Origin": "https://shop.example:444"}, False),
    "listed, below it": ({"Origin": "https://a.shop.example"}, False),
    "megabyte": ({"Origin": "http://" + "a" * 2**20}, False),
}


@pytest.mark.parametrize("site", SITES)
def test_only_own_and_listed_pages_may_write(site: str) -> None:
    headers, is_good = SITES[site]
    access = Access(ring(), allowed_origins=["https://shop.example"])
    client = client_of(access)
    for path, (method, _) in VIEWS.items():
        response = client.open(
            path, method=method, base_url=OWN, headers={**headers, **bearer(BOSS.replace(";", "_"))}
        )
        if is_good or method == "GET":
            assert response.status_code == 200, path
        else:
            assert_refused(response, 403, "forbidden", "another site", "--allow-origin ORIGIN")
            assert "evil" not in response.text


def test_port_left_out_by_a_proxy_does_not_count() -> None:
    client = client_of(Access())

    def status(origin: str, host: str) -> int:
        return client.post("/predict", headers={"Origin": origin, "Host": host}).status_code

    assert status("https://shop.example:8443", "shop.example") == 200
    assert status("https://shop.example", "shop.example:443") == 200
    assert status("http://[::1]:8133", "[0::1]:8133") == 200
    assert status("https://shop.example", "shop.example:80") == 403
    assert status("https://shop.example", "other.example") == 403


# CORS.


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


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "*", "", "https://SHOP.example", "https://shop.example/",
     "https://shop.example, https://evil.example", "https://shop.example.evil.example"],
)  # fmt: skip
def test_unlisted_origin_gets_nothing(origin: str) -> None:
    for access in (Access(), Access(allowed_origins=["https://shop.example"])):
        client = client_of(access)
        asked = preflight(client, origin)
        assert asked.status_code == 405
        assert cors(asked) == {}
        assert cors(client.get("/open", headers={"Origin": origin})) == {}


def test_without_origins_there_is_no_trace_of_cors() -> None:
    response = client_of(Access()).get("/open", headers={"Origin": "https://shop.example"})
    assert "Vary" not in response.headers
    listed = client_of(Access(allowed_origins=["https://shop.example"])).get("/open")
    assert listed.headers["Vary"] == "Origin"  # a cache may keep it for the listed page


def test_plain_options_request_is_no_preflight() -> None:
    client = client_of(Access(allowed_origins=["https://shop.example"]))
    response = client.options("/predict", headers={"Origin": "https://shop.example"})
    assert response.status_code == 405
    assert "Access-Control-Allow-Methods" not in response.headers


def test_preflight_for_another_host_is_refused() -> None:
    client = client_of(Access(allowed_hosts=LOCAL, allowed_origins=["https://shop.example"]))
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Host": "evil.example",
    }
    assert_refused(client.options("/predict", headers=headers), 400, "bad-host")
