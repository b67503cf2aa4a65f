"""Keys, hosts, sites and rates, asked for through a small Flask application."""

import argparse
import concurrent.futures
import contextlib
import http.client
import io
import logging
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import pytest
import waitress
from flask.testing import FlaskClient
from waitress import wasyncore

from classifier import console
from classifier.errors import UsageError
from classifier.serving import problems
from classifier.serving.access import hosts, keys
from classifier.serving.access import options as access_options
from classifier.serving.access.checks import Access, Caller
from classifier.serving.access.keys import Keyring, read_keys
from classifier.serving.access.rates import RateLimit, TokenBuckets
from classifier.serving.routes import Scope

SHOP = "shop-key-0123456789"
DESK = "desk-key-0123456789"
BOSS = "boss#key;0123456789"
KEYS = f"""\
# who may do what
shop predict {SHOP}
desk predict,feedback {DESK}  # the people who correct
boss admin,feedback,predict {BOSS}
"""

VIEWS: dict[str, tuple[str, Scope | None]] = {
    "/predict": ("POST", Scope.PREDICT),
    "/model": ("GET", Scope.PREDICT),
    "/feedback": ("POST", Scope.FEEDBACK),
    "/feedback/one": ("DELETE", Scope.FEEDBACK),
    "/admin": ("POST", Scope.ADMIN),
    "/open": ("GET", None),
    "/open-post": ("POST", None),
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def app_with(access: Access) -> flask.Flask:
    """Give an application that uses the checks as the service does."""
    app = flask.Flask(__name__)

    def check() -> flask.Response | None:
        answer = access.preflight(flask.request)
        if answer is None:
            scope = VIEWS.get(flask.request.path, ("", None))[1]
            flask.g.caller = access.check(flask.request, scope)
        return answer

    def tell() -> dict[str, object]:
        caller: Caller = flask.g.caller
        access.take(caller, flask.request.args.get("n", 1, type=int) - 1)
        return {"name": caller.name, "scopes": sorted(caller.scopes), "address": caller.address}

    def refuse(error: problems.AccessError) -> flask.Response:
        problem = problems.problem_for(error)
        text = problems.document(problem, str(error), "x")
        return flask.Response(text, problem.status, dict(error.headers))

    def finish(response: flask.Response) -> flask.Response:
        response.headers.update(access.cors_headers(flask.request))
        return response

    for path, (method, _) in VIEWS.items():
        app.add_url_rule(path, path, tell, methods=[method], provide_automatic_options=False)
    app.before_request(check)
    app.after_request(finish)
    app.register_error_handler(problems.AccessError, refuse)
    return app


def client_of(access: Access) -> FlaskClient:
    return app_with(access).test_client()


def ring(text: str = KEYS) -> Keyring:
    return read_keys(None, {keys.VARIABLE: text.replace(";", "_")})


@pytest.fixture
def locked() -> FlaskClient:
    """Give a client of a service with keys."""
    return client_of(Access(ring()))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_refused(response, status: int, slug: str, *words: str) -> None:
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (status, f"/problems/{slug}"), value
    for word in words:
        assert word in value["detail"]


# Reading keys.


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "keys.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


def test_keys_are_read_from_a_file_and_from_the_environment(key_file) -> None:
    environment = {keys.VARIABLE: "robot predict robot-key-0123456789; # none; \n "}
    found = read_keys(key_file("\ufeff" + KEYS.replace("\n", "\r\n\r\n")), environment)
    assert len(found) == 4
    assert environment == {}  # children of the service do not inherit it
    boss = found.find(BOSS)
    assert boss
    assert (boss.name, boss.scopes) == ("boss", frozenset(Scope))
    assert found.find(SHOP).scopes == {Scope.PREDICT}
    assert found.find("robot-key-0123456789").name == "robot"


def test_no_keys_are_an_empty_ring() -> None:
    assert len(read_keys(None, {})) == 0
    assert len(read_keys(None, {keys.VARIABLE: " \n"})) == 0


def test_the_keys_themselves_are_kept_nowhere(key_file) -> None:
    found = read_keys(key_file(KEYS), {})
    kept = repr([vars(key) for key in vars(found)["_keys"]])
    assert "shop" in kept
    assert not any(key in kept for key in (SHOP, DESK, BOSS))


GOOD = "good-key-0123456789"
BAD_LINES = {
    "one word": (SHOP, "has 1 words: write <name> <scope>[,<scope>] <key>"),
    "two words": (f"shop {SHOP}", "has 2 words"),
    "four words": (f"my shop predict {SHOP}", "has 4 words"),
    "scope": (f"shop write {SHOP}", "unknown scope: use predict, feedback, admin"),
    "scope in capitals": (f"shop PREDICT {SHOP}", "unknown scope"),
    "empty scope": (f"shop predict, {SHOP}", "unknown scope"),
    "key for a scope": (f"shop {SHOP} long-enough-0123456789", "unknown scope"),
    "key before name": (f"{SHOP} predict shop", "no usable key"),
    "long name": (f"{'n' * 65} predict {SHOP}", "no usable name"),
    "name with a control": (f"sh\x07op predict {SHOP}", "no usable name"),
    "name that turns text": (f"sh\u202eop predict {SHOP}", "no usable name"),
    "short key": ("shop predict 123456789012345", "no usable key: take 16 to 256 ASCII"),
    "long key": (f"shop predict {'k' * 257}", "no usable key"),
    "unicode key": ("shop predict schlüssel-0123456789", "no usable key"),
    "key with NUL": ("shop predict key\0-0123456789abcdef", "no usable key"),
    "same name": (f"good admin {SHOP}", "has the same name as"),
    "same key": (f"shop admin {GOOD}", "has the same key as"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("source", ["file", "environment"])
def test_bad_line_is_named_by_its_place_and_never_shown(key_file, case: str, source: str) -> None:
    line, sentence = BAD_LINES[case]
    text = f"# comment\ngood predict {GOOD}\n\n{line}\n"
    path = key_file(text if source == "file" else f"other admin {BOSS}")
    with pytest.raises(UsageError) as caught:
        read_keys(path, {keys.VARIABLE: text} if source == "environment" else {})
    message = str(caught.value)
    assert message.startswith(f"{path} line 4 " if source == "file" else f"{keys.VARIABLE} entry 4")
    assert sentence in message
    assert len(message) < 200 + len(str(path)) * 2
    shown = message.replace(str(path), "").replace("openssl rand", "")
    assert not any(word in shown for word in line.split() if len(word) >= 12)
    seen: BaseException | None = caught.value  # nor in what a traceback would show
    while seen is not None:
        assert SHOP not in repr(seen)
        assert seen.__suppress_context__ or seen.__context__ is None
        seen = seen.__cause__


def test_same_name_in_file_and_environment_names_both_places(key_file) -> None:
    path = key_file(KEYS)
    with pytest.raises(UsageError, match=r"CLASSIFIER_KEYS entry 2 .*same name as .*line 2"):
        read_keys(path, {keys.VARIABLE: f"a predict {GOOD};shop predict another-0123456789"})


def test_key_files_that_are_none(key_file, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.txt cannot be read: No such file"):
        read_keys(tmp_path / "missing.txt", {})
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_keys(tmp_path, {})
    with pytest.raises(UsageError, match=r"keys\.txt holds no key"):
        read_keys(key_file("# nothing yet\n"), {})
    with pytest.raises(UsageError, match="CLASSIFIER_KEYS holds no key"):
        read_keys(None, {keys.VARIABLE: "# nothing"})
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        read_keys(key_file(b"shop predict \xff\xfe0123456789abcdef"), {})
    assert caught.value.__cause__ is None
    with pytest.raises(UsageError, match="more than 1,048,576 bytes"):
        read_keys(Path("/dev/zero"), {})


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_readable_key_file_is_used_with_one_warning(key_file, caplog, mode, warned) -> None:
    assert len(read_keys(key_file(KEYS, mode), {})) == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned
    assert caplog.text.count("keys.txt") == warned
    assert SHOP not in caplog.text


# Showing keys.


@pytest.mark.parametrize(
    "presented", [SHOP, BOSS, "unknown-0123456789", "", "k" * 2**20, "schlüssel", "\udcff\0\x00"]
)
def test_every_key_is_compared_whatever_is_presented(monkeypatch, presented: str) -> None:
    real, compared = keys.hmac.compare_digest, []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    many = ring("".join(f"n{i} predict number-{i:020}\n" for i in range(50)) + KEYS)
    monkeypatch.setattr(keys.hmac, "compare_digest", counting)
    found = many.find(presented)
    assert compared == [(32, 32)] * 53
    assert (found is not None) == (presented == SHOP)


def test_key_of_greatest_length_works_and_one_more_letter_does_not() -> None:
    longest = "k" * 256
    one = ring(f"shop predict {longest}")
    assert one.find(longest)
    assert one.find(longest + "k") is None
    assert one.find(longest[:-1]) is None


@pytest.mark.parametrize(
    "headers",
    [
        bearer(DESK),
        {"Authorization": f"bEARER   {DESK} "},
        {"X-API-Key": DESK},
        {"x-api-key": f" {DESK}"},
        {"X-API-Key": DESK, **bearer(DESK)},
        {"X-API-Key": DESK, "Authorization": "Basic dXNlcjpwYXNz"},  # that of a proxy in front
    ],
)
def test_key_is_taken_from_both_headers(locked: FlaskClient, headers: dict[str, str]) -> None:
    response = locked.post("/feedback", headers=headers)
    assert response.get_json() == {
        "name": "desk",
        "scopes": ["feedback", "predict"],
        "address": "127.0.0.1",
    }


NO_KEY = {
    "nothing": ({}, "needs a key: send it as `Authorization: Bearer KEY` or as `X-API-Key"),
    "empty bearer": ({"Authorization": "Bearer"}, "The key is empty"),
    "blank bearer": ({"Authorization": "Bearer   "}, "The key is empty"),
    "empty header": ({"X-API-Key": ""}, "The key is empty"),
    "empty Authorization": ({"Authorization": ""}, "Authorization header is no key"),
    "key alone": ({"Authorization": SHOP}, "Authorization header is no key"),
    "other scheme": ({"Authorization": "Basic c2hvcDpwYXNz"}, "Authorization header is no key"),
    "Token": ({"Authorization": f"Token {SHOP}"}, "Authorization header is no key"),
    "two": ({**bearer(SHOP), "X-API-Key": DESK}, "Two different keys"),
    "one and an empty one": ({**bearer(SHOP), "X-API-Key": ""}, "Two different keys"),
    "an empty one and one": ({"Authorization": "Bearer", "X-API-Key": SHOP}, "Two different keys"),
    "wrong": (bearer("wrong-0123456789"), "not known"),
    "beginning": (bearer(SHOP[:-1]), "not known"),
    "more": (bearer(SHOP + "x"), "not known"),
    "capitals": (bearer(SHOP.upper()), "not known"),
    "twice in one": (bearer(f"{SHOP}, Bearer {SHOP}"), "not known"),
    "name": (bearer("shop"), "not known"),
    "digest": (bearer(keys._digest(SHOP).hex()), "not known"),
    "unicode": (bearer("schlüssel-0123456789"), "not known"),
    "megabyte": (bearer("k" * 2**20), "not known"),
    "megabyte of scheme": ({"Authorization": "k" * 2**20}, "Authorization header is no key"),
    "format string": (bearer("%s{0}{key}%n"), "not known"),
}


@pytest.mark.parametrize("case", NO_KEY)
def test_without_a_good_key_there_is_a_401(locked: FlaskClient, case: str) -> None:
    headers, sentence = NO_KEY[case]
    response = locked.post("/predict", headers=headers)
    assert_refused(response, 401, "unauthorized", sentence)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert len(response.data) < 500
    for value in headers.values():
        assert len(value) < 12 or value not in response.text
    assert locked.post("/predict", headers=bearer(SHOP)).status_code == 200


def test_key_anywhere_else_is_no_key(locked: FlaskClient) -> None:
    for query in (f"key={SHOP}", f"api_key={SHOP}", f"access_token={SHOP}", f"X-API-Key={SHOP}"):
        response = locked.post(f"/predict?{query}", data={"key": SHOP})
        assert_refused(response, 401, "unauthorized")
        assert SHOP not in response.text
    locked.set_cookie("X-API-Key", SHOP)
    assert_refused(locked.post("/predict"), 401, "unauthorized")


def test_several_headers_of_one_name_are_no_key() -> None:
    environ = {"HTTP_X_API_KEY": f"{SHOP}, {SHOP}"}  # how WSGI servers join them
    client = client_of(Access(ring()))
    assert_refused(client.post("/predict", environ_base=environ), 401, "unauthorized")


def test_unicode_in_the_environment_of_wsgi_is_no_key() -> None:
    client = client_of(Access(ring("shop predict ????????????????")))
    for text in ("\udcff" * 16, "é" * 16, "\0" * 16):
        environ = {"HTTP_AUTHORIZATION": f"Bearer {text}"}
        assert_refused(client.post("/predict", environ_base=environ), 401, "unauthorized")


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        (SHOP, {"/predict", "/model"}),
        (DESK, {"/predict", "/model", "/feedback", "/feedback/one"}),
        (BOSS.replace(";", "_"), {"/predict", "/model", "/feedback", "/feedback/one", "/admin"}),
    ],
)
def test_a_key_opens_what_its_scopes_say(locked: FlaskClient, key: str, allowed: set[str]) -> None:
    for path, (method, scope) in VIEWS.items():
        response = locked.open(path, method=method, headers=bearer(key))
        if path in allowed or scope is None:
            assert response.status_code == 200
        else:
            assert_refused(response, 403, "forbidden", f"needs the scope {scope}")
            assert "WWW-Authenticate" not in response.headers


def test_scopes_do_not_contain_each_other() -> None:
    client = client_of(Access(ring(f"boss admin {GOOD}")))
    assert client.post("/admin", headers=bearer(GOOD)).status_code == 200
    assert_refused(client.post("/predict", headers=bearer(GOOD)), 403, "forbidden")


def test_open_address_asks_for_no_key_and_gives_no_scope(locked: FlaskClient) -> None:
    for headers in ({}, bearer("wrong-0123456789"), bearer(BOSS)):
        response = locked.get("/open", headers=headers)
        assert response.get_json() == {"name": None, "scopes": [], "address": "127.0.0.1"}


def test_without_keys_all_but_admin_is_open() -> None:
    client = client_of(Access())
    assert not Access().has_keys
    assert Access(ring()).has_keys
    for path in ("/predict", "/feedback"):
        answer = client.post(path, headers=bearer("left over from last year")).get_json()
        assert (answer["name"], answer["scopes"]) == (None, ["feedback", "predict"])
    response = client.post("/admin", headers=bearer(BOSS))
    assert_refused(response, 403, "forbidden", "--keys FILE", "CLASSIFIER_KEYS")


# Hosts.

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
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


def with_host(client: FlaskClient, host: str, **more: str):
    return client.get("/open", environ_overrides={"HTTP_HOST": host, **more})


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


def test_forwarded_headers_are_not_believed() -> None:
    client = client_of(Access(allowed_hosts=LOCAL))
    claims = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    assert client.get("/open", headers=claims).get_json()["address"] == "127.0.0.1"
    hidden = {"X-Forwarded-Host": "localhost", "Host": "evil.example"}
    assert_refused(client.get("/open", headers=hidden), 400, "bad-host")


def test_host_is_checked_before_all_else() -> None:
    client = client_of(Access(ring(), allowed_hosts=LOCAL))
    for method, path in (("POST", "/admin"), ("GET", "/nothing"), ("OPTIONS", "/predict")):
        response = client.open(path, method=method, headers={"Host": "evil.example"})
        assert_refused(response, 400, "bad-host")


def test_any_text_is_a_host_or_none_and_never_an_error() -> None:
    chance = random.Random(0)
    letters = "a.-_:[]@%/\\ 0159f\0\n\r\tüK\u212a\udcff,?#"
    for _ in range(20_000):
        text = "".join(chance.choices(letters, k=chance.randrange(12)))
        found = hosts.parse_authority(text)
        assert found is None or set(found.host) <= set("abcdef0123456789.:-_k")
        hosts.parse_host(text)
        hosts.parse_origin(f"http://{text}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", LOCAL),
        ("::1", LOCAL),
        ("127.0.1.1", LOCAL | {"127.0.1.1"}),
        ("::ffff:127.0.0.1", LOCAL),
        ("0.0.0.0", None),
        ("::", None),
        ("192.168.1.5", None),
        ("fe80::1%eth0", None),
    ],
)
def test_default_hosts_guard_loopback_only(address: str, expected) -> None:
    assert hosts.default_hosts(address) == expected


# Pages of other sites.

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


def preflight(client: FlaskClient, origin: str):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options("/predict", headers=headers)


def cors(response) -> dict[str, str]:
    return {k: v for k, v in response.headers.items() if k.startswith("Access-Control-")}


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


# Rates.


def limited(clock: Clock, rate: float = 2, burst: int = 3, **more) -> FlaskClient:
    return client_of(Access(buckets=TokenBuckets(RateLimit(rate, burst), clock=clock), **more))


def test_burst_then_429_with_seconds_to_wait_then_the_rate() -> None:
    clock = Clock()
    client = limited(clock, rate=0.5, burst=3)
    assert [client.post("/predict").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.post("/predict")
    assert_refused(refused, 429, "rate-limited", "in 2 s")
    assert refused.headers["Retry-After"] == "2"
    clock.now += 1.5
    assert client.post("/predict").headers["Retry-After"] == "1"
    clock.now += 0.5
    assert [client.post("/predict").status_code for _ in range(2)] == [200, 429]
    clock.now += 1e6  # a long rest fills the bucket, and no more
    assert [client.post("/predict").status_code for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("rate", [1 / 3, 0.29, 0.1, 0.7, 3, 7.3, 999.9, 1e-4])
def test_who_waits_as_told_is_served(rate: float) -> None:
    clock = Clock()
    client = limited(clock, rate=rate, burst=1)
    for _ in range(5):
        assert client.post("/predict").status_code == 200
        seconds = client.post("/predict").headers["Retry-After"]
        assert seconds.isdecimal()
        assert int(seconds) >= 1
        clock.now += int(seconds)


def test_clock_that_goes_back_takes_nothing_away_for_long() -> None:
    clock = Clock()
    buckets = TokenBuckets(RateLimit(1, 2), clock=clock)
    assert buckets.take("a") == 0
    clock.now -= 0.5
    assert 0 <= buckets.take("a") <= 1


def test_each_key_has_its_own_share_and_refused_ones_that_of_their_address() -> None:
    client = limited(Clock(), keys=ring())
    assert [client.post("/predict", headers=bearer(SHOP)).status_code for _ in range(4)] == (
        [200, 200, 200, 429]
    )
    assert client.post("/predict", headers=bearer(DESK)).status_code == 200
    wrong = [client.post("/predict", headers=bearer("w" * 20)).status_code for _ in range(4)]
    assert wrong == [401, 401, 401, 429]
    assert client.post("/predict", headers=bearer(DESK)).status_code == 200
    assert client.post("/predict", headers={"X-API-Key": SHOP}).status_code == 429


def test_forbidden_requests_cost_as_well_and_open_addresses_nothing() -> None:
    client = limited(Clock(), keys=ring())
    statuses = [client.post("/admin", headers=bearer(SHOP)).status_code for _ in range(4)]
    assert statuses == [403, 403, 403, 429]
    assert {client.get("/open", headers=bearer(SHOP)).status_code for _ in range(50)} == {200}


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("localhost", "localhost", True),
        ("", "", True),
    ],
)
def test_neighbours_share_a_bucket(one: str, other: str, are_one: bool) -> None:
    client = limited(Clock(), burst=1)

    def status(address: str) -> int:
        return client.post("/predict", environ_base={"REMOTE_ADDR": address}).status_code

    assert status(one) == 200
    assert status(other) == (429 if are_one else 200)


def test_key_named_like_an_address_is_not_that_address() -> None:
    client = limited(Clock(), burst=1, keys=ring(f"127.0.0.1 predict {SHOP}"))
    assert client.post("/predict").status_code == 401
    assert client.post("/predict").status_code == 429
    assert client.post("/predict", headers=bearer(SHOP)).status_code == 200


def test_batch_costs_its_pictures_even_more_than_the_burst() -> None:
    clock = Clock()
    client = limited(clock, rate=2, burst=3)
    assert client.post("/predict?n=32").status_code == 200
    refused = client.post("/predict")
    assert refused.headers["Retry-After"] == "15"  # 29 owed, and one for itself, at 2 a second
    clock.now += 14.5
    assert client.post("/predict?n=32").status_code == 429
    clock.now += 0.5
    assert client.post("/predict?n=1").status_code == 200


def test_nobody_takes_more_while_in_debt() -> None:
    access = Access(buckets=TokenBuckets(RateLimit(1, 5), clock=Clock()))
    caller = Caller("a", frozenset(), "")
    access.take(caller, 31)
    access.take(caller, 0)
    with pytest.raises(problems.RateLimitedError) as caught:
        access.take(caller, 1)
    assert caught.value.retry_after == 26
    Access().take(caller, 10**9)  # no rate, no price


def test_table_of_callers_is_bounded_and_forgets_the_oldest() -> None:
    clock = Clock()
    buckets = TokenBuckets(RateLimit(1, 1), clock=clock, max_callers=100)
    assert buckets.take("busy") == 0
    for number in range(1000):
        assert buckets.take(number) == 0
        assert buckets.take("busy") > 0
    assert len(buckets) == 100
    assert buckets.take(999) > 0
    assert buckets.take(0) == 0


class SlowToken(float):
    """A price whose subtraction lets other threads run between reading a bucket and writing it."""

    def __rsub__(self, tokens: float) -> float:
        time.sleep(1e-4)
        return tokens - 1


def test_threads_together_get_the_burst_and_not_one_more() -> None:
    buckets = TokenBuckets(RateLimit(1, 100), clock=Clock(), max_callers=30)
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        for other in range(3):  # the table itself changes meanwhile
            buckets.take((number, other))
        return sum(buckets.take("all", SlowToken(1)) == 0 for _ in range(50))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 100
    assert len(buckets) == 25


# The command line.


def options(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("Serve.", "  none")
    parser.add_argument("--host", default="127.0.0.1")
    access_options.add_options(parser)
    return parser.parse_args(arguments)


def from_options(address: str, *arguments: str, keys_text: str = "") -> FlaskClient:
    environment = {keys.VARIABLE: keys_text}
    return client_of(access_options.from_options(options(*arguments), address, environment))


def test_options_cost_no_flask() -> None:
    code = "import sys, classifier.serving.access.options; assert 'flask' not in sys.modules"
    repository = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=repository, check=True)


def test_defaults_serve_this_machine_without_keys_or_rate(caplog) -> None:
    client = from_options("127.0.0.1")
    assert {client.post("/predict").status_code for _ in range(300)} == {200}
    assert_refused(client.post("/admin"), 403, "forbidden")
    assert_refused(with_host(client, "evil.example"), 400, "bad-host")
    assert caplog.text == ""


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "fe80::1%eth0"])
def test_open_network_needs_a_key_or_a_word(address: str, caplog, key_file) -> None:
    with pytest.raises(UsageError) as caught:
        from_options(address)
    assert caught.value.exit_code == 2
    for word in (address, "--keys FILE", "CLASSIFIER_KEYS", "--host 127.0.0.1", "--insecure"):
        assert word in str(caught.value)
    assert caplog.text == ""
    for client in (
        from_options(address, "--keys", str(key_file(KEYS))),
        from_options(address, keys_text=KEYS.replace(";", "_")),
    ):
        assert client.post("/predict").status_code == 401
        assert client.post("/predict", headers=bearer(SHOP)).status_code == 200
        assert with_host(client, "any.example").status_code == 200
    assert caplog.text == ""
    assert from_options(address, "--insecure").post("/predict").status_code == 200
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert address in record.getMessage()


def test_hosts_add_up(key_file) -> None:
    def statuses(address: str, *arguments: str) -> list[int]:
        client = from_options(address, "--insecure", *arguments)
        names = ("localhost", "shop.example", "[2001:db8::1]", "box", "192.168.1.5", "0.0.0.0", "x")
        return [with_host(client, name).status_code for name in names]

    allow = ("--allow-host", "SHOP.example.", "--allow-host", "2001:DB8::1")
    assert statuses("127.0.1.1", "--host", "box") == [200, 400, 400, 200, 400, 400, 400]
    assert statuses("127.0.0.1", *allow) == [200, 200, 200, 400, 400, 400, 400]
    assert statuses("192.168.1.5", *allow, "--host", "box") == [200, 200, 200, 200, 200, 400, 400]
    assert statuses("0.0.0.0", *allow, "--host", "0.0.0.0") == [200, 200, 200, 400, 400, 400, 400]
    assert statuses("0.0.0.0") == [200] * 7


def test_origins_are_written_as_browsers_do() -> None:
    given = ("https://Shop.Example:443", "http://[0::1]:81", "http://a:80", "http://b:443")
    client = from_options("127.0.0.1", *(word for one in given for word in ("--allow-origin", one)))
    for origin in ("https://shop.example", "http://[::1]:81", "http://a", "http://b:443"):
        assert preflight(client, origin).headers["Access-Control-Allow-Origin"] == origin
    assert cors(preflight(client, "http://shop.example")) == {}


@pytest.mark.parametrize(
    ("arguments", "burst"),
    [
        (["--rate-limit", "1"], 10),
        (["--rate-limit", "7.2"], 15),
        (["--rate-limit", "0.5", "--rate-burst", "2"], 2),
    ],
)
def test_rate_from_options(arguments: list[str], burst: int) -> None:
    buckets = access_options._buckets(options(*arguments))
    assert buckets._limit == RateLimit(float(arguments[1]), burst)


BAD_OPTIONS = [
    ["--allow-host", ""], ["--allow-host", "*"], ["--allow-host", "a:80"],
    ["--allow-host", "http://a"], ["--allow-host", "a/b"], ["--allow-host", "bücher.example"],
    ["--allow-host", "a b"], ["--allow-host", "u@a"], ["--allow-host", "[::1"],
    ["--allow-origin", "*"], ["--allow-origin", "null"], ["--allow-origin", "a.example"],
    ["--allow-origin", "https://a.example/"], ["--allow-origin", "https://a.example/x"],
    ["--allow-origin", "https://*.example"], ["--allow-origin", "ftp://a"],
    ["--allow-origin", "https://"], ["--allow-origin", "https://u@a"],
    ["--allow-origin", "https://a:70000"], ["--allow-origin", "https://a\r\nX: 1"],
    ["--rate-limit", "0"], ["--rate-limit", "-1"], ["--rate-limit", "nan"],
    ["--rate-limit", "inf"], ["--rate-limit", "x"], ["--rate-limit", ""], ["--rate-limit", "1e7"],
    ["--rate-burst", "0"], ["--rate-burst", "1.5"], ["--rate-burst", "-3"], ["--rate-burst", "²"],
    ["--rate-burst", "9" * 5000],
]  # fmt: skip


@pytest.mark.parametrize("arguments", BAD_OPTIONS, ids=lambda words: " ".join(words)[:40])
def test_bad_option_is_named_with_its_value(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        options("--rate-limit", "5", *arguments)
    assert f"argument {arguments[0]}: {arguments[1]!r} is no" in str(caught.value)


def test_burst_without_a_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="--rate-burst goes with --rate-limit"):
        from_options("127.0.0.1", "--rate-burst", "5")


def test_one_access_serves_many_threads() -> None:
    app = app_with(Access(ring(), buckets=TokenBuckets(RateLimit(1, 40), clock=Clock())))

    def work(key: str) -> list[str | int]:
        responses = [app.test_client().post("/predict", headers=bearer(key)) for _ in range(25)]
        return [r.get_json()["name"] if r.status_code == 200 else r.status_code for r in responses]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first, second, third, fourth = pool.map(work, (SHOP, DESK, SHOP, DESK))
    assert sorted(map(str, first + third)) == ["429"] * 10 + ["shop"] * 40
    assert sorted(map(str, second + fourth)) == ["429"] * 10 + ["desk"] * 40


# The bytes of real requests, through the real HTTP server.


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    access = Access(ring(), allowed_hosts=LOCAL, allowed_origins=["https://shop.example"])
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: dict[int, object] = {}
    server = waitress.create_server(app_with(access), map=sockets, sockets=[listener], threads=2)
    stopping = threading.Event()

    def loop() -> None:
        while not stopping.is_set():
            wasyncore.loop(timeout=0.05, map=sockets, count=1)

    thread = threading.Thread(target=loop)
    thread.start()
    yield listener.getsockname()[1]
    stopping.set()
    thread.join()
    server.task_dispatcher.shutdown(timeout=1)
    wasyncore.close_all(sockets)


def ask(port: int, *lines: bytes, body: bytes = b"") -> http.client.HTTPResponse:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        with contextlib.closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            response.read()
    return response


POST = b"POST /predict HTTP/1.1"
HOST = b"Host: localhost"
KEY = f"X-API-Key: {SHOP}".encode()
WIRE: dict[str, tuple[list[bytes], int]] = {
    "good": ([POST, HOST, KEY], 200),
    "good, names in capitals": ([POST, HOST.upper(), KEY.replace(b"X-API", b"x-ApI")], 200),
    "good, absolute URI": ([b"POST http://localhost/predict HTTP/1.1", HOST, KEY], 200),
    "good, HTTP/1.0": ([b"POST /predict HTTP/1.0", HOST, KEY], 200),
    "no key": ([POST, HOST], 401),
    "two keys": ([POST, HOST, KEY, KEY], 401),
    "two bearers": ([POST, HOST] + [f"Authorization: Bearer {SHOP}".encode()] * 2, 401),
    "bearer and other key": ([POST, HOST, KEY, f"Authorization: Bearer {DESK}".encode()], 401),
    "underscores": ([POST, HOST, KEY.replace(b"-API-", b"_API_")], 401),
    "key in Latin-1": ([POST, HOST, b"X-API-Key: \xe9\xff0123456789abcdef"], 401),
    "long key": ([POST, HOST, b"X-API-Key: " + b"k" * 200_000], 401),
    "a megabyte of key": ([POST, HOST, b"X-API-Key: " + b"k" * 2**20], 431),
    "header in a key": ([POST, HOST, b"X-API-Key: x\rHost: evil"], 400),
    "folded key": ([POST, HOST, b"X-API-Key:", b" " + SHOP.encode()], 200),
    "scope": ([b"POST /admin HTTP/1.1", HOST, KEY], 403),
    "no host": ([POST, KEY], 400),
    "empty host": ([POST, b"Host:", KEY], 400),
    "two hosts": ([POST, HOST, b"Host: evil.example", KEY], 400),
    "two equal hosts": ([POST, HOST, HOST, KEY], 400),
    "foreign host": ([POST, b"Host: evil.example", KEY], 400),
    "user": ([POST, b"Host: user@localhost", KEY], 400),
    "absolute URI of another": ([b"POST http://evil.example/predict HTTP/1.1", HOST, KEY], 400),
    "absolute URI, junk": ([b"POST http://a@localhost/predict HTTP/1.1", HOST, KEY], 400),
    "foreign page": ([POST, HOST, KEY, b"Origin: https://evil.example"], 403),
    "two origins": ([POST, HOST, KEY] + [b"Origin: https://shop.example"] * 2, 403),
    "listed page": ([POST, HOST, KEY, b"Origin: https://shop.example"], 200),
    "cross-site": ([POST, HOST, KEY, b"Sec-Fetch-Site: cross-site"], 403),
    "two sites": ([POST, HOST, KEY] + [b"Sec-Fetch-Site: same-origin"] * 2, 403),
}


@pytest.mark.parametrize("case", WIRE)
def test_bytes_on_the_wire(port: int, case: str) -> None:
    lines, status = WIRE[case]
    response = ask(port, *lines)
    assert response.status == status
    assert (response.getheader("WWW-Authenticate") == "Bearer") == (status == 401)
    assert (response.getheader("Access-Control-Allow-Origin") is not None) == (
        case == "listed page"
    )
    assert ask(port, POST, HOST, KEY).status == 200
