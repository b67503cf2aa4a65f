"""Corrections as a whole, and which images are worth a person's review, in which order."""

import collections
import dataclasses
import hashlib
import logging
import math
import secrets
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from imagesieve.class_folders import is_class_name
from imagesieve.errors import UsageError
from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN, FeedbackEvent
from imagesieve.intervals import wilson_interval
from imagesieve.model.decisions import ARGMAX, DecisionPolicy
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import errors, schemas
from imagesieve.serving.feedback.recent import RecentImage, RecentImages
from imagesieve.serving.feedback.store import FeedbackStore
from imagesieve.serving.limits import TokenBuckets
from imagesieve.serving.model_manager import listed
from imagesieve.serving.pipeline import PredictionResult

GONE = "The server does not have this image any more"

# Of each caller: 240 a minute at most. A quick reviewer does less, a flood fills nothing.
_RATE, _BURST = 2.0, 120
_MIN_MARGIN = 0.5  # of probability, that the best class must be ahead of the second
_ORDER = (UNCERTAIN, AUDIT, RECENT)

_log = logging.getLogger(__name__)


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


class Corrections:
    """What the service knows of corrections: the store, and the images that wait for review."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 2 * 2**30,
        selection: Selection | None = None,
        reasons_to_store: Collection[str] = (),
    ) -> None:
        """Read and write nothing before `open`.

        All corrected images together have at most `max_bytes`; for `reasons_to_store` an image
        waits for its review on disk, too.
        """
        self.store = FeedbackStore(folder, max_bytes)
        self.recent = RecentImages(
            folder, reasons_to_store, lambda sha256: self.store.in_force(sha256) is not None
        )
        self.selection = selection or Selection()
        self.buckets = TokenBuckets(_RATE, _BURST)

    def open(self) -> None:
        """Open what earlier runs left. A disk that fails costs corrections alone."""
        try:
            self.store.open()
        except errors.FeedbackUnavailableError:
            _log.warning("The service runs without corrections until that is mended.")
            return
        self.recent.open()

    def close(self) -> None:
        self.recent.close()
        self.store.close()

    def hold(self, image_id: str, result: PredictionResult) -> bool:
        """Hold a predicted image; return whether it can be corrected by its id alone."""
        sha256, prediction = result.image.sha256, result.prediction
        shown = schemas.ReviewImage(
            sha256=sha256,
            id=image_id,
            reason=self.selection.reason(sha256, prediction, result.policy.fallback),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **dataclasses.asdict(prediction),
        )
        return self.recent.hold(RecentImage(shown, result.model.digest), result.data)

    def check(self, classes: Sequence[str], policy: DecisionPolicy) -> None:
        """Check that the options suit the model that is served.

        Raises:
            UsageError: the model does not have the class of interest.
        """
        interest = self.selection.class_of_interest
        drops_nothing = policy.kind == ARGMAX and interest is None
        if self.selection.audit_share and drops_nothing:
            _log.warning("No image is dropped, so none is audited: see --class-of-interest.")
        if interest is not None and interest not in classes:
            has = listed(classes)
            raise UsageError(f"--class-of-interest {interest}: the model has only {has}.")
        for name in classes:
            if not is_class_name(name):
                _log.warning("Nothing can be corrected to %r: it cannot name a folder.", name)

    def find(
        self, asked: schemas.Correction, encoded: bytes | None
    ) -> tuple[str, RecentImage | None]:
        """Return the SHA-256 of the image that a correction names or has, and its prediction."""
        by_id = self.recent.by_id(asked.id) if asked.id else None
        if encoded is None and asked.id:
            if by_id is None:
                raise errors.UnknownImageError(f"{GONE}: send it again.")
            return by_id.shown.sha256, by_id
        sha256 = asked.sha256 or ""
        if encoded is not None:
            sha256 = hashlib.sha256(encoded).hexdigest()
            named = (asked.sha256, by_id.shown.sha256 if by_id else None)
            if any(name and name != sha256 for name in named):
                raise errors.BadParameterError("The image is another one than id or sha256 say.")
        return sha256, self.recent.by_sha256(sha256)

    def review(self, classes: Sequence[str], limit: int) -> schemas.Review:
        """Return the first `limit` recent images that are not corrected yet, and the counts.

        The most uncertain come first; then those of the audit, in an order by lot, so that those
        which are reviewed are a fair sample; then all others, the most uncertain first.
        """
        images = [image.shown for image in self.recent.all()]
        corrected = self.store.corrected_among(image.sha256 for image in images)
        waiting = [image for image in images if image.sha256 not in corrected]

        def place(image: schemas.ReviewImage) -> tuple[int, float, str]:
            doubt = uncertainty(image.probabilities)
            within = self.selection.draw(image.sha256) if image.reason == AUDIT else -doubt
            return _ORDER.index(image.reason), within, image.sha256

        reasons = collections.Counter(image.reason for image in waiting)
        return schemas.Review(
            images=sorted(waiting, key=place)[:limit],
            waiting=reasons[UNCERTAIN] + reasons[AUDIT],
            corrected=self.store.num_corrected(),
            classes=list(classes),
            audit=_estimate(self.store.audited(), self.selection, reasons[AUDIT]),
        )

    def slow_down(self, caller: Hashable) -> None:
        """Take one of the changes that the caller may make, or raise errors.RateLimitedError."""
        if seconds := self.buckets.take(caller):
            about = f"Too many corrections in a short time: go on in {seconds} s."
            raise errors.RateLimitedError(about, seconds)
