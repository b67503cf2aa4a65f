"""Which images are worth a person's review, in which order, and what the audit says of a filter."""

import collections
import dataclasses
import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN, FeedbackEvent
from imagesieve.intervals import wilson_interval
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import schemas
from imagesieve.serving.feedback.recent import RecentImages
from imagesieve.serving.feedback.store import FeedbackStore

_MIN_MARGIN = 0.5  # of probability, that the best class must be ahead of the second
_ORDER = (UNCERTAIN, AUDIT, RECENT)


def uncertainty(probabilities: Mapping[str, float]) -> float:
    """Return the entropy of probabilities, from 0 (one class is sure) to 1 (all are the same)."""
    if len(probabilities) < 2:
        return 0.0
    entropy = -sum(share * math.log(share) for share in probabilities.values() if share > 0)
    return min(1.0, max(0.0, entropy / math.log(len(probabilities))))


def _is_uncertain(prediction: Prediction) -> bool:
    shares = sorted(prediction.probabilities.values(), reverse=True)
    margin = shares[0] - shares[1] if len(shares) > 1 else 1.0
    return prediction.decision != prediction.label or margin < _MIN_MARGIN


@dataclasses.dataclass(frozen=True)
class Selection:
    """Why an image should be reviewed."""

    audit_share: float = 0.0  # of the dropped images, 0 to 1, that are drawn for the audit
    class_of_interest: str | None = None  # what a filter is to keep; all else counts as dropped
    # Of the draw. A new one at each start, so that no sender can predict what is drawn.
    key: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def reason(
        self, sha256: str, prediction: Prediction, fallback_class: str | None
    ) -> Literal["uncertain", "audit", "recent"]:
        """Return why an image should be reviewed.

        The audit comes first: an image left out of it for being uncertain would be missing from
        the estimate. Without a `fallback_class`, the policy's decision is always the label.
        """
        if self.is_dropped(prediction, fallback_class) and self.draw(sha256) < self.audit_share:
            return AUDIT
        return UNCERTAIN if _is_uncertain(prediction) else RECENT

    def is_dropped(self, prediction: Prediction, fallback_class: str | None) -> bool:
        if self.class_of_interest is not None:
            return prediction.decision != self.class_of_interest
        return prediction.decision == fallback_class

    def is_missed(self, event: FeedbackEvent) -> bool:
        """Return whether the filter should not have dropped an image."""
        if self.class_of_interest is not None:
            return event.label == self.class_of_interest
        # Any class other than the decision shows that it was wrong.
        return event.label not in (None, (event.predicted or {}).get("decision"))

    def draw(self, sha256: str) -> float:
        """Return a number from 0 to below 1, the same for the same image in one run."""
        digest = hashlib.blake2b(sha256.encode(), digest_size=8, key=self.key).digest()
        return int.from_bytes(digest) / 2**64


def review(
    recent: RecentImages,
    store: FeedbackStore,
    selection: Selection,
    classes: Sequence[str],
    limit: int,
) -> schemas.Review:
    """Return the first `limit` recent images that are not corrected yet, and the counts.

    The most uncertain come first; then those of the audit, in an order by lot, so that those which
    are reviewed are a fair sample; then all others, the most uncertain first.
    """
    images = [image.shown for image in recent.all()]
    corrected = store.corrected_among(image.sha256 for image in images)
    waiting = [image for image in images if image.sha256 not in corrected]

    def place(image: schemas.ReviewImage) -> tuple[int, float, str]:
        is_audit = image.reason == AUDIT
        within = selection.draw(image.sha256) if is_audit else -uncertainty(image.probabilities)
        return _ORDER.index(image.reason), within, image.sha256

    reasons = collections.Counter(image.reason for image in waiting)
    return schemas.Review(
        images=sorted(waiting, key=place)[:limit],
        waiting=reasons[UNCERTAIN] + reasons[AUDIT],
        corrected=store.num_corrected(),
        classes=list(classes),
        audit=_estimate(store.audited(), selection, reasons[AUDIT]),
    )


def _estimate(
    audited: Sequence[FeedbackEvent], selection: Selection, num_waiting: int
) -> schemas.Audit | None:
    events = [event for event in audited if event.predicted is not None]
    if not (selection.audit_share or events or num_waiting):
        return None
    missed, reviewed = sum(map(selection.is_missed, events)), len(events)
    return schemas.Audit(
        share=selection.audit_share,
        kept=num_waiting + reviewed,
        reviewed=reviewed,
        missed=missed,
        missed_share=missed / reviewed if reviewed else None,
        interval=list(wilson_interval(missed, reviewed)) if reviewed else None,
    )
