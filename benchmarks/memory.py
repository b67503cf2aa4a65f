"""Memory: how much a training needs at most, and how that grows with the number of images.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 5000,10000 --fine-tune-epochs 1 --json out.json

Draws small images, as many as asked for and a tenth as many to validate on, and runs the training
script on them in a process of its own, as a user does. What is printed is the most that this
process ever had resident (VmHWM in /proc, for Linux only); pages of files that are mapped count.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rig
from learning_rig.scripts import TRAIN, network_arguments, run_script
from PIL import Image

from imagesieve import class_folders, console

COLUMNS = (
    "images | {images}",
    "peak MiB | {peak_mib:.0f}",
    "seconds | {process_seconds:.0f}",
    "features made | {num_rows}",
    "accuracy | {printed[metrics][accuracy]:.1%}",
)
CLASSES = ("plain", "striped")
SIZE = (200, 150)  # (width, height) in pixels
PATCHES = (10, 8)  # of colour; with so many no two images are near-duplicates


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
    rows = [{"images": count, **found} for count, found in runs.items()]
    return rig.finish(options, result, rig.table(COLUMNS, rows), remark)


def draw_data_folder(folder: Path, num_train: int, num_validation: int, seed: int) -> None:
    """Write so many small JPEGs of two classes, each unlike all others."""
    rng = np.random.default_rng(seed)
    for split, count in (
        (class_folders.TRAIN, num_train),
        (class_folders.VALIDATION, num_validation),
    ):
        for number in range(count):
            class_index = number % len(CLASSES)
            path = folder / split / CLASSES[class_index] / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(rng, is_striped=class_index == 1).save(path, quality=80)


def _draw(rng: np.random.Generator, *, is_striped: bool) -> Image.Image:
    patches = rng.integers(0, 256, (PATCHES[1], PATCHES[0], 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize(SIZE, Image.Resampling.BICUBIC)
    if not is_striped:
        return image
    pixels = np.array(image)
    start, step = int(rng.integers(0, 8)), int(rng.integers(8, 16))
    pixels[start::step] = 255 - pixels[start::step]
    return Image.fromarray(pixels)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
