"""Engines: one model version in Keras and OpenVINO, in f32, bf16 and int8.

    python benchmarks/engine.py --model modelFile --data data
    python benchmarks/engine.py --model modelFile/model-20260101-120000 --data data --json out.json

Images are decoded before. "Alone" is one image after another; "busy" is as many at once as the
engine likes: all streams of OpenVINO, batches of 32 for Keras. All take turns in one process; the
medians of the rounds are compared. Accuracy and agreement are on the validation images of the
data folder, agreement with OpenVINO in f32. What the version lacks is left out and said.
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

from imagesieve import console  # noqa: E402
from imagesieve.intervals import wilson_interval  # noqa: E402

YARDSTICK = "keras-predict"  # what the first generation called for each image

_HEADER = (
    *("", "alone, ms", "x predict", "busy, ms", "x predict", "MB", "of Keras's"),
    *("accuracy, %", "95 % of", "agreement, %", "largest difference"),
)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    options = parse(arguments)
    how = {
        "model": str(options.model.resolve()),
        "data": str(options.data.resolve()),
        "num_rounds": options.rounds,
        "num_timed": options.images,
    }
    machine = rig.machine()
    title = "" if options.quiet else "engines"
    found = processes.run_task("engine", how, options.scratch, title=title)
    result = {"machine": machine, "data": options.data.name, **summarise(found), "run": found}
    print(f"\n{table(result)}\n\n{remark(result)}")
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    parser.add_argument(
        "--model", type=Path, default=Path("modelFile"), help="a model folder or one version"
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--rounds", type=console.whole_number(1), default=3, help="of each (3)")
    parser.add_argument(
        "--images", type=console.whole_number(1), default=64, help="timed in each round (64)"
    )
    return parser.parse_args(arguments)


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give medians, ratios and shares of each engine."""
    medians = {
        name: {key: statistics.median(row[key]) for key in ("alone_ms", "busy_ms")}
        for name, row in found["engines"].items()
    }
    first = medians[YARDSTICK]
    num_images = found["num_images"]
    return {
        "engines": {
            name: {
                **medians[name],
                "alone_speedup": first["alone_ms"] / medians[name]["alone_ms"],
                "busy_speedup": first["busy_ms"] / medians[name]["busy_ms"],
                "num_bytes": row["num_bytes"],
                "size_to_keras": row["num_bytes"] / found["engines"][YARDSTICK]["num_bytes"],
                "accuracy": row["num_right"] / num_images,
                "accuracy_interval": wilson_interval(row["num_right"], num_images),
                "agreement": row["agreement"],
                "max_difference": row["max_difference"],
            }
            for name, row in found["engines"].items()
        }
    }


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out."""
    rows = []
    for name, row in result["engines"].items():
        low, high = row["accuracy_interval"]
        rows.append(
            (
                name,
                f"{row['alone_ms']:.2f}",
                f"{row['alone_speedup']:.1f}",
                f"{row['busy_ms']:.2f}",
                f"{row['busy_speedup']:.1f}",
                f"{row['num_bytes'] / 1e6:.1f}",
                f"{row['size_to_keras']:.2f}",
                f"{100 * row['accuracy']:.2f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{100 * row['agreement']:.2f}",
                f"{row['max_difference']:.4f}",
            )
        )
    return console.table(_HEADER, rows)


def remark(result: Mapping[str, Any]) -> str:
    """Say what was measured, and what was not and why."""
    run = result["run"]
    height, width = run["image_size"]
    lines = [f"{run['backbone']} at {height}×{width}, {run['num_images']} validation images."]
    lines += [f"Without {name}: {reason}" for name, reason in run["missing"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
