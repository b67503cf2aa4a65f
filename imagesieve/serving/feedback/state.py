"""What holds for each corrected image, as the lines of the journal add up to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from imagesieve.feedback import AUDIT, Entry, Stories, stored_name


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One of the things that were said of an image; the last one holds.

    Attributes:
        label: the class; None when it was rejected.
        predicted: what the model had said.
        model: its digest.
        reason: why the image was looked at.
    """

    label: str | None
    predicted: Mapping[str, Any] | None
    model: str | None
    reason: str


class FeedbackState:
    """The sum of a journal, and the sizes of the stored images; not safe for threads."""

    def __init__(self) -> None:
        self._stories: Stories[Step] = Stories()
        self._num_bytes: dict[str, int] = {}  # of what is stored of an image, by key
        self.num_bytes = 0

    @property
    def num_stored(self) -> int:
        """How many images are stored."""
        return len(self._num_bytes)

    def apply(self, entry: Entry) -> str:
        """Add a line and give the key of its image."""
        step = Step(entry.label, entry.predicted, entry.model, entry.reason)
        return self._stories.add(entry, step)

    def key_of(self, sha256: str) -> str:
        """Give the digits under which an image is known and stored."""
        return self._stories.key_of(sha256)

    def is_other(self, sha256: str) -> bool:
        """Tell whether another image has this one's key."""
        key = self.key_of(sha256)
        known = self._stories.sha256(key)
        return known is not None and known.startswith(key) and known != sha256

    def steps(self, key: str) -> tuple[Step, ...]:
        """Give what was said of an image and not undone, oldest first."""
        return self._stories.of(key)

    def stored(self, key: str) -> str | None:
        """Give the path, in the feedback folder, where the image should be."""
        steps = self.steps(key)
        label = steps[-1].label if steps else None
        return None if label is None else stored_name(label, key)

    def sha256(self, key: str) -> str | None:
        """Give an image's SHA-256, or None when the journal has no line of it."""
        return self._stories.sha256(key)

    def num_bytes_of(self, key: str) -> int:
        """Give the size of what is stored of an image; 0 when nothing is."""
        return self._num_bytes.get(key, 0)

    def set_num_bytes(self, key: str, num_bytes: int) -> None:
        """Note the size of what is stored of an image; 0 when nothing is."""
        self.num_bytes += num_bytes - self._num_bytes.pop(key, 0)
        if num_bytes:
            self._num_bytes[key] = num_bytes

    def num_corrected(self) -> int:
        """Count the images of which something holds, rejected ones included."""
        return sum(1 for _ in self._stories.last())

    def audit(self, class_of_interest: str | None) -> tuple[int, int]:
        """Count the audited images that were reviewed, and those the filter should have kept.

        Args:
            class_of_interest: what the filter is to keep; None: any class other than the decision
                shows that it was wrong.
        """
        reviewed = missed = 0
        for _, step in self._stories.last():
            if step.reason != AUDIT or step.predicted is None:
                continue
            reviewed += 1
            if class_of_interest is not None:
                missed += step.label == class_of_interest
            else:
                missed += step.label not in (None, step.predicted.get("decision"))
        return reviewed, missed
