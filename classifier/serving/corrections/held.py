"""The pictures judged last, in memory: they can be corrected by the id of their prediction."""

import collections
import dataclasses
import functools
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from classifier.feedback_lines import AUDIT, RECENT, UNCERTAIN
from classifier.serving.corrections.selection import Selection, uncertainty
from classifier.serving.predictor import Prediction

if TYPE_CHECKING:
    from classifier.serving.corrections.kept import KeptPictures

REASONS = (UNCERTAIN, AUDIT, RECENT)

_MAX_IDS = 16  # of one picture that is sent again and again


@dataclasses.dataclass(frozen=True, eq=False)
class HeldPicture:
    """A judged picture.

    Attributes:
        sha256: of the encoded bytes.
        ids: of its predictions, the last one last.
        prediction: the last one.
        digest: of the model that made it.
        name: of that model.
        created: when, ISO 8601, UTC.
        reason: why it should be looked at, from `Selection.reason`.
        num_bytes: of the encoded picture.
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
    """How much is held in memory; the pictures judged least recently go first."""

    max_pictures: int = 1000
    max_bytes: int = 64 * 2**20  # encoded


class HeldPictures:
    """Holds pictures for any number of threads; noting one down never waits for a disk."""

    def __init__(
        self,
        selection: Selection,
        limits: HeldLimits | None = None,
        kept: "KeptPictures | None" = None,
        reasons_to_keep: Collection[str] = (UNCERTAIN, AUDIT),
    ) -> None:
        """Start empty.

        Args:
            selection: tells what should be looked at.
            limits: of the memory.
            kept: those that are on disk too; None keeps none there.
            reasons_to_keep: which of `REASONS` bring a picture there.
        """
        self._selection = selection
        self._limits = limits or HeldLimits()
        self._kept = kept
        self._reasons_to_keep = frozenset(reasons_to_keep)
        self._lock = threading.Lock()
        self._pictures: collections.OrderedDict[str, tuple[HeldPicture, bytes]]
        self._pictures = collections.OrderedDict()
        self._by_id: dict[str, str] = {}
        self._num_bytes = 0

    def note(
        self,
        picture_id: str,
        data: bytes,
        sha256: str,
        prediction: Prediction,
        digest: str,
        name: str,
        fallback_class: str | None = None,
    ) -> bool:
        """Hold a picture that was just judged.

        Args:
            picture_id: of the prediction.
            data: the encoded picture.
            sha256: of `data`.
            prediction: what was answered.
            digest: of the model.
            name: of the model.
            fallback_class: of the decision policy in force.

        Returns:
            whether it can be corrected by its id now.
        """
        picture = HeldPicture(
            sha256=sha256,
            ids=(picture_id,),
            prediction=prediction,
            digest=digest,
            name=name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            reason=self._selection.reason(sha256, prediction, fallback_class),
            num_bytes=len(data),
        )
        if len(data) > self._limits.max_bytes or self._limits.max_pictures < 1:
            return False
        with self._lock:
            picture = self._put(picture, data)
        self._keep(picture, data)
        return True

    def by_id(self, picture_id: str) -> HeldPicture | None:
        """Give the picture of a prediction, or None."""
        with self._lock:
            sha256 = self._by_id.get(picture_id)
            if sha256 is not None:
                return self._pictures[sha256][0]
        return self._kept.by_id(picture_id) if self._kept else None

    def by_sha256(self, sha256: str) -> HeldPicture | None:
        """Give a picture by its content, or None."""
        with self._lock:
            if sha256 in self._pictures:
                return self._pictures[sha256][0]
        return self._kept.by_sha256(sha256) if self._kept else None

    def data(self, sha256: str) -> bytes | None:
        """Give the encoded picture, or None when it is not held any more."""
        with self._lock:
            if sha256 in self._pictures:
                return self._pictures[sha256][1]
        return self._kept.data(sha256) if self._kept else None

    def all(self) -> list[HeldPicture]:
        """Give everything that is held, those judged last last."""
        with self._lock:
            held = {sha256: picture for sha256, (picture, _) in self._pictures.items()}
        kept = self._kept.all() if self._kept else []
        return [*(picture for picture in kept if picture.sha256 not in held), *held.values()]

    def note_settled(self, sha256: str) -> None:
        """Remove a picture from the disk: it was corrected. In memory it stays for a while."""
        if self._kept:
            self._kept.remove(sha256)

    def note_unsettled(self, sha256: str) -> None:
        """Keep a picture on disk again, if it is still in memory: its correction was undone."""
        with self._lock:
            found = self._pictures.get(sha256)
        if found is not None:
            self._keep(*found)

    def _keep(self, picture: HeldPicture, data: bytes) -> None:
        if self._kept is not None and picture.reason in self._reasons_to_keep:
            self._kept.put(picture, data)

    def _put(self, picture: HeldPicture, data: bytes) -> HeldPicture:
        old = self._remove(picture.sha256)
        if old is not None:
            picture = dataclasses.replace(picture, ids=(*old.ids, *picture.ids)[-_MAX_IDS:])
        self._pictures[picture.sha256] = picture, data
        self._by_id.update(dict.fromkeys(picture.ids, picture.sha256))
        self._num_bytes += len(data)
        limits = self._limits
        while len(self._pictures) > limits.max_pictures or self._num_bytes > limits.max_bytes:
            self._remove(next(iter(self._pictures)))
        return picture

    def _remove(self, sha256: str) -> HeldPicture | None:
        found = self._pictures.pop(sha256, None)
        if found is None:
            return None
        picture, data = found
        self._num_bytes -= len(data)
        for picture_id in picture.ids:
            self._by_id.pop(picture_id, None)
        return picture
