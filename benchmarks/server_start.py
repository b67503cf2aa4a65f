"""Start to first answer, and memory of the server: OpenVINO against Keras.

    python benchmarks/server_start.py --model modelFile --picture picture.jpg
    python benchmarks/server_start.py --model modelFile --picture picture.jpg --json out.json

Each engine's server is started in turn, several times, in one run; the ratio of the medians is what
counts, as machines differ and are shared.
"""

import argparse
import http.client
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from classifier import console  # noqa: E402
from classifier.errors import ClassifierError  # noqa: E402
from classifier.files import write_json  # noqa: E402

ENGINES = ("openvino", "keras")
DEADLINE_SECONDS = 120.0


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    options = parse(arguments)
    picture = options.picture.read_bytes()
    runs = {engine: [] for engine in ENGINES}
    for _ in range(options.runs):
        for engine in ENGINES:
            runs[engine].append(measure(options.model, engine, picture))
    result = summarise(runs)
    print(as_table(result))
    if options.json:
        write_json(options.json, result)
    return console.EXIT_OK


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = console.argument_parser(
        "Start to first answer, and memory of the server.",
        "  python benchmarks/server_start.py --model modelFile --picture picture.jpg",
    )
    parser.add_argument("--model", type=Path, default=Path("modelFile"), help="(modelFile)")
    parser.add_argument("--picture", type=Path, required=True, help="what is asked about")
    parser.add_argument("--runs", type=int, default=3, help="of each engine (3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args(arguments)


def measure(model: Path, engine: str, picture: bytes) -> dict[str, float]:
    """Start a server, ask once, ask ten times more, look at its memory, stop it."""
    port = free_port()
    command = [sys.executable, str(PROJECT / "main.py"), "--quiet", "--model", str(model)]
    start = time.perf_counter()
    server = subprocess.Popen([*command, "--engine", engine, "--port", str(port)])
    try:
        while (status := ask(port, picture)) != 200:
            if server.poll() is not None or time.perf_counter() - start > DEADLINE_SECONDS:
                raise ClassifierError(f"The server with {engine} did not answer ({status}).")
            time.sleep(0.02)
        first = time.perf_counter() - start
        for _ in range(10):
            ask(port, picture)
        return {"first_answer_seconds": first, "memory_mib": resident_mib(server.pid)}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def ask(port: int, picture: bytes) -> int:
    """Post the picture; 0 when nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/predict", picture, {"Content-Type": "image/jpeg"})
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()


def resident_mib(process: int) -> float:
    """Give the highest resident memory that a process has had."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ClassifierError(f"Process {process} tells nothing about its memory.")


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Give the medians of each engine, and Keras divided by OpenVINO."""
    names = ("first_answer_seconds", "memory_mib")
    medians = {
        engine: {name: statistics.median(run[name] for run in found) for name in names}
        for engine, found in runs.items()
    }
    ratio = {name: medians["keras"][name] / medians["openvino"][name] for name in names}
    return {**medians, "keras_to_openvino": ratio}


def as_table(result: dict[str, dict[str, float]]) -> str:
    """Lay the figures out."""
    rows = [
        (name, f"{found['first_answer_seconds']:.2f}", f"{found['memory_mib']:.1f}")
        for name, found in result.items()
    ]
    return console.table(["", "first answer, s", "memory, MiB"], rows)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
