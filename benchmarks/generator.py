"""Images per second for training: our generator against Keras's two ways, on your own images.

    python benchmarks/generator.py --data data
    python benchmarks/generator.py --data data --image-size 299 --runs 5 --json out.json

Every way goes through the same JPEG and PNG files, in turn, several times, in one run, in a loop
that does nothing else; the ratio of the medians is what counts, as machines differ and are shared.
On a busy machine, look at the processor's time: it hardly depends on what else is running.
What comes out is not the same: Keras's generator picks the nearest pixel by default, its
`image_dataset_from_directory` interpolates without antialiasing, which is quick and ruins small
print, and ours averages (antialiasing), as in prediction. The augmentation is the first
generation's: shear, zoom, flip.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import rig

from imagesieve import console
from imagesieve.class_folders import class_files
from imagesieve.errors import DataError, ImageError, UsageError
from imagesieve.images import decode
from imagesieve.logs import native_messages_in_log, start_logging
from imagesieve.threads import cpu_count

KERAS_THREADS = 2
OURS = "ours, looking ahead"
COLUMNS = (
    " | {task}: {name}",
    "resizing | {resizing}",
    "images/s | {images_per_second:.0f}",
    "time, ours = 1 | {time_to_ours:.2f}",
    "processor, ms | {processor_ms_per_image:.2f}",
    "ours = 1 | {processor_to_ours:.2f}",
)
RATIOS = {"time_to_ours": "seconds", "processor_to_ours": "processor_seconds"}
READ_BY_ALL = {"JPEG": ".jpg", "PNG": ".png"}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to get batches."""

    task: str  # `decode` or `augment`; ratios are taken within a task
    name: str  # for the table
    resizing: str  # how its images were scaled
    epoch: Callable[[], int]  # goes through all images once and returns how many there were
    seconds: list[float] = dataclasses.field(default_factory=list)  # of each epoch
    processor_seconds: list[float] = dataclasses.field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    number = console.whole_number(1)
    data = "folder of class folders, or of train/<class>/"
    parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--image-size", type=number, default=224, help="side in pixels (224)")
    parser.add_argument("--batch-size", type=number, default=32, help="images in a batch (32)")
    parser.add_argument("--runs", type=number, default=3, help="epochs of each way (3)")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("scipy") is None:
        raise UsageError("Keras's own generator needs SciPy: pip install scipy.")
    start_logging("benchmark_generator", quiet=options.quiet)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        count = link_images(options.data, Path(folder))
        # Keras prints how many images it found; standard output is for the table.
        with native_messages_in_log(), contextlib.redirect_stdout(sys.stderr):
            ways = [*keras_ways(Path(folder), options), *our_ways(Path(folder), options)]
        measure(ways, count, options.runs)
    result = summarise(ways, count, options)
    return rig.finish(options, result, rig.table(COLUMNS, result["ways"]))


def link_images(data: Path, folder: Path) -> int:
    """Link the images that all ways can read into `folder`, by class; return their number."""
    if not data.is_dir():
        raise DataError(f"{data} is not a folder: name one of class folders.")
    train = data / "train" if (data / "train").is_dir() else data
    files = [(name, path) for name, paths in class_files(train).items() for path in paths]
    count = 0
    for name, path in files:
        with contextlib.suppress(ImageError):  # damaged
            ending = READ_BY_ALL.get(decode(path, image_size=(32, 32)).format)
            if ending:
                link = folder / name / f"{count:06}{ending}"
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(path.resolve())
                count += 1
    if not count:
        raise DataError(f"There are no JPEG or PNG images in class folders of {train}.")
    return count


def keras_ways(folder: Path, options: argparse.Namespace) -> list[Way]:
    """Return Keras's own generator and `image_dataset_from_directory`, plain and augmented."""
    import keras
    import tensorflow as tf
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    from imagesieve.learning.data.generator import FIRST_GENERATION

    # Keras calls SciPy under a name that SciPy is about to drop, and says so once a channel.
    warnings.filterwarnings("ignore", "Please import", DeprecationWarning)
    size = (options.image_size, options.image_size)
    common = {"batch_size": options.batch_size, "shuffle": True, "seed": 0}

    def flow(how: str = "nearest", **augmentation: Any) -> Any:
        generator = ImageDataGenerator(**augmentation)
        return generator.flow_from_directory(folder, size, interpolation=how, **common)

    from_directory = keras.utils.image_dataset_from_directory
    decoded = from_directory(folder, image_size=size, verbose=False, **common)
    layers = (
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomShear(x_factor=0.0035, y_factor=0.0035),  # of 0.2 degrees
        keras.layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2)),
    )
    augmentation, automatic = keras.Sequential(layers), tf.data.AUTOTUNE
    augmented = decoded.map(
        lambda images, labels: (augmentation(images, training=True), labels), automatic
    ).prefetch(automatic)

    nearest, bilinear, first = flow(), flow("bilinear"), flow(**FIRST_GENERATION)
    first_bilinear = flow("bilinear", **FIRST_GENERATION)
    name, dataset = "ImageDataGenerator", "image_dataset_from_directory"
    threads = f"{name}, {KERAS_THREADS} threads"
    return [
        Way("decode", name, "nearest", lambda: one_by_one(nearest)),
        Way("decode", name, "antialiased", lambda: one_by_one(bilinear)),
        Way("decode", dataset, "aliased", lambda: count_images(None, decoded)),
        Way("augment", name, "nearest", lambda: one_by_one(first)),
        Way("augment", name, "antialiased", lambda: one_by_one(first_bilinear)),
        Way("augment", threads, "nearest", lambda: by_threads(first)),
        Way("augment", f"{dataset}, layers", "aliased", lambda: count_images(None, augmented)),
    ]


def our_ways(folder: Path, options: argparse.Namespace) -> list[Way]:
    """Return our generator: batch after batch by its number, and in a loop, which looks ahead."""
    from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator

    size = (options.image_size, options.image_size)
    ways = []
    for task, augmentation in (("decode", {}), ("augment", FIRST_GENERATION)):
        flow = ImageDataGenerator(**augmentation).flow_from_directory(
            str(folder), target_size=size, batch_size=options.batch_size, seed=0
        )
        ways += [
            Way(task, "ours, 1 thread", "antialiased", lambda flow=flow: one_by_one(flow)),
            Way(task, OURS, "antialiased", lambda flow=flow: one_epoch(flow)),
        ]
    return ways


def one_by_one(flow: Any) -> int:
    """Ask for an epoch's batches by their numbers."""
    return count_images(flow, (flow[index] for index in range(len(flow))))


def by_threads(flow: Any) -> int:
    """Have threads ask: what Keras's `workers` do in `fit`, without its queue, which may hang."""
    with concurrent.futures.ThreadPoolExecutor(KERAS_THREADS) as pool:
        return count_images(flow, pool.map(flow.__getitem__, range(len(flow))))


def one_epoch(flow: Any) -> int:
    """Take an epoch's batches from a loop without end."""
    with contextlib.closing(iter(flow)) as batches:
        return count_images(flow, itertools.islice(batches, len(flow)))


def count_images(flow: Any, batches: Iterable[Any]) -> int:
    """Go through batches and end the epoch."""
    count = sum(len(images) for images, _ in batches)
    getattr(flow, "on_epoch_end", lambda: None)()
    return count


def measure(ways: Sequence[Way], count: int, runs: int) -> None:
    """Time each way's epochs, by the clock and of the processor; in turns."""
    for way in ways:  # tracing, and whatever else a first time costs
        seen = way.epoch()
        if seen != count:
            raise DataError(f"{way.name} gave {seen} of {count} images.")
    for _ in range(runs):
        for way in ways:
            start, start_processor = time.perf_counter(), time.process_time()
            way.epoch()
            way.seconds.append(time.perf_counter() - start)
            way.processor_seconds.append(time.process_time() - start_processor)


def summarise(ways: Sequence[Way], count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, medians, and each way's time divided by that of ours looking ahead."""
    ours = {way.task: way for way in ways if way.name == OURS}
    rows = []
    for way in ways:
        row = {name: value for name, value in vars(way).items() if name != "epoch"}
        row["images_per_second"] = count / statistics.median(way.seconds)
        row["processor_ms_per_image"] = 1000 * statistics.median(way.processor_seconds) / count
        for ratio, name in RATIOS.items():
            first = statistics.median(getattr(ours[way.task], name))
            row[ratio] = statistics.median(row[name]) / first
        rows.append(row)
    return {
        "images": count,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "cores": cpu_count(),
        "ways": sorted(rows, key=lambda row: row["task"] == "augment"),
    }


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    console.run_script(main, sys.argv[1:])
