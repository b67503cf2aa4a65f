"""The service under load, beside the first generation's service and the bare engine.

    python benchmarks/serving.py --model modelFile --data data/validation
    python benchmarks/serving.py --model modelFile --data images --clients 1,8 --seconds 5
    python benchmarks/serving.py --model modelFile --data images --only ours,bare --json out.json

So many clients ask over loopback, from a process of their own, each again as soon as it has its
answer; every image is sent as another content, so that no cache can answer. Only judged images
count. A client that gets a 503 waits 50 ms. "Old route" is our server asked just as the first
generation's is (its address, its Base64 form). The bare engine judges the same files in one process
without HTTP: with one thread, which is what one client is held against, and with one more than it
has streams. All take turns in one run, several times; the medians are compared. CPU is what the
server took for each judged image, refusals included: it still counts where a busy machine blurs
the rest. Then, with the most clients, our server is asked for its health fifty times a second; and
beside 300 slow connections (headers, bodies, nothing) one caller goes on asking. The load generator
needs a core for a small part of the time: the last column tells how much of it.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import options as rig  # noqa: E402
from serving_rig import load, runs, services, tables  # noqa: E402
from serving_rig.names import BARE, FIRST, OLD_ROUTE, OURS, PARTS  # noqa: E402
from serving_rig.services import Service  # noqa: E402

from imagesieve import console  # noqa: E402
from imagesieve.errors import UsageError  # noqa: E402
from imagesieve.model import versions  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write the JSON."""
    options = parse(arguments)
    machine = rig.machine()
    images = runs.usable_images(options.data, options.images)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch) as scratch:
        found = Bench(options, images).measure(Path(scratch))
    result = {
        "machine": machine,
        "data": options.data.name,
        "num_images": len(images),
        **tables.summarise(found),
        "run": found,
    }
    print(tables.text(result))
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of images")
    add("--images", type=console.whole_number(1), default=200, help="of the folder, at most (200)")
    add("--clients", type=_numbers, default=[1, 8, 32, 64], help="(1,8,32,64)")
    add("--seconds", type=float, default=10.0, help="of each point (10)")
    add("--rounds", type=console.whole_number(1), default=3, help="of all points (3)")
    add(
        "--only",
        type=_parts,
        default=list(PARTS.values()),
        metavar="NAMES",
        help=f"of {','.join(PARTS)} (all)",
    )
    services.add_options(parser)
    return parser.parse_args(arguments)


class Bench:
    """One run: what is asked for, and the images."""

    def __init__(self, options: argparse.Namespace, images: Sequence[str]) -> None:
        self._options = options
        self._images = images
        self._version = versions.load(options.model)

    def measure(self, scratch: Path) -> dict[str, Any]:
        """Start the servers, let all take turns, then look at how they bear a crowd."""
        missing = {}
        if FIRST in self._options.only and not self._version.file(versions.KERAS_MODEL):
            missing[FIRST] = "the version has no Keras model"
        with ExitStack() as stack:
            targets = self._start(scratch, stack, missing)
            bare, points = self._take_turns(targets)
            processes = {name: found for name, found in targets.items() if name != OLD_ROUTE}
            return {
                "missing": missing,
                "bare": bare,
                "points": points,
                "memory_mib": {name: found.memory_mib() for name, found in processes.items()},
                "crowd": self._crowd(processes[OURS]) if OURS in processes else None,
                "slow": {name: self._slow(name, found) for name, found in processes.items()},
            }

    def _start(
        self, scratch: Path, stack: ExitStack, missing: dict[str, str]
    ) -> dict[str, Service]:
        """Give the servers by name; ours may stand there twice, asked in two ways."""
        options = self._options
        image = Path(self._images[0]).read_bytes()
        targets = {}
        if {OURS, OLD_ROUTE} & {*options.only}:
            server = services.ours(
                options.model, image, scratch, options.server_options, options.python
            )
            service = stack.enter_context(server)
            ways = {OURS: service, OLD_ROUTE: service.asked_as(services.OLD_ROUTE)}
            targets = {name: found for name, found in ways.items() if name in options.only}
        if FIRST in options.only and FIRST not in missing:
            server = services.of_the_first_generation(options.model, image, scratch)
            targets[FIRST] = stack.enter_context(server)
        return targets

    def _take_turns(
        self, targets: dict[str, Service]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Give what the bare engine did in each round, and the load's figures of each point."""
        bare, points = [], []
        for number in range(1, self._options.rounds + 1):
            if BARE in self._options.only:
                self._say(f"round {number}: the bare engine")
                bare.append(self._bare())
            for num_clients in self._options.clients:
                for name, service in targets.items():
                    self._say(f"round {number}: {name}, {num_clients} clients")
                    points.append({"service": name, **self._point(service, num_clients)})
        return bare, points

    def _point(self, service: Service, num_clients: int) -> dict[str, Any]:
        cpu = service.cpu_seconds()
        figures = runs.run_load(self._scenario(service, num_clients))
        cpu = service.cpu_seconds() - cpu
        num_good = figures["num_good_in_all"]  # warming up included, as in the CPU time
        return {**figures, "cpu_ms": 1000 * cpu / num_good if num_good else None}

    def _bare(self) -> dict[str, Any]:
        arguments = {
            "model": str(self._version.path.resolve()),
            "images": self._images,
            "seconds": self._options.seconds,
        }
        return runs.run_bare(arguments)

    def _crowd(self, service: Service) -> dict[str, Any]:
        """See what becomes of requests, and of health probes, with the most clients."""
        num_clients = max(self._options.clients)
        asked, probed = [], []
        for number in range(1, self._options.rounds + 1):
            self._say(f"crowd {number}: {num_clients} clients and a probe of the health")
            both = runs.run_with_probe(self._scenario(service, num_clients))
            asked.append(both[0])
            probed.append(both[1])
        return {
            "num_clients": num_clients,
            "outcomes": runs.total([run["outcomes"] for run in asked]),
            "probe_outcomes": runs.total([run["outcomes"] for run in probed]),
            "probe_p50_ms": statistics.median(run["p50_ms"] for run in probed),
            "probe_p99_ms": max(run["p99_ms"] for run in probed),
        }

    def _slow(self, name: str, service: Service) -> dict[str, Any]:
        """See how one good caller fares beside slow ones."""
        self._say(f"{name}: {runs.NUM_SLOW} slow callers and a good one")
        scenario = self._scenario(service, 1, patience_seconds=self._options.seconds)
        probed = None
        with runs.slow_callers(service.port) as held:
            if name == OURS:
                asked, probed = runs.run_with_probe(scenario)
            else:
                asked = runs.run_load(scenario)
        return {**held, "asked": asked, "probed": probed}

    def _scenario(self, service: Service, num_clients: int, **changes: Any) -> load.Scenario:
        kind = service.kind
        return load.Scenario(
            service.port,
            kind.path,
            kind.form,
            kind.expected,
            self._images,
            num_clients,
            self._options.seconds,
            warm_up_seconds=min(1.0, self._options.seconds),
            **changes,
        )

    def _say(self, text: str) -> None:
        if not self._options.quiet:
            print(f"{text} …", file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    return sorted({console.whole_number(1)(part) for part in text.split(",")})


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise UsageError(f"--only knows no {', '.join(unknown)}: use {', '.join(PARTS)}.")
    return [PARTS[name] for name in names]


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
