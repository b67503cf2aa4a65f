"""The benchmark of the service must not flatter: its load generator, its callers, its rival."""

import base64
import itertools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from painted import COLOURS, encode, paint

from imagesieve import images

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import soak
from serving_rig import first_generation, load, mixture, runs, slow, tables

BENCHMARKS = Path(sys.path[-1])
RED = paint(COLOURS["red"])
GOOD = (200, b'{"label": "red"}')
CACHED = (200, b'{"label": "red", "cached": true}')
BUSY = (503, b"{}")
ODD = (200, b'{"code": "98"}')
LARGE = (413, b"no")  # after which the connection is closed


@contextmanager
def scripted(*replies: tuple[int, bytes] | None) -> Iterator[int]:
    """Yield the port of a server that answers in turn; None closes without an answer."""
    turns = itertools.cycle(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            reply = next(turns)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply[0])
            self.send_header("Content-Length", str(len(reply[1])))
            if reply is LARGE:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply[1])

        def log_message(self, *_: object) -> None:
            """Keep the console clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "red.jpg"
    path.write_bytes(encode(RED))
    return str(path)


def scenario(port: int, image: str, **changes: object) -> load.Scenario:
    given = {"form": load.RAW, "expected": "label", "images": [image], "num_clients": 3}
    times = {"seconds": 0.3, "warm_up_seconds": 0.05}
    return load.Scenario(port, "/", **{**given, **times, **changes})


def test_only_predicted_images_count_and_those_of_a_cache_are_named(image: str) -> None:
    with scripted(GOOD, BUSY, ODD, CACHED, None, LARGE) as port:
        (found,) = runs.run_loads(scenario(port, image, busy_seconds=0.001))
    outcomes = found["outcomes"]
    assert set(outcomes) == {"200", "503", load.WRONG, load.RESET, "413"}
    assert found["good_per_second"] * found["seconds"] == pytest.approx(outcomes["200"])
    # A sixth each, but for those under way when counting begins and ends.
    assert abs(outcomes["200"] - 2 * outcomes["503"]) <= 12
    assert abs(outcomes["200"] - 2 * found["num_cached"]) <= 12
    assert found["num_good_in_all"] > outcomes["200"]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_what_is_sent_is_still_the_image_and_never_the_same_twice(
    tmp_path: Path, image_format: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(RED, image_format))
    original = images.decode(path)
    seen = {original.sha256}
    for form, _ in itertools.product((load.RAW, load.BASE64), range(2)):
        requests = load.requests(scenario(1, str(path), form=form))
        for request in itertools.islice(requests, 2):
            head, _, body = request.partition(b"\r\n\r\n")
            assert head.endswith(f"Content-Length: {len(body)}".encode())
            if form == load.BASE64:
                (text,) = parse_qs(body.decode(), strict_parsing=True)[first_generation.FIELD]
                body = base64.b64decode(text, validate=True)
            sent = images.decode(body)
            assert (sent.pixels == original.pixels).all()
            seen.add(sent.sha256)
    assert len(seen) == 9  # nor do two runs send the same


def test_a_server_that_is_silent_or_not_there_is_counted_as_such(image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (silent,) = runs.run_loads(scenario(port, image, patience_seconds=0.3, seconds=0.9))
    (absent,) = runs.run_loads(scenario(port, image))
    assert (set(silent["outcomes"]), set(absent["outcomes"])) == ({load.SILENT}, {load.RESET})
    assert (silent["good_per_second"], silent["p50_ms"]) == (0, None)
    with pytest.raises(FileNotFoundError, match="no-such-image"):
        runs.run_loads(scenario(1, "no-such-image"))


def test_slow_callers_stay_and_come_back_when_thrown_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        with slow.slow_callers(listener.getsockname()[1], 6) as counts:
            connections = [listener.accept()[0] for _ in range(6)]
            openings = [connection.recv(1000) for connection in connections[:2]]
            connections[0].close()
            connections.append(listener.accept()[0])  # the one that has come back
        for connection in connections:
            connection.close()
    assert counts == {"num_connected": 6, "num_thrown_out": 1}
    assert b"X-Slow: " in openings[0]
    assert openings[1].endswith(b"Content-Length: 500000\r\n\r\n")


class OneSided:
    """A model whose first class always has the given probability."""

    input_shape = (None, 20, 30, 3)

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def predict(self, pixels: np.ndarray, verbose: int) -> np.ndarray:
        assert pixels.shape == (1, 20, 30, 3)
        assert pixels.max() > 1  # 0 to 255
        return np.array([[self.probability, 1 - self.probability]])


def test_the_first_generation_answers_as_it_did() -> None:
    def answer(probability: float, text: str | None) -> dict[str, str]:
        model = OneSided(probability)
        return json.loads(first_generation.detected(model, ["menu", "other"], text))

    text = "data:image/jpeg;base64," + base64.b64encode(encode(RED)).decode()
    for probability, expected in ((0.9, "menu"), (0.75, "menu"), (0.7, "neutral")):
        assert answer(probability, text) == {
            "code": "00",
            "message": f"图片检测成功，类别是：{expected}",
            "predictedClass": expected,
            "probability": str(probability),
        }
    for bad in (None, "", "no Base64!", base64.b64encode(b"no image").decode()):
        assert answer(1, bad)["code"] == "98"


def test_usable_images_leave_out_what_the_service_would_refuse(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode(RED))
    (tmp_path / "broken.jpg").write_bytes(encode(RED)[:-50])
    (tmp_path / "notes.txt").write_text("no image")
    assert len(runs.usable_images(tmp_path, 100)) == 3


def test_ratios_are_those_of_the_medians() -> None:
    point = {"p50_ms": 1.0, "p99_ms": 2.0, "refused_p50_ms": None, "cpu_share": 0.1, "cpu_ms": 3.0}
    point |= {"num_clients": 8, "outcomes": {"200": 5}, "num_cached": 0}
    rates = {"ours": [30.0, 80.0, 50.0], "first generation": [5.0, 4.0, 90.0]}
    points = [
        {**point, "service": name, "good_per_second": rate}
        for name, found in rates.items()
        for rate in found
    ]
    summary = tables.summarise({"bare": [], "points": points, "crowd": None, "slow": {}})
    ours, first = summary["points"]
    assert (ours["good_per_second"], first["good_per_second"]) == (50, 5)
    assert (ours["to_first"], first["to_first"]) == (10, 1)
    assert ours["outcomes"] == {"200": 15}
    (aim,) = summary["aims"]
    assert (aim["found"], aim["reached"]) == ("10.0 x", True)
    assert load.percentile(range(1, 101), 0.99) == 99


def test_the_benchmark_runs_from_end_to_end(tmp_path: Path, version_path: Path, image: str) -> None:
    out = tmp_path / "out.json"
    given = ["--model", version_path, "--data", tmp_path, "--json", out, "--scratch", tmp_path]
    short = ["--seconds", "0.3", "--rounds", "1", "--clients", "2", "--quiet"]
    short += ["--only", "ours,first-generation,bare"]
    command = [sys.executable, BENCHMARKS / "serving.py", *given, *short]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["run"]["missing"] == {"first generation": "the version has no Keras model"}
    assert {point["service"] for point in result["points"]} == {"ours"}
    assert all(set(point["outcomes"]) == {"200"} for point in result["points"])
    assert result["run"]["slow"]["ours"]["num_connected"] == slow.NUM_SLOW
    assert "of the bare engine's" in done.stdout


def samples(memory: Callable[[float], float]) -> list[dict[str, float]]:
    return [{"seconds": float(second), "memory_mib": memory(second)} for second in range(601)]


def test_the_slope_is_that_of_the_second_half() -> None:
    grows_at_first = samples(lambda second: min(second, 300.0))
    assert soak.slope_per_hour(grows_at_first) == pytest.approx(0, abs=1e-6)
    assert soak.slope_per_hour(samples(lambda second: 2 * second / 3600)) == pytest.approx(2)


CLEAN = {
    "before": {"memory_mib": 100, "num_descriptors": 9, "num_threads": 40},
    "after": {"memory_mib": 110, "num_descriptors": 11, "num_threads": 40},
    "outcomes": {soak.AS_EXPECTED: 900, soak.BUSY: 100},
    "predicts_as_before": True,
    "exit_code": 0,
    "samples": samples(lambda _: 110.0),
}
FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"samples": samples(lambda second: second / 100)}, ["memory, MiB an hour"]),
    ({"after": {**CLEAN["after"], "num_descriptors": 12}}, ["open files"]),
    ({"after": {**CLEAN["after"], "num_threads": 43}}, ["threads"]),
    ({"outcomes": {"PNG: 500": 1}}, ["answers that should not be"]),
    ({"predicts_as_before": False}, ["predicts as before"]),
    ({"exit_code": -9}, ["leaves on SIGTERM"]),
]


def test_the_checks_name_what_is_not_well() -> None:
    for fault, expected in FAULTS:
        rows = soak.check({**CLEAN, **fault})
        assert [row["what"] for row in rows if not row["well"]] == expected


def test_a_short_soak_ends_well(
    tmp_path: Path, version_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(soak, "EVERY_SECONDS", 0.2)
    out = tmp_path / "soak.json"
    given = ["--model", version_path, "--json", out, "--scratch", tmp_path, "--quiet"]
    soak.main([*map(str, given), "--minutes", "0.01", "--images", "5"])
    result = json.loads(out.read_text())
    assert soak.strange_of(result["outcomes"]) == {}
    assert sum(result["outcomes"].values()) > 3 * len(mixture.KINDS)
    found = {row["what"]: row["well"] for row in result["checks"]}
    assert all(well for what, well in found.items() if not what.startswith("memory"))  # too short
