"""The way of one image: encoded bytes, cache, decoding, the engine, the decision, all in time."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import cachetools
from msgspec import UNSET

from imagesieve.images import further_frames
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.predictor import Prediction, Predictor
from imagesieve.serving.errors import ClientGoneError, DeadlineExceededError, OverloadedError
from imagesieve.serving.limits import Admission
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.model_manager import served_model
from imagesieve.serving.schemas import ImageInfo, PredictOptions, ServedModel

STAGES = ("queue", "decode", "infer")

# All other options are part of the cache's key: these shape the answer only.
_SHAPING = ("top_k", "threshold", "data_id")
_PREDICTING = [name for name in PredictOptions.__struct_fields__ if name not in _SHAPING]

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Deadline:
    at: float  # by `time.monotonic`
    is_gone: Callable[[], bool] = lambda: False  # whether the client has disconnected

    def check(self) -> None:
        """Raise ClientGoneError or DeadlineExceededError unless the client still waits."""
        if self.is_gone():
            raise ClientGoneError("The caller has hung up.")
        if time.monotonic() > self.at:
            raise DeadlineExceededError("The image took too long: try again in a moment.")


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionResult:
    """An image, its prediction, and how long that took."""

    data: bytes  # as sent
    image: ImageInfo
    prediction: Prediction  # of the frame that counts, under `policy`
    policy: DecisionPolicy  # the model's own, or with the threshold of the request
    model: ServedModel
    is_cached: bool  # whether the engine did not run
    seconds: Mapping[str, float]  # of the stages queue, decode, infer


class Pipeline:
    """Predicts images for any number of threads."""

    def __init__(self, admission: Admission, metrics: Metrics) -> None:
        self._limits = limits = admission.limits
        self._admission = admission
        self._metrics = metrics
        self._lock = threading.Lock()
        # Entries have a few hundred bytes; ten thousand take some megabytes.
        self._cache: cachetools.LRUCache[tuple[Any, ...], tuple[Prediction, ImageInfo]]
        self._cache = cachetools.LRUCache(max(1, limits.cache_entries))
        # Of each predictor as long as it is in use: while the model changes there are two.
        self._pools: weakref.WeakKeyDictionary[Predictor, EnginePool] = weakref.WeakKeyDictionary()

    def check_ready(self, predictor: Predictor) -> None:
        """Raise OverloadedError while the engine hangs."""
        if self._pool_of(predictor).is_wedged:
            raise OverloadedError("The engine does not answer: every one of its runs is overdue.")

    @property
    def has_overdue_runs(self) -> bool:
        """Whether an engine hangs in a run that no client waits for any more."""
        with self._lock:
            return any(pool.num_overdue for pool in self._pools.values())

    def predict(
        self,
        predictor: Predictor,
        data: bytes,
        deadline: Deadline,
        options: PredictOptions | None = None,
    ) -> PredictionResult:
        """Return the prediction for an encoded image, from the cache if it has that."""
        options = options or PredictOptions()
        model = served_model(predictor)
        sha256 = hashlib.sha256(data).hexdigest()
        asked = [getattr(options, name) for name in _PREDICTING]
        key = (model.digest, model.engine, sha256, *asked)
        with self._lock:
            found = self._cache.get(key)
        is_cached, seconds = found is not None, dict.fromkeys(STAGES, 0.0)
        if found is None:
            found, seconds = self._run(predictor, data, sha256, options.frames, deadline)
            if self._limits.cache_entries:
                with self._lock:
                    self._cache[key] = found
        threshold = None if options.threshold is UNSET else options.threshold
        policy = predictor.policy.with_min_confidence(threshold)
        own, image = found
        prediction = policy.decide(own.probabilities)
        self._metrics.note_prediction(prediction, None if is_cached else seconds)
        return PredictionResult(data, image, prediction, policy, model, is_cached, seconds)

    def _run(
        self, predictor: Predictor, data: bytes, sha256: str, num_frames: int, deadline: Deadline
    ) -> tuple[tuple[Prediction, ImageInfo], dict[str, float]]:
        """Decode an image and run the engine; also return the seconds of each stage."""
        deadline.check()
        queued = 0.0
        limit = self._admission.decoding(deadline.at)

        @contextlib.contextmanager
        def at_once(num_pixels: int) -> Iterator[None]:
            nonlocal queued
            started = time.perf_counter()
            with limit(num_pixels):
                queued += time.perf_counter() - started
                yield

        begun = time.perf_counter()
        first = predictor.decode(data, self._limits.images, sha256=sha256, at_once=at_once)
        others = further_frames(data, first, num_frames - 1, at_once) if num_frames > 1 else []
        decoded = time.perf_counter()
        deadline.check()
        frames = [first, *(dataclasses.replace(first, pixels=pixels) for pixels in others)]
        predictions, waited = self._pool_of(predictor).run(
            lambda: [predictor.predict(frame) for frame in frames], deadline.at
        )
        done = time.perf_counter()
        image = ImageInfo(
            first.format,  # type: ignore[arg-type]  # one of the formats that are decoded
            *(first.width, first.height, first.orientation, len(frames), sha256),
        )
        seconds = (queued + waited, decoded - begun - queued, done - decoded - waited)
        best = riskiest(predictions, predictor.policy)
        return (best, image), dict(zip(STAGES, seconds, strict=True))

    def _pool_of(self, predictor: Predictor) -> "EnginePool":
        with self._lock:
            if predictor not in self._pools:
                self._pools[predictor] = EnginePool(predictor.engine.num_streams)
            return self._pools[predictor]


def riskiest(predictions: list[Prediction], policy: DecisionPolicy) -> Prediction:
    """Return the frame that counts: the one with the least of the fallback class, or the surest.

    Where the fallback class is one of the model's (`neutral`: nothing is wrong with the image), a
    harmless first frame hides nothing then.
    """
    if policy.fallback in predictions[0].probabilities:
        return min(predictions, key=lambda found: found.probabilities[policy.fallback or ""])
    return max(predictions, key=lambda found: found.probability)


class EnginePool:
    """Threads that run an engine, so that a client can stop waiting for one that hangs.

    They end when the pool is freed. Python waits for them at its exit, so a program whose engine
    hangs has to leave by `os._exit`.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._executor = concurrent.futures.ThreadPoolExecutor(num_threads, "engine")
        self._lock = threading.Lock()
        self.num_overdue = 0  # runs that are not done and that no client waits for any more

    @property
    def is_wedged(self) -> bool:
        return self.num_overdue >= self._num_threads

    def run(self, work: Callable[[], _Result], deadline: float) -> tuple[_Result, float]:
        """Return what `work` returned in one of the threads, and the seconds it waited for one.

        At the deadline, by `time.monotonic`, DeadlineExceededError is raised. Work that has not
        begun by then never begins; else it goes on, and its thread is busy until it ends.
        """
        submitted = time.monotonic()
        future = self._executor.submit(lambda: (time.monotonic(), work()))
        try:
            concurrent.futures.wait([future], max(0.0, deadline - submitted))
            if not future.done() and not future.cancel():
                self._add_overdue(1)
                future.add_done_callback(lambda _: self._add_overdue(-1))
            if not future.done() or future.cancelled():
                raise DeadlineExceededError("The model did not answer in time: try again.")
            started, result = future.result()
        finally:
            del future  # an error in it has this frame: the circle would keep the image
        return result, started - submitted

    def _add_overdue(self, change: int) -> None:
        with self._lock:
            self.num_overdue += change
