"""Attacks beyond the table: what HTTP allows, half allows, or forbids, byte by byte."""

import base64
import concurrent.futures
import contextlib
import gzip
import json
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
import requests
import waitress.adjustments
from attacking import MEGABYTE, Target, assert_refused, wait_until
from hostile import RED_JPEG, REFUSED, png
from running import SECONDS, serving

from imagesieve.serving import server as server_module
from imagesieve.serving import waitress_parts
from imagesieve.serving.limits import ServingLimits

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/predict HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def target(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("wire")
    with serving(folder, version_path, "--feedback", str(folder / "feedback")) as server:
        yield Target(server)


@pytest.fixture(autouse=True)
def _unharmed(target: Target) -> Iterator[None]:
    yield
    target.assert_unharmed()
    assert "Traceback" not in target.server.log()
    assert "ResourceWarning" not in target.server.printed()


def everything(target: Target, *parts: bytes) -> bytes:
    """Send bytes and give all that comes back until the server closes."""
    with target.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def statuses(received: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


BROKEN = {
    "no method": b"GET\r\n\r\n",
    "small letters": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "raw UTF-8": "GET /☃ HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "address that is none": b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n",
    "another one": b"GET http://[::1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "carriage return in a header": GET + b"X: a\rb\r\n\r\n",
    "NUL in a header": GET + b"X: a\0b\r\n\r\n",
    "blank before a colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + END,
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END,
    "length with a sign": POST + b"Content-Length: +5\r\n\r\nabcde",
    "length in superscript": POST + b"Content-Length: \xb2\r\n\r\nab",
    "length of 5000 digits": POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + END,
    "chunk of 0x3": POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n" + END,
    "chunk without its end": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n" + END,
    "line that never ends": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 300_000,
    "trailer that never ends": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"X: y\r\n" * 50_000,
}  # fmt: skip


def test_broken_request_is_answered_once_and_that_is_all(target: Target) -> None:
    for name, request in BROKEN.items():
        received = everything(target, request)
        assert statuses(received) == [400], name
        assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == 400, name


SHAPES = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + END,
    "a comma": POST + b"Transfer-Encoding: ,\r\n\r\n",
    "nothing": POST + b"Transfer-Encoding:\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + END,
    "chunked on two lines": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + END,
    "folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END,
    "HTTP/1.0": POST.replace(b"1.1", b"1.0")
    + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + END,
    "gzip": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
}  # fmt: skip


def test_no_request_hides_in_another_one_s_body(target: Target) -> None:
    for name, request in SHAPES.items():
        (status,) = statuses(everything(target, request + SMUGGLED))
        assert status in (400, 501), name
    assert "smuggled" not in target.server.log()


def test_chunks_in_the_right_shape_are_taken(target: Target) -> None:
    kind = POST + b"Content-Type: image/jpeg\r\nConnection: close\r\n"
    size = b"%x;note=a\r\n" % len(RED_JPEG)
    for line in (b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tCHUNKED \r\n"):
        body = size + RED_JPEG + b"\r\n0\r\nX-Trailer: y\r\n\r\n"
        assert statuses(everything(target, kind + line + b"\r\n" + body)) == [200]
    lines = b"".join(b"4c\r\n" + b"A" * 76 + b"\r\n" for _ in range(20_000))
    form = kind.replace(b"image/jpeg", b"text/plain") + b"Transfer-Encoding: chunked\r\n\r\n"
    assert statuses(everything(target, form + lines + END)) == [415]


FIRST_LINES = {
    "HEAD /healthz": 200, "HEAD /v1/predict": 405, "OPTIONS *": 404, "OPTIONS /v1/predict": 405,
    "TRACE /healthz": 405, "CONNECT 127.0.0.1:22": 400, "PRI *": 404, "GET /health%00z": 404,
    "GET /%ff%fe": 404, "GET /v1%2fmodel": 200, "GET /static/..%2fapp.py": 404,
    "GET /static/page.css%00.js": 404, "GET /healthz#part": 200,
    "GET /healthz?" + "a=1&" * 50_000: 200, "POST /v1/predict?" + "a=1&" * 50_000: 413,
    "A" * 9999 + " /healthz": 405,
}  # fmt: skip


def test_odd_first_line_has_a_plain_answer(target: Target) -> None:
    for line, status in FIRST_LINES.items():
        request = f"{line} HTTP/1.1\r\nCookie: secret=1\r\nConnection: close\r\n".encode() + HOST
        received = everything(target, request + b"\r\n")
        assert statuses(received) == [status], line[:30]
        assert b"secret" not in received


ODD_HEADERS = {
    "h2c": b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "expect": b"Expect: 100-continue\r\n",
    "many": b"X: y\r\n" * 30_000,
    "cookies": b"Cookie: " + b"a=b; " * 40_000 + b"\r\n",
    "accept": b"Accept: " + b"a/b;q=0.1," * 20_000 + b"\r\n",
    "no UTF-8": b"Accept-Language: \xff\xfe\r\nUser-Agent: \xe2\x98\x83\r\n",
    "range": b"Range: bytes=0-1\r\n",
    "forwarded": b"Forwarded: for=evil\r\nX-Forwarded-Proto: https\r\nX-Original-URL: /metrics\r\n",
}


def test_odd_headers_change_nothing(target: Target) -> None:
    for name, lines in ODD_HEADERS.items():
        received = everything(target, GET + lines + b"Connection: close\r\n\r\n")
        assert statuses(received) == [200], name
        assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == {"status": "ok"}, name


def test_parts_of_a_file_are_given_or_refused(target: Target) -> None:
    def ask(part: str):
        return target.ask("GET", "/static/base.css", headers={"Range": part})

    assert (ask("bytes=0-9").status_code, len(ask("bytes=0-9").content)) == (206, 10)
    for part in (f"bytes={'9' * 30}-", f"bytes={'9' * 5000}-", "bytes=" + "0-," * 2000 + "0-"):
        refused = ask(part)
        assert_refused(refused, 416, "range-not-satisfiable")
        assert re.fullmatch(r"bytes \*/\d+", refused.headers["Content-Range"])


def test_of_a_thousand_requests_in_a_row_some_are_answered_and_the_end_is_told(
    target: Target,
) -> None:
    received = everything(target, (GET + b"\r\n") * 1000)
    answers = received.split(b"HTTP/1.1 ")[1:]
    assert 32 <= len(answers) < 1000  # 32 wait, and some are answered while others arrive
    assert set(statuses(received)) == {200}
    closing = [b"Connection: close" in answer for answer in answers]
    assert closing == [False] * (len(answers) - 1) + [True]


def test_senders_that_do_not_listen_hold_up_nobody(target: Target) -> None:
    files = target.used().files
    page = b"GET /static/page.js HTTP/1.1\r\n" + HOST + b"\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(target.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(page * 1300)
        wait_until(lambda: target.figure('classifier_requests_total{code="200",method="GET",'
                                         'route="static"}') >= 20 * 32)  # fmt: skip
        assert target.ask("GET", "/healthz").status_code == 200
        assert target.predict(RED_JPEG).json()["label"] == "red"
        assert target.used().files <= files + 30


def test_sender_who_asks_first_whether_to_go_on(target: Target) -> None:
    ask = POST + b"Content-Type: image/jpeg\r\nExpect: 100-continue\r\nConnection: close\r\n"
    with target.connect() as connection:
        connection.sendall(ask + b"Content-Length: %d\r\n\r\n" % len(RED_JPEG))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(RED_JPEG)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert json.loads(received.rpartition(b"\r\n\r\n")[2])["label"] == "red"
    assert statuses(everything(target, ask + b"Content-Length: 99999999\r\n\r\n")) == [413]


def test_compressed_bodies_are_not_unpacked(target: Target) -> None:
    headers = {"Content-Encoding": "gzip"}
    with target.costing() as cost:
        bomb = gzip.compress(bytes(200 * MEGABYTE), 1)
        for kind in ("image/jpeg", "application/json", "application/x-www-form-urlencoded"):
            assert 400 <= target.predict(bomb, kind=kind, headers=headers).status_code < 500
    assert cost.memory < 30
    assert target.predict(gzip.compress(RED_JPEG), headers=headers).status_code == 415


def test_batch_of_bombs_is_a_problem_each(target: Target) -> None:
    bombs = [data for data, status, _ in REFUSED.values() if status == 422 and len(data) < 10_000]
    bombs = [*bombs, *[png(9000, 9000)] * 32][:32]
    with target.costing() as cost:
        answer = target.upload(
            *(("image", (f"{place}.jpg", data)) for place, data in enumerate(bombs)),
            path="/v1/predict/batch",
        ).json()
    assert (answer["ok"], answer["failed"]) == (0, 32)
    assert {result["error"]["status"] for result in answer["results"]} == {422}
    assert cost.memory < 30
    assert cost.seconds < 3


def test_batches_of_32_megabytes_are_given_back(target: Target) -> None:
    image = base64.b64encode(RED_JPEG.ljust(7 * MEGABYTE, b"\0")).decode()
    whole = json.dumps({"images": [{"image": image}] * 3}).encode()
    # One letter outside of ASCII makes Python's text four times as large.
    wide = '{"images": [{"image": "%s☃😀"}]}' % ("A" * 30 * MEGABYTE)
    for body, label in ((whole, "red"), (wide.encode(), None)):
        kind = {"Content-Type": "application/json"}
        answer = target.ask("POST", "/v1/predict/batch", data=body, headers=kind)
        assert {result.get("label") for result in answer.json()["results"]} == {label}


def test_large_bodies_of_senders_who_leave_are_put_away(target: Target) -> None:
    head = target.head("/v1/predict", "Content-Length: 9999999")
    for _ in range(20):
        with target.connect() as connection:
            connection.sendall(head + bytes(3 * MEGABYTE))
    wait_until(lambda: target.used().files < 20)


def test_a_request_behind_too_many_pipelined_ones_is_put_away() -> None:
    """What is counted for it would be missing for all that come later."""
    app = flask.Flask("echo")
    # Slow enough for all requests to be there before the first few are answered.
    app.add_url_rule("/", view_func=lambda: time.sleep(0.005) or "ok", methods=["GET", "POST"])
    begun = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + bytes(50_000)

    def send(http: server_module.Server, port: int) -> tuple[set[int], int]:
        try:
            for _ in range(30):
                with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
                    connection.sendall((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 60 + begun)
                    answers = b"".join(iter(lambda: connection.recv(65_536), b""))
            url = f"http://127.0.0.1:{port}/"
            return set(statuses(answers)), requests.post(url, bytes(900_000), timeout=9).status_code
        finally:
            http.stop()

    limits = ServingLimits(max_waiting_bytes=MEGABYTE, drain_seconds=1)
    with (
        contextlib.closing(server_module.listen("127.0.0.1", 0)) as listener,
        server_module.Server(app, listener, limits) as http,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        sent = pool.submit(send, http, listener.getsockname()[1])
        http.run(lambda: None)
        assert sent.result() == ({200}, 200)


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised"),
    [
        (600, resource.RLIM_INFINITY, 1000, [2200]),
        (600, 4096, 1000, [2200]),
        (4096, 4096, 1000, []),
        (300, 300, 100, []),
    ],
)
def test_a_server_may_open_as_many_files_as_it_takes_connections_or_takes_fewer(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    connections: int,
    raised: list[int],
) -> None:
    limits: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(resource, "getrlimit", lambda _: (soft, hard))
        patched.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair[0]))
        assert server_module._possible_connections(1000) == connections
    assert limits == raised
    assert ("takes 100 connections at once: raise that limit" in caplog.text) == (
        connections < 1000
    )


def test_all_bodies_together_are_bounded(target: Target) -> None:
    """Forty senders of 15 MB each never finish: the last of them are told that there is no room."""
    head = target.head("/v1/predict", f"Content-Length: {15 * MEGABYTE + 1}")
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(target.connect()) for _ in range(40)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: one.sendall(head + bytes(15 * MEGABYTE)), senders))
        assert target.predict(RED_JPEG).json()["label"] == "red"
        refused = [one for one in senders if select.select([one], [], [], 0)[0]]
        assert 3 <= len(refused) <= 12
        for one in refused:
            answer = one.recv(65_536)
            assert statuses(answer) == [503]
            assert b"Retry-After: 10" in answer
            head, _, body = answer.partition(b"\r\n\r\n")
            (request_id,) = re.findall(rb"(?m)^X-Request-Id: (\S+)\r$", head + b"\r")
            assert json.loads(body)["instance"] == f"urn:request:{request_id.decode()}"
    wait_until(lambda: target.predict(RED_JPEG.ljust(3 * MEGABYTE, b"\0")).ok)


def test_request_that_comes_drop_by_drop_is_not_waited_for() -> None:
    """Silence of a moment is allowed here, of half a minute in the service."""
    adjustments = waitress.adjustments.Adjustments(channel_timeout=0)
    adjustments.bodies = waitress_parts.Bodies(MEGABYTE)
    for beginning in (b"POST /v1/pre", POST + b"Content-Length: 9999\r\n\r\n"):
        parser = waitress_parts.RequestParser(adjustments)
        parser.received(beginning)
        assert not parser.completed
        time.sleep(0.2)
        parser.received(b"x")
        assert parser.completed
        assert parser.error.code == 408
    media_type, status, body = waitress_parts.refusal("/v1/predict", 408, "some-id")
    assert (media_type, status) == ("application/problem+json", "408 Request Timeout")
    assert json.loads(body)["type"] == "/problems/too-slow"
