"""Extraction: images from files through the frozen base, against the bare engine.

    python benchmarks/extraction.py --data data
    python benchmarks/extraction.py --data data --backbone MobileNetV2 --weights random --rounds 5

The bare engine is OpenVINO's own queue of requests on decoded images in memory: the same network
in the same precision, with nothing to read, decode, augment or keep. Ours reads the files, decodes,
makes the views and keeps the features in a store that is empty before. Keras is its own generator
into `predict`. All take turns in one process; the medians of the rounds are compared. An image in
two views counts twice, as it goes through the network twice.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import options as rig  # noqa: E402
from learning_rig import processes  # noqa: E402
from learning_rig.problem import Problem  # noqa: E402

from imagesieve import console  # noqa: E402

BARE = "bare engine"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    options = parse(arguments)
    problem = Problem(
        str(options.data.resolve()), options.backbone, options.weights, options.image_size, 0
    )
    how = {
        "problem": problem.to_json(),
        "num_rounds": options.rounds,
        "num_views": options.views,
        "with_keras": not options.without_keras,
    }
    machine = rig.machine()
    title = "" if options.quiet else "extraction"
    found = processes.run_task("extraction", how, options.scratch, title=title)
    result = {
        "machine": machine,
        "data": options.data.name,
        "backbone": options.backbone,
        "image_size": list(problem.image_size),
        **summarise(found),
        "run": found,
    }
    print(f"\n{table(result)}\n\n{remark(result)}")
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    parser.add_argument("--rounds", type=console.whole_number(1), default=3, help="of each (3)")
    parser.add_argument(
        "--views", type=console.whole_number(2), default=2, help="where there are several (2)"
    )
    parser.add_argument("--without-keras", action="store_true", help="leave Keras out")
    options = parser.parse_args(arguments)
    options.weights = rig.weights_of(options)
    return options


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give the medians, and each as a share of the bare engine."""
    medians = {name: statistics.median(rates) for name, rates in found["passes_per_second"].items()}
    return {
        "images_per_second": medians,
        "to_bare_engine": {name: rate / medians[BARE] for name, rate in medians.items()},
    }


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out."""
    rows = [
        (name, f"{rate:.1f}", f"{result['to_bare_engine'][name]:.2f}")
        for name, rate in result["images_per_second"].items()
    ]
    return console.table(["", "images/s", "of the bare engine"], rows)


def remark(result: Mapping[str, Any]) -> str:
    """Say what was measured with."""
    run = result["run"]
    return (
        f"{run['num_images']} images, {run['engine']}. Besides, once for a network: "
        f"{run['open_seconds']:.1f} s to convert, compare and compile it."
    )


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
