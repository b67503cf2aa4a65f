"""The life of one image in the service: known already? decode, run the engine, all in time."""

import dataclasses
import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from imagesieve.images import DecodedImage
from imagesieve.images.animation import further_frames
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.cache import AnswerCache, Known
from imagesieve.serving.engine_pool import EngineSlots
from imagesieve.serving.errors import ClientGoneError, DeadlineExceededError
from imagesieve.serving.limits import Admission
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.models import Judge, streams_of
from imagesieve.serving.requests import Fetch, ImageRequest


@dataclasses.dataclass(frozen=True)
class Turn:
    """How long a caller waits.

    Attributes:
        deadline: by `time.monotonic`.
        is_gone: tells whether the caller has hung up.
    """

    deadline: float
    is_gone: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Go on only while somebody waits.

        Raises:
            ClientGoneError: the caller has hung up.
            DeadlineExceededError: the time is over.
        """
        if self.is_gone():
            raise ClientGoneError("The caller has hung up.")
        if time.monotonic() > self.deadline:
            raise DeadlineExceededError("The image took too long: try again in a moment.")


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
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
    known: Known
    policy: DecisionPolicy
    decision: str
    described: Mapping[str, Any]
    is_cached: bool
    seconds: Mapping[str, float]

    @property
    def prediction(self) -> Prediction:
        """What the model says, with the decision under `policy`."""
        return dataclasses.replace(self.known.prediction, decision=self.decision)


class Desk:
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
        self._slots: weakref.WeakKeyDictionary[Judge, EngineSlots] = weakref.WeakKeyDictionary()

    def is_wedged(self, judge: Judge) -> bool:
        """Tell whether the engine hangs in all its places."""
        slots = self._slots.get(judge)
        return slots is not None and slots.is_wedged

    def read(self, asked: ImageRequest) -> bytes:
        """Give the encoded image, which may have to be fetched; see `Sent.read`."""
        return asked.sent.read(self._fetch)

    def decode(self, judge: Judge, data: bytes, turn: Turn) -> DecodedImage:
        """Decode an image when it is its turn.

        Raises:
            ImageError: it cannot be used.
            OverloadedError: no place to decode became free.
            ClientGoneError, DeadlineExceededError: see `Turn.check`.
        """
        turn.check()
        with self._admission.decoding(data, turn.deadline):
            return judge.decode(data, self._limits.images)

    def judge(self, judge: Judge, asked: ImageRequest, turn: Turn) -> Judged:
        """Judge an image.

        Raises:
            RequestError: the image cannot be read from what was sent.
            ImageError: it cannot be used.
            EngineError: the engine failed or gave no probabilities.
            OverloadedError: no place to decode became free.
            ClientGoneError, DeadlineExceededError: see `Turn.check`.
        """
        data, wanted = self.read(asked), asked.wanted
        described = judge.describe()
        digest = hashlib.sha256(data).hexdigest()
        key = (described["digest"], described["engine"], digest, str(wanted.frames))
        known, seconds = self._cache.get(key), dict.fromkeys(("queue", "decode", "infer"), 0.0)
        is_cached = known is not None
        if known is None:
            known, seconds = self._ask(judge, data, wanted.frames, turn)
            self._cache.put(key, known)
        policy = DecisionPolicy.from_json(described["decision_policy"])
        if wanted.threshold is not None:
            policy = DecisionPolicy(CONFIDENT, wanted.threshold, policy.fallback_class)
        found = known.prediction
        decision = policy.decide(found.label, found.probability)
        judged = Judged(data, known, policy, decision, described, is_cached, seconds)
        self._metrics.note_judged(judged.prediction, seconds, is_cached=is_cached)
        return judged

    def _ask(
        self, judge: Judge, data: bytes, num_frames: int, turn: Turn
    ) -> tuple[Known, dict[str, float]]:
        turn.check()
        begun = time.perf_counter()
        with self._admission.decoding(data, turn.deadline):
            got_place = time.perf_counter()
            image = judge.decode(data, self._limits.images)
            size = image.pixels.shape[:2]
            others = further_frames(data, image, (size[0], size[1]), num_frames - 1)
        decoded = time.perf_counter()
        turn.check()
        frames = [image, *(dataclasses.replace(image, pixels=pixels) for pixels in others)]
        predictions, waited = self._slots_of(judge).run(
            lambda: [judge.judge(frame) for frame in frames], turn.deadline
        )
        done = time.perf_counter()
        fallback = judge.describe()["decision_policy"].get("fallback_class")
        known = Known(
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

    def _slots_of(self, judge: Judge) -> EngineSlots:
        with self._lock:
            if judge not in self._slots:
                self._slots[judge] = EngineSlots(streams_of(judge))
            return self._slots[judge]


def riskiest(predictions: list[Prediction], fallback: str | None) -> Prediction:
    """Give the frame that counts: the least harmless one, or else the surest.

    Where the fallback class is one of the model's (`neutral`: nothing is wrong with the image),
    it is the frame with the least of it; a clean first frame hides nothing then.
    """
    if fallback in predictions[0].probabilities:
        return min(predictions, key=lambda found: found.probabilities[fallback])
    return max(predictions, key=lambda found: found.probability)
