"""The journal that the service keeps beside corrected images: one JSON object a line."""

import dataclasses
import datetime
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from imagesieve import feedback
from imagesieve.feedback import JOURNAL_NAME, Stories

_NO_LINE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was last said of an image.

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
    """What holds after all lines; images whose corrections were all undone are not in it."""

    entries: Mapping[str, Entry]  # by the name of what is stored, without its ending

    def entry_of(self, path: Path) -> Entry | None:
        """Give what is known of a stored image."""
        return self.entries.get(path.stem)

    def rejected(self) -> set[str]:
        """Give the SHA-256 of the images that belong to no class."""
        return {entry.sha256 for entry in self.entries.values() if entry.label is None}


def read(folder: Path) -> Journal:
    """Read the journal of a folder of corrections; one that is missing is empty.

    Lines that are damaged are left out with a warning, and so is a file that cannot be read: the
    images themselves are worth more than what is known about them.
    """
    path = folder / JOURNAL_NAME
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        _log.warning("note: %s cannot be read (%s).", path, error.strerror)
        lines = []
    stories: Stories[Entry] = Stories()
    num_damaged = 0
    for line in filter(bytes.strip, lines):
        try:
            said = feedback.Entry.from_json(json.loads(line))
            stories.add(said, _entry(said))
        except _NO_LINE:
            num_damaged += 1
    if num_damaged:
        _log.warning(
            "note: %d of %d lines of %s are damaged; the others count.",
            num_damaged,
            sum(1 for line in lines if line.strip()),
            path,
        )
    return Journal(
        {
            key: dataclasses.replace(entry, sha256=stories.sha256(key) or entry.sha256)
            for key, entry in stories.last()
        }
    )


def _entry(said: feedback.Entry) -> Entry:
    time = datetime.datetime.fromisoformat(said.time)
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    predicted = (said.predicted or {}).get("label")
    return Entry(said.sha256, said.label, time.astimezone(datetime.UTC), predicted)
