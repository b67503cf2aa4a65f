"""Keys: how they are read, how they are shown, and what each opens."""

import hmac
import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from guarding import BOSS, DESK, KEYS, SHOP, VIEWS, assert_refused, bearer, client_of, ring

from imagesieve.errors import UsageError
from imagesieve.serving.access import VARIABLE, Access, Scope, read_keys


@pytest.fixture
def locked() -> FlaskClient:
    """Return a client of a service with keys."""
    return client_of(Access(ring()))


def test_keys_are_read_from_a_file_and_from_the_environment(key_file) -> None:
    environment = {VARIABLE: "robot predict robot-key-0123456789; # none; \n "}
    found = read_keys(key_file("\ufeff" + KEYS.replace("\n", "\r\n\r\n")), environment)
    assert len(found) == 4
    assert environment == {}  # children of the service do not inherit it
    boss = found.find(BOSS)
    assert boss
    assert (boss.name, boss.scopes) == ("boss", frozenset(Scope))
    assert found.find(SHOP).scopes == {Scope.PREDICT}
    assert found.find("robot-key-0123456789").name == "robot"
    assert not any(key in repr([vars(key) for key in found]) for key in (SHOP, DESK, BOSS))
    assert len(read_keys(None, {})) == len(read_keys(None, {VARIABLE: " \n"})) == 0


GOOD = "good-key-0123456789"
BAD_LINES = {
    "three spaces": (
        f"my shop predict {SHOP}",
        "has 4 words: write <name> <scope>[,<scope>] <key>",
    ),
    "scope": (f"shop write {SHOP}", "unknown scope: use predict, feedback, admin"),
    "empty scope": (f"shop predict, {SHOP}", "unknown scope"),
    "key for a scope": (f"shop {SHOP} long-enough-0123456789", "unknown scope"),
    "key before name": (f"{SHOP} predict shop", "no usable key"),
    "long name": (f"{'n' * 65} predict {SHOP}", "no usable name"),
    "name that turns text": (f"sh\u202eop predict {SHOP}", "no usable name"),
    "short key": ("shop predict 123456789012345", "no usable key: take 16 to 256 ASCII"),
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
        read_keys(path, {VARIABLE: text} if source == "environment" else {})
    message = str(caught.value)
    assert message.startswith(f"{path} line 4 " if source == "file" else f"{VARIABLE} entry 4")
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
        read_keys(path, {VARIABLE: f"a predict {GOOD};shop predict another-0123456789"})


def test_key_files_that_are_none(key_file, tmp_path: Path) -> None:
    for path, environment, words in (
        (tmp_path / "missing.txt", {}, r"missing\.txt cannot be read: No such file"),
        (tmp_path, {}, "cannot be read: Is a directory"),
        (key_file("# nothing yet\n"), {}, r"keys\.txt holds no key"),
        (None, {VARIABLE: "# nothing"}, "CLASSIFIER_KEYS holds no key"),
        (Path("/dev/zero"), {}, "more than 1,048,576 bytes"),
    ):
        with pytest.raises(UsageError, match=words):
            read_keys(path, environment)
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        read_keys(key_file(b"shop predict \xff\xfe0123456789abcdef"), {})
    assert caught.value.__cause__ is None  # it would show the bytes


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_readable_key_file_is_used_with_one_warning(key_file, caplog, mode, warned) -> None:
    assert len(read_keys(key_file(KEYS, mode), {})) == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned
    assert caplog.text.count("keys.txt") == warned
    assert SHOP not in caplog.text


def test_every_key_is_compared_whatever_is_presented(monkeypatch: pytest.MonkeyPatch) -> None:
    real, compared = hmac.compare_digest, []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    many = ring("".join(f"n{i} predict number-{i:020}\n" for i in range(50)) + KEYS)
    monkeypatch.setattr(hmac, "compare_digest", counting)
    for presented in (SHOP, "unknown-0123456789", "", "k" * 2**20, "schlüssel", "\udcff\0\x00"):
        assert (many.find(presented) is not None) == (presented == SHOP)
        assert compared == [(32, 32)] * 53
        compared.clear()
    longest = "k" * 256
    one = ring(f"shop predict {longest}")
    assert [key for key in (longest[:-1], longest, longest + "k") if one.find(key)] == [longest]


def test_key_is_taken_from_both_headers(locked: FlaskClient) -> None:
    for headers in (
        bearer(DESK),
        {"Authorization": f"bEARER   {DESK} "},
        {"x-api-key": f" {DESK}"},
        {"X-API-Key": DESK, **bearer(DESK)},
        {"X-API-Key": DESK, "Authorization": "Basic dXNlcjpwYXNz"},  # that of a proxy in front
    ):
        told = locked.post("/feedback", headers=headers).get_json()
        scopes = ["feedback", "predict"]
        assert told == {"name": "desk", "scopes": scopes, "address": "127.0.0.1"}


NO_KEY = {
    "nothing": ({}, "needs a key: send it as `Authorization: Bearer KEY` or as `X-API-Key"),
    "empty bearer": ({"Authorization": "Bearer"}, "The key is empty"),
    "empty header": ({"X-API-Key": ""}, "The key is empty"),
    "empty Authorization": ({"Authorization": ""}, "Authorization header is no key"),
    "other scheme": ({"Authorization": "Basic c2hvcDpwYXNz"}, "Authorization header is no key"),
    "two": ({**bearer(SHOP), "X-API-Key": DESK}, "Two different keys"),
    "one and an empty one": ({**bearer(SHOP), "X-API-Key": ""}, "Two different keys"),
    "wrong": (bearer("wrong-0123456789"), "not known"),
    "name": (bearer("shop"), "not known"),
    "unicode": (bearer("schlüssel-0123456789"), "not known"),
    "megabyte": (bearer("k" * 2**20), "not known"),
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
