"""The review queue, and what the audit tells of a filter."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from imagesieve.feedback import AUDIT, UNCERTAIN
from imagesieve.intervals import wilson_interval
from imagesieve.serving.feedback.recent import HeldImage, HeldImages
from imagesieve.serving.feedback.selection import Selection
from imagesieve.serving.feedback.store import FeedbackStore

_FIRST, _SECOND, _LAST = range(3)


@dataclasses.dataclass(frozen=True)
class AuditEstimate:
    """What the filter misses, as far as the audited images tell.

    Attributes:
        share: of the dropped images that are drawn, 0 to 1.
        kept: images drawn: those that wait, and those reviewed.
        reviewed: images drawn that a person has looked at.
        missed: of these, how many the filter should not have dropped.
    """

    share: float
    kept: int
    reviewed: int
    missed: int

    def to_json(self) -> dict[str, Any]:
        """Give the counts, the share missed, and its 95 % Wilson interval, as JSON values."""
        is_known = self.reviewed > 0
        return {
            **dataclasses.asdict(self),
            "missed_share": self.missed / self.reviewed if is_known else None,
            "interval": list(wilson_interval(self.missed, self.reviewed)) if is_known else None,
        }


@dataclasses.dataclass(frozen=True)
class Review:
    """What there is to do.

    Attributes:
        images: those to look at, first things first.
        waiting: how many ask for a look, uncertain or drawn for the audit.
        corrected: how many images were corrected or rejected.
        audit: None when nothing is or was audited.
    """

    images: tuple[HeldImage, ...]
    waiting: int
    corrected: int
    audit: AuditEstimate | None


class ReviewQueue:
    """Orders what is held and not corrected yet."""

    def __init__(self, held: HeldImages, store: FeedbackStore, selection: Selection) -> None:
        self._held = held
        self._store = store
        self._selection = selection

    def look(self, limit: int) -> Review:
        """Give the first `limit` images and the counts.

        The most uncertain come first; then those of the audit, in an order by lot, so that those
        which get a look are a fair sample; then all others, the most uncertain first.
        """
        held = self._held.all()
        corrected = self._store.corrected_among(image.sha256 for image in held)
        waiting = [image for image in held if image.sha256 not in corrected]
        num_audit = sum(image.reason == AUDIT for image in waiting)
        num_uncertain = sum(image.reason == UNCERTAIN for image in waiting)
        return Review(
            images=tuple(sorted(waiting, key=self._place)[:limit]),
            waiting=num_uncertain + num_audit,
            corrected=self._store.num_corrected(),
            audit=self._estimate(num_audit),
        )

    def _place(self, image: HeldImage) -> tuple[int, float, str]:
        if image.reason == AUDIT:
            return _SECOND, self._selection.draw(image.sha256), image.sha256
        part = _FIRST if image.reason == UNCERTAIN else _LAST
        return part, -image.uncertainty, image.sha256

    def _estimate(self, num_waiting: int) -> AuditEstimate | None:
        reviewed, missed = self._store.audit(self._selection.class_of_interest)
        share = self._selection.audit_share
        if not share and not reviewed and not num_waiting:
            return None
        return AuditEstimate(share, num_waiting + reviewed, reviewed, missed)


def as_json(image: HeldImage) -> Mapping[str, Any]:
    """Give an image of the queue as JSON values."""
    prediction = image.prediction
    return {
        "sha256": image.sha256,
        "id": image.ids[-1],
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "decision": prediction.decision,
        "reason": image.reason,
        "created": image.created,
    }
