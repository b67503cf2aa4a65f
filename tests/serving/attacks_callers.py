"""Attacks of rows 31 to 51: who asks, how many ask, and what they ask for."""

import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import random
import socket
import struct
import threading
import time

import pytest
import requests
from attacking import (
    BURST,
    FORM,
    HASTY_KEY,
    JSON,
    MEGABYTE,
    Target,
    assert_refused,
    attack,
)
from hostile import RED_JPEG
from painted import COLOURS, encode, paint

from imagesieve.feedback import read_corrections


@attack(31)
def foreign_hosts(target: Target) -> None:
    def ask(line: str, *lines: str) -> int:
        return target.raw("\r\n".join([f"{line} HTTP/1.1", *lines, "", ""]).encode()).status

    own = "Host: localhost"
    assert ask("GET /v1/model", own) == 200
    assert ask("GET /v1/model", "Host: evil.example") == 400
    assert ask("GET /v1/model", own, "Host: evil.example") == 400
    assert ask("GET /v1/model", own, own) == 400
    assert ask("GET http://evil.example/v1/model", own) == 400
    assert ask("GET http://[/v1/model", own) == 400
    assert ask("GET http://a@localhost/v1/model", own) == 400
    assert ask("GET http://localhost/v1/model", own.upper()) == 200
    for host in ((), ("Host:",), ("Host: user@localhost",)):
        assert ask("GET /v1/model", *host) == 400
    forwarded = ("X-Forwarded-For: <b>, 1.2.3.4", "X-Forwarded-Host: evil.example", "Forwarded: x")
    assert ask("GET /v1/model", own, *forwarded) == 200
    assert "1.2.3.4" not in target.server.log()


@attack(32, guarded=True)
def wrong_keys(target: Target) -> None:
    key = target.headers["X-API-Key"]
    wrong = (
        {}, {"X-API-Key": key[:-1]}, {"X-API-Key": key + "x"}, {"X-API-Key": "k" * 200_000},
        {"Authorization": f"Basic {key}"}, {"Cookie": f"X-API-Key={key}"}, {"X-API-Key": ""},
    )  # fmt: skip
    for headers in wrong:
        refused = target.predict(RED_JPEG, headers={"X-API-Key": None, **headers})
        assert_refused(refused, 401, "unauthorized")
        assert refused.headers["WWW-Authenticate"] == "Bearer"

    def on_the_wire(*lines: str) -> int:
        text = "\r\n".join(["GET /v1/model HTTP/1.1", "Host: localhost", *lines, "", ""])
        return target.raw(text.encode("latin-1")).status

    good, bearer = f"X-API-Key: {key}", f"Authorization: Bearer {key}"
    assert on_the_wire(good) == on_the_wire("x-ApI-Key:", f" {key}") == 200  # the last one folded
    for lines in ((good, good), (bearer, bearer), (good, f"{bearer}x"), (good.replace("-", "_"),),
                  ("X-API-Key: \xe9\xff0123456789abcdef",)):  # fmt: skip
        assert on_the_wire(*lines) == 401, lines
    assert on_the_wire("X-API-Key: x\rHost: evil") == 400
    assert on_the_wire(f"X-API-Key: {'k' * MEGABYTE}") == 431
    for query in (f"?key={key}", f"?api_key={key}", f"?X-API-Key={key}"):
        assert target.predict(RED_JPEG, query, headers={"X-API-Key": None}).status_code == 401
    assert key not in target.server.log() + target.server.printed()


@attack(33, guarded=True)
def keys_without_the_scope(target: Target) -> None:
    digits = "0" * 64
    for method, path in (
        ("POST", "/v1/admin/reload"), ("POST", "/v1/admin/activate"),
        ("POST", "/v1/admin/rollback"), ("POST", "/v1/feedback"), ("GET", "/metrics"),
        ("GET", "/v1/feedback/export"),
        ("DELETE", f"/v1/feedback/{digits}"), ("GET", "/v1/review"),
        ("GET", f"/v1/review/{digits}/image"),
    ):  # fmt: skip
        assert_refused(target.ask(method, path), 403, "forbidden")


@attack(34, guarded=True)
def pages_of_other_sites(target: Target) -> None:
    for origin in ("https://evil.example", "null", "https://shop.example.evil.example"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for method in ("OPTIONS", "POST"):
            refused = target.ask(method, "/v1/predict", headers=headers)
            assert refused.status_code in (403, 405)
            assert "Access-Control-Allow-Origin" not in refused.headers
    shop = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    allowed = target.ask("OPTIONS", "/v1/predict", headers=shop).headers
    assert allowed["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Access-Control-Allow-Credentials" not in allowed
    listed, cross = f"Origin: {shop['Origin']}", "Sec-Fetch-Site: cross-site"
    for lines in ((listed, listed), (cross,), ("Sec-Fetch-Site: same-origin",) * 2):
        assert target.raw(target.head("/v1/predict", *lines)).status == 403


@attack(35, guarded=True)
def far_too_many(target: Target) -> None:
    answers = collections.Counter()
    with requests.Session() as session:
        while answers[429] < 20 and answers.total() < 3 * BURST:
            answer = session.get(f"{target.server.url}/v1/model", headers={"X-API-Key": HASTY_KEY})
            answers[answer.status_code] += 1
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) >= 1
    assert set(answers) == {200, 429}
    assert target.ask("GET", "/v1/model").status_code == 200


# Load: rows 36 to 40.


@attack(36)
def many_clients(target: Target) -> None:
    outcomes, healthy = collections.Counter(), set()
    end = time.monotonic() + 1.5

    def ask(number: int) -> None:
        with requests.Session() as session:
            for count in itertools.count():
                if time.monotonic() > end:
                    return
                image = RED_JPEG + b"%d-%d" % (number, count)
                answer = session.post(f"{target.server.url}/v1/predict", image, timeout=60)
                outcomes[answer.status_code] += 1
                if answer.status_code == 503:
                    assert int(answer.headers["Retry-After"]) >= 1

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        clients = [pool.submit(ask, number) for number in range(64)]
        while time.monotonic() < end:
            healthy.add(target.ask("GET", "/healthz").status_code)
        for client in clients:
            client.result()  # no connection was reset
    assert set(outcomes) <= {200, 503}
    assert outcomes[200] > 0
    assert healthy == {200}


@attack(37)
def slow_and_silent_clients(target: Target) -> None:
    beginnings = (
        target.head("/v1/predict", "Content-Length: 9999") + b"x" * 999,
        b"POST /v1/p",
        b"",
    )
    with contextlib.ExitStack() as stack:
        for beginning in beginnings:
            for _ in range(300):
                stack.enter_context(target.connect()).sendall(beginning)
        assert target.ask("GET", "/healthz").status_code == 200
        assert target.predict(RED_JPEG).json()["label"] == "red"
        assert target.used().files > 900


@attack(38)
def clients_that_leave(target: Target) -> None:
    large = encode(paint(COLOURS["red"], size=(1600, 1200)), progressive=True)
    reset = struct.pack("ii", 1, 0)  # close at once
    for number in range(60):
        with target.connect() as connection:
            head = target.head("/v1/predict", f"Content-Length: {len(large) + 1}")
            connection.sendall(head + large + bytes([number]))
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)


@attack(40)
def many_images_at_once(target: Target) -> None:
    chance = random.Random(3)
    colours = [tuple(chance.choices(range(256), k=3)) for _ in range(100)]
    images = [encode(paint(colour, seed=place)) for place, colour in enumerate(colours)]

    def judge(data: bytes) -> dict[str, float]:
        while (answer := target.predict(data)).status_code == 503:
            time.sleep(0.05)
        return answer.json()["probabilities"]

    alone = [judge(data) for data in images]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(judge, (data + b"again" for data in images)))
    assert together == [pytest.approx(probabilities) for probabilities in alone]


# Models and addresses: rows 41 to 46.


def named(target: Target, name: str) -> str:
    (found,) = (target.server.folder / "modelFile").glob(f"{name}-*")
    return found.name


def activate(target: Target, name: str) -> requests.Response:
    wanted = {"version": named(target, name)}
    return target.ask("POST", "/v1/admin/activate", json=wanted, headers=target.admin)


@attack(41, guarded=True)
def models_that_come_and_go(target: Target) -> None:
    statuses, stop = collections.Counter(), threading.Event()

    def ask(number: int) -> None:
        while not stop.wait(0.1):
            data = RED_JPEG + number.to_bytes() + len(statuses).to_bytes() + os.urandom(8)
            statuses[target.predict(data).status_code] += 1

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask, number) for number in range(2)]
        try:
            for _ in range(3):
                assert activate(target, "soft").json()["changed"] is True
                assert_refused(activate(target, "classes"), 409, "model-refused")
                assert_refused(activate(target, "broken"), 422, "model-damaged")
                assert target.ask("GET", "/v1/model").json()["name"] == named(target, "soft")
                assert activate(target, "sharp").json()["changed"] is True
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert set(statuses) == {200}


@attack(42, guarded=True)
def names_that_lead_elsewhere(target: Target) -> None:
    key = f"X-API-Key: {target.headers['X-API-Key']}"
    for path in (
        "/v1/models/..%2f..", "/v1/models/../../etc/passwd", "/v1/model/%2e%2e/%2e%2e",
        "/v2/models/..%2f..%2fetc", "/v2/models/../x", "/static/..%2fapp.py", "/static//etc/passwd",
    ):  # fmt: skip
        lines = (f"GET {path} HTTP/1.1", "Host: localhost", key, "", "")
        assert target.raw("\r\n".join(lines).encode()).status in (308, 404), path
    for name in ("..", "../..", "/etc/passwd", "sha256:../x", "a\0b", "%2e%2e", "current.json"):
        body = {"version": name}
        refused = target.ask("POST", "/v1/admin/activate", json=body, headers=target.admin)
        assert_refused(refused, 404, "unknown-model")


@attack(43)
def addresses_where_none_is_taken(target: Target) -> None:
    for url in ("http://images.example/a.jpg", "http://127.0.0.1/", "file:///etc/passwd"):
        assert_refused(target.predict(json.dumps({"url": url}), kind=JSON), 400, "bad-parameter")
        assert_refused(target.predict({"url": url}, kind=FORM), 400, "bad-parameter")


def refuse_addresses(target: Target, *urls: str) -> None:
    told = set()
    for url in urls:
        refused = target.predict(json.dumps({"url": url}), kind=JSON)
        assert_refused(refused, 422, "url-not-allowed")
        told.add(refused.json()["detail"])
    assert len(told) == 1


@attack(44, guarded=True)
def addresses_of_this_machine_and_its_neighbours(target: Target) -> None:
    refuse_addresses(target, *(f"http://{host}/a.jpg" for host in (
        "127.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]", "[fec0::1]", "[fe80::1]", "[fc00::1]", "169.254.169.254",
        "100.100.100.200", "10.0.0.1", "172.16.0.1", "192.168.0.1", "198.18.0.1", "240.0.0.1",
        "224.0.0.1", "255.255.255.255", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "2130706433",
        "0x7f.1", "017700000001", "127.1", "localhost", "localhost.", "127。0。0。1",
        "user@images.example", "images.example#", "images.example\\", "images\t.example",
    )))  # fmt: skip


@attack(46, guarded=True)
def schemes_and_ports(target: Target) -> None:
    host = "images.example"
    refuse_addresses(
        target, f"ftp://{host}/a", "file:///etc/passwd", f"gopher://{host}:70/_",
        "data:image/png,x", f"http://{host}:22/", f"http://{host}:6379/", f"https://{host}:8443/",
        f"dict://{host}/",
    )  # fmt: skip


# Figures, corrections, pages: rows 49 to 51.


@attack(49)
def a_thousand_paths(target: Target) -> None:
    def series() -> int:
        text = target.ask("GET", "/metrics").text
        return sum(not line.startswith("#") for line in text.splitlines())

    target.ask("GET", "/nowhere")
    before = series()
    at_once = 25
    with target.connect() as connection:
        for start in range(0, 1000, at_once):
            paths = (os.urandom(8).hex() for _ in range(at_once))
            connection.sendall(
                b"".join(b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % p.encode() for p in paths)
            )
            received = b""
            while received.count(b"urn:request:") < at_once:
                received += connection.recv(65_536)
            assert received.count(b"HTTP/1.1 404") == at_once, start
    assert series() <= before + 2


@attack(50)
def hostile_corrections(target: Target) -> None:
    folder = target.server.folder / "feedback"
    judged = target.predict(RED_JPEG + b"to be corrected").json()
    image = {"id": judged["id"]}

    def correct(**fields: object) -> requests.Response:
        return target.ask("POST", "/v1/feedback", json={**image, **fields})

    unknown = target.ask("POST", "/v1/feedback", json={"id": "none", "label": "red"})
    assert_refused(unknown, 404, "unknown-picture")
    for label in ("violet", "../x", "/etc", "..", "a\0b", "", "red/../../x"):
        assert_refused(correct(label=label), 400, "unknown-label")
    assert_refused(correct(label="blue", note="x" * MEGABYTE), 413, "body-too-large")
    assert_refused(correct(label="blue", note="x" * 501), 400, "bad-parameter")
    assert not folder.exists() or not list(folder.glob("*/*.jpg"))
    statuses = [correct(label="blue", note="<script>x</script>").status_code for _ in range(200)]
    assert statuses == [201] + [200] * 199
    name = hashlib.sha256(RED_JPEG + b"to be corrected").hexdigest()
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")] == [
        f"blue/{name}.jpg"
    ]
    assert b"to be corrected" not in (folder / "blue" / f"{name}.jpg").read_bytes()
    assert {event.sha256 for event in read_corrections(folder).values()} == {name}


@attack(51)
def markup_in_names(target: Target) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    answer = target.upload(("image", (name, RED_JPEG)))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "onerror" not in answer.text + target.server.log()
    refused = target.predict(RED_JPEG, "?<script>alert(1)</script>=1")
    assert refused.headers["Content-Type"] == "application/problem+json"
    for path in ("/", "/review", "/docs"):
        page = target.ask("GET", path)
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        # Swagger UI may set styles; no page may run a script that stands in it.
        policy = page.headers["Content-Security-Policy"]
        styles = "style-src 'self' 'unsafe-inline'; " if path == "/docs" else ""
        assert "unsafe" not in policy.replace(styles, "")
        assert "script-src" not in policy
        assert "<script>" not in page.text
        assert " on" + "click=" not in page.text
