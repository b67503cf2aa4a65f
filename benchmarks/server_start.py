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

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import options as rig  # noqa: E402
from serving_rig import services  # noqa: E402
from serving_rig.services import Service  # noqa: E402

from imagesieve import console  # noqa: E402
from imagesieve.errors import UsageError  # noqa: E402

OPENVINO, KERAS, FIRST = "openvino", "keras", "first_generation"
SERVERS = (OPENVINO, KERAS, FIRST)
NUM_MORE = 10  # answers after the first one
NAMES = ("first_answer_seconds", "memory_mib")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    options = parse(arguments)
    machine = rig.machine()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as scratch:
        for _ in range(options.runs):
            for name in options.only:
                runs[name].append(measure(start(name, options, Path(scratch)), options))
    result = {"machine": machine, **summarise(runs), "runs": runs}
    print(as_table(result))
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    add = parser.add_argument
    add("--image", type=Path, required=True, help="what is asked about")
    add("--runs", type=console.whole_number(1), default=3, help="of each server (3)")
    add(
        "--only",
        type=_servers,
        default=list(SERVERS),
        metavar="NAMES",
        help=f"of {','.join(SERVERS)} (all)",
    )
    services.add_options(parser)
    return parser.parse_args(arguments)


def start(name: str, options: argparse.Namespace, folder: Path) -> AbstractContextManager[Service]:
    """Give a server that is started when the context is entered."""
    image = options.image.read_bytes()
    if name == FIRST:
        return services.of_the_first_generation(options.model, image, folder)
    python = options.python if name == OPENVINO else sys.executable
    arguments = ["--engine", name, *options.server_options]
    return services.ours(options.model, image, folder, arguments, python)


def measure(
    server: AbstractContextManager[Service], options: argparse.Namespace
) -> dict[str, float]:
    """Start a server, ask once, ask ten times more, look at its memory, stop it.

    Raises:
        ServiceError: it judged no image.
    """
    with server as service:
        for _ in range(NUM_MORE):
            if not service.judges(options.image.read_bytes()):
                raise services.ServiceError("A server judged its first image and no other.")
        found = {
            "first_answer_seconds": service.start_seconds,
            "memory_mib": service.memory_mib(),
        }
        service.stop()
    return found


def summarise(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Give the medians of each server, and the others' divided by OpenVINO's."""
    medians = {
        server: {name: statistics.median(run[name] for run in found) for name in NAMES}
        for server, found in runs.items()
    }
    ratios = {
        f"{server}_to_openvino": {
            name: medians[server][name] / medians[OPENVINO][name] for name in NAMES
        }
        for server in medians
        if server != OPENVINO and OPENVINO in medians
    }
    return {**medians, **ratios}


def as_table(result: Mapping[str, Mapping[str, float]]) -> str:
    """Lay the figures out."""
    rows = []
    for server in SERVERS:
        if server not in result:
            continue
        found, ratio = result[server], result.get(f"{server}_to_openvino")
        seconds, mib = (found[name] for name in NAMES)
        times = [f"{ratio[name]:.2f}" for name in NAMES] if ratio else ["1.00", "1.00"]
        name = server.replace("_", " ")
        rows.append((name, f"{seconds:.2f}", times[0], f"{mib:.1f}", times[1]))
    return console.table(["", "first answer, s", "x", "memory, MiB", "x"], rows)


def _servers(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SERVERS]:
        raise UsageError(f"--only knows no {', '.join(unknown)}: use {', '.join(SERVERS)}.")
    return names


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
