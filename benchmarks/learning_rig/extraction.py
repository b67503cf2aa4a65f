"""Images through a frozen base: ours from files, the bare engine, and Keras's own way."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.learning.data.dataset import TRAIN
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features.extraction import Extractor
from imagesieve.model import engines
from learning_rig.folders import link_as_folders
from learning_rig.problem import Prepared, Problem, prepare

_KERAS_BATCH = 32
_MIN_PASSES = 256  # of the bare engine: fewer are over before the clock has a say


def extraction(
    problem: dict[str, Any], num_rounds: int, num_views: int, with_keras: bool
) -> dict[str, Any]:
    """Measure in turn, several times.

    Args:
        problem: values of a `Problem`.
        num_rounds: of each.
        num_views: of each image, for the row of several views.
        with_keras: whether Keras's own way is measured too.

    Returns:
        JSON values; of each way its forward passes a second in each round.
    """
    prepared = prepare(Problem(**problem))
    folder = prepared.store.folder
    start = time.perf_counter()
    with Extractor(prepared.network, prepared.store) as extractor:
        extractor.open(_images(prepared))
        engine = extractor.base.engine
    open_seconds = time.perf_counter() - start
    ways: dict[str, Callable[[], tuple[int, float]]] = {
        "bare engine": _bare_engine(folder, engine, _images(prepared)),
        "ours, 1 view": lambda: _ours(prepared, folder, 1, maps=False),
        f"ours, {num_views} views": lambda: _ours(prepared, folder, num_views, maps=False),
        f"ours, {num_views} views, maps": lambda: _ours(prepared, folder, num_views, maps=True),
    }
    if with_keras:
        ways["keras"] = _keras(prepared)
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


def _images(prepared: Prepared) -> ImageIterator:
    return ImageDataGenerator(**FIRST_GENERATION).flow_from_samples(
        prepared.dataset.train,
        prepared.dataset.classes,
        image_size=prepared.network.base.input_shape[1:3],
        shuffle=False,
        seed=0,
        augment=False,
    )


def _ours(prepared: Prepared, folder: Path, num_views: int, *, maps: bool) -> tuple[int, float]:
    """Extract everything from the files, into a store that has the converted network only."""
    for shelf in {rows.parent for rows in folder.glob("*/*.rows")}:
        shutil.rmtree(shelf)
    images = _images(prepared)
    with Extractor(prepared.network, prepared.store) as extractor:
        extractor.open(images)
        start = time.perf_counter()
        if maps:
            extractor.maps(images, num_views)
        else:
            extractor.pooled(images, num_views)
    return extractor.num_computed, time.perf_counter() - start  # now it is on the disk


def _bare_engine(
    folder: Path, engine: str, images: ImageIterator
) -> Callable[[], tuple[int, float]]:
    """Give a run of OpenVINO's own queue of requests over decoded images.

    A few of them take turns: they need not fit into memory all at once.
    """
    ov = engines.import_openvino()
    (xml,) = folder.rglob("*.xml")
    core = ov.Core()
    steps = ov.preprocess.PrePostProcessor(core.read_model(xml))
    steps.input(0).tensor().set_element_type(ov.Type.u8)
    compiled = core.compile_model(
        steps.build(),
        "CPU",
        {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": engine.removeprefix("openvino-"),
        },
    )
    num_passes = max(_MIN_PASSES, images.n)
    ready = [images.image(number, 0)[np.newaxis] for number in range(min(64, images.n))]

    def run() -> tuple[int, float]:
        queue = ov.AsyncInferQueue(compiled)  # as many requests as the engine thinks best
        start = time.perf_counter()
        for number in range(num_passes):
            queue.start_async({0: ready[number % len(ready)]})
        queue.wait_all()
        return num_passes, time.perf_counter() - start

    return run


def _keras(prepared: Prepared) -> Callable[[], tuple[int, float]]:
    """Give a run of what tutorials do: Keras's generator into `predict`, before the training."""
    from tensorflow.keras.preprocessing import image

    height, width = prepared.network.base.input_shape[1:3]
    names = link_as_folders(prepared.dataset, Path("images"))

    def run() -> tuple[int, float]:
        images = image.ImageDataGenerator().flow_from_directory(
            str(Path("images") / TRAIN),
            (height, width),
            classes=names,
            batch_size=_KERAS_BATCH,
            class_mode=None,
            shuffle=False,
        )
        start = time.perf_counter()
        prepared.network.base.predict(images, verbose=0)
        return images.n, time.perf_counter() - start

    run()  # builds its graph
    return run
