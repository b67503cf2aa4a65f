"""Extraction: images from files through the frozen base, against the bare engine.

    python benchmarks/extraction.py --data data
    python benchmarks/extraction.py --data data --backbone MobileNetV2 --weights random --rounds 5

The bare engine is OpenVINO's own queue of requests on decoded images in memory: the same network
in the same precision, with nothing to read, decode, augment or store. Ours reads the files,
decodes, augments and stores the features in a store that is empty before. Keras is its own
generator into `predict`. All take turns in one process; the medians of the rounds are compared. An
image in two views counts twice, as it goes through the network twice.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rig
from learning_rig.problem import Prepared, Problem, link_as_folders, prepare

from imagesieve import console
from imagesieve.class_folders import TRAIN
from imagesieve.model import engines

BARE = "bare engine"
KERAS_BATCH = 32
MIN_PASSES = 256  # of the bare engine: fewer are too quick to be timed

Run = Callable[[], tuple[int, float]]  # -> forward passes, seconds


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    add = parser.add_argument
    add("--rounds", type=console.whole_number(1), default=3, help="of each (3)")
    add("--views", type=console.whole_number(2), default=2, help="where there are several (2)")
    add("--without-keras", action="store_true", help="leave Keras out")
    options = parser.parse_args(arguments)
    network = (options.backbone, options.weights, options.image_size)
    problem = Problem(options.data.resolve(), *network, seed=0)
    machine = rig.machine()
    how = {"num_rounds": options.rounds, "num_views": options.views}
    how["with_keras"] = not options.without_keras
    found = rig.run_alone(measure, options, "extraction", problem=problem, **how)
    result = {
        "machine": machine,
        "data": options.data.name,
        "backbone": options.backbone,
        "image_size": list(problem.image_size),
        **summarise(found),
        "run": found,
    }
    remark = (
        f"{found['num_images']} images, {found['engine']}. Besides, once for a network: "
        f"{found['open_seconds']:.1f} s to convert, compare and compile it."
    )
    return rig.finish(options, result, table(result), remark)


def measure(problem: Problem, num_rounds: int, num_views: int, with_keras: bool) -> dict[str, Any]:
    """Measure in turn, several times; of each way return its forward passes a second."""
    from imagesieve.learning.features import extraction

    prepared = prepare(problem)
    start = time.perf_counter()
    network, store = prepared.network, prepared.store
    with extraction.opened(network, store, images_of(prepared)) as extractor:
        engine = extractor.tables["pooled"]["engine"]
    open_seconds = time.perf_counter() - start
    ways: dict[str, Run] = {
        BARE: bare_engine(prepared, engine),
        "ours, 1 view": lambda: ours(prepared, 1, maps=False),
        f"ours, {num_views} views": lambda: ours(prepared, num_views, maps=False),
        f"ours, {num_views} views, maps": lambda: ours(prepared, num_views, maps=True),
    }
    if with_keras:
        ways["keras"] = keras_predict(prepared)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, run in ways.items():
            num_passes, seconds = run()
            rates[name].append(num_passes / seconds)
    return {
        "engine": engine,
        "num_images": len(prepared.dataset.train),
        "open_seconds": open_seconds,  # converting and compiling, before the first image
        "passes_per_second": rates,
    }


def images_of(prepared: Prepared) -> Any:
    """Return the training images as the first generation augmented them."""
    from imagesieve.learning.data.generator import (
        FIRST_GENERATION,
        ImageDataGenerator,
        ImageIterator,
    )

    dataset, image_size = prepared.dataset, prepared.network.base.input_shape[1:3]
    how = {"image_size": image_size, "shuffle": False, "seed": 0, "augment": False}
    generator = ImageDataGenerator(**FIRST_GENERATION)
    return ImageIterator(generator, dataset.train, dataset.classes, **how)


def ours(prepared: Prepared, num_views: int, *, maps: bool) -> tuple[int, float]:
    """Extract everything from the files, into a store that has the converted network only."""
    from imagesieve.learning.features import extraction

    for folder in {rows.parent for rows in prepared.store.folder.glob("*/rows")}:
        shutil.rmtree(folder)
    images = images_of(prepared)
    with extraction.opened(prepared.network, prepared.store, images) as extractor:
        start = time.perf_counter()
        (extractor.maps if maps else extractor.pooled)(images, num_views)
    return extractor.num_computed, time.perf_counter() - start  # now it is on the disk


def bare_engine(prepared: Prepared, engine: str) -> Run:
    """Return a run of OpenVINO's own queue of requests over decoded images.

    A few images come again and again: they need not fit into memory all at once.
    """
    images = images_of(prepared)
    ov = engines.import_openvino()
    (xml,) = prepared.store.folder.rglob("*.xml")
    core = ov.Core()
    steps = ov.preprocess.PrePostProcessor(core.read_model(xml))
    steps.input(0).tensor().set_element_type(ov.Type.u8)
    precision = engine.removeprefix("openvino-")
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(steps.build(), "CPU", hints)
    num_passes = max(MIN_PASSES, images.n)
    ready = [images.image(number, 0)[np.newaxis] for number in range(min(64, images.n))]

    def run() -> tuple[int, float]:
        queue = ov.AsyncInferQueue(compiled)  # as many requests as the engine thinks best
        start = time.perf_counter()
        for number in range(num_passes):
            queue.start_async({0: ready[number % len(ready)]})
        queue.wait_all()
        return num_passes, time.perf_counter() - start

    return run


def keras_predict(prepared: Prepared) -> Run:
    """Return a run of what tutorials do: Keras's generator into `predict`, before the training."""
    from tensorflow.keras.preprocessing import image

    names = link_as_folders(prepared.dataset, Path("images"))
    how = {"classes": names, "batch_size": KERAS_BATCH, "class_mode": None, "shuffle": False}

    def run() -> tuple[int, float]:
        images = image.ImageDataGenerator().flow_from_directory(
            str(Path("images") / TRAIN), prepared.network.base.input_shape[1:3], **how
        )
        start = time.perf_counter()
        prepared.network.base.predict(images, verbose=0)
        return images.n, time.perf_counter() - start

    run()  # builds its graph
    return run


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the medians, and each as a share of the bare engine."""
    medians = {name: statistics.median(rates) for name, rates in found["passes_per_second"].items()}
    return {
        "images_per_second": medians,
        "to_bare_engine": {name: rate / medians[BARE] for name, rate in medians.items()},
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = [
        (name, f"{rate:.1f}", f"{result['to_bare_engine'][name]:.2f}")
        for name, rate in result["images_per_second"].items()
    ]
    return console.table(["", "images/s", "of the bare engine"], rows)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
