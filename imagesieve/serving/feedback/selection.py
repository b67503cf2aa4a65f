"""Which judged images are worth a person's look."""

import dataclasses
import hashlib
import math
import secrets
from collections.abc import Mapping

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.prediction.predictor import Prediction

_DRAW_BYTES = 8
_DRAW_RANGE = 1 << (8 * _DRAW_BYTES)
_KEY_BYTES = 32


def uncertainty(probabilities: Mapping[str, float]) -> float:
    """Give the entropy of the probabilities, from 0 (one class is sure) to 1 (all are the same)."""
    if len(probabilities) < 2:
        return 0.0
    entropy = -sum(share * math.log(share) for share in probabilities.values() if share > 0)
    return min(1.0, max(0.0, entropy / math.log(len(probabilities))))


@dataclasses.dataclass(frozen=True)
class Selection:
    """Tells why a judged image should be looked at.

    Attributes:
        min_margin: probability, 0 to 1, that the best class must be ahead of the second.
        audit_share: of the dropped images, 0 to 1, that are drawn for the audit.
        class_of_interest: what a filter is to keep; all else counts as dropped.
        key: of the draw. A new one for each start, so that no sender can tell what will be drawn.
    """

    min_margin: float = 0.5
    audit_share: float = 0.0
    class_of_interest: str | None = None
    key: bytes = dataclasses.field(
        default_factory=lambda: secrets.token_bytes(_KEY_BYTES), repr=False
    )

    def reason(self, sha256: str, prediction: Prediction, fallback_class: str | None) -> str:
        """Give `AUDIT`, `UNCERTAIN` or `RECENT`.

        The audit comes first: an image left out of it for being uncertain would be missing from
        the estimate.

        Args:
            sha256: of the encoded image.
            prediction: what was answered.
            fallback_class: of the decision policy in force; None when that has none, so that its
                decision is always the label.
        """
        if self.is_dropped(prediction, fallback_class) and self.draw(sha256) < self.audit_share:
            return AUDIT
        return UNCERTAIN if self.is_uncertain(prediction) else RECENT

    def is_uncertain(self, prediction: Prediction) -> bool:
        """Tell whether the policy, or a close second class, casts doubt on the label."""
        shares = sorted(prediction.probabilities.values(), reverse=True)
        margin = shares[0] - shares[1] if len(shares) > 1 else 1.0
        return prediction.decision != prediction.label or margin < self.min_margin

    def is_dropped(self, prediction: Prediction, fallback_class: str | None) -> bool:
        """Tell whether the filter lets go of the image."""
        if self.class_of_interest is not None:
            return prediction.decision != self.class_of_interest
        return prediction.decision == fallback_class

    def draw(self, sha256: str) -> float:
        """Give a number from 0 to below 1 that is the same for the same image in one run."""
        digest = hashlib.blake2b(sha256.encode(), digest_size=_DRAW_BYTES, key=self.key).digest()
        return int.from_bytes(digest) / _DRAW_RANGE
