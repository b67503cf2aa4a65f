"""Images by address: what an honest host sees, row 43 of the attack table, and the options."""

import argparse
import copy
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps import app_of
from fetching import MAX_BYTES, PUBLIC, URL, assert_refused, error_of, fetcher, place, resolver
from hostile import RED_JPEG
from web_host import WebHost, later, redirect, send, send_raw

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import config
from imagesieve.serving.errors import OverloadedError
from imagesieve.serving.fetch_image import FAILED, NOT_ALLOWED, TOO_SLOW, UrlFetcher
from imagesieve.serving.limits import ServingLimits


def test_image_is_fetched_as_it_is(host: WebHost) -> None:
    host.routes["/a%20b?c=1&d=%2F@x"] = send(RED_JPEG)
    assert fetcher().fetch("HTTP://Images.Example:80/a%20b?c=1&d=%2F@x") == RED_JPEG
    (headers,) = host.headers
    assert headers["Host"] == "images.example"
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers
    assert "Cookie" not in headers


def test_chunked_image_is_fetched(host: WebHost) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(RED_JPEG), RED_JPEG)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    host.routes["/a"] = send_raw(head + chunks)
    assert fetcher().fetch(URL) == RED_JPEG


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


def post(predictor: Predictor, fetch: Callable[[str], bytes] | None, **fields: str) -> Any:
    """Send an address to `/v1/predict` of a service."""
    client = app_of(predictor, fetch=fetch).test_client()
    return client.post("/v1/predict", json=fields)


def test_service_judges_the_image_at_an_address(host: WebHost, predictor: Predictor) -> None:
    host.routes["/a"] = send(RED_JPEG)
    response = post(predictor, fetcher().fetch, url=URL)
    assert (response.status_code, response.get_json()["label"]) == (200, "red")


def test_batch_of_addresses_does_not_take_more_places_than_there_are(predictor: Predictor) -> None:
    class Wide(Predictor):
        def __init__(self) -> None:
            super().__init__(predictor.version, predictor.engine)
            self.engine = copy.copy(predictor.engine)
            self.engine.num_streams = 16

    lock, under_way, most = threading.Lock(), 0, 0

    def fetch(_url: str) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return RED_JPEG

    client = app_of(Wide(), fetch=fetch).test_client()
    images = [{"url": f"{URL}/{number}"} for number in range(32)]
    answer = client.post("/v1/predict/batch", json={"images": images}).get_json()
    assert (answer["ok"], answer["failed"]) == (32, 0)
    assert 1 < most <= ServingLimits().max_fetches


@pytest.mark.parametrize(
    ("url", "status", "slug", "detail"),
    [
        ("http://images.example:22/a", 422, "url-not-allowed", NOT_ALLOWED),
        ("http://images.example/moved", 422, "url-not-allowed", NOT_ALLOWED),
        ("http://images.example/gone", 502, "fetch-failed", FAILED),
        ("http://images.example/late", 504, "deadline-exceeded", TOO_SLOW),
    ],
)
def test_service_tells_one_problem_of_each_kind(
    host: WebHost, predictor: Predictor, url: str, status: int, slug: str, detail: str
) -> None:
    host.routes |= {"/moved": redirect("/a"), "/late": later(send(RED_JPEG), 60.0)}
    seconds = 0.3 if url.endswith("late") else 30.0
    response = post(predictor, fetcher(total_seconds=seconds).fetch, url=url)
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (status, f"/problems/{slug}")
    assert value["detail"] == detail


# Row 43.


def test_address_is_refused_where_none_is_taken(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolver(monkeypatch, OSError("no name server"))
    response = post(predictor, None, url=URL)
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (400, "/problems/bad-parameter")
    assert asked == []


def test_address_is_never_taken_for_an_image(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    asked = resolver(monkeypatch, [place(PUBLIC)])
    response = post(predictor, UrlFetcher(MAX_BYTES).fetch, image=URL)
    assert response.status_code == 400
    assert (asked, connected) == ([], [])


# The fetcher beside the table.


def test_as_many_fetches_as_allowed_run_at_once(host: WebHost) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def wait(handler: Any) -> None:
        arrived.release()
        go_on.wait(20)
        send(RED_JPEG)(handler)

    host.routes["/a"] = wait
    mine, bodies = fetcher(total_seconds=30.0), []
    callers = [threading.Thread(target=lambda: bodies.append(mine.fetch(URL))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert arrived.acquire(timeout=20)
    with pytest.raises(OverloadedError):
        mine.fetch(URL)
    go_on.set()
    for caller in callers:
        caller.join(20)
    assert bodies == [RED_JPEG] * 4
    assert mine.fetch(URL) == RED_JPEG
    assert len(host.requests) == 5


def test_every_place_comes_back_after_failures(host: WebHost) -> None:
    host.routes |= {"/a": send(RED_JPEG), "/gone": send(b"", 404), "/moved": redirect("/a")}
    mine = fetcher(max_at_once=1)
    for path in ("gone", "moved", "gone"):
        error_of(f"http://images.example/{path}", mine)
    assert mine.fetch(URL) == RED_JPEG


def test_server_without_a_thread_to_spare_is_busy_for_now(
    host: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(max_at_once=1)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OverloadedError):
            mine.fetch(URL)
    assert mine.fetch(URL) == RED_JPEG


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_proxies_of_the_environment_are_not_used(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.routes["/a"] = send(RED_JPEG)
    assert fetcher().fetch(URL) == RED_JPEG


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a",
        "http://a.images.example/a",
        "http://images.example.other.example/a",
        "http://ximages.example/a",
        "http://127.0.0.1/a",
    ],
)
def test_only_listed_hosts_are_asked(host: WebHost, url: str) -> None:
    host.routes["/a"] = send(RED_JPEG)
    mine = fetcher(["images.example", "2606:4700::1111"])
    assert mine.fetch("http://IMAGES.example/a") == RED_JPEG
    assert mine.fetch("http://[2606:4700:0:0::1111]/a") == RED_JPEG
    assert_refused(url, mine)
    assert len(host.requests) == 2


def test_listed_host_is_refused_all_the_same_when_it_is_private(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    resolver(monkeypatch, [place("10.0.0.1")])
    assert_refused(URL, UrlFetcher(MAX_BYTES, ["images.example"]))
    assert connected == []


def test_log_tells_the_reason_in_one_plain_line(
    host: WebHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.routes["/a"] = send_raw(b"\x1b[31mHTTP\x07 " + b"x" * 5000 + b"\r\n\r\n")
    with caplog.at_level(logging.DEBUG, logger="imagesieve"):
        error_of()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("no image from images.example: BadStatusLine(")
    assert message.isprintable()
    assert len(message) < 400


# The command line.


def options(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("Serve.", "examples")
    config.add_options(parser)
    return parser.parse_args(arguments)


def test_addresses_are_taken_only_when_asked_for() -> None:
    assert config.fetcher_from_options(options(), ServingLimits()) is None
    assert config.fetcher_from_options(options("--allow-url"), ServingLimits()) is not None


def test_fetcher_of_the_command_line_has_its_hosts_and_visits_no_private_one(
    monkeypatch: pytest.MonkeyPatch, connected: list[Any]
) -> None:
    given = options("--allow-url", "--allow-url-host", "A.example", "--allow-url-host", "b.example")
    mine = config.fetcher_from_options(given, ServingLimits())
    assert mine is not None
    asked = resolver(monkeypatch, [place("127.0.0.1")])
    for name in ("a", "b", "c"):
        assert_refused(f"http://{name}.example/", mine)
    assert (asked, connected) == (["a.example", "b.example"], [])


@pytest.mark.parametrize(
    "name", ["", "https://images.example", "images.example/", "a b", "a:80", "bücher.example"]
)
def test_host_that_is_none_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="is not a host"):
        options("--allow-url", "--allow-url-host", name)


def test_hosts_without_permission_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="goes with --allow-url"):
        config.fetcher_from_options(options("--allow-url-host", "images.example"), ServingLimits())
