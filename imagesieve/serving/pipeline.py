"""The life of one image in the service: known already? decode, run the engine, all in time."""

import dataclasses
import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET

from imagesieve.images import DecodedImage
from imagesieve.images.animation import further_frames
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Prediction, Predictor
from imagesieve.serving.cache import AnswerCache, CachedPrediction
from imagesieve.serving.engine_pool import EngineSlots
from imagesieve.serving.errors import ClientGoneError, DeadlineExceededError, OverloadedError
from imagesieve.serving.limits import Admission
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.models import streams_of
from imagesieve.serving.requests import Fetch, ImageRequest


@dataclasses.dataclass(frozen=True)
class Deadline:
    """How long a caller waits.

    Attributes:
        at: by `time.monotonic`.
        is_gone: tells whether the caller has hung up.
    """

    at: float
    is_gone: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Go on only while somebody waits.

        Raises:
            ClientGoneError: the caller has hung up.
            DeadlineExceededError: the time is over.
        """
        if self.is_gone():
            raise ClientGoneError("The caller has hung up.")
        if time.monotonic() > self.at:
            raise DeadlineExceededError("The image took too long: try again in a moment.")


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionResult:
    """An image, what the model says of it, and how long that took.

    Attributes:
        data: the encoded image.
        known: what there is to say of it.
        policy: that the decision was made by.
        decision: under `policy`.
        described: the model.
        is_cached: whether the model was not asked.
        seconds: stage (queue, decode, infer) -> seconds.
    """

    data: bytes
    known: CachedPrediction
    policy: DecisionPolicy
    decision: str
    described: Mapping[str, Any]
    is_cached: bool
    seconds: Mapping[str, float]

    @property
    def prediction(self) -> Prediction:
        """What the model says, with the decision under `policy`."""
        return dataclasses.replace(self.known.prediction, decision=self.decision)


class Pipeline:
    """Judges images for any number of threads."""

    def __init__(
        self,
        admission: Admission,
        metrics: Metrics,
        fetch: Fetch | None = None,
    ) -> None:
        self._limits = limits = admission.limits
        self._admission = admission
        self._metrics = metrics
        self._fetch = fetch
        self._cache = AnswerCache(limits.cache_entries)
        self._lock = threading.Lock()
        # Of each predictor as long as anybody has it: while the model changes there are two.
        self._slots: weakref.WeakKeyDictionary[Predictor, EngineSlots] = weakref.WeakKeyDictionary()

    def check_ready(self, predictor: Predictor) -> None:
        """Raise unless an image could be predicted now.

        Raises:
            OverloadedError: the engine hangs.
        """
        slots = self._slots.get(predictor)
        if slots is not None and slots.is_wedged:
            raise OverloadedError("The engine does not answer: every one of its runs is overdue.")

    def read(self, asked: ImageRequest) -> bytes:
        """Give the encoded image, which may have to be fetched; see `ImageInput.read`."""
        return asked.image.read(self._fetch)

    def decode(self, predictor: Predictor, data: bytes, deadline: Deadline) -> DecodedImage:
        """Decode an image when it is its turn.

        Raises:
            ImageError: it cannot be used.
            OverloadedError: no place to decode became free.
            ClientGoneError, DeadlineExceededError: see `Deadline.check`.
        """
        deadline.check()
        with self._admission.decoding(data, deadline.at):
            return predictor.decode(data, self._limits.images)

    def predict(
        self, predictor: Predictor, asked: ImageRequest, deadline: Deadline
    ) -> PredictionResult:
        """Judge an image.

        Raises:
            RequestError: the image cannot be read from what was sent.
            ImageError: it cannot be used.
            EngineError: the engine failed or gave no probabilities.
            OverloadedError: no place to decode became free.
            ClientGoneError, DeadlineExceededError: see `Deadline.check`.
        """
        data, options = self.read(asked), asked.options
        described = predictor.describe()
        digest = hashlib.sha256(data).hexdigest()
        key = (described["digest"], described["engine"], digest, str(options.frames))
        known, seconds = self._cache.get(key), dict.fromkeys(("queue", "decode", "infer"), 0.0)
        is_cached = known is not None
        if known is None:
            known, seconds = self._ask(predictor, data, options.frames, deadline)
            self._cache.put(key, known)
        policy = DecisionPolicy.from_json(described["decision_policy"])
        if options.threshold is not UNSET:
            policy = DecisionPolicy(CONFIDENT, options.threshold, policy.fallback_class)
        decision = policy.decide(known.prediction.probabilities).decision
        judged = PredictionResult(data, known, policy, decision, described, is_cached, seconds)
        self._metrics.note_judged(judged.prediction, seconds, is_cached=is_cached)
        return judged

    def _ask(
        self, predictor: Predictor, data: bytes, num_frames: int, deadline: Deadline
    ) -> tuple[CachedPrediction, dict[str, float]]:
        deadline.check()
        begun = time.perf_counter()
        with self._admission.decoding(data, deadline.at):
            got_place = time.perf_counter()
            image = predictor.decode(data, self._limits.images)
            size = image.pixels.shape[:2]
            others = further_frames(data, image, (size[0], size[1]), num_frames - 1)
        decoded = time.perf_counter()
        deadline.check()
        frames = [image, *(dataclasses.replace(image, pixels=pixels) for pixels in others)]
        predictions, waited = self._slots_of(predictor).run(
            lambda: [predictor.predict(frame) for frame in frames], deadline.at
        )
        done = time.perf_counter()
        fallback = predictor.describe()["decision_policy"].get("fallback_class")
        known = CachedPrediction(
            prediction=riskiest(predictions, fallback),
            format=image.format,
            width=image.width,
            height=image.height,
            orientation=image.orientation,
            frames=len(frames),
            sha256=image.sha256,
        )
        return known, {
            "queue": got_place - begun + waited,
            "decode": decoded - got_place,
            "infer": done - decoded - waited,
        }

    def _slots_of(self, predictor: Predictor) -> EngineSlots:
        with self._lock:
            if predictor not in self._slots:
                self._slots[predictor] = EngineSlots(streams_of(predictor))
            return self._slots[predictor]


def riskiest(predictions: list[Prediction], fallback: str | None) -> Prediction:
    """Give the frame that counts: the least harmless one, or else the surest.

    Where the fallback class is one of the model's (`neutral`: nothing is wrong with the image),
    it is the frame with the least of it; a clean first frame hides nothing then.
    """
    if fallback in predictions[0].probabilities:
        return min(predictions, key=lambda found: found.probabilities[fallback])
    return max(predictions, key=lambda found: found.probability)
