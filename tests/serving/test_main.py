"""`main.py` as a real process, spoken to over HTTP."""

import concurrent.futures
import http.client
import itertools
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from painted import COLOURS, encode, paint
from running import REPOSITORY, SECONDS, RunningServer, running, serving

import main
from imagesieve.errors import ClassifierError, PortError, UsageError
from imagesieve.model import versions
from imagesieve.serving import server as http_server

RED = encode(paint(COLOURS["red"]))
POLICY = ("--decision", "confident", "--min-confidence", "0.9999", "--fallback-class", "none")


@pytest.fixture(scope="module")
def server(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("server"), version_path, *POLICY) as running_server:
        yield running_server


def predict(server: RunningServer, data: bytes | None = RED, **options) -> requests.Response:
    return requests.post(f"{server.url}/v1/predict", data=data, timeout=SECONDS, **options)


def test_start_prints_url_version_engine_and_a_line_to_copy(
    server: RunningServer, version_path: Path
) -> None:
    printed = server.printed()
    assert f"Serving {version_path.name} with openvino-" in printed
    assert f"curl --data-binary @image.jpg {server.url}/v1/predict" in printed
    assert "warning" not in printed


def test_policy_of_the_command_line_is_in_force(server: RunningServer) -> None:
    response = predict(server, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (response.json()["label"], response.json()["decision"]) == ("red", "none")
    assert "Server" not in response.headers


def test_requests_are_json_lines_in_the_log_file_and_not_on_the_console(
    server: RunningServer,
) -> None:
    answer_id = predict(server).json()["id"]
    (line,) = (line for line in server.log().splitlines() if answer_id in line)
    entry = json.loads(line[line.index("{") :])
    assert (entry["path"], entry["status"], entry["label"]) == ("/v1/predict", 200, "red")
    assert answer_id not in server.printed()


@pytest.mark.parametrize(
    "options",
    [
        "--port 70000",
        "--engine abacus",
        "--min-confidence 0.5",
        "--decision argmax --fallback-class x",
        "--decision confident --min-confidence 1.5",
    ],
)
def test_wrong_option_is_a_usage_error(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        main.main(options.split())
    assert not list(tmp_path.iterdir())


def test_interrupt_ends_with_exit_code_130_and_a_short_line(
    tmp_path: Path, version_path: Path
) -> None:
    with serving(tmp_path, version_path, "--quiet") as server:
        assert server.stop(signal.SIGINT) == 130
        assert server.lines == ["interrupted\n"]


HANGING = f"""
import functools, sys, threading
sys.path.insert(0, {str(REPOSITORY)!r})
import main
from imagesieve import console
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import limits

Predictor.predict = lambda *_: threading.Event().wait()
limits.ServingLimits = functools.partial(limits.ServingLimits, deadline_seconds=1, drain_seconds=1)
console.run_script(main.main, sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 0, "Stopped.\n")],
)
def test_an_engine_that_hangs_does_not_keep_the_server_from_ending(
    tmp_path: Path, version_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    options = ("--model", str(version_path), "--port", "0")
    with running(tmp_path, *options, script=script) as server:
        server.wait_for(" Serving ")
        assert predict(server).status_code == 504
        assert server.stop(number) == code
        assert server.lines[-1].endswith(line)


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
        assert server.lines[-1] == "Stopped.\n"
        for client in clients:
            client.result(SECONDS)
        answered = server.log().count('"path": "/v1/predict"')
    assert set(outcomes) <= {200, 503}
    assert len(outcomes) == answered
    assert 503 in outcomes  # those who came while it was leaving were told so


def test_a_network_is_let_in_with_keys(tmp_path: Path, version_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("shop predict 0123456789abcdef\nboss admin,feedback fedcba9876543210\n")
    keys.chmod(0o600)
    with serving(tmp_path, version_path, "--host", "0.0.0.0", "--keys", str(keys)) as server:
        assert server.url.startswith("http://127.0.0.1:")
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


@pytest.mark.usefixtures("_loggers_restored")
@pytest.mark.parametrize("kind", ["taken port", "missing model", "altered model"])
def test_a_start_that_fails_is_one_sentence(
    kind: str, tmp_path: Path, version_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(version_path, "altered")
    model = Path("altered", versions.OPENVINO_MODEL)
    model.write_bytes(model.read_bytes().replace(b"softmax", b"Softmax", 1) + b" ")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port, model_path, words = {
            # Before the model is touched.
            "taken port": (taken, "nowhere", f"Cannot listen on 127.0.0.1 port {taken}: another"),
            "missing model": (0, "modelFile", "There is no model at modelFile: train one"),
            "altered model": (0, "altered", rf"altered.*{re.escape(versions.OPENVINO_MODEL)}"),
        }[kind]
        with pytest.raises(ClassifierError, match=words):
            main.main(["--quiet", "--port", str(port), "--model", model_path])


@pytest.mark.parametrize("host", ["a..b", "192.0.2.1"])
def test_address_that_is_not_ours_is_a_port_error(host: str) -> None:
    with pytest.raises(PortError, match=f"Cannot listen on {host}"):
        http_server.listen(host, 0)
