"""Memory: how much a training needs at most, and how that grows with the number of images.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 5000,10000 --fine-tune-epochs 1 --json out.json

Draws small images, as many as asked for and a tenth as many to validate on, and runs the training
script on them in a process of its own, as a user does. What is printed is the most that this
process ever had resident (VmHWM in /proc, for Linux only); pages of files that are mapped count.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rig
from learning_rig.drawing import draw_data_folder
from learning_rig.scripts import TRAIN, network_arguments, run_script

from imagesieve import console


def main(arguments: Sequence[str]) -> int:
    """Train on each number of images, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    rig.add_network(parser, data=False)
    parser.set_defaults(backbone="MobileNetV2", weights="random")
    add = parser.add_argument
    numbers = "to train on (5000,10000)"
    add("--images", type=rig.numbers(22), default=[5_000, 10_000], metavar="N,N", help=numbers)
    add("--fine-tune-epochs", type=console.whole_number(0), default=0, metavar="N", help="(0)")
    add("--epochs", type=console.whole_number(1), default=20, help="of the head (20)")
    options = parser.parse_args(arguments)
    machine = rig.machine()
    runs = {}
    for count in options.images:
        with tempfile.TemporaryDirectory(prefix="memory-", dir=options.scratch) as folder:
            draw_data_folder(Path(folder) / "data", count, count // 10, seed=count)
            how = [*network_arguments(options), "--epochs", str(options.epochs)]
            runs[count] = run_script(TRAIN, how, Path(folder), options, f"{count} images")
    peaks = {count: found["peak_mib"] for count, found in runs.items()}
    growth = peaks[max(peaks)] / peaks[min(peaks)] - 1
    result = {
        "machine": machine,
        "backbone": options.backbone,
        "fine_tune_epochs": options.fine_tune_epochs,
        "peak_mib": {str(count): peak for count, peak in peaks.items()},
        "growth": growth,
        "runs": {str(count): found for count, found in runs.items()},
    }
    remark = f"From the fewest images to the most it grows by {100 * growth:.1f} %."
    return rig.finish(options, result, table(runs), remark)


def table(runs: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the figures as a table."""
    rows = [
        (
            count,
            f"{found['peak_mib']:.0f}",
            f"{found['process_seconds']:.0f}",
            found["num_rows"],
            f"{100 * found['printed']['metrics']['accuracy']:.1f}",
        )
        for count, found in runs.items()
    ]
    return console.table(["images", "peak MiB", "seconds", "features made", "accuracy, %"], rows)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
