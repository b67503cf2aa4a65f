"""Corrections on disk: changes that survive `kill -9` at any moment; see `imagesieve.feedback`."""

import contextlib
import dataclasses
import io
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from imagesieve import feedback, files
from imagesieve.errors import OutputError
from imagesieve.feedback import AUDIT, CORRECT, RECOVERED, UNDO, FeedbackEvent
from imagesieve.images import DecodingLimit, Limits, decode, large_images_take_turns
from imagesieve.serving.errors import (
    FeedbackFullError,
    FeedbackUnavailableError,
    ImageNeededError,
    UnknownImageError,
)

_THREAD_SECONDS = 10.0  # for corrections of other threads to be written
_PAGE_EVENTS = 1000

# What all corrections together may take.
MAX_IMAGES = 20_000
MAX_HISTORY_BYTES = 100 * 2**20  # of the database
MAX_REMOVED_BYTES = 16 * 2**20  # in the database: images that an undo may bring back

MAX_SIDE = 1024  # pixels of a stored image; several times what any of the networks looks at
_QUALITY = 95

_IMAGE_NEEDED = "The server does not have this image any more: send it again, as a file."
_NOTHING_TO_UNDO = "There is no correction of this image."

_log = logging.getLogger(__name__)


class Correction(NamedTuple):
    """What was in force for an image, and what is now; None is nothing."""

    before: FeedbackEvent | None
    after: FeedbackEvent | None


class FeedbackStore:
    """The corrections of one folder; all threads and processes of one host may share it.

    Every method raises FeedbackUnavailableError when the disk fails; the log has the reason.
    """

    def __init__(self, folder: Path, max_bytes: int = 2 * 2**30) -> None:
        """Name the folder, which is made with the first correction; `max_bytes` of images fit."""
        self._folder = folder
        self._path = folder / feedback.DATABASE_NAME
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._is_closed = False
        self._inode = 0
        self._trouble = ""  # what was logged last, until it works again

    def open(self) -> None:
        """Make images and history agree; where there is no folder yet, only try the disk."""
        with self._reporting("stored"):
            if self._folder.is_dir():
                self._connected()
                return
            parent = next(path for path in self._folder.absolute().parents if path.is_dir())
            with files.scratch_folder(parent, "feedback") as scratch:
                path = scratch / feedback.DATABASE_NAME
                feedback.open_database(path, feedback.SCHEMA).close()

    def close(self) -> None:
        """Close the database, for good: a request that is late is refused."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def record(self, event: FeedbackEvent, jpeg: bytes | None = None) -> Correction:
        """Add an event to the history, and move the image to where it belongs.

        The same correction again changes nothing. An undo puts in force what was before: its label
        is found out here, and `stored` of every event. Raise ImageNeededError if the image is not
        stored and `jpeg` is missing, UnknownImageError if there is nothing to undo.
        """
        if jpeg is None and not self._path.exists():  # nothing is made for what will be refused
            if event.action == UNDO:
                raise UnknownImageError(_NOTHING_TO_UNDO)
            raise ImageNeededError(_IMAGE_NEEDED)
        with contextlib.ExitStack() as taken_back:
            with self._writing() as database:
                before = feedback.in_force(database, event.sha256)
                event = _completed(event, before, feedback.before(database, before))
                if not self._is_done(event, before):
                    self._change(database, event, before, jpeg, taken_back)
                after = feedback.in_force(database, event.sha256)
            taken_back.pop_all()
        if before and before.stored and not (after and after.stored == before.stored):
            self._remove_former(event.sha256, before.stored)
        return Correction(before, after)

    def in_force(self, sha256: str) -> FeedbackEvent | None:
        with self._reading() as database:
            return feedback.in_force(database, sha256)

    def corrected_among(self, images: Iterable[str]) -> set[str]:
        """Return those images, by SHA-256, for which something is in force."""
        query = (
            "SELECT sha256 FROM images WHERE event IS NOT NULL "
            "AND sha256 IN (SELECT value FROM json_each(?))"
        )
        with self._reading() as database:
            return {row["sha256"] for row in database.execute(query, (json.dumps(list(images)),))}

    def num_corrected(self) -> int:
        """Return the number of images for which something is in force, rejected ones included."""
        with self._reading() as database:
            (number,) = database.execute("SELECT count(event) FROM images").fetchone()
            return int(number)

    def audited(self) -> list[FeedbackEvent]:
        with self._reading() as database:
            return feedback.corrections(database, AUDIT)

    def image(self, sha256: str) -> bytes | None:
        with self._reading() as database:
            return self._read(feedback.in_force(database, sha256))

    def export(self) -> Iterator[bytes]:
        """Yield the history as lines of JSON, the oldest first; others may be added meanwhile."""
        last, lines = 0, b" "
        while lines:
            with self._reading() as database:
                lines, last = feedback.export(database, last, _PAGE_EVENTS)
            yield lines

    def _is_done(self, event: FeedbackEvent, before: FeedbackEvent | None) -> bool:
        if before is None or event.action == UNDO or before.label != event.label:
            return False
        return before.stored is None or (self._folder / before.stored).is_file()

    def _read(self, event: FeedbackEvent | None) -> bytes | None:
        if event is not None and event.stored is not None:
            with contextlib.suppress(FileNotFoundError):
                return feedback.read_file(feedback.image_path(self._folder, event.stored))
        return None

    def _change(
        self,
        database: sqlite3.Connection,
        event: FeedbackEvent,
        before: FeedbackEvent | None,
        jpeg: bytes | None,
        taken_back: contextlib.ExitStack,
    ) -> None:
        """Write an event and its image; `taken_back` removes the image if that fails."""
        sha256, former = event.sha256, self._read(before)
        query = "SELECT jpeg FROM removed WHERE sha256 = ?"
        (removed,) = database.execute(query, (sha256,)).fetchone() or (None,)
        image = former or removed or jpeg
        if image is None and (event.stored is not None or before is None):
            raise ImageNeededError(_IMAGE_NEEDED)
        feedback.append(database, event)
        if event.stored is not None and image is not None:
            self._reserve(database, sha256, len(image))
            database.execute("DELETE FROM removed WHERE sha256 = ?", (sha256,))
            taken_back.callback(self._remove, event.stored)
            feedback.write_image(self._folder, event.stored, image)
            return
        self._reserve(database, sha256, 0)
        if former is not None:
            database.execute("INSERT OR REPLACE INTO removed VALUES (?, ?)", (sha256, former))
            feedback.remove_oldest(database, "removed", "jpeg", MAX_REMOVED_BYTES)

    def _reserve(self, database: sqlite3.Connection, sha256: str, num_bytes: int) -> None:
        """Note the size of an image's file, 0 for none; raise FeedbackFullError at a limit."""
        query = "SELECT num_bytes FROM images WHERE sha256 = ?"
        (old_bytes,) = database.execute(query, (sha256,)).fetchone()
        query = "UPDATE images SET num_bytes = ? WHERE sha256 = ?"
        database.execute(query, (num_bytes, sha256))
        num_images, total_bytes, history_bytes = database.execute(
            "SELECT count(nullif(num_bytes, 0)), total(num_bytes), (SELECT (page_count - "
            "freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, "
            "pragma_page_size) FROM images"
        ).fetchone()
        too_many = num_images > MAX_IMAGES or total_bytes > self._max_bytes
        if history_bytes > MAX_HISTORY_BYTES or (num_bytes > old_bytes and too_many):
            raise FeedbackFullError(
                f"There is room for {MAX_IMAGES:,} images, {self._max_bytes // 2**20:,} MB of them "
                f"and {MAX_HISTORY_BYTES // 2**20} MB of history: train with the corrections, then "
                "move them elsewhere."
            )

    def _remove(self, stored: str) -> None:
        with contextlib.suppress(OSError):  # `open` removes it
            (self._folder / stored).unlink(missing_ok=True)

    def _remove_former(self, sha256: str, former: str) -> None:
        # An error is logged; the event counts all the same, and `open` removes the file.
        with contextlib.suppress(FeedbackUnavailableError), self._writing() as database:
            event = feedback.in_force(database, sha256)
            if event is None or event.stored != former:  # it may have been moved back meanwhile
                feedback.image_path(self._folder, former).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the history, all others waiting; commit in the end."""
        with self._reporting("stored"):
            database = self._connected()
            with feedback.transaction(database):
                yield database

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the history, which is empty where there is none on disk."""
        with self._reporting("read"):
            if self._path.exists():
                yield self._connected()
                return
            with feedback.empty_history() as empty:
                yield empty

    @contextlib.contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        """Keep out other threads; turn errors of the disk into one that shows callers no paths."""
        if not self._lock.acquire(timeout=_THREAD_SECONDS):
            raise FeedbackUnavailableError("Other corrections take too long: try again later.")
        try:
            yield
            self._trouble = ""
        except (OutputError, OSError, sqlite3.Error) as error:
            self._disconnect()  # what is reserved, or written, is found out anew
            trouble = f"Corrections in {self._folder} cannot be {what}: {error}"
            if trouble != self._trouble:
                _log.warning("%s", trouble)
                self._trouble = trouble
            what = "read its" if what == "read" else "store"
            raise FeedbackUnavailableError(
                f"The server cannot {what} corrections now; its log says why. Nothing was changed."
            ) from error
        finally:
            self._lock.release()

    def _connected(self) -> sqlite3.Connection:
        """Return the history; when the database was moved away or replaced, the new one's."""
        if self._database and self._path.exists() and self._path.stat().st_ino == self._inode:
            return self._database
        self._disconnect()
        if self._is_closed:
            raise OutputError("the server is stopping")
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            database = feedback.open_database(self._path, feedback.SCHEMA)
            opened.callback(database.close)
            self._inode = self._path.stat().st_ino
            self._put_in_order(database)
            opened.pop_all()
        self._database = database
        return database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _put_in_order(self, database: sqlite3.Connection) -> None:
        """Take over what an earlier release wrote, and make images and history agree."""
        journal = self._folder / feedback.JOURNAL_NAME
        with feedback.transaction(database):
            journal_sha256 = feedback.take_over(database, journal)
            for path in self._folder.glob(f"*/{files.PARTIAL_PREFIX}*"):
                if path.is_file() and not path.parent.is_symlink():
                    path.unlink()  # its writer was killed: no other process writes now
            found = feedback.find_images(self._folder)
            for stored in sorted(found.keys() - feedback.stored_images(database).keys()):
                self._tidy(database, stored, found)
            images = feedback.stored_images(database)
            sizes = [
                (found[stored], sha256) for stored, sha256 in images.items() if stored in found
            ]
            database.execute("UPDATE images SET num_bytes = 0")
            database.executemany("UPDATE images SET num_bytes = ? WHERE sha256 = ?", sizes)
        if journal_sha256 is not None:
            journal.rename(journal.with_name(f".feedback-{journal_sha256[:16]}.jsonl"))
        files.fsync(self._folder)

    def _tidy(self, database: sqlite3.Connection, stored: str, found: Mapping[str, int]) -> None:
        """Add a file that nothing in force names to the history, or remove it."""
        path = self._folder / stored
        label, digits = feedback.parse_stored_name(stored) or ("", "")
        sha256 = feedback.image_of(database, digits) or digits
        if len(sha256) < 64:
            sha256 = files.sha256_of(path)
        event = feedback.in_force(database, sha256)
        place = event.stored if event else None
        if feedback.image_of(database, sha256) and (place is None or place in found):
            _log.warning("Removed %s from %s: its history differs.", stored, self._folder)
            path.unlink()
            return
        # Moved by hand, or never recorded.
        feedback.append(database, FeedbackEvent(CORRECT, sha256, label, stored, reason=RECOVERED))
        _log.warning("%s was not in the history of %s: it is now.", stored, self._folder)


def _completed(
    event: FeedbackEvent, before: FeedbackEvent | None, former: FeedbackEvent | None
) -> FeedbackEvent:
    """Return an event with the label in force from then on, and with what was predicted before.

    An image that was drawn for the audit stays in it, whatever is said of it later.
    """
    if event.action == UNDO:
        if before is None:
            raise UnknownImageError(_NOTHING_TO_UNDO)
        label, stored = (former.label, former.stored) if former else (None, None)
        event = dataclasses.replace(event, label=label, stored=stored)
    elif event.label is not None:
        event = dataclasses.replace(event, stored=f"{event.label}/{event.sha256}.jpg")
    is_new = event.action != UNDO and event.predicted is not None
    if before is None or (is_new and before.reason != AUDIT):
        return event
    if event.action != UNDO and before.predicted is None:
        return event
    return dataclasses.replace(
        event, predicted=before.predicted, model=before.model, reason=before.reason
    )


def to_jpeg(data: bytes, limits: Limits, at_once: DecodingLimit = large_images_take_turns) -> bytes:
    """Encode an image anew: turned upright, RGB, at most `MAX_SIDE` wide and high, no metadata.

    Proportions are kept, except that no side falls below `limits.min_side`: what is stored must be
    fit to be decoded again, and the network sees a square anyway. Raises what `images.decode` does.
    """

    def reduced(width: int, height: int, longest: int = 2 * MAX_SIDE) -> tuple[int, int]:
        """Return (height, width) in pixels, the longer side at most as asked."""
        scale = min(1, longest / max(width, height))
        smallest = limits.min_side
        return max(smallest, round(height * scale)), max(smallest, round(width * scale))

    # A huge image is decoded to twice the size wanted: that bounds what a JPEG takes of memory.
    image = decode(data, limits, image_size=reduced, at_once=at_once)
    height, width = reduced(image.width, image.height, MAX_SIDE)
    # Smooths less than the bilinear filter: the network's own resizing comes on top.
    upright = Image.fromarray(image.pixels).resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
