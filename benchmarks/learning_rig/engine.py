"""One model version in every engine and precision that it has: time, size, and what it says."""

import concurrent.futures
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve import images
from imagesieve.errors import ClassifierError
from imagesieve.learning.data.dataset import Sample, read_dataset
from imagesieve.model import engines, versions

PREDICT = "keras-predict"

_KERAS_BATCH = 32  # images at once, where Keras may have many

Judge = Callable[[np.ndarray], np.ndarray]


class _Row:
    """An engine under test.

    Attributes:
        one: (1, height, width, 3) uint8 -> (1, classes).
        many: the same for many images, as quick as the engine can.
        num_bytes: of its files.
    """

    def __init__(self, one: Judge, many: Judge, num_bytes: int) -> None:
        self.one = one
        self.many = many
        self.num_bytes = num_bytes
        self.alone_ms: list[float] = []
        self.busy_ms: list[float] = []


def engine(model: str, data: str, num_rounds: int, num_timed: int) -> dict[str, Any]:
    """Measure every engine in turn, several times.

    Args:
        model: a model folder or a version.
        data: a data folder, whose validation images are judged.
        num_rounds: of each.
        num_timed: images in a round.

    Returns:
        JSON values.
    """
    version = versions.load(Path(model))
    samples = read_dataset(Path(data)).validation
    labels = np.array([sample.class_index for sample in samples])
    pixels = np.stack(list(_decoded(samples, version.manifest.image_size)))
    rows, missing = _open_all(version)
    timed = pixels[np.arange(num_timed) % len(pixels)]
    for row in rows.values():  # builds graphs, fills caches
        row.one(timed[:1])
        row.many(timed[:_KERAS_BATCH])
    for _ in range(num_rounds):
        for row in rows.values():
            row.alone_ms.append(_alone(row, timed))
            row.busy_ms.append(_busy(row, timed))
    answers = {name: row.many(pixels) for name, row in rows.items()}
    yardstick = answers["openvino-f32" if "openvino-f32" in answers else PREDICT]
    return {
        "version": version.name,
        "backbone": version.manifest.backbone,
        "image_size": list(version.manifest.image_size),
        "num_images": len(samples),
        "missing": missing,
        "engines": {
            name: {
                "alone_ms": row.alone_ms,
                "busy_ms": row.busy_ms,
                "num_bytes": row.num_bytes,
                "num_right": int((answers[name].argmax(1) == labels).sum()),
                "agreement": float((answers[name].argmax(1) == yardstick.argmax(1)).mean()),
                "max_difference": float(np.abs(answers[name] - yardstick).max()),
            }
            for name, row in rows.items()
        },
    }


def _open_all(version: versions.ModelVersion) -> tuple[dict[str, _Row], dict[str, str]]:
    """Give what can be opened by name, and of the others the reason why not."""
    rows = {PREDICT: _predict(version)}
    missing = {}
    for kind, precision in [("keras", "f32")] + [
        ("openvino", precision) for precision in engines.PRECISIONS if precision != "auto"
    ]:
        try:
            opened = engines.open_engine(version, kind, precision)
        except ClassifierError as error:
            missing[f"{kind}-{precision}"] = str(error)
            continue
        many = _in_batches(opened.run) if kind == "keras" else _on_all_streams(opened)
        rows[f"{kind}-{precision}"] = _Row(opened.run, many, _size(version, kind, precision))
    return rows, missing


def _predict(version: versions.ModelVersion) -> _Row:
    """Give `model.predict`, as the first generation called it for each image."""
    import keras

    path = version.path / versions.KERAS_MODEL
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def judge(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(pixels.astype(np.float32), verbose=0))

    return _Row(judge, _in_batches(judge), _size(version, "keras", "f32"))


def _in_batches(judge: Judge) -> Judge:
    return lambda pixels: np.concatenate(
        [
            judge(pixels[start : start + _KERAS_BATCH])
            for start in range(0, len(pixels), _KERAS_BATCH)
        ]
    )


def _on_all_streams(opened: engines.Engine) -> Judge:
    # One thread more than there are streams: while they compute, the next image gets ready.
    pool = concurrent.futures.ThreadPoolExecutor(opened.num_streams + 1)
    return lambda pixels: np.concatenate(
        list(pool.map(opened.run, (image[np.newaxis] for image in pixels)))
    )


def _alone(row: _Row, pixels: np.ndarray) -> float:
    """Give the median of milliseconds that one image takes when there is no other."""
    times = []
    for image in pixels:
        start = time.perf_counter()
        row.one(image[np.newaxis])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _busy(row: _Row, pixels: np.ndarray) -> float:
    """Give the milliseconds an image when there are always more of them."""
    start = time.perf_counter()
    row.many(pixels)
    return 1000 * (time.perf_counter() - start) / len(pixels)


def _decoded(samples: Sequence[Sample], image_size: tuple[int, int]) -> Iterator[np.ndarray]:
    for sample in samples:
        yield images.decode(sample.path, image_size=image_size).pixels


def _size(version: versions.ModelVersion, kind: str, precision: str) -> int:
    """Give the bytes of an engine's files."""
    if kind == "keras":
        folder, stem = Path(), Path(versions.KERAS_MODEL).stem
    else:
        is_int8 = precision == "int8"
        xml = Path(versions.OPENVINO_INT8_MODEL if is_int8 else versions.OPENVINO_MODEL)
        folder, stem = xml.parent, xml.stem
    return sum(
        about["bytes"]
        for name, about in version.manifest.files.items()
        if Path(name).parent == folder and Path(name).stem == stem
    )
