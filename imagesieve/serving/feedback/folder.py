"""The folder of corrections: changes that survive `kill -9` at any moment.

What is meant goes into the lock file, then the new image is written, then the line of the
journal, and only then the old image goes. Whoever takes the lock next sees where it ended.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from imagesieve.errors import OutputError
from imagesieve.feedback import CORRECT, RECOVERED, Entry, parse_stored_name
from imagesieve.files import output_error
from imagesieve.serving.errors import FeedbackFullError, FeedbackUnavailableError
from imagesieve.serving.feedback.files import FeedbackFiles
from imagesieve.serving.feedback.journal import Change, Journal
from imagesieve.serving.feedback.state import FeedbackState

_PATIENCE_SECONDS = 10.0  # for other corrections to be written

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FeedbackLimits:
    """What all corrections together may take."""

    max_images: int = 20_000
    max_bytes: int = 2 * 2**30  # of the images on disk
    max_journal_bytes: int = 100 * 2**20
    max_removed_bytes: int = 16 * 2**20  # in memory, of images that an undo may bring back


class FeedbackFolder:
    """Images, journal and what they add up to; any thread and any process may change them.

    Attributes:
        state: what holds; to be used inside `reading` and `exclusive` only.
        files: the images.
        journal: the lines.
    """

    def __init__(self, folder: Path, limits: FeedbackLimits) -> None:
        self.state = FeedbackState()
        self.files = FeedbackFiles(folder)
        self.journal = Journal(folder, limits.max_journal_bytes)
        self._folder = folder
        self._limits = limits
        self._lock = threading.Lock()
        self._last: Entry | None = None  # line of the journal
        self._is_tidy = False

    def open(self) -> None:
        """Read what earlier runs left, and put in order what a killed one did.

        Nothing is made: a folder that is not there yet stays so.

        Raises:
            FeedbackUnavailableError, FeedbackFullError: it is there but cannot be put in order.
        """
        if self._folder.is_dir():
            with self.exclusive():
                pass

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep out the other threads; what other processes do is seen with the next change.

        Raises:
            FeedbackUnavailableError: the block failed with an error of the disk.
        """
        with self._lock:
            try:
                yield
            except (OutputError, OSError) as error:
                _log.warning("Corrections in %s cannot be read. %s", self._folder, error)
                raise FeedbackUnavailableError(
                    "The server cannot read its corrections now; its log says why."
                ) from error

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep out all other threads and processes, and know all that they have written.

        Raises:
            FeedbackUnavailableError: the folder cannot be written, somebody keeps it locked, or the
                block failed with an error of the disk.
        """
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            raise FeedbackUnavailableError("Other corrections take too long: try again later.")
        try:
            with self._reporting_writing(), self.journal.locked():
                self._catch_up()
                yield
        finally:
            self._lock.release()

    def write(self, key: str, entry: Entry, image: bytes | None) -> None:
        """Make a change as a whole, or none of it. Only inside `exclusive`.

        Args:
            key: of the image.
            entry: the line.
            image: goes to `entry.stored`; None when there is nothing to store.

        Raises:
            FeedbackFullError: there is no room.
            OSError, OutputError: it could not be written.
        """
        old = self.state.stored(key)
        removes = old if old != entry.stored else None
        new_size = len(image or b"")
        self._check_room(self.state.num_bytes_of(key), new_size)
        self.journal.begin(Change(entry, removes))
        try:
            if entry.stored is not None and image is not None:
                self.files.write(entry.stored, image)
            self.journal.append(entry)
        except BaseException:
            self._take_back(entry)
            raise
        self._last = entry
        self.state.apply(entry)
        self.state.set_num_bytes(key, new_size)
        self._remove_old(removes)

    def _check_room(self, old_size: int, new_size: int) -> None:
        if new_size <= old_size:
            return
        limits, state = self._limits, self.state
        if not old_size and state.num_stored + 1 > limits.max_images:
            what = f"{limits.max_images:,} images"
        elif state.num_bytes + new_size - old_size > limits.max_bytes:
            what = f"{limits.max_bytes // 2**20:,} MB"
        else:
            return
        raise FeedbackFullError(
            f"There are {what} of corrections already: train with them, then move them elsewhere."
        )

    def _take_back(self, entry: Entry) -> None:
        with contextlib.suppress(OSError, OutputError):  # then the next writer finds it begun
            if entry.stored is not None:
                self.files.remove(entry.stored)
            self.journal.end()

    def _remove_old(self, removes: str | None) -> None:
        try:
            if removes is not None:
                self.files.remove(removes)
            self.journal.end()
        except (OSError, OutputError) as error:  # the line counts; the next writer tries again
            _log.warning("An old image is still in %s: %s.", self._folder, error)

    def _catch_up(self) -> None:
        entries, is_fresh = self.journal.catch_up()
        if is_fresh:
            self.state, self._last, self._is_tidy = FeedbackState(), None, False
        for entry in entries:
            self._note(entry)
        self._finish()
        if not self._is_tidy:
            self._tidy()
            self._is_tidy = True

    def _note(self, entry: Entry) -> None:
        """Take in a line that is in the journal already."""
        self._last = entry
        key = self.state.apply(entry)
        if self._is_tidy:  # else all sizes are found out together
            stored = entry.stored
            self.state.set_num_bytes(key, 0 if stored is None else self.files.num_bytes(stored))

    def _finish(self) -> None:
        """Bring to an end what a killed process, or a failing disk, left half done."""
        change = self.journal.begun()
        if change is None:
            return
        entry = change.entry
        if entry != self._last and entry.stored is not None and self.files.num_bytes(entry.stored):
            self.journal.append(entry)
            self._note(entry)
        holds = self.state.stored(self.state.key_of(entry.sha256))
        if change.removes is not None and change.removes != holds:
            self.files.remove(change.removes)
        self.journal.end()

    def _tidy(self) -> None:
        """Make images and journal agree; where the journal says anything, it is right."""
        for key, found in self.files.find().items():
            stored = self.state.stored(key)
            if stored not in found and (stored is not None or self.state.sha256(key) is None):
                stored = min(found)  # moved by hand, or never noted down
                self._recover(key, stored)
            for other in sorted(found.keys() - {stored}):
                _log.warning("Removed %s from %s: its journal knows better.", other, self._folder)
                self.files.remove(other)
            if stored is not None:
                self.state.set_num_bytes(key, found[stored])

    def _recover(self, key: str, stored: str) -> None:
        entry = Entry(
            action=CORRECT,
            sha256=self.state.sha256(key) or self.files.sha256(stored),
            label=parse_stored_name(stored)[0],
            stored=stored,
            reason=RECOVERED,
        )
        self.journal.append(entry)
        self._note(entry)
        _log.warning("%s had no line in the journal of %s: it has one now.", stored, self._folder)

    @contextlib.contextmanager
    def _reporting_writing(self) -> Iterator[None]:
        """Turn what a disk may do into one error, which tells callers no paths."""
        try:
            yield
        except (OutputError, OSError) as error:
            known = error if isinstance(error, OutputError) else output_error(self._folder, error)
            _log.warning("A correction could not be stored. %s", known)
            raise FeedbackUnavailableError(
                "The server cannot store corrections now; its log says why. Nothing was changed."
            ) from error
