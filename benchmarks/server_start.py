"""Start to first answer, and memory of the server: OpenVINO against Keras and the first generation.

    python benchmarks/server_start.py --model modelFile --image image.jpg
    python benchmarks/server_start.py --model modelFile --image image.jpg --json out.json
    python benchmarks/server_start.py --image image.jpg --python slim/bin/python

Our server runs with OpenVINO and with the Keras engine; the first generation's service is
re-written for Keras 3. Each is started in turn, several times, in one run; the ratio of the medians
is what counts, as machines differ and are shared. With --python, OpenVINO runs in another
environment, such as one of requirements-serve.txt alone. Memory is the highest that was resident
after eleven answers.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import rig
from serving_rig import services

from imagesieve import console

OPENVINO, KERAS, FIRST = "openvino", "keras", "first_generation"
SERVERS = (OPENVINO, KERAS, FIRST)
NUM_MORE = 10  # answers after the first one
NAMES = ("first_answer_seconds", "memory_mib")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    add = parser.add_argument
    add("--image", type=Path, required=True, help="what is asked about")
    add("--runs", type=console.whole_number(1), default=3, help="of each server (3)")
    only = f"of {','.join(SERVERS)} (all)"
    add("--only", type=rig.some_of(SERVERS), default=list(SERVERS), metavar="NAMES", help=only)
    services.add_options(parser)
    options = parser.parse_args(arguments)
    machine = rig.machine()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as scratch:
        for _ in range(options.runs):
            for name in options.only:
                server = start(name, options, Path(scratch))
                runs[name].append(measure(server, options.image.read_bytes()))
    result = {"machine": machine, **summarise(runs), "runs": runs}
    return rig.finish(options, result, table(result))


def start(
    name: str, options: argparse.Namespace, folder: Path
) -> AbstractContextManager[services.Service]:
    """Return a server that is started when the context is entered."""
    image = options.image.read_bytes()
    if name == FIRST:
        return services.of_the_first_generation(options.model, image, folder)
    python = options.python if name == OPENVINO else sys.executable
    arguments = ["--engine", name, *options.server_options]
    return services.ours(options.model, image, folder, arguments, python)


def measure(server: AbstractContextManager[services.Service], image: bytes) -> dict[str, float]:
    """Start a server, ask once, ask ten times more, look at its memory, stop it."""
    with server as service:
        for _ in range(NUM_MORE):
            if not service.predicts(image):
                raise services.ServiceError("A server answered its first image and no other.")
        figures = (service.start_seconds, service.memory_mib())
        service.stop()
    return dict(zip(NAMES, figures, strict=True))


def summarise(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the medians of each server, and the others' divided by OpenVINO's."""
    medians = {
        server: {name: statistics.median(run[name] for run in found) for name in NAMES}
        for server, found in runs.items()
    }
    base = medians.get(OPENVINO)
    ratios = {
        f"{server}_to_openvino": {name: found[name] / base[name] for name in NAMES}
        for server, found in medians.items()
        if base and server != OPENVINO
    }
    return {**medians, **ratios}


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = []
    for server in SERVERS:
        if server in result:
            seconds, mib = (result[server][name] for name in NAMES)
            ratio = result.get(f"{server}_to_openvino", dict.fromkeys(NAMES, 1.0))
            times = [f"{ratio[name]:.2f}" for name in NAMES]
            name = server.replace("_", " ")
            rows.append((name, f"{seconds:.2f}", times[0], f"{mib:.1f}", times[1]))
    return console.table(["", "first answer, s", "x", "memory, MiB", "x"], rows)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
