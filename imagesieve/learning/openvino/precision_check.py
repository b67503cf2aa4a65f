"""Every precision against single precision: does it lose accuracy, and is it quicker?

What fails is not served. The verdicts go into the manifest, where `engines.choose_precision` reads
them. They are about as many images as there are for validation: 0.5 points of fewer than 200
images are less than one image, so that on balance none may be lost, and "none of 30" still
leaves room for one of ten. `num_images` therefore stands beside each figure.
"""

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import EngineError, ImageError
from imagesieve.images import decode
from imagesieve.learning.data.dataset import Sample
from imagesieve.learning.openvino import convert, quantize
from imagesieve.model import engines, golden, versions

MAX_DIFFERENCE = 1e-3  # of a probability, between Keras and OpenVINO in f32
MAX_ACCURACY_DROP = 0.005  # of bf16 against f32
NUM_COMPARED = 8  # images that are judged again where answers are known already
_MAX_IMAGES = 500  # more would not change the verdict and cost minutes on a large network
_SUM_TOLERANCE = 0.02  # of the probabilities, as serving allows
_TIMED_RUNS = 24
_MAX_KNOWN_DIFFERENCE = 0.05  # of a probability; features are kept in half precision

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Exam:
    """Images and what f32 says of them; every other precision is measured by it.

    Attributes:
        samples: for validation.
        answers: (samples, classes) probabilities of f32.
        known: engine -> its (samples, classes) probabilities, where they need not be computed.
        images: golden ones, which the service will check the engine with.
    """

    samples: Sequence[Sample]
    answers: np.ndarray
    known: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    images: golden.Golden | None = None

    @classmethod
    def sit(cls, f32: engines.Engine, validation: Sequence[Sample]) -> "Exam":
        """Let f32 judge up to 500 of the samples, evenly chosen."""
        samples = choose(validation)
        return cls(samples, probabilities(f32, samples))

    def grade(self, engine: engines.Engine, max_drop: float) -> dict[str, Any]:
        """Compare an engine with f32, as JSON values.

        Args:
            engine: of another precision.
            max_drop: of the accuracy, 0 to 1, to pass.

        Raises:
            EngineError: the engine failed, gives no probabilities, or would not be served.
        """
        found = self._answers_of(engine)
        off = np.abs(found.sum(axis=1) - 1) > _SUM_TOLERANCE
        if not np.isfinite(found).all() or off.any():
            raise EngineError("its answers are no probabilities")
        _check_golden(engine, self.images)
        labels = np.array([sample.class_index for sample in self.samples])
        called, called_by_f32 = found.argmax(axis=1), self.answers.argmax(axis=1)
        # Counted in images: shares of 200 are not exact, and one image is just allowed there.
        num_lost = int((called_by_f32 == labels).sum()) - int((called == labels).sum())
        count = len(self.samples)
        result: dict[str, Any] = {
            "passed": num_lost <= max_drop * count + 1e-9,
            "accuracy_drop": num_lost / count,
            "agreement": float((called == called_by_f32).mean()),
            "max_difference_to_f32": float(np.abs(found - self.answers).max()),
            "num_images": count,
        }
        if not result["passed"]:
            result["reason"] = (
                f"it loses {num_lost} of {count} validation images, which is "
                f"{100 * num_lost / count:.1f} points of accuracy where {100 * max_drop:g} are "
                "allowed"
            )
        return result

    def _answers_of(self, engine: engines.Engine) -> np.ndarray:
        if engine.name not in self.known:
            return probabilities(engine, self.samples)
        known = self.known[engine.name]
        some = self.samples[:NUM_COMPARED]
        difference = float(np.abs(probabilities(engine, some) - known[: len(some)]).max())
        if not difference <= _MAX_KNOWN_DIFFERENCE:
            raise EngineError(
                f"its answers differ by up to {difference:.3f} from those of base and head alone"
            )
        return known


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A head on a frozen base, of which all is known before its version is written.

    The bases are in memory, so that the feature store may be cleared meanwhile.

    Attributes:
        head: Keras model from pooled features to probabilities.
        f32: the converted base in f32, from `convert.read`.
        int8: the quantised one, or None.
        int8_reason: why there is none, or "".
        exam: with the answers of each precision to the head's features.
    """

    head: Any
    f32: Any
    int8: Any | None
    int8_reason: str
    exam: Exam


Verdict = tuple[dict[str, Any], engines.Engine | None]  # for the manifest; what passed, to serve


def choose(validation: Sequence[Sample]) -> list[Sample]:
    """Give up to 500 of the samples, evenly chosen."""
    chosen = np.linspace(0, len(validation) - 1, min(len(validation), _MAX_IMAGES))
    return [validation[number] for number in np.unique(chosen.astype(int))]


def measure(
    images: golden.Golden,
    xml: Path,
    validation: Sequence[Sample],
    train: Sequence[Sample],
    int8_max_drop: float | None,
    prepared: Prepared | None = None,
) -> dict[str, Any]:
    """Measure every precision of an IR; int8 is made, and stays beside it if it passes.

    Args:
        images: golden ones of the version; what answers them otherwise would not be served.
        xml: the IR in single precision.
        validation: samples to measure on.
        train: samples to calibrate int8 on.
        int8_max_drop: of the accuracy, 0 to 1; None for no int8.
        prepared: what is known already.

    Returns:
        For the manifest: engine and precision -> what was measured.

    Raises:
        EngineError: the IR cannot be run, or gives other answers than Keras.
    """
    f32 = engines.OpenVINOEngine(xml)
    proof = {"passed": True, "max_difference_to_keras": _difference_to_keras(f32, images)}
    exam = dataclasses.replace(
        prepared.exam if prepared else Exam.sit(f32, validation), images=images
    )
    verdicts: dict[str, Verdict] = {
        "openvino-f32": ({**proof, "bytes": _num_bytes(xml)}, f32),
        "openvino-bf16": _gate(lambda: _open_bf16(xml), exam, MAX_ACCURACY_DROP),
    }
    if int8_max_drop is not None:
        verdicts["openvino-int8"] = (
            _gate_prepared_int8(xml, prepared, exam, int8_max_drop)
            if prepared
            else gate_int8(
                xml,
                lambda: decode_samples(quantize.calibration_samples(train), f32.image_size),
                exam,
                int8_max_drop,
            )
        )
    times = _time([engine for _, engine in verdicts.values() if engine], exam)
    measured = {name: verdict | times.get(name, {}) for name, (verdict, _) in verdicts.items()}
    _log_int8(measured)
    return measured


def gate_int8(
    xml: Path, take_images: Callable[[], Sequence[np.ndarray]], exam: Exam, max_drop: float
) -> Verdict:
    """Quantise an IR and let it sit the exam; its files stay beside the IR only if it passes.

    Args:
        xml: the IR in single precision.
        take_images: gives what to calibrate on; see `quantize.quantise`.
        exam: with the answers of f32.
        max_drop: of the accuracy, 0 to 1.
    """
    return _gate_int8(
        xml, lambda target: quantize.quantise(xml, take_images(), target), exam, max_drop
    )


def _gate_prepared_int8(xml: Path, prepared: Prepared, exam: Exam, max_drop: float) -> Verdict:
    base = prepared.int8
    if base is None:
        return {"passed": False, "reason": prepared.int8_reason}, None
    return _gate_int8(
        xml, lambda target: convert.write_with_head(base, prepared.head, target), exam, max_drop
    )


def _gate_int8(xml: Path, write: Callable[[Path], None], exam: Exam, max_drop: float) -> Verdict:
    target = xml.with_name(Path(versions.OPENVINO_INT8_MODEL).name)

    def make() -> engines.Engine:
        write(target)
        return engines.OpenVINOEngine(target, "int8")

    verdict, engine = _gate(make, exam, max_drop)
    if engine:
        return {**verdict, "bytes": _num_bytes(target)}, engine
    for file in (target, target.with_suffix(".bin")):
        file.unlink(missing_ok=True)
    return verdict, None


def probabilities(engine: engines.Engine, samples: Sequence[Sample]) -> np.ndarray:
    """Give (samples, classes) float32: every image alone, as serving runs them."""

    def judge(sample: Sample) -> np.ndarray:
        pixels = decode(sample.path, image_size=engine.image_size).pixels
        return np.asarray(engine.run(pixels[np.newaxis])[0])

    with concurrent.futures.ThreadPoolExecutor(engine.num_streams + 1) as pool:
        return np.stack(list(pool.map(judge, samples)))


def decode_samples(samples: Sequence[Sample], image_size: tuple[int, int]) -> list[np.ndarray]:
    """Give the samples' pixels, each (height, width, 3) uint8.

    Raises:
        ImageError: an image changed since it was checked.
    """
    return [decode(sample.path, image_size=image_size).pixels for sample in samples]


def _difference_to_keras(f32: engines.Engine, images: golden.Golden) -> float:
    difference = golden.difference(f32, images)
    if not difference <= MAX_DIFFERENCE:  # True for NaN
        raise EngineError(
            f"on its golden images {f32.name} differs by up to {difference:.4f} of a probability "
            f"from Keras, where {MAX_DIFFERENCE:g} is allowed"
        )
    return difference


def _check_golden(engine: engines.Engine, images: golden.Golden | None) -> None:
    if images and (fault := golden.mismatch(engine, images)):
        raise EngineError(fault)


def _open_bf16(xml: Path) -> engines.Engine:
    if not engines.cpu_has_bf16():
        raise EngineError("this CPU has no bfloat16")
    return engines.OpenVINOEngine(xml, "bf16")


def _gate(make: Callable[[], engines.Engine], exam: Exam, max_drop: float) -> Verdict:
    try:
        engine = make()
        verdict = exam.grade(engine, max_drop)
    except (EngineError, ImageError) as error:
        return {"passed": False, "reason": str(error)}, None
    return verdict, engine if verdict["passed"] else None


def _time(candidates: Sequence[engines.Engine], exam: Exam) -> dict[str, dict[str, float]]:
    """Give, for each engine, the median time of one image and how often that goes into f32's.

    One image at a time in engines that are compiled as serving compiles them. They take turns, so
    that whatever else the machine does falls on all of them.
    """
    (image,) = decode_samples(exam.samples[:1], candidates[0].image_size)
    seconds: dict[str, list[float]] = {engine.name: [] for engine in candidates}
    for _ in range(_TIMED_RUNS):
        for engine in candidates:
            start = time.perf_counter()
            engine.run(image[np.newaxis])
            seconds[engine.name].append(time.perf_counter() - start)
    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    return {
        name: {
            "milliseconds": 1000 * median,
            "speed_to_f32": medians[candidates[0].name] / median,
        }
        for name, median in medians.items()
    }


def _num_bytes(xml: Path) -> int:
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size


def _log_int8(measured: Mapping[str, Mapping[str, Any]]) -> None:
    found = measured.get("openvino-int8")
    if found is None:
        return
    if not found["passed"]:
        _log.info("The version is without int8: %s.", found["reason"].rstrip("."))
        return
    _log.info(
        "int8 passed its gate: it agrees with f32 on %.1f %% of %d images, its accuracy is %+.1f "
        "points from f32's, and it is %.1f times as fast.",
        100 * found["agreement"],
        found["num_images"],
        -100 * found["accuracy_drop"] + 0.0,  # no -0.0
        found["speed_to_f32"],
    )
