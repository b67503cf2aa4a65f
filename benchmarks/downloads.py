"""The downloader against its rivals: speed, cost, and what each makes of a hostile web.

    python benchmarks/downloads.py --cache /tmp/rivals
    python benchmarks/downloads.py --cache /tmp/rivals --part throughput --only ours,bbid-style
    python benchmarks/downloads.py --cache /tmp/rivals --runs 5 --json downloads.json

Each runs in a process of its own against the same fake Bing and its hosts, which are another one.
Everything stays on loopback but the rivals' installation from PyPI into environments of their own.
Part "throughput": hosts with JPEGs of 20 kB that take 30 to 300 ms for every answer, 165 on
average; whole runs, from the start of the process to its end. Result pages come at once, unless
--page-seconds says otherwise: whoever reads 35 results in 165 ms, one page after another, can have
no more than 212 images a second, however good the rest. Ours asks a host for ten images a
second at most, and for its robots.txt, while the others know no such manners: with fewer --hosts
than 50 that is what limits it. Part "hostile": one result page of odd, broken, huge, forbidden and
endless things.

Loopback knows neither names nor TLS, and machines differ and are shared: the ratios are what
counts. Images are counted as files on disk, even where a tool keeps the same one twice. For Linux
only: the hosts are 127.0.1.1 and up, and the processes are watched in /proc.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from downloads_rig import hostile, throughput  # noqa: E402
from downloads_rig.runs import Rig  # noqa: E402
from downloads_rig.tools import TOOLS  # noqa: E402

from imagesieve import console  # noqa: E402
from imagesieve.errors import UsageError  # noqa: E402

PARTS = ("throughput", "hostile")

_MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write the JSON."""
    options = parse(arguments)
    if not options.downloader.is_file():
        raise UsageError(f"--downloader {options.downloader} is no file: name the script to run")
    with tempfile.TemporaryDirectory(prefix="downloads-", dir=options.scratch) as scratch:
        cache = (options.cache or Path(scratch) / "rivals").resolve()
        rig = Rig(Path(scratch), cache, options.downloader.resolve(), options.quiet)
        result = measure(rig, options)
    for name, reason in result["missing"].items():
        print(f"\n{name} was not measured: {reason}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return console.EXIT_OK


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    examples, _, notes = rest.partition("\n\n")
    parser = console.argument_parser(f"{head}\n\n{notes}", examples)
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the rivals' environments there"
    )
    parser.add_argument(
        "--downloader",
        type=Path,
        default=PROJECT / "bing_downloader.py",
        metavar="FILE",
        help="the script that runs as ours (this repository's)",
    )
    parser.add_argument(
        "--part",
        type=_some_of(PARTS),
        default=PARTS,
        metavar="PART",
        help="throughput or hostile (both)",
    )
    parser.add_argument(
        "--only",
        type=_some_of(TOOLS),
        default=tuple(TOOLS),
        metavar="NAMES",
        help=f"some of {','.join(TOOLS)} (all)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=throughput.Settings.num_images,
        help="in a throughput run (%(default)s); the slow ones get a share of them",
    )
    parser.add_argument(
        "--hosts",
        type=int,
        default=throughput.Settings.num_hosts,
        help="for throughput, up to 254 (%(default)s)",
    )
    parser.add_argument(
        "--page-seconds",
        type=float,
        default=throughput.Settings.page_seconds,
        help="that a result page of the throughput part takes (%(default)s)",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=_MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where the images are written (%(default)s; in memory, no disk is measured)",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each, for throughput (3)")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="LINK",
        help='leave these out of the hostile set, such as "endless body", which few survive',
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def measure(rig: Rig, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for, and print each table as soon as it is known."""
    tools, missing = rig.install(options.only)
    result: dict[str, Any] = {"machine": machine(), "missing": missing}
    if "throughput" in options.part:
        settings = throughput.Settings(
            options.images, options.hosts, options.runs, options.page_seconds
        )
        result["throughput"] = throughput.measure(rig, tools, settings)
        print(f"\n{throughput.table(result['throughput'])}", flush=True)
    if "hostile" in options.part:
        result["hostile"] = hostile.measure(rig, tools, options.without)
        print(f"\n{hostile.tables(result['hostile'])}", flush=True)
    return result


def machine() -> dict[str, Any]:
    """Say what was measured on, and how busy it was already."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _some_of(choices: Collection[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return [name for name in choices if name in names]

    return read


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
