"""The downloader against its rivals: speed, cost, and what each makes of a hostile web.

    python benchmarks/downloads.py --cache /tmp/rivals
    python benchmarks/downloads.py --cache /tmp/rivals --part throughput --only ours,bbid-style
    python benchmarks/downloads.py --cache /tmp/rivals --runs 5 --json downloads.json

Each runs in a process of its own against the same fake Bing and its hosts, which are another one.
Everything stays on loopback but the rivals' installation from PyPI into environments of their own.
Part "throughput": hosts with JPEGs of 20 kB that take 30 to 300 ms for every answer, 165 on
average; whole runs, from the start of the process to its end. Result pages come at once, unless
--page-seconds says otherwise: a tool that reads 35 results in 165 ms, one page after another, can
have no more than 212 images a second. Ours asks a host for ten images a second at most, and for its
robots.txt, while the others do neither: with fewer --hosts than 50 that is what limits it.
Part "hostile": one result page of odd, broken, huge, forbidden and endless things.

Loopback knows neither names nor TLS, and machines differ and are shared: the ratios are what
counts. Images are counted as files on disk, even where a tool keeps the same one twice. For Linux
only: the hosts are 127.0.1.1 and up, and the processes are watched in /proc.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rig
from downloads_rig import hostile, runs, throughput
from downloads_rig.links import hostile_set
from downloads_rig.tools import TOOLS

from imagesieve import console
from imagesieve.errors import UsageError

PARTS = ("throughput", "hostile")

_MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write the JSON."""
    parser = rig.parser(__doc__, scratch=_MEMORY if _MEMORY.is_dir() else None)
    add, number = parser.add_argument, console.whole_number(1)
    script = "the script that runs as ours (this repository's)"
    add("--cache", type=Path, metavar="DIR", help="the rivals' environments, for further runs")
    downloader = rig.PROJECT / "bing_downloader.py"
    add("--downloader", type=Path, default=downloader, metavar="FILE", help=script)
    part = "throughput or hostile (both)"
    add("--part", type=rig.some_of(PARTS), default=PARTS, metavar="PART", help=part)
    only = f"some of {','.join(TOOLS)} (all)"
    add("--only", type=rig.some_of(TOOLS), default=list(TOOLS), metavar="NAMES", help=only)
    images = "in a throughput run (%(default)s); the slow ones get a share of them"
    add("--images", type=number, default=1000, help=images)  # as many as Bing has for a query
    hosts = console.whole_number(1, 254)  # a thousand images of a search come from some hundred
    add("--hosts", type=hosts, default=100, help="for throughput, up to 254 (%(default)s)")
    page = "that a result page of the throughput part takes (%(default)s)"
    add("--page-seconds", type=float, default=0.0, help=page)
    add("--runs", type=number, default=3, help="of each, for throughput (3)")
    without = 'not in the hostile set, such as "endless body", which few survive'
    add("--without", nargs="+", default=[], metavar="LINK", help=without)
    options = parser.parse_args(arguments)
    if not options.downloader.is_file():
        raise UsageError(f"--downloader {options.downloader} is not a file: name the script to run")
    if unknown := set(options.without) - {link.name for link in hostile_set()}:
        raise UsageError(f"no link of the hostile set is called {', '.join(sorted(unknown))}")
    options.downloader = options.downloader.resolve()
    result: dict[str, Any] = {"machine": rig.machine()}
    with tempfile.TemporaryDirectory(prefix="downloads-", dir=options.scratch) as scratch:
        options.cache = (options.cache or Path(scratch) / "rivals").resolve()
        options.scratch = Path(scratch)
        tools, result["missing"] = runs.install(options)
        if "throughput" in options.part:
            result["throughput"] = throughput.measure(tools, options)
            print(f"\n{throughput.table(result['throughput'])}", flush=True)
        if "hostile" in options.part:
            result["hostile"] = hostile.measure(tools, options)
            print(f"\n{hostile.tables(result['hostile'])}", flush=True)
    missing = [f"{name} was not measured: {why}" for name, why in result["missing"].items()]
    return rig.finish(options, result, *missing)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
