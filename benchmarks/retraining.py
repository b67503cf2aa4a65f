"""Retraining: a first training, the same once more, and a retraining on a tenth more images.

    python benchmarks/retraining.py --data data
    python benchmarks/retraining.py --data data --backbone MobileNetV2 --weights FILE

Works on a copy of the data folder. One in eleven training images of each class is held back; the
rest is trained on, twice; then the held-back ones are added, and the model is trained further. The
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

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import options as rig  # noqa: E402
from learning_rig import processes  # noqa: E402
from learning_rig.folders import copy  # noqa: E402
from learning_rig.scripts import RETRAIN, TRAIN  # noqa: E402

from imagesieve import console  # noqa: E402
from imagesieve.errors import DataError  # noqa: E402
from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset  # noqa: E402

SHARE = 11  # one of so many is held back: the rest grows by a tenth
FIRST, AGAIN, FURTHER = "first training", "same images again", "retraining, a tenth more"

_HEADER = (
    *("", "images", "whole, s", "of the first", "work, s", "of the first"),
    *("learning, s", "of the first", "features made", "accuracy, %"),
)


def main(arguments: Sequence[str]) -> int:
    """Train three times, print the table, write the JSON."""
    options = parse(arguments)
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
    print(f"\n{table(result)}")
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    parser.add_argument(
        "--fine-tune-epochs",
        type=console.whole_number(0),
        default=0,
        metavar="N",
        help="of each (0)",
    )
    options = parser.parse_args(arguments)
    options.weights = rig.weights_of(options)
    return options


def part(dataset: Dataset) -> tuple[list[Sample], list[Sample]]:
    """Part the training images, each class for itself, by content; gives old and new ones.

    Raises:
        DataError: there are too few for that.
    """
    old, new = [], []
    seen: collections.Counter[int] = collections.Counter()
    for sample in sorted(dataset.train, key=lambda sample: sample.sha256):
        is_new = seen[sample.class_index] % SHARE == SHARE - 1
        seen[sample.class_index] += 1
        (new if is_new else old).append(sample)
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
    tuning = ["--fine-tune-epochs", str(options.fine_tune_epochs)]
    training = ["--backbone", options.backbone, "--weights", options.weights, *tuning]
    if options.image_size:
        training += ["--image-size", str(options.image_size)]
    runs = {FIRST: run(FIRST, TRAIN, training, folder, options)}
    runs[AGAIN] = run(AGAIN, TRAIN, training, folder, options)
    copy(new, dataset.classes, folder / "data" / "train")
    runs[FURTHER] = run(FURTHER, RETRAIN, tuning, folder, options)
    made = 0
    for found in runs.values():
        found["num_features_made"] = found["num_rows_kept"] - made
        made = found["num_rows_kept"]
    for name, found in runs.items():
        found["num_images"] = len(old) + len(dataset.validation)
        found["num_images"] += len(new) if name == FURTHER else 0
    return runs


def run(
    title: str, script: str, arguments: Sequence[str], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run a script in a folder, in a process of its own."""
    how = {"script": script, "arguments": list(arguments), "folder": str(folder)}
    title = "" if options.quiet else title
    return processes.run_task("run_script", how, options.scratch, title=title)


def summarise(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Give seconds of each run and what they are of the first's."""

    def seconds(found: Mapping[str, Any]) -> dict[str, float]:
        steps = found["steps"]
        return {
            "whole": found["process_seconds"],
            "work": found["seconds"],
            "learning": steps.get("train", 0.0) + steps.get("train_further", 0.0),
        }

    first = seconds(runs[FIRST])
    return {
        "seconds": {name: seconds(found) for name, found in runs.items()},
        "of_the_first": {
            name: {key: value / first[key] for key, value in seconds(found).items()}
            for name, found in runs.items()
        },
    }


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out."""
    rows = []
    for name, found in result["runs"].items():
        seconds, shares = result["seconds"][name], result["of_the_first"][name]
        row = [name, found["num_images"]]
        for key in ("whole", "work", "learning"):
            row += [f"{seconds[key]:.1f}", f"{shares[key]:.2f}"]
        accuracy = found["printed"]["metrics"]["accuracy"]
        rows.append([*row, found["num_features_made"], f"{100 * accuracy:.2f}"])
    steps = [
        f"{name}: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in run["steps"].items())
        for name, run in result["runs"].items()
    ]
    return "\n".join([console.table(_HEADER, rows), "", *steps])


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
