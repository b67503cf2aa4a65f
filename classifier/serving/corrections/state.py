"""What holds for each corrected picture, as the lines of the journal add up to it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from classifier.feedback_lines import (
    AUDIT,
    KEY_DIGITS,
    UNDO,
    Entry,
    add_said,
    parse_stored_name,
    stored_name,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One of the things that were said of a picture; the last one holds.

    Attributes:
        label: the class; None when it was rejected.
        predicted: what the model had said.
        model: its digest.
        reason: why the picture was looked at.
    """

    label: str | None
    predicted: Mapping[str, Any] | None
    model: str | None
    reason: str


@dataclasses.dataclass(slots=True)
class _Picture:
    sha256: str
    steps: list[Step] = dataclasses.field(default_factory=list)
    num_bytes: int = 0  # of what is stored of it


class FeedbackState:
    """The sum of a journal, and the sizes of the stored pictures; not safe for threads."""

    def __init__(self) -> None:
        self._pictures: dict[str, _Picture] = {}
        self._keys: dict[str, str] = {}  # of recovered pictures, whose SHA-256 does not begin so
        self.num_stored = 0
        self.num_bytes = 0

    def apply(self, entry: Entry) -> str:
        """Add a line and give the key of its picture."""
        key = self.key_of(entry.sha256)
        if entry.stored is not None:
            key = parse_stored_name(entry.stored)[1]
            if not entry.sha256.startswith(key):
                self._keys[entry.sha256] = key
        picture = self._pictures.setdefault(key, _Picture(entry.sha256))
        if entry.sha256.startswith(key):
            picture.sha256 = entry.sha256
        step = Step(entry.label, entry.predicted, entry.model, entry.reason)
        add_said(picture.steps, step, is_undo=entry.action == UNDO)
        return key

    def key_of(self, sha256: str) -> str:
        """Give the digits under which a picture is known and stored."""
        return self._keys.get(sha256, sha256[:KEY_DIGITS])

    def is_other(self, sha256: str) -> bool:
        """Tell whether another picture has this one's key."""
        key = self.key_of(sha256)
        known = self._pictures.get(key)
        return known is not None and known.sha256.startswith(key) and known.sha256 != sha256

    def steps(self, key: str) -> tuple[Step, ...]:
        """Give what was said of a picture and not undone, oldest first."""
        picture = self._pictures.get(key)
        return tuple(picture.steps) if picture else ()

    def stored(self, key: str) -> str | None:
        """Give the path, in the feedback folder, where the picture should be."""
        steps = self.steps(key)
        label = steps[-1].label if steps else None
        return None if label is None else stored_name(label, key)

    def sha256(self, key: str) -> str | None:
        """Give a picture's SHA-256, or None when the journal has no line of it."""
        picture = self._pictures.get(key)
        return picture.sha256 if picture else None

    def num_bytes_of(self, key: str) -> int:
        """Give the size of what is stored of a picture; 0 when nothing is."""
        picture = self._pictures.get(key)
        return picture.num_bytes if picture else 0

    def set_num_bytes(self, key: str, num_bytes: int) -> None:
        """Note the size of what is stored of a known picture; 0 when nothing is."""
        picture = self._pictures[key]
        self.num_stored += (num_bytes > 0) - (picture.num_bytes > 0)
        self.num_bytes += num_bytes - picture.num_bytes
        picture.num_bytes = num_bytes

    def num_corrected(self) -> int:
        """Count the pictures of which something holds, rejected ones included."""
        return sum(1 for _ in self._last_steps())

    def audit(self, class_of_interest: str | None) -> tuple[int, int]:
        """Count the audited pictures that were reviewed, and those the filter should have kept.

        Args:
            class_of_interest: what the filter is to keep; None: any class other than the decision
                shows that it was wrong.
        """
        reviewed = missed = 0
        for step in self._last_steps():
            if step.reason != AUDIT or step.predicted is None:
                continue
            reviewed += 1
            if class_of_interest is not None:
                missed += step.label == class_of_interest
            else:
                missed += step.label not in (None, step.predicted.get("decision"))
        return reviewed, missed

    def _last_steps(self) -> Iterator[Step]:
        return (picture.steps[-1] for picture in self._pictures.values() if picture.steps)
