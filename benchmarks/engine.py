"""Engines: one model version in Keras and OpenVINO, in f32, bf16 and int8.

    python benchmarks/engine.py --model modelFile --data data
    python benchmarks/engine.py --model modelFile/model-20260101-120000 --data data --json out.json

Images are decoded before. "Alone" is one image after another; "busy" is as many at once as the
engine likes: all streams of OpenVINO, batches of 32 for Keras. All take turns in one process; the
medians of the rounds are compared. Accuracy and agreement are on the validation images of the
data folder, agreement with OpenVINO in f32. What the version lacks is left out, with the reason.
"""

import concurrent.futures
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rig

from imagesieve import console, images
from imagesieve.errors import ClassifierError
from imagesieve.intervals import wilson_interval
from imagesieve.learning.data.dataset import read_dataset
from imagesieve.model import PRECISIONS, engines, versions

PREDICT = "keras-predict"  # what the first generation called for each image
KERAS_BATCH = 32

COLUMNS = (
    " | {name}",
    "alone, ms | {alone_ms:.2f}",
    "x predict | {alone_speedup:.1f}",
    "busy, ms | {busy_ms:.2f}",
    "x predict | {busy_speedup:.1f}",
    "MB | {mb:.1f}",
    "of Keras's | {size_to_keras:.2f}",
    "accuracy | {accuracy:.2%}",
    "95 % of | {accuracy_interval[0]:.1%} to {accuracy_interval[1]:.1%}",
    "agreement | {agreement:.2%}",
    "largest difference | {max_difference:.4f}",
)

Predict = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class Row:
    """An engine under test."""

    one: Predict  # (1, height, width, 3) uint8 -> (1, classes)
    many: Predict  # the same for many images, as quick as the engine can
    num_bytes: int  # of its files
    alone_ms: list[float] = dataclasses.field(default_factory=list)
    busy_ms: list[float] = dataclasses.field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, write the JSON."""
    parser = rig.parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=Path("modelFile"), help="a model folder or one version")
    add("--data", type=Path, required=True, help="data folder")
    add("--rounds", type=console.whole_number(1), default=3, help="of each (3)")
    add("--images", type=console.whole_number(1), default=64, help="timed in each round (64)")
    options = parser.parse_args(arguments)
    machine = rig.machine()
    paths = {"model": options.model.resolve(), "data": options.data.resolve()}
    how = {"num_rounds": options.rounds, "num_timed": options.images}
    found = rig.run_alone(measure, options, "engines", **paths, **how)
    result = {"machine": machine, "data": options.data.name, **summarise(found), "run": found}
    rows = [
        {"name": name, "mb": row["num_bytes"] / 1e6, **row}
        for name, row in result["engines"].items()
    ]
    return rig.finish(options, result, rig.table(COLUMNS, rows), remark(found))


def measure(model: Path, data: Path, num_rounds: int, num_timed: int) -> dict[str, Any]:
    """Measure every engine in turn, several times."""
    version = versions.load(model)
    samples = read_dataset(data).validation
    labels = np.array([sample.class_index for sample in samples])
    size = version.manifest.image_size
    pixels = np.stack([images.decode(one.path, image_size=size).pixels for one in samples])
    rows, missing = open_all(version)
    timed = pixels[np.arange(num_timed) % len(pixels)]
    for row in rows.values():  # builds graphs, fills caches
        row.one(timed[:1])
        row.many(timed[:KERAS_BATCH])
    for _ in range(num_rounds):
        for row in rows.values():
            alone = [seconds(row.one, image[np.newaxis]) for image in timed]
            row.alone_ms.append(1000 * statistics.median(alone))
            row.busy_ms.append(1000 * seconds(row.many, timed) / len(timed))
    answers = {name: row.many(pixels) for name, row in rows.items()}
    baseline = answers["openvino-f32" if "openvino-f32" in answers else PREDICT]
    return {
        "version": version.name,
        "backbone": version.manifest.backbone,
        "image_size": list(size),
        "num_images": len(samples),
        "missing": missing,
        "engines": {
            name: {
                "alone_ms": row.alone_ms,
                "busy_ms": row.busy_ms,
                "num_bytes": row.num_bytes,
                "num_right": int((answers[name].argmax(1) == labels).sum()),
                "agreement": float((answers[name].argmax(1) == baseline.argmax(1)).mean()),
                "max_difference": float(np.abs(answers[name] - baseline).max()),
            }
            for name, row in rows.items()
        },
    }


def seconds(predict: Predict, pixels: np.ndarray) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    predict(pixels)
    return time.perf_counter() - start


def open_all(version: versions.ModelVersion) -> tuple[dict[str, Row], dict[str, str]]:
    """Return what can be opened by name, and of the others the reason why not."""
    rows = {PREDICT: keras_predict(version)}
    missing = {}
    precisions = [precision for precision in PRECISIONS if precision != "auto"]
    for kind, precision in (("keras", "f32"), *(("openvino", name) for name in precisions)):
        try:
            opened = engines.open_engine(version, kind, precision)
        except ClassifierError as error:
            missing[f"{kind}-{precision}"] = str(error)
            continue
        many = in_batches(opened.run) if kind == "keras" else on_all_streams(opened)
        rows[f"{kind}-{precision}"] = Row(opened.run, many, size_of(version, kind, precision))
    return rows, missing


def keras_predict(version: versions.ModelVersion) -> Row:
    """Return `model.predict`, as the first generation called it for each image."""
    import keras

    path = version.path / versions.KERAS_MODEL
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def predict(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(pixels.astype(np.float32), verbose=0))

    return Row(predict, in_batches(predict), size_of(version, "keras", "f32"))


def in_batches(predict: Predict) -> Predict:
    """Return a function that predicts many images in batches."""

    def run(pixels: np.ndarray) -> np.ndarray:
        starts = range(0, len(pixels), KERAS_BATCH)
        return np.concatenate([predict(pixels[start : start + KERAS_BATCH]) for start in starts])

    return run


def on_all_streams(opened: engines.Engine) -> Predict:
    """Return a function that predicts many images by as many threads as the engine can use."""
    # One thread more than there are streams: while they compute, the next image gets ready.
    pool = concurrent.futures.ThreadPoolExecutor(opened.num_streams + 1)
    return lambda pixels: np.concatenate(
        list(pool.map(opened.run, (image[np.newaxis] for image in pixels)))
    )


def size_of(version: versions.ModelVersion, kind: str, precision: str) -> int:
    """Return the bytes of an engine's files."""
    name = versions.OPENVINO_INT8_MODEL if precision == "int8" else versions.OPENVINO_MODEL
    model = Path(versions.KERAS_MODEL if kind == "keras" else name)
    return sum(
        about["bytes"]
        for name, about in version.manifest.files.items()
        if Path(name).with_suffix("") == model.with_suffix("")
    )


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return medians, ratios and shares of each engine."""
    engines, num_images = {}, found["num_images"]
    first = found["engines"][PREDICT]
    for name, row in found["engines"].items():
        engines[name] = {
            **row,
            "size_to_keras": row["num_bytes"] / first["num_bytes"],
            "accuracy": row["num_right"] / num_images,
            "accuracy_interval": wilson_interval(row["num_right"], num_images),
        }
        for way in ("alone", "busy"):
            median = statistics.median(row[f"{way}_ms"])
            speedup = statistics.median(first[f"{way}_ms"]) / median
            engines[name] |= {f"{way}_ms": median, f"{way}_speedup": speedup}
    return {"engines": engines}


def remark(run: Mapping[str, Any]) -> str:
    """Return what was measured, and what was not and why."""
    height, width = run["image_size"]
    lines = [f"{run['backbone']} at {height}×{width}, {run['num_images']} validation images."]
    lines += [f"Without {name}: {reason}" for name, reason in run["missing"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
