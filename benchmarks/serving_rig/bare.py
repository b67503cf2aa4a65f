"""The engine without a service: files -> answers in one process, and the inference alone."""

import concurrent.futures
import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.prediction.predictor import Predictor
from serving_rig.load import percentile

_NUM_DECODED = 64  # images for the inference alone


def measure(model: Path, images: Sequence[str], seconds: float) -> dict[str, Any]:
    """Measure one after another: an image at a time, as many as the engine likes, no decoding."""
    predictor = Predictor.load(model)
    num_threads = predictor.engine.num_streams + 1  # as `Predictor.predict_files` has it
    pixels = [predictor.decode(path).pixels[np.newaxis] for path in images[:_NUM_DECODED]]
    _through(predictor, images[: 4 * num_threads], 60.0)
    alone = _alone(predictor, images, seconds)
    per_second, cpu_ms = _through(predictor, itertools.cycle(images), seconds)
    return {
        "engine": predictor.engine.name,
        "num_streams": predictor.engine.num_streams,
        "predicted_per_second": per_second,
        "predicted_cpu_ms": cpu_ms,
        "alone_per_second": 1000 * len(alone) / sum(alone),
        "alone_p50_ms": percentile(alone, 0.5),
        "inferred_per_second": _inferred_per_second(predictor, pixels, num_threads, seconds),
    }


def _alone(predictor: Predictor, images: Sequence[str], seconds: float) -> list[float]:
    """Return milliseconds of one image after another, decoding included."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    for path in itertools.cycle(images):
        start = time.perf_counter()
        predictor.predict(predictor.decode(path))
        now = time.perf_counter()
        times.append(1000 * (now - start))
        if now > end:
            return times
    return times


def _through(predictor: Predictor, images: Iterable[str], seconds: float) -> tuple[float, float]:
    """Return images a second through `predict_files`, and milliseconds of CPU for each."""
    predicted = predictor.predict_files(images)
    next(predicted)  # from here on as many are ahead of the answers as there are in the end
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    for count, _ in enumerate(predicted, 1):  # noqa: B007 (used behind the loop)
        if time.perf_counter() - start > seconds:
            break
    per_second = count / (time.perf_counter() - start)
    return per_second, 1000 * (time.process_time() - cpu) / max(1, count)


def _inferred_per_second(
    predictor: Predictor, pixels: Sequence[np.ndarray], num_threads: int, seconds: float
) -> float:
    """Return images a second through the engine, decoded before."""
    start = time.perf_counter()
    end = start + seconds

    def work(first: int) -> int:
        for count in itertools.count(1):
            predictor.engine.run(pixels[(first + count) % len(pixels)])
            if time.perf_counter() > end:
                return count
        return 0

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        total = sum(pool.map(work, range(num_threads)))
    return total / (time.perf_counter() - start)
