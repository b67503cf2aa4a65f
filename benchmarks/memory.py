"""Memory: what a training holds at most, and how that grows with the number of images.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 5000,10000 --fine-tune-epochs 1 --json out.json

Draws small images, as many as asked for and a tenth as many to validate on, and runs the training
script on them in a process of its own, as a user does. What is printed is the most that this
process ever had resident (VmHWM in /proc, for Linux only); pages of files that are mapped count.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import options as rig  # noqa: E402
from learning_rig import processes  # noqa: E402
from learning_rig.drawing import draw_data_folder  # noqa: E402
from learning_rig.scripts import TRAIN  # noqa: E402

from imagesieve import console  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Train on each number of images, print the table, write the JSON."""
    options = parse(arguments)
    machine = rig.machine()
    runs = {count: run(count, options) for count in options.images}
    result = {
        "machine": machine,
        "backbone": options.backbone,
        "fine_tune_epochs": options.fine_tune_epochs,
        **summarise(runs),
        "runs": {str(count): found for count, found in runs.items()},
    }
    print(f"\n{table(result)}")
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    rig.add_network(parser, data=False)
    parser.set_defaults(backbone="MobileNetV2", weights="random")
    parser.add_argument(
        "--images",
        type=lambda text: [console.whole_number(22)(part) for part in text.split(",")],
        default=[5_000, 10_000],
        metavar="N,N",
        help="to train on (5000,10000)",
    )
    parser.add_argument(
        "--fine-tune-epochs", type=console.whole_number(0), default=0, metavar="N", help="(0)"
    )
    parser.add_argument(
        "--epochs", type=console.whole_number(1), default=20, help="of the head (20)"
    )
    options = parser.parse_args(arguments)
    options.weights = rig.weights_of(options)
    return options


def run(count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Draw so many images and train on them."""
    with tempfile.TemporaryDirectory(prefix="memory-", dir=options.scratch) as folder:
        draw_data_folder(Path(folder) / "data", count, count // 10, seed=count)
        arguments = ["--backbone", options.backbone, "--weights", options.weights]
        arguments += ["--epochs", str(options.epochs)]
        arguments += ["--fine-tune-epochs", str(options.fine_tune_epochs)]
        if options.image_size:
            arguments += ["--image-size", str(options.image_size)]
        how = {"script": TRAIN, "arguments": arguments, "folder": folder}
        title = "" if options.quiet else f"{count} images"
        return processes.run_task("run_script", how, options.scratch, title=title)


def summarise(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Give the peaks, and how much the largest run's exceeds the smallest's."""
    peaks = {count: found["peak_mib"] for count, found in runs.items()}
    growth = peaks[max(peaks)] / peaks[min(peaks)] - 1
    return {"peak_mib": {str(count): peak for count, peak in peaks.items()}, "growth": growth}


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out."""
    rows = [
        (
            count,
            f"{found['peak_mib']:.0f}",
            f"{found['process_seconds']:.0f}",
            found["num_rows_kept"],
            f"{100 * found['printed']['metrics']['accuracy']:.1f}",
        )
        for count, found in result["runs"].items()
    ]
    header = ["images", "peak MiB", "seconds", "features made", "accuracy, %"]
    growth = f"From the fewest images to the most it grows by {100 * result['growth']:.1f} %."
    return f"{console.table(header, rows)}\n\n{growth}"


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
