"""`main.py` as a real process, spoken to over HTTP."""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from painted import COLOURS, encode, paint
from running import SECONDS, RunningServer, running, serving

from imagesieve.errors import PortError
from imagesieve.model import versions
from imagesieve.serving import server as http_server

RED = encode(paint(COLOURS["red"]))


@pytest.fixture(scope="module")
def server(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("server"), version_path) as running_server:
        yield running_server


def predict(server: RunningServer, data: bytes = RED, **options) -> requests.Response:
    return requests.post(f"{server.url}/v1/predict", data=data, timeout=SECONDS, **options)


def raw(server: RunningServer, *parts: bytes) -> http.client.HTTPResponse:
    """Send bytes as they are and read the answer."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
        with contextlib.closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            response.body = response.read()
    return response


def test_start_prints_url_version_engine_and_a_line_to_copy(
    server: RunningServer, version_path: Path
) -> None:
    printed = server.printed()
    assert f"Serving {version_path.name} with openvino-" in printed
    assert f"curl --data-binary @image.jpg {server.url}/v1/predict" in printed
    assert "warning" not in printed


def test_raw_body_as_curl_sends_it_is_judged(server: RunningServer) -> None:
    response = predict(server, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert response.json()["label"] == "red"
    assert "Server" not in response.headers


@pytest.mark.parametrize(
    "line",
    [
        b"GET\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"\x00 \x00\r\n\r\n",
    ],
    ids=["no path", "small letters", "TLS", "NUL"],
)
def test_a_first_line_that_is_none_is_answered_and_the_connection_ended(
    server: RunningServer, line: bytes
) -> None:
    answer = raw(server, line)
    assert (answer.status, answer.getheader("Connection")) == (400, "close")
    assert json.loads(answer.body)["type"] == "/problems/malformed-request"


def test_requests_are_json_lines_in_the_log_file_and_not_on_the_console(
    server: RunningServer,
) -> None:
    files = {"image": ("secret-name.jpg", RED)}
    answer_id = predict(server, data=None, files=files).json()["id"]
    (line,) = (line for line in server.log().splitlines() if answer_id in line)
    entry = json.loads(line[line.index("{") :])
    assert (entry["path"], entry["status"], entry["label"]) == ("/v1/predict", 200, "red")
    assert "secret-name" not in server.log()
    assert answer_id not in server.printed()


def test_openvino_serves_without_tensorflow(server: RunningServer) -> None:
    predict(server)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "openvino" in maps
    assert "site-packages/tensorflow/" not in maps


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "70000"],
        ["--engine", "abacus"],
        ["--min-confidence", "0.5"],
        ["--decision", "argmax", "--fallback-class", "x"],
        ["--decision", "confident", "--min-confidence", "1.5"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_option_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str]) -> None:
    with running(tmp_path, *options) as stopped:
        assert stopped.exit_code() == 2
        assert len(stopped.lines) == 1
        assert stopped.printed().startswith("error: ")


def test_sigterm_ends_with_exit_code_0(tmp_path: Path, version_path: Path) -> None:
    with serving(tmp_path, version_path) as server:
        assert server.stop(signal.SIGTERM) == 0
        assert server.lines[-1] == "Stopped.\n"


def test_interrupt_ends_with_exit_code_130_and_a_short_line(
    tmp_path: Path, version_path: Path
) -> None:
    with serving(tmp_path, version_path, "--quiet") as server:
        assert server.stop(signal.SIGINT) == 130
        assert server.lines == ["interrupted\n"]


def test_signal_while_the_model_loads_ends_as_cleanly(tmp_path: Path, version_path: Path) -> None:
    with running(tmp_path, "--model", str(version_path), "--port", "0") as server:
        server.wait_for("Listening ")
        assert server.stop(signal.SIGTERM) == 0


def ask_until_refused(server: RunningServer, body: bytes, outcomes: list[int | str]) -> None:
    """Post again and again on a kept connection, which is made anew when the server ends it."""
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=SECONDS)
    for number in itertools.count():
        is_new = connection.sock is None
        try:
            image = body + str(number).encode()  # another one each time: none is known already
            connection.request("POST", "/v1/predict", image, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # A new connection that the kernel completed after our last look at its queue is reset;
            # nobody has accepted anything on it.
            if not (is_new and isinstance(error, ConnectionError)):
                outcomes.append(type(error).__name__)
            return
        outcomes.append(answer.status)


def test_sigterm_under_load_loses_no_request(tmp_path: Path, version_path: Path) -> None:
    large = encode(paint((200, 30, 30), size=(1200, 900)), quality=95, progressive=True)
    outcomes: list[int | str] = []
    with (
        serving(tmp_path, version_path) as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        clients = [
            pool.submit(ask_until_refused, server, large + bytes([number]), outcomes)
            for number in range(8)
        ]
        while outcomes.count(200) < 20:
            time.sleep(0.02)
        assert server.stop(signal.SIGTERM) == 0
        for client in clients:
            client.result(SECONDS)
        answered = server.log().count('"path": "/v1/predict"')
    assert set(outcomes) <= {200, 503}
    assert len(outcomes) == answered
    assert 503 in outcomes  # those who came while it was leaving were told so


def test_taken_port_is_one_sentence_before_the_model_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with running(tmp_path, "--port", port, "--model", "nowhere") as stopped:
            assert stopped.exit_code() == 1
    assert stopped.printed() == (
        f"error: Cannot listen on 127.0.0.1 port {port}: another program uses it: stop that one or "
        "choose another --port.\n"
    )


def test_missing_model_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as stopped:
        assert stopped.exit_code() == 1
    assert stopped.lines[-1].startswith("error: There is no model at modelFile: train one")


def test_altered_model_is_refused_by_name_and_exit_code_1(
    tmp_path: Path, version_path: Path
) -> None:
    copy = tmp_path / "altered"
    shutil.copytree(version_path, copy)
    model = copy / versions.OPENVINO_MODEL
    model.write_bytes(model.read_bytes().replace(b"softmax", b"Softmax", 1) + b" ")
    with running(tmp_path, "--port", "0", "--model", str(copy)) as stopped:
        assert stopped.exit_code() == 1
    assert "altered" in stopped.lines[-1]
    assert versions.OPENVINO_MODEL in stopped.lines[-1]


def test_a_network_is_let_in_with_keys_or_on_purpose_alone(
    tmp_path: Path, version_path: Path
) -> None:
    everywhere = ("--model", str(version_path), "--port", "0", "--host", "0.0.0.0", "--quiet")
    with running(tmp_path, *everywhere) as refused:
        assert refused.exit_code() == 2
        (line,) = refused.lines
        assert line.startswith("error: 0.0.0.0 is open to the network, and no key is set")
    with running(tmp_path / "open", *everywhere, "--insecure") as server:
        server.wait_for(" Serving ")
        assert "warning: 0.0.0.0 is open to the network and requires no key" in server.printed()
        assert server.url.startswith("http://127.0.0.1:")
        assert predict(server).json()["label"] == "red"
    keys = tmp_path / "keys.txt"
    keys.write_text("shop predict 0123456789abcdef\nboss admin,feedback fedcba9876543210\n")
    keys.chmod(0o600)
    with running(tmp_path / "keyed", *everywhere, "--keys", str(keys)) as server:
        server.wait_for(" Serving ")
        assert predict(server).status_code == 401
        shop, boss = {"X-API-Key": "0123456789abcdef"}, {"X-API-Key": "fedcba9876543210"}
        assert predict(server, headers=shop).json()["label"] == "red"
        assert predict(server, headers=boss).status_code == 403
        for path in ("/metrics", "/v1/feedback/export"):
            answers = [
                requests.get(server.url + path, headers=headers, timeout=SECONDS).status_code
                for headers in ({}, shop, boss)
            ]
            assert answers == [401, 403, 200]
        assert requests.get(f"{server.url}/healthz", timeout=SECONDS).ok


def test_policy_of_the_command_line_is_in_force(tmp_path: Path, version_path: Path) -> None:
    options = ("--decision", "confident", "--min-confidence", "0.9999", "--fallback-class", "none")
    with serving(tmp_path, version_path, *options) as server:
        answer = predict(server).json()
    assert (answer["label"], answer["decision"]) == ("red", "none")


@pytest.mark.parametrize("host", ["a..b", "192.0.2.1"])
def test_address_that_is_not_ours_is_a_port_error(host: str) -> None:
    with pytest.raises(PortError, match=f"Cannot listen on {host}"):
        http_server.listen(host, 0)
