"""The command line of access: its defaults, what it takes, and what it refuses."""

import argparse
import ipaddress
import logging

import pytest
from flask.testing import FlaskClient
from guarding import (
    KEYS,
    LOCAL,
    SHOP,
    assert_refused,
    bearer,
    client_of,
    cors,
    preflight,
    with_host,
)

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.serving import config
from imagesieve.serving.access import VARIABLE


def options(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("Serve.", "  none")
    parser.add_argument("--host", default="127.0.0.1")
    config.add_options(parser)
    return parser.parse_args(arguments)


def from_options(address: str, *arguments: str, keys_text: str = "") -> FlaskClient:
    environment = {VARIABLE: keys_text}
    return client_of(config.access_from_options(options(*arguments), address, environment))


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


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", LOCAL),
        ("::1", LOCAL),
        ("127.0.1.1", LOCAL | {"127.0.1.1"}),
        ("::ffff:127.0.0.1", LOCAL | {str(ipaddress.ip_address("::ffff:7f00:1"))}),
        *((address, None) for address in ("0.0.0.0", "::", "192.168.1.5", "fe80::1%eth0")),
    ],
)
def test_default_hosts_guard_loopback_only(address: str, expected: frozenset[str] | None) -> None:
    assert (
        config.allowed_hosts(argparse.Namespace(allow_host=[], host=address), address) == expected
    )


def test_hosts_add_up() -> None:
    def served(address: str, *arguments: str) -> str:
        client = from_options(address, "--insecure", *arguments)
        names = ("localhost", "shop.example", "[2001:db8::1]", "box", "192.168.1.5", "0.0.0.0", "x")
        return " ".join(name for name in names if with_host(client, name).status_code == 200)

    allow = ("--allow-host", "SHOP.example.", "--allow-host", "2001:DB8::1")
    local = "localhost shop.example [2001:db8::1]"
    assert served("127.0.1.1", "--host", "box") == "localhost box"
    assert served("127.0.0.1", *allow) == local
    assert served("192.168.1.5", *allow, "--host", "box") == f"{local} box 192.168.1.5"
    assert served("0.0.0.0", *allow, "--host", "0.0.0.0") == local


def test_origins_are_written_as_browsers_do() -> None:
    given = ("https://Shop.Example:443", "http://[0::1]:81", "http://a:80", "http://b:443")
    client = from_options("127.0.0.1", *(word for one in given for word in ("--allow-origin", one)))
    for origin in ("https://shop.example", "http://[::1]:81", "http://a", "http://b:443"):
        assert preflight(client, origin).headers["Access-Control-Allow-Origin"] == origin
    assert cors(preflight(client, "http://shop.example")) == {}


def test_rate_from_options() -> None:
    for rate, more, burst in (("1", (), 10), ("7.2", (), 15), ("0.5", ("--rate-burst", "2"), 2)):
        given = options("--rate-limit", rate, *more)
        buckets = config.access_from_options(given, "127.0.0.1", {}).buckets
        assert (buckets.rate, buckets.burst) == (float(rate), burst)
    with pytest.raises(UsageError, match="--rate-burst goes with --rate-limit"):
        from_options("127.0.0.1", "--rate-burst", "5")


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
