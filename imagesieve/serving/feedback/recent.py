"""The images judged last, in memory: they can be corrected by the id of their prediction."""

import collections
import dataclasses
import functools
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.feedback.selection import Selection, uncertainty

if TYPE_CHECKING:
    from imagesieve.serving.feedback.image_store import KeptImages

REASONS = (UNCERTAIN, AUDIT, RECENT)

_MAX_IDS = 16  # of one image that is sent again and again


@dataclasses.dataclass(frozen=True, eq=False)
class HeldImage:
    """A judged image.

    Attributes:
        sha256: of the encoded bytes.
        ids: of its predictions, the last one last.
        prediction: the last one.
        digest: of the model that made it.
        name: of that model.
        created: when, ISO 8601, UTC.
        reason: why it should be looked at, from `Selection.reason`.
        num_bytes: of the encoded image.
    """

    sha256: str
    ids: tuple[str, ...]
    prediction: Prediction
    digest: str
    name: str
    created: str
    reason: str
    num_bytes: int

    @functools.cached_property
    def uncertainty(self) -> float:
        """Entropy of the probabilities, 0 to 1."""
        return uncertainty(self.prediction.probabilities)


@dataclasses.dataclass(frozen=True)
class HeldLimits:
    """How much is held in memory; the images judged least recently go first."""

    max_images: int = 1000
    max_bytes: int = 64 * 2**20  # encoded


class HeldImages:
    """Holds images for any number of threads; noting one down never waits for a disk."""

    def __init__(
        self,
        selection: Selection,
        limits: HeldLimits | None = None,
        kept: "KeptImages | None" = None,
        reasons_to_keep: Collection[str] = (UNCERTAIN, AUDIT),
    ) -> None:
        """Start empty.

        Args:
            selection: tells what should be looked at.
            limits: of the memory.
            kept: those that are on disk too; None keeps none there.
            reasons_to_keep: which of `REASONS` bring an image there.
        """
        self._selection = selection
        self._limits = limits or HeldLimits()
        self._kept = kept
        self._reasons_to_keep = frozenset(reasons_to_keep)
        self._lock = threading.Lock()
        self._images: collections.OrderedDict[str, tuple[HeldImage, bytes]]
        self._images = collections.OrderedDict()
        self._by_id: dict[str, str] = {}
        self._num_bytes = 0

    def note(
        self,
        image_id: str,
        data: bytes,
        sha256: str,
        prediction: Prediction,
        digest: str,
        name: str,
        fallback_class: str | None = None,
    ) -> bool:
        """Hold an image that was just judged.

        Args:
            image_id: of the prediction.
            data: the encoded image.
            sha256: of `data`.
            prediction: what was answered.
            digest: of the model.
            name: of the model.
            fallback_class: of the decision policy in force.

        Returns:
            whether it can be corrected by its id now.
        """
        image = HeldImage(
            sha256=sha256,
            ids=(image_id,),
            prediction=prediction,
            digest=digest,
            name=name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            reason=self._selection.reason(sha256, prediction, fallback_class),
            num_bytes=len(data),
        )
        if len(data) > self._limits.max_bytes or self._limits.max_images < 1:
            return False
        with self._lock:
            image = self._put(image, data)
        self._keep(image, data)
        return True

    def by_id(self, image_id: str) -> HeldImage | None:
        """Give the image of a prediction, or None."""
        with self._lock:
            sha256 = self._by_id.get(image_id)
            if sha256 is not None:
                return self._images[sha256][0]
        return self._kept.by_id(image_id) if self._kept else None

    def by_sha256(self, sha256: str) -> HeldImage | None:
        """Give an image by its content, or None."""
        with self._lock:
            if sha256 in self._images:
                return self._images[sha256][0]
        return self._kept.by_sha256(sha256) if self._kept else None

    def data(self, sha256: str) -> bytes | None:
        """Give the encoded image, or None when it is not held any more."""
        with self._lock:
            if sha256 in self._images:
                return self._images[sha256][1]
        return self._kept.data(sha256) if self._kept else None

    def all(self) -> list[HeldImage]:
        """Give everything that is held, those judged last last."""
        with self._lock:
            held = {sha256: image for sha256, (image, _) in self._images.items()}
        kept = self._kept.all() if self._kept else []
        return [*(image for image in kept if image.sha256 not in held), *held.values()]

    def note_settled(self, sha256: str) -> None:
        """Remove an image from the disk: it was corrected. In memory it stays for a while."""
        if self._kept:
            self._kept.remove(sha256)

    def note_unsettled(self, sha256: str) -> None:
        """Keep an image on disk again, if it is still in memory: its correction was undone."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            self._keep(*found)

    def _keep(self, image: HeldImage, data: bytes) -> None:
        if self._kept is not None and image.reason in self._reasons_to_keep:
            self._kept.put(image, data)

    def _put(self, image: HeldImage, data: bytes) -> HeldImage:
        old = self._remove(image.sha256)
        if old is not None:
            image = dataclasses.replace(image, ids=(*old.ids, *image.ids)[-_MAX_IDS:])
        self._images[image.sha256] = image, data
        self._by_id.update(dict.fromkeys(image.ids, image.sha256))
        self._num_bytes += len(data)
        limits = self._limits
        while len(self._images) > limits.max_images or self._num_bytes > limits.max_bytes:
            self._remove(next(iter(self._images)))
        return image

    def _remove(self, sha256: str) -> HeldImage | None:
        found = self._images.pop(sha256, None)
        if found is None:
            return None
        image, data = found
        self._num_bytes -= len(data)
        for image_id in image.ids:
            self._by_id.pop(image_id, None)
        return image
