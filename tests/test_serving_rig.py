"""The benchmark of the service must not flatter: its load generator, its callers, its rival."""

import base64
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
GOOD = (200, b'{"label": "red"}', True)
BUSY = (503, b"{}", True)
ODD = (200, b'{"code": "98"}', True)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")

Reply = tuple[int, bytes, bool] | None


@contextmanager
def scripted(replies: Callable[[int], Reply]) -> Iterator[int]:
    """Yield the port of a server that reads whole requests and answers the n-th by the script.

    A reply is status, body, and whether the connection is kept; None closes without an answer.
    """
    count = iter(range(10**9))
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while read_request(stream) is not None:
                with lock:
                    reply = replies(next(count))
                if reply is None:
                    return
                status, body, keep = reply
                length = f"Content-Length: {len(body)}\r\n"
                end = "" if keep else "Connection: close\r\n"
                head = f"HTTP/1.1 {status} x\r\n{length}{end}\r\n"
                connection.sendall(head.encode() + body)
                if not keep:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def read_request(stream: io.BufferedReader) -> bytes | None:
    """Return the body of the next request; None at the end."""
    length = 0
    try:
        while (line := stream.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"Content-Length" else length
        return stream.read(length) if line else None
    except ConnectionError:
        return None


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "red.jpg"
    path.write_bytes(encode(RED))
    return str(path)


def scenario(port: int, image: str, **changes: object) -> load.Scenario:
    given = {
        **{"port": port, "path": "/", "form": load.RAW, "expected": "label"},
        **{"images": [image], "num_clients": 3, "seconds": 0.3, "warm_up_seconds": 0.05},
        **changes,
    }
    return load.Scenario(**given)


def test_only_predicted_images_count(image: str) -> None:
    answers = [GOOD, BUSY, ODD, GOOD, None, (413, b"no", False)]
    with scripted(lambda number: answers[number % 6]) as port:
        (found,) = runs.run_loads(scenario(port, image, busy_seconds=0.001))
    outcomes = found["outcomes"]
    assert set(outcomes) == {"200", "503", load.WRONG, load.RESET, "413"}
    rate = found["good_per_second"] * found["seconds"]
    assert rate == pytest.approx(outcomes["200"])
    # A sixth each, but for those under way when counting begins and ends.
    assert abs(outcomes["200"] - 2 * outcomes["503"]) <= 12
    assert found["num_good_in_all"] > outcomes["200"]


def test_no_content_is_sent_twice(image: str) -> None:
    seen: list[bytes] = []
    for form in (load.RAW, load.BASE64):
        requests = load.requests(scenario(1, image, form=form))
        seen += [next(requests) for _ in range(3)]
    seen.append(next(load.requests(scenario(1, image))))
    assert len(set(seen)) == 7


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("form", [load.RAW, load.BASE64])
def test_what_is_sent_is_still_the_image(tmp_path: Path, form: str, image_format: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(RED, image_format))
    head, _, body = next(load.requests(scenario(1, str(path), form=form))).partition(b"\r\n\r\n")
    assert head.endswith(f"Content-Length: {len(body)}".encode())
    if form == load.BASE64:
        (text,) = parse_qs(body.decode(), strict_parsing=True)[first_generation.FIELD]
        body = base64.b64decode(text, validate=True)
    sent, original = images.decode(body), images.decode(path)
    assert (sent.pixels == original.pixels).all()
    assert sent.sha256 != original.sha256


def test_a_server_that_is_silent_is_given_up(image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (found,) = runs.run_loads(scenario(port, image, patience_seconds=0.3, seconds=0.9))
    assert set(found["outcomes"]) == {load.SILENT}
    assert found["good_per_second"] == 0
    assert found["p50_ms"] is None


def test_a_server_that_is_not_there_is_counted_as_such(image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (found,) = runs.run_loads(scenario(port, image))
    assert set(found["outcomes"]) == {load.RESET}


def test_answers_from_the_cache_are_counted(image: str) -> None:
    with scripted(lambda _: (200, b'{"label": "red", "cached": true}', True)) as port:
        (found,) = runs.run_loads(scenario(port, image))
    assert found["num_cached"] == found["outcomes"]["200"] > 0


def test_slow_callers_stay_and_come_back_when_thrown_out() -> None:
    connections = []
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


def test_a_load_that_fails_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-image"):
        runs.run_loads(scenario(1, "no-such-image"))


class OneSided:
    """A model whose first class always has the given probability."""

    input_shape = (None, 20, 30, 3)

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def predict(self, pixels: np.ndarray, verbose: int) -> np.ndarray:
        assert pixels.shape == (1, 20, 30, 3)
        assert pixels.max() > 1  # 0 to 255
        return np.array([[self.probability, 1 - self.probability]])


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.9, "menu"), (0.75, "menu"), (0.7, "neutral")]
)
def test_the_first_generation_answers_as_it_did(probability: float, expected: str) -> None:
    text = "data:image/jpeg;base64," + base64.b64encode(encode(RED)).decode()
    answer = json.loads(first_generation.detected(OneSided(probability), ["menu", "other"], text))
    assert answer == {
        "code": "00",
        "message": f"图片检测成功，类别是：{expected}",
        "predictedClass": expected,
        "probability": str(probability),
    }


@pytest.mark.parametrize("text", [None, "", "no Base64!", base64.b64encode(b"no image").decode()])
def test_the_first_generation_says_98(text: str | None) -> None:
    assert json.loads(first_generation.detected(OneSided(1), ["a", "b"], text))["code"] == "98"


def test_the_share_that_a_percentile_names_is_not_above_it() -> None:
    assert load.percentile(range(1, 101), 0.99) == 99
    assert load.percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert load.percentile([], 0.5) is None


def test_usable_images_leave_out_what_the_service_would_refuse(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode(RED))
    (tmp_path / "broken.jpg").write_bytes(encode(RED)[:-50])
    (tmp_path / "notes.txt").write_text("no image")
    assert len(runs.usable_images(tmp_path, 100)) == 3
    assert len(runs.usable_images(tmp_path, 1)) <= 1


def test_ratios_are_those_of_the_medians() -> None:
    point = {"p50_ms": 1.0, "p99_ms": 2.0, "refused_p50_ms": None, "cpu_share": 0.1, "cpu_ms": 3.0}
    point |= {"num_clients": 8, "outcomes": {"200": 5}, "num_cached": 0}
    rates = {"ours": [30.0, 80.0, 50.0], "first generation": [5.0, 4.0, 90.0]}
    points = [
        {**point, "service": name, "good_per_second": rate}
        for name, found in rates.items()
        for rate in found
    ]
    found = {"bare": [], "points": points, "crowd": None, "slow": {}}
    ours, first = tables.summarise(found)["points"]
    assert (ours["good_per_second"], first["good_per_second"]) == (50, 5)
    assert (ours["to_first"], first["to_first"]) == (10, 1)
    assert ours["outcomes"] == {"200": 15}
    (aim,) = tables.summarise(found)["aims"]
    assert (aim["found"], aim["reached"]) == ("10.0 x", True)


def test_the_benchmark_runs_from_end_to_end(tmp_path: Path, version_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        (folder / f"{name}.jpg").write_bytes(encode(paint(colour)))
    out = tmp_path / "out.json"
    given = ["--model", version_path, "--data", folder, "--json", out, "--scratch", tmp_path]
    short = ["--seconds", "0.3", "--rounds", "1", "--clients", "2", "--quiet"]
    short += ["--only", "ours,first-generation,bare"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "serving.py"), *map(str, [*given, *short])],
        capture_output=True,
        text=True,
        check=False,
    )
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


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({}, []),
        ({"samples": samples(lambda second: second / 100)}, ["memory, MiB an hour"]),
        ({"after": {**CLEAN["after"], "num_descriptors": 12}}, ["open files"]),
        ({"after": {**CLEAN["after"], "num_threads": 43}}, ["threads"]),
        ({"outcomes": {"PNG: 500": 1}}, ["answers that should not be"]),
        ({"predicts_as_before": False}, ["predicts as before"]),
        ({"exit_code": -9}, ["leaves on SIGTERM"]),
    ],
)
def test_the_checks_name_what_is_not_well(fault: dict, expected: list[str]) -> None:
    rows = soak.check({**CLEAN, **fault})
    assert [row["what"] for row in rows if not row["well"]] == expected


def test_a_round_of_the_mixture_holds_every_kind_and_no_content_twice() -> None:
    requests = mixture.Mixture([encode(RED), encode(paint(COLOURS["blue"]))])
    found = [next(requests) for _ in range(3 * len(mixture.KINDS))]
    for start in range(0, len(found), len(mixture.KINDS)):
        names = {request.name for request in found[start : start + len(mixture.KINDS)]}
        assert names == set(mixture.KINDS)
    sent = [request.data for request in found if request.name == "raw"]
    assert len(set(sent)) == 3


def test_a_short_soak_ends_well(tmp_path: Path, version_path: Path) -> None:
    out = tmp_path / "soak.json"
    given = ["--model", version_path, "--json", out, "--scratch", tmp_path, "--minutes", 0.04]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "soak.py"), *map(str, given)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NOT EXPECTED" not in done.stdout, done.stdout
    found = {row["what"]: row["well"] for row in json.loads(out.read_text())["checks"]}
    assert all(well for what, well in found.items() if not what.startswith("memory"))  # too short
