"""What the service says of a corrected image, and training reads: one line of the journal.

Serving hands corrections to learning through a folder: images in a folder for each class, and a
journal beside them with a line for each change.
"""

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from imagesieve.class_folders import is_class_name

JOURNAL_NAME = ".feedback.jsonl"

CORRECT, REJECT, UNDO = "correct", "reject", "undo"
ACTIONS = (CORRECT, REJECT, UNDO)

UNCERTAIN, AUDIT, RECENT, SENT = "uncertain", "audit", "recent", "sent"
RECOVERED = "recovered"  # found without a line: moved there by hand, or from before a power failure

KEY_DIGITS = 16  # of a SHA-256: the name of what is stored of an image

_STORED = re.compile(f"([^/]+)/([0-9a-f]{{{KEY_DIGITS}}})\\.jpg", re.DOTALL)
_SHA256 = re.compile("[0-9a-f]{64}")


def stored_name(label: str, key: str) -> str:
    """Give the path of a stored image in the feedback folder."""
    return f"{label}/{key}.jpg"


def parse_stored_name(name: str) -> tuple[str, str]:
    """Give label and key of a stored image.

    Raises:
        ValueError: it is no path that `stored_name` gives.
    """
    match = _STORED.fullmatch(name)
    if match is None or not is_class_name(match[1]):
        raise ValueError(f"{name!r} is no stored image")
    return match[1], match[2]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        action: one of `ACTIONS`.
        sha256: of the image as it was sent, 64 hexadecimal digits; of the stored one when it was
            `RECOVERED`.
        label: the class that holds from now on; None when it belongs to none, or nothing holds.
        stored: path of the image in the feedback folder; None when none is kept.
        predicted: label, probability and decision of the model; None when it was not asked.
        model: digest of the model.
        reason: why the image was looked at.
        reviewer: who corrected it, as they say.
        caller: name of the key that was shown.
        note: the reviewer's words.
        time: ISO 8601, UTC.
    """

    action: str
    sha256: str
    label: str | None
    stored: str | None
    predicted: Mapping[str, Any] | None = None
    model: str | None = None
    reason: str = SENT
    reviewer: str | None = None
    caller: str | None = None
    note: str | None = None
    time: str = dataclasses.field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Entry":
        """Read what `to_json` wrote; paths that lead out of the feedback folder are no entry.

        Raises:
            ValueError, KeyError, TypeError: it is no entry.
        """
        entry = cls(**{field.name: value[field.name] for field in dataclasses.fields(cls)})
        if entry.action not in ACTIONS or not _SHA256.fullmatch(entry.sha256):
            raise ValueError("unknown action, or no SHA-256")
        if not isinstance(entry.predicted, Mapping | None) or not isinstance(entry.reason, str):
            raise TypeError("no prediction, or no reason")
        label = None if entry.stored is None else parse_stored_name(entry.stored)[0]
        if label != entry.label or (entry.action != UNDO and (label is None) != entry.is_reject):
            raise ValueError("stored in another class than it was corrected to")
        return entry

    def to_json(self) -> dict[str, Any]:
        """Give the line as JSON values."""
        names = ("time", *(name for name in self.__dataclass_fields__ if name != "time"))
        return {name: getattr(self, name) for name in names}

    @property
    def is_reject(self) -> bool:
        """Whether it says that the image belongs to no class."""
        return self.action == REJECT


class Labelled(Protocol):
    """Anything that says which class an image has."""

    @property
    def label(self) -> str | None:
        """The class; None when it belongs to none."""


Said = TypeVar("Said", bound=Labelled)


class Stories(Generic[Said]):
    """What was said of each image and not taken back, as the lines of a journal add up to it.

    An image is known by its key, the name of what is stored of it. Not safe for threads.
    """

    def __init__(self) -> None:
        self._stories: dict[str, list[Said]] = {}  # oldest first
        self._keys: dict[str, str] = {}  # of recovered images, whose SHA-256 does not begin so
        self._sha256: dict[str, str] = {}

    def add(self, entry: Entry, said: Said) -> str:
        """Add a line, and what is to be remembered of it; give the key of its image.

        What is said last holds: for an undo, what holds from then on.

        Raises:
            ValueError: the path of what is stored is none.
        """
        key = self.key_of(entry.sha256)
        if entry.stored is not None:
            key = parse_stored_name(entry.stored)[1]
        if entry.sha256.startswith(key):
            self._sha256[key] = entry.sha256
        else:  # all that is known of a file that was found without a line is what is stored
            self._keys[entry.sha256] = key
            self._sha256.setdefault(key, entry.sha256)
        _tell(self._stories.setdefault(key, []), said, is_undo=entry.action == UNDO)
        return key

    def key_of(self, sha256: str) -> str:
        """Give the digits under which an image is known and stored."""
        return self._keys.get(sha256, sha256[:KEY_DIGITS])

    def sha256(self, key: str) -> str | None:
        """Give an image's SHA-256, or None when there is no line of it."""
        return self._sha256.get(key)

    def of(self, key: str) -> tuple[Said, ...]:
        """Give what was said of an image and not taken back, oldest first."""
        return tuple(self._stories.get(key, ()))

    def last(self) -> Iterator[tuple[str, Said]]:
        """Give the key of each image of which something holds, and that."""
        return ((key, story[-1]) for key, story in self._stories.items() if story)


def _tell(story: list[Said], said: Said, *, is_undo: bool) -> None:
    if story and (is_undo or story[-1].label == said.label):
        story.pop()
    if not is_undo:
        story.append(said)
    elif said.label is not None and not (story and story[-1].label == said.label):
        story[:] = [said]  # lines before it were lost: what it says holds
