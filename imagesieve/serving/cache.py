"""Answers of the model that are known already: the same bytes under the same model."""

import collections
import dataclasses
import threading

from imagesieve.prediction.predictor import Prediction


@dataclasses.dataclass(frozen=True)
class CachedPrediction:
    """What there is to say of an image besides its pixels.

    Attributes:
        prediction: of the frame that counts.
        format: one of `images.FORMATS`.
        width: pixels of the original, after orientation.
        height: pixels of the original, after orientation.
        orientation: EXIF orientation that was applied, 1 to 8.
        frames: how many frames were looked at.
        sha256: of the encoded bytes.
    """

    prediction: Prediction
    format: str
    width: int
    height: int
    orientation: int
    frames: int
    sha256: str


class AnswerCache:
    """The answers asked for last; any thread may use it.

    A few hundred bytes each, no images: ten thousand take some megabytes.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._known: collections.OrderedDict[tuple[str, ...], CachedPrediction] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...]) -> CachedPrediction | None:
        """Give what is known under a key, or None."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: tuple[str, ...], known: CachedPrediction) -> None:
        """Keep an answer; the one not asked for longest gives way."""
        if not self._max_entries:
            return
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > self._max_entries:
                self._known.popitem(last=False)
