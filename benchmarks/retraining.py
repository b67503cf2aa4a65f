"""Retraining: a first training, the same once more, and a retraining on a tenth more images.

    python benchmarks/retraining.py --data data
    python benchmarks/retraining.py --data data --backbone MobileNetV2 --weights FILE

Works on a copy of the data folder. One in eleven training images of each class is left out; the
rest is trained on, twice; then these images are added, and the model is trained further. The
scripts run as users run them. "Whole" is from the start of the process to its end; "work" is
without the start of Python and the loading of libraries, which are the same each time. All
validation images are there from the beginning.
"""

import argparse
import collections
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rig
from learning_rig.problem import copy
from learning_rig.scripts import RETRAIN, TRAIN, network_arguments, run_script

from imagesieve import console
from imagesieve.errors import DataError
from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset

SHARE = 11  # one of so many is left out at first: the rest grows by a tenth
FIRST, AGAIN, FURTHER = "first training", "same images again", "retraining, a tenth more"

_HEADER = (
    *("", "images", "whole, s", "of the first", "work, s", "of the first"),
    *("learning, s", "of the first", "features made", "accuracy, %"),
)


def main(arguments: Sequence[str]) -> int:
    """Train three times, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    epochs = {"type": console.whole_number(0), "default": 0, "metavar": "N", "help": "of each (0)"}
    parser.add_argument("--fine-tune-epochs", **epochs)
    options = parser.parse_args(arguments)
    machine = rig.machine()
    dataset = read_dataset(options.data)
    old, new = part(dataset)
    with tempfile.TemporaryDirectory(prefix="retraining-", dir=options.scratch) as name:
        runs = run_all(Path(name), dataset, old, new, options)
    result = {
        "machine": machine,
        "data": options.data.name,
        "backbone": options.backbone,
        "fine_tune_epochs": options.fine_tune_epochs,
        **summarise(runs),
        "runs": runs,
    }
    steps = [
        f"{name}: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in run["steps"].items())
        for name, run in runs.items()
    ]
    return rig.finish(options, result, table(result), "\n".join(steps))


def part(dataset: Dataset) -> tuple[list[Sample], list[Sample]]:
    """Part the training images, each class for itself, by content; return old and new ones."""
    old, new = [], []
    seen: collections.Counter[int] = collections.Counter()
    for sample in sorted(dataset.train, key=lambda sample: sample.sha256):
        seen[sample.class_index] += 1
        (old if seen[sample.class_index] % SHARE else new).append(sample)
    if not new:
        raise DataError(f"No class of {dataset.folder} has {SHARE} training images.")
    return old, new


def run_all(
    folder: Path,
    dataset: Dataset,
    old: Sequence[Sample],
    new: Sequence[Sample],
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Run the scripts one after another in a folder."""
    copy(old, dataset.classes, folder / "data" / "train")
    copy(dataset.validation, dataset.classes, folder / "data" / "validation")
    training = network_arguments(options)
    further = ["--fine-tune-epochs", str(options.fine_tune_epochs)]
    runs, made = {}, 0
    for name, script, how in ((FIRST, TRAIN, training), (AGAIN, TRAIN, training),
                              (FURTHER, RETRAIN, further)):  # fmt: skip
        if name == FURTHER:
            copy(new, dataset.classes, folder / "data" / "train")
        runs[name] = run_script(script, how, folder, options, name)
        runs[name]["num_features_made"] = runs[name]["num_rows"] - made
        made = runs[name]["num_rows"]
        runs[name]["num_images"] = len(old) + len(dataset.validation)
    runs[FURTHER]["num_images"] += len(new)
    return runs


def summarise(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seconds of each run and their share of the first's."""
    seconds = {
        name: {
            "whole": found["process_seconds"],
            "work": found["seconds"],
            "learning": found["steps"]["train"],
        }
        for name, found in runs.items()
    }
    shares = {
        name: {key: value / seconds[FIRST][key] for key, value in found.items()}
        for name, found in seconds.items()
    }
    return {"seconds": seconds, "of_the_first": shares}


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = []
    for name, found in result["runs"].items():
        row = [name, found["num_images"]]
        for key, seconds in result["seconds"][name].items():
            row += [f"{seconds:.1f}", f"{result['of_the_first'][name][key]:.2f}"]
        accuracy = found["printed"]["metrics"]["accuracy"]
        rows.append([*row, found["num_features_made"], f"{100 * accuracy:.2f}"])
    return console.table(_HEADER, rows)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
