"""Each precision of a version against single precision: does it lose accuracy, and is it faster?

A version's IR is its base, converted once and stored with the features, with its head on top. What
fails here is not served: the results go into the manifest, where `engines.choose_precision` reads
them. They come from as many images as there are for validation: 0.5 points of fewer than 200 images
are less than one image, so that on balance none may be lost, and "none of 30" still leaves room for
one of ten. `num_images` therefore stands beside each figure.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import DataError, EngineError, ImageError, WeightsError
from imagesieve.learning.data.dataset import Dataset, Sample
from imagesieve.learning.data.generator import ImageDataGenerator, ImageIterator
from imagesieve.learning.features import extraction
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks.network import Network
from imagesieve.learning.openvino import convert
from imagesieve.model import engines, golden, versions

MAX_ACCURACY_DROP = 0.005  # of bf16 against f32
_MAX_IMAGES = 500  # more would not change the result and cost minutes on a large network
_TIMED_RUNS = 24

_log = logging.getLogger(__name__)

CheckResult = dict[str, Any]  # JSON values for the manifest: `passed`, `reason` and figures


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionCheck:
    """Writes a network as IR in every precision, and compares each with f32."""

    network: Network
    dataset: Dataset  # validation images to measure on, training images to calibrate int8 on
    store: FeatureStore  # what it has of the base is not computed again
    golden_images: golden.Golden  # which the service will check every engine with
    xml: Path  # of the IR in f32, to write; that of int8 comes beside it

    def run(self, int8_max_drop: float | None) -> dict[str, CheckResult]:
        """Return, for each engine and precision, what was measured.

        int8 may lose `int8_max_drop` of the accuracy, 0 to 1; None for no int8. An EngineError is
        raised if OpenVINO cannot run the network in f32 as Keras does, or an image changed.
        """
        try:
            f32, expected = self._write("f32", self.xml)
        except (DataError, ImageError, WeightsError) as error:
            raise EngineError(str(error)) from error
        results = {f32.name: self._compare_to_keras(f32)}
        served: list[engines.Engine] = [f32]
        for precision, max_drop in (("bf16", MAX_ACCURACY_DROP), ("int8", int8_max_drop)):
            if max_drop is not None:
                result, engine = self._check(precision, expected, max_drop)
                results[f"openvino-{precision}"] = result
                served += [engine] if engine else []
        for name, figures in _time(served, self.golden_images.pixels[0]).items():
            results[name] |= figures
        if int8_max_drop is not None:
            _log_int8(results["openvino-int8"])
        return results

    def _compare_to_keras(self, f32: engines.Engine) -> CheckResult:
        difference = golden.difference(f32, self.golden_images)
        if not difference <= golden.MAX_DIFFERENCE:  # True for NaN
            raise EngineError(
                f"on its golden images {f32.name} differs by up to {difference:.4f} of a "
                f"probability from Keras, where {golden.MAX_DIFFERENCE:g} is allowed"
            )
        num_bytes = _num_bytes(self.xml)
        return {"passed": True, "max_difference_to_keras": difference, "bytes": num_bytes}

    def _check(
        self, precision: str, expected: np.ndarray, max_drop: float
    ) -> tuple[CheckResult, engines.Engine | None]:
        is_int8 = precision == "int8"
        xml = self.xml.with_name(Path(versions.OPENVINO_INT8_MODEL).name) if is_int8 else self.xml
        engine = None
        try:
            engine, answers = self._write(precision, xml)
            labels = np.array([sample.class_index for sample in self._samples])
            result = compare(answers, expected, labels, max_drop)
            if fault := golden.mismatch(engine, self.golden_images):
                result = {"passed": False, "reason": fault}
        except WeightsError:  # those of f32 were finite: it is the precision
            result = {"passed": False, "reason": "its features are not finite numbers"}
        except (DataError, EngineError, ImageError) as error:  # an image may have changed
            result = {"passed": False, "reason": str(error)}
        if is_int8 and result["passed"]:
            result["bytes"] = _num_bytes(xml)
        elif is_int8:
            for file in (xml, xml.with_suffix(".bin")):
                file.unlink(missing_ok=True)
        return result, engine if result["passed"] else None

    def _write(self, precision: str, xml: Path) -> tuple[engines.Engine, np.ndarray]:
        """Write the IR; return its engine and the head's answers to the validation images."""
        if precision == "bf16" and not engines.cpu_has_bf16():
            raise EngineError("this CPU has no bfloat16")
        train = self._feed(self.dataset.train)
        with extraction.opened(self.network, self.store, train, precision) as extractor:
            features = extractor.pooled(self._feed(self._samples), 1)
            if precision != "bf16":  # which is f32's IR
                base = convert.read(extractor.require_xml())
                convert.write_with_head(base, self.network.head, xml)
        engine = engines.OpenVINOEngine(xml, precision)
        numbers = np.arange(len(features))
        return engine, np.asarray(self.network.head(features.take(0 * numbers, numbers)))

    @property
    def _samples(self) -> list[Sample]:
        """Up to 500 of the validation images, evenly chosen."""
        validation = self.dataset.validation
        numbers = np.linspace(0, len(validation) - 1, min(len(validation), _MAX_IMAGES))
        return [validation[number] for number in np.unique(numbers.astype(int))]

    def _feed(self, samples: Sequence[Sample]) -> ImageIterator:
        size = self.network.model.input_shape[1:3]
        return ImageIterator(
            ImageDataGenerator(),
            samples,
            self.dataset.classes,
            image_size=size,
            shuffle=False,
            seed=0,
            augment=False,
        )


def compare(
    answers: np.ndarray, expected: np.ndarray, labels: np.ndarray, max_drop: float
) -> CheckResult:
    """Return how the answers of a precision compare with those of f32.

    Both are probabilities (images, classes), labels are class indices, `max_drop` of the accuracy
    is from 0 to 1.
    """
    called, called_by_f32 = answers.argmax(axis=1), expected.argmax(axis=1)
    # Counted in images: shares of 200 are not exact, and one image is just allowed there.
    num_lost = int((called_by_f32 == labels).sum()) - int((called == labels).sum())
    count = len(labels)
    result: CheckResult = {
        "passed": num_lost <= max_drop * count + 1e-9,
        "accuracy_drop": num_lost / count,
        "agreement": float((called == called_by_f32).mean()),
        "max_difference_to_f32": float(np.abs(answers - expected).max()),
        "num_images": count,
    }
    if not result["passed"]:
        result["reason"] = (
            f"it loses {num_lost} of {count} validation images, which is "
            f"{100 * num_lost / count:.1f} points of accuracy where {100 * max_drop:g} are allowed"
        )
    return result


def _time(candidates: Sequence[engines.Engine], image: np.ndarray) -> dict[str, dict[str, float]]:
    """Return, for each engine, the median time of one image and how often that goes into f32's.

    They take turns, so that whatever else the machine does falls on all of them.
    """
    seconds: dict[str, list[float]] = {engine.name: [] for engine in candidates}
    for _ in range(_TIMED_RUNS):
        for engine in candidates:
            start = time.perf_counter()
            engine.run(image[np.newaxis])
            seconds[engine.name].append(time.perf_counter() - start)
    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    of_f32 = medians[candidates[0].name]
    return {
        name: {"milliseconds": 1000 * median, "speed_to_f32": of_f32 / median}
        for name, median in medians.items()
    }


def _num_bytes(xml: Path) -> int:
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size


def _log_int8(found: CheckResult) -> None:
    if not found["passed"]:
        _log.info("The version is without int8: %s.", found["reason"].rstrip("."))
        return
    points = -100 * found["accuracy_drop"] + 0.0  # no -0.0
    _log.info(
        "int8 passed its check: it agrees with f32 on %.1f %% of %d images, its accuracy is %+.1f "
        "points from f32's, and it is %.1f times as fast.",
        *(100 * found["agreement"], found["num_images"], points, found["speed_to_f32"]),
    )
