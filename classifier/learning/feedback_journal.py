"""The journal that the service keeps beside corrected pictures: one JSON object a line."""

import dataclasses
import datetime
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_NAME = ".feedback.jsonl"

_KEY_DIGITS = 16  # of a picture's SHA-256, which make the name of what is stored
_CORRECT, _REJECT, _UNDO = "correct", "reject", "undo"
_SHA256 = re.compile("[0-9a-f]{64}")
_NO_LINE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was last said of a picture.

    Attributes:
        sha256: of the file that was sent; what is stored of it was encoded again.
        label: its class; None when it belongs to none.
        time: when that was said.
        predicted: the class that the model had for it; None when that is not known.
    """

    sha256: str
    label: str | None
    time: datetime.datetime
    predicted: str | None = None


@dataclasses.dataclass(frozen=True)
class Journal:
    """What holds after all lines; pictures whose corrections were all undone are not in it."""

    entries: Mapping[str, Entry]  # by the name of what is stored, without its ending

    def entry_of(self, path: Path) -> Entry | None:
        """Give what is known of a stored picture."""
        return self.entries.get(path.stem)

    def rejected(self) -> set[str]:
        """Give the SHA-256 of the pictures that belong to no class."""
        return {entry.sha256 for entry in self.entries.values() if entry.label is None}


def read(folder: Path) -> Journal:
    """Read the journal of a folder of corrections; one that is missing is empty.

    Lines that are damaged are left out with a warning, and so is a file that cannot be read: the
    pictures themselves are worth more than what is known about them.
    """
    path = folder / FILE_NAME
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        _log.warning("note: %s cannot be read (%s).", path, error.strerror)
        lines = []
    stories = _Stories()
    num_damaged = 0
    for line in filter(bytes.strip, lines):
        try:
            stories.add(json.loads(line))
        except _NO_LINE:
            num_damaged += 1
    if num_damaged:
        _log.warning(
            "note: %d of %d lines of %s are damaged; the others count.",
            num_damaged,
            sum(1 for line in lines if line.strip()),
            path,
        )
    return Journal(stories.last())


class _Stories:
    """What was said of each picture and not taken back, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Entry]] = {}  # by key, the name of what is stored
        self._keys: dict[str, str] = {}  # by SHA-256
        self._sent: dict[str, str] = {}  # SHA-256 of what was sent, by key

    def add(self, line: Any) -> None:
        """Take in a line.

        Raises:
            one of `_NO_LINE`: it is none.
        """
        action, entry = _parse(line)
        stored = line.get("stored")
        key = Path(stored).stem if stored else self._keys.get(entry.sha256)
        key = key or entry.sha256[:_KEY_DIGITS]
        self._keys[entry.sha256] = key
        # Of a file that the service found without a line it only knows the SHA-256 of that file.
        if entry.sha256.startswith(key):
            self._sent[key] = entry.sha256
        entry = dataclasses.replace(entry, sha256=self._sent.get(key, entry.sha256))
        _apply(self._entries.setdefault(key, []), action, entry)

    def last(self) -> dict[str, Entry]:
        """Give what holds."""
        return {key: entries[-1] for key, entries in self._entries.items() if entries}


def _parse(line: Any) -> tuple[str, Entry]:
    action, sha256, label = line["action"], line["sha256"], line["label"]
    if action not in (_CORRECT, _REJECT, _UNDO) or not _SHA256.fullmatch(sha256):
        raise ValueError("unknown action, or no SHA-256")
    if not isinstance(label, str | None):
        raise TypeError("a label is text")
    if action != _UNDO and (label is None) != (action == _REJECT):
        raise ValueError("a correction needs a label, and a rejection has none")
    time = datetime.datetime.fromisoformat(line["time"])
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    predicted = (line.get("predicted") or {}).get("label")
    return action, Entry(sha256, label, time.astimezone(datetime.UTC), predicted)


def _apply(entries: list[Entry], action: str, entry: Entry) -> None:
    """Put what was said on top of what was said before, or take the last of it away."""
    if entries and (action == _UNDO or entries[-1].label == entry.label):
        entries.pop()
    if action != _UNDO:
        entries.append(entry)
    elif entry.label is not None and not (entries and entries[-1].label == entry.label):
        entries[:] = [entry]  # lines before it are lost: what it says holds
