"""The service under load, beside the first generation's service and the bare engine.

    python benchmarks/serving.py --model modelFile --data data/validation
    python benchmarks/serving.py --model modelFile --data images --clients 1,8 --seconds 5
    python benchmarks/serving.py --model modelFile --data images --only ours,bare --json out.json

So many clients ask over loopback, from a process of their own, each again as soon as it has its
answer; every image is sent as another content, so that no cache can answer. Only predicted images
count. A client that gets a 503 waits 50 ms. "Old route" is our server asked just as the first
generation's is (its path, its Base64 form). The bare engine predicts the same files in one process
without HTTP: with one thread, which is what one client is compared with, and with one more than it
has streams. All take turns in one run, several times; the medians are compared. CPU is what the
server took for each predicted image, refusals included: it still counts where a busy machine blurs
the rest. Then, with the most clients, our server is asked for its health fifty times a second; and
beside 300 slow connections (headers, bodies, nothing) one caller goes on asking. The load generator
needs a core for a small part of the time: the last column shows how much of it.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rig
from serving_rig import bare, load, runs, services, tables
from serving_rig.slow import NUM_SLOW, slow_callers
from serving_rig.tables import BARE, FIRST, OLD_ROUTE, OURS

from imagesieve import console
from imagesieve.model import versions

PARTS = {"ours": OURS, "old-route": OLD_ROUTE, "first-generation": FIRST, "bare": BARE}


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
    return rig.finish(options, result, *tables.texts(result))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    add, number = parser.add_argument, console.whole_number(1)
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of images")
    add("--images", type=number, default=200, help="of the folder, at most (200)")
    add("--clients", type=rig.numbers(1), default=[1, 8, 32, 64], help="(1,8,32,64)")
    add("--seconds", type=float, default=10.0, help="of each point (10)")
    add("--rounds", type=number, default=3, help="of all points (3)")
    only = f"of {','.join(PARTS)} (all)"
    add("--only", type=rig.some_of(PARTS), default=list(PARTS), metavar="NAMES", help=only)
    services.add_options(parser)
    options = parser.parse_args(arguments)
    options.only = [PARTS[name] for name in options.only]
    return options


class Bench:
    """One run: what is asked for, and the images."""

    def __init__(self, options: argparse.Namespace, images: Sequence[str]) -> None:
        self._options = options
        self._images = images
        self._version = versions.load(options.model)

    def measure(self, scratch: Path) -> dict[str, Any]:
        """Start the servers, let all take turns, then look at them under a crowd."""
        missing = {}
        if FIRST in self._options.only and not self._version.file(versions.KERAS_MODEL):
            missing[FIRST] = "the version has no Keras model"
        with ExitStack() as stack:
            targets = self._start(scratch, stack, missing)
            alone, points = self._take_turns(targets)
            processes = {name: found for name, found in targets.items() if name != OLD_ROUTE}
            return {
                "missing": missing,
                "bare": alone,
                "points": points,
                "memory_mib": {name: found.memory_mib() for name, found in processes.items()},
                "crowd": self._crowd(processes[OURS]) if OURS in processes else None,
                "slow": {name: self._slow(name, found) for name, found in processes.items()},
            }

    def _start(
        self, scratch: Path, stack: ExitStack, missing: dict[str, str]
    ) -> dict[str, services.Service]:
        """Return the servers by name; ours may stand there twice, asked in two ways."""
        options = self._options
        image = Path(self._images[0]).read_bytes()
        targets = {}
        if {OURS, OLD_ROUTE} & {*options.only}:
            how = (scratch, options.server_options, options.python)
            service = stack.enter_context(services.ours(options.model, image, *how))
            as_before = dataclasses.replace(service, kind=services.OLD_ROUTE)
            targets = {OURS: service, OLD_ROUTE: as_before}
        if FIRST in options.only and FIRST not in missing:
            server = services.of_the_first_generation(options.model, image, scratch)
            targets[FIRST] = stack.enter_context(server)
        return {name: found for name, found in targets.items() if name in options.only}

    def _take_turns(
        self, targets: dict[str, services.Service]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the bare engine's figures of each round, and the load's of each point."""
        options, alone, points = self._options, [], []
        how = {"images": self._images, "seconds": options.seconds}
        for number in range(1, options.rounds + 1):
            if BARE in options.only:
                title, model = f"round {number}: the bare engine", self._version.path.resolve()
                alone.append(rig.run_alone(bare.measure, options, title, model=model, **how))
            for num_clients in options.clients:
                for name, service in targets.items():
                    rig.say(options, f"round {number}: {name}, {num_clients} clients …")
                    points.append({"service": name, **self._point(service, num_clients)})
        return alone, points

    def _point(self, service: services.Service, num_clients: int) -> dict[str, Any]:
        cpu = service.cpu_seconds()
        (figures,) = runs.run_loads(self._scenario(service, num_clients))
        cpu = service.cpu_seconds() - cpu
        num_good = figures["num_good_in_all"]  # warming up included, as in the CPU time
        return {**figures, "cpu_ms": 1000 * cpu / num_good if num_good else None}

    def _crowd(self, service: services.Service) -> dict[str, Any]:
        """Return what becomes of requests, and of health probes, with the most clients."""
        num_clients = max(self._options.clients)
        both = []
        for number in range(1, self._options.rounds + 1):
            rig.say(self._options, f"crowd {number}: {num_clients} clients and a health probe …")
            both.append(runs.run_with_probe(self._scenario(service, num_clients)))
        asked, probed = zip(*both, strict=True)
        return {
            "num_clients": num_clients,
            "outcomes": runs.total([run["outcomes"] for run in asked]),
            "probe_outcomes": runs.total([run["outcomes"] for run in probed]),
            "probe_p50_ms": statistics.median(run["p50_ms"] for run in probed),
            "probe_p99_ms": max(run["p99_ms"] for run in probed),
        }

    def _slow(self, name: str, service: services.Service) -> dict[str, Any]:
        """Return how one good caller fares beside slow ones."""
        rig.say(self._options, f"{name}: {NUM_SLOW} slow callers and a good one …")
        scenario = self._scenario(service, 1, patience_seconds=self._options.seconds)
        with slow_callers(service.port) as slow:
            run = runs.run_with_probe if name == OURS else runs.run_loads
            asked, *probed = run(scenario)
        return {**slow, "asked": asked, "probed": probed[0] if probed else None}

    def _scenario(
        self, service: services.Service, num_clients: int, **changes: Any
    ) -> load.Scenario:
        seconds, kind = self._options.seconds, dataclasses.asdict(service.kind)
        changes |= {"seconds": seconds, "warm_up_seconds": min(1.0, seconds), **kind}
        return load.Scenario(service.port, images=self._images, num_clients=num_clients, **changes)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
