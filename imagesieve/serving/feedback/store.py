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

from PIL import Image

from imagesieve import files
from imagesieve.errors import OutputError
from imagesieve.feedback import (
    AUDIT,
    CORRECT,
    DATABASE_NAME,
    JOURNAL_NAME,
    KEY_DIGITS,
    RECOVERED,
    SCHEMA,
    UNDO,
    FeedbackEvent,
    History,
    find_images,
    image_path,
    open_database,
    parse_stored_name,
    read_image,
    stored_name,
    transaction,
    write_image,
)
from imagesieve.images import DecodingLimit, Limits, decode, large_images_take_turns
from imagesieve.serving.errors import (
    FeedbackFullError,
    FeedbackUnavailableError,
    UnknownImageError,
)

_THREAD_SECONDS = 10.0  # for corrections of other threads to be written
_PAGE_EVENTS = 1000

MAX_SIDE = 1024  # pixels of a stored image; several times what any of the networks looks at
_QUALITY = 95

_log = logging.getLogger(__name__)


class ImageNeededError(UnknownImageError):
    """A change cannot be made without the image."""

    def __init__(self) -> None:
        super().__init__("The server does not have this image any more: send it again, as a file.")


@dataclasses.dataclass(frozen=True)
class FeedbackLimits:
    """What all corrections together may take."""

    max_images: int = 20_000
    max_bytes: int = 2 * 2**30  # of the images on disk
    max_history_bytes: int = 100 * 2**20  # of the database
    max_removed_bytes: int = 16 * 2**20  # in the database: images that an undo may bring back


@dataclasses.dataclass(frozen=True)
class Correction:
    """What was in force for an image, and what is now; None is nothing."""

    before: FeedbackEvent | None
    after: FeedbackEvent | None


class FeedbackStore:
    """The corrections of one folder; all threads and processes of one host may share it.

    Every method raises FeedbackUnavailableError when the disk fails; the log has the reason.
    """

    def __init__(self, folder: Path, limits: FeedbackLimits | None = None) -> None:
        """Name the folder; it is made with the first correction."""
        self._folder = folder
        self._path = folder / DATABASE_NAME
        self._limits = limits or FeedbackLimits()
        self._lock = threading.Lock()
        self._history: History | None = None
        self._inode = 0
        self._trouble = ""  # what was logged last, until it works again
        self._written: str | None = None  # the image that goes if its event cannot be committed

    def open(self) -> None:
        """Make images and history agree; where there is no folder yet, only try the disk."""
        with self._reporting("stored"):
            if self._folder.is_dir():
                self._connected()
                return
            parent = next(path for path in self._folder.absolute().parents if path.is_dir())
            with files.scratch_folder(parent, "feedback") as scratch:
                open_database(scratch / DATABASE_NAME, SCHEMA).close()

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        with self._lock:
            self._disconnect()

    def record(self, event: FeedbackEvent, jpeg: bytes | None = None) -> Correction:
        """Add an event to the history, and move the image to where it belongs.

        The same correction again changes nothing. An undo puts in force what was before.

        Args:
            event: a correction to a class that `is_class_name`, a rejection, or an undo, whose
                label is found out here; `stored` always is.
            jpeg: the image to store.

        Raises:
            ImageNeededError: the image is not stored, and `jpeg` is missing.
            UnknownImageError: there is nothing to undo.
            FeedbackFullError: a limit is reached.
        """
        if jpeg is None and not self._path.exists():  # nothing is made for what will be refused
            raise _nothing_to_undo() if event.action == UNDO else ImageNeededError
        if jpeg is not None:
            # First of all: `open` removes the file of a registered image that no event names.
            with self._writing(outlives_power=False) as history:
                key = history.key_of(event.sha256)
                is_new = history.row("SELECT key FROM images WHERE key = ?", key) is None
                history.register(key, event.sha256)
                if is_new and event.label is not None:
                    self._reserve(history, key, len(jpeg))
        with self._writing() as history:
            key = history.key_of(event.sha256)
            before = history.in_force(key)
            event = _completed(event, key, before, history.before(key))
            if not self._is_done(event, before):
                self._change(history, key, event, before, jpeg)
            after = history.in_force(key)
        if before and before.stored and before.stored != event.stored:
            self._remove_former(key, before.stored)
        return Correction(before, after)

    def in_force(self, sha256: str) -> FeedbackEvent | None:
        """Return what is in force for an image, or None."""
        with self._reading() as history:
            return history.in_force(history.key_of(sha256))

    def corrected_among(self, images: Iterable[str]) -> set[str]:
        """Return those images, by SHA-256, for which something is in force."""
        query = (
            "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM images WHERE event IS NOT "
            "NULL AND (sha256 = value OR key = substr(value, 1, ?) AND instr(sha256, key) <> 1))"
        )
        with self._reading() as history:
            rows = history.database.execute(query, (json.dumps(list(images)), KEY_DIGITS))
            return {row["value"] for row in rows}

    def num_corrected(self) -> int:
        """Return the number of images for which something is in force, rejected ones included."""
        with self._reading() as history:
            row = history.row("SELECT count(event) AS number FROM images")
            return row["number"] if row else 0

    def audited(self) -> list[FeedbackEvent]:
        """Return what is in force for the images that were drawn for the audit."""
        with self._reading() as history:
            return list(history.corrections(reason=AUDIT).values())

    def image(self, sha256: str) -> bytes | None:
        """Return the stored JPEG of an image, or None."""
        with self._reading() as history:
            key = history.key_of(sha256)
            return self._read(history.in_force(key))

    def events(self) -> Iterator[FeedbackEvent]:
        """Yield the history, the oldest event first; others may be added meanwhile."""
        last = 0
        while True:
            with self._reading() as history:
                page = history.events(after=last, limit=_PAGE_EVENTS)
            if not page:
                return
            yield from page.values()
            last = max(page)

    def _is_done(self, event: FeedbackEvent, before: FeedbackEvent | None) -> bool:
        if before is None or event.action == UNDO or before.label != event.label:
            return False
        return event.stored is None or (self._folder / event.stored).is_file()

    def _read(self, event: FeedbackEvent | None) -> bytes | None:
        if event is None or event.stored is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            return read_image(image_path(self._folder, event.stored))
        return None

    def _change(
        self,
        history: History,
        key: str,
        event: FeedbackEvent,
        before: FeedbackEvent | None,
        jpeg: bytes | None,
    ) -> None:
        former = self._read(before)
        removed = history.row("SELECT jpeg FROM removed WHERE key = ?", key)
        image = former or (removed["jpeg"] if removed else jpeg)
        if image is None and (event.stored is not None or before is None):
            raise ImageNeededError
        history.append(key, event)
        if event.stored is not None and image is not None:
            self._reserve(history, key, len(image))
            history.database.execute("DELETE FROM removed WHERE key = ?", (key,))
            self._written = event.stored
            write_image(self._folder, event.stored, image)
        else:
            self._reserve(history, key, 0)
            self._remember(history, key, former)

    def _reserve(self, history: History, key: str, num_bytes: int) -> None:
        row = history.row("SELECT num_bytes FROM images WHERE key = ?", key)
        old_bytes = row["num_bytes"] if row else 0
        history.database.execute("UPDATE images SET num_bytes = ? WHERE key = ?", (num_bytes, key))
        num_images, total_bytes, history_bytes = history.database.execute(
            "SELECT count(nullif(num_bytes, 0)), total(num_bytes), (SELECT (page_count - "
            "freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, "
            "pragma_page_size) FROM images"
        ).fetchone()
        limits = self._limits
        if history_bytes > limits.max_history_bytes:
            what = "The history of corrections is full"
        elif not old_bytes and num_bytes and num_images > limits.max_images:
            what = f"There are {limits.max_images:,} images of corrections already"
        elif num_bytes > old_bytes and total_bytes > limits.max_bytes:
            what = f"There are {limits.max_bytes // 2**20:,} MB of corrections already"
        else:
            return
        raise FeedbackFullError(f"{what}: train with them, then move them elsewhere.")

    def _remember(self, history: History, key: str, image: bytes | None) -> None:
        """Keep a removed image in the database for an undo; the oldest make room for it."""
        if image is None:
            return
        history.database.execute("INSERT OR REPLACE INTO removed VALUES (?, ?)", (key, image))
        history.database.execute(
            "DELETE FROM removed WHERE rowid IN (SELECT rowid FROM (SELECT rowid, sum(length(jpeg))"
            " OVER (ORDER BY rowid DESC) AS num_bytes FROM removed) WHERE num_bytes > ?)",
            (self._limits.max_removed_bytes,),
        )

    def _remove_former(self, key: str, former: str) -> None:
        # An error is logged; the event counts all the same, and `open` removes the file.
        with contextlib.suppress(FeedbackUnavailableError), self._writing() as history:
            event = history.in_force(key)
            if event is None or event.stored != former:  # it may have been moved back meanwhile
                image_path(self._folder, former).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self, *, outlives_power: bool = True) -> Iterator[History]:
        """Yield the history, all others waiting; commit in the end."""
        with self._reporting("stored"):
            history = self._connected()
            self._written = None
            synchronous = "FULL" if outlives_power else "NORMAL"
            history.database.execute(f"PRAGMA synchronous={synchronous}")
            try:
                with transaction(history.database):
                    yield history
            except BaseException:
                self._take_back()
                raise

    def _take_back(self) -> None:
        if self._written is not None:
            with contextlib.suppress(OSError):  # `open` removes it
                (self._folder / self._written).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[History]:
        """Yield the history, which is empty where there is none on disk."""
        with self._reporting("read"):
            if self._path.exists():
                yield self._connected()
                return
            with contextlib.closing(sqlite3.connect(":memory:")) as empty:
                empty.executescript(SCHEMA)
                yield History(empty)

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

    def _connected(self) -> History:
        """Return the history; when the database was moved away or replaced, the new one's."""
        if self._history and self._path.exists() and self._path.stat().st_ino == self._inode:
            return self._history
        self._disconnect()
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            database = open_database(self._path, SCHEMA)
            opened.callback(database.close)
            self._inode = self._path.stat().st_ino
            history = History(database)
            self._put_in_order(history)
            opened.pop_all()
        self._history = history
        return history

    def _disconnect(self) -> None:
        if self._history is not None:
            self._history.database.close()
            self._history = None

    def _put_in_order(self, history: History) -> None:
        """Take over what an earlier release wrote, and make images and history agree."""
        journal = self._folder / JOURNAL_NAME
        with transaction(history.database):
            has_journal = history.take_over(journal)
            for path in self._folder.glob(f"*/{files.PARTIAL_PREFIX}*"):
                if path.is_file() and not path.parent.is_symlink():
                    path.unlink()  # its writer was killed: no other process writes now
            in_force, num_bytes = history.corrections(), []
            for key, sizes in find_images(self._folder).items():
                stored = in_force[key].stored if key in in_force else None
                if sizes.keys() != {stored}:
                    stored = self._tidy(history, key, stored, sizes)
                if stored is not None:
                    num_bytes.append((sizes[stored], key))
            history.database.execute("UPDATE images SET num_bytes = 0")
            history.database.executemany("UPDATE images SET num_bytes = ? WHERE key = ?", num_bytes)
        if has_journal:
            name = f".feedback-{files.sha256_of(journal)[:KEY_DIGITS]}.jsonl"
            journal.rename(self._folder / name)
        files.fsync_folder(self._folder)

    def _tidy(
        self, history: History, key: str, stored: str | None, sizes: Mapping[str, int]
    ) -> str | None:
        """Make the files of an image agree with its history; return the one that remains."""
        known = history.row("SELECT sha256 FROM images WHERE key = ?", key)
        if stored not in sizes and (stored is not None or known is None):
            stored = min(sizes)  # moved by hand, or never recorded
            sha256 = known["sha256"] if known else files.sha256_of(self._folder / stored)
            label = parse_stored_name(stored)[0]
            history.register(key, sha256)
            history.append(key, FeedbackEvent(CORRECT, sha256, label, stored, reason=RECOVERED))
            _log.warning("%s was not in the history of %s: it is now.", stored, self._folder)
        for other in sorted(sizes.keys() - {stored}):
            _log.warning("Removed %s from %s: its history differs.", other, self._folder)
            (self._folder / other).unlink()
        return stored


def _completed(
    event: FeedbackEvent,
    key: str,
    before: FeedbackEvent | None,
    former: FeedbackEvent | None,
) -> FeedbackEvent:
    """Return an event with the label in force from then on, and with what was predicted before.

    An image that was drawn for the audit stays in it, whatever is said of it later.
    """
    if event.action == UNDO:
        if before is None:
            raise _nothing_to_undo()
        event = dataclasses.replace(event, label=former.label if former else None)
    stored = None if event.label is None else stored_name(event.label, key)
    event = dataclasses.replace(event, stored=stored)
    is_new = event.action != UNDO and event.predicted is not None
    if before is None or (is_new and before.reason != AUDIT):
        return event
    if event.action != UNDO and before.predicted is None:
        return event
    return dataclasses.replace(
        event, predicted=before.predicted, model=before.model, reason=before.reason
    )


def _nothing_to_undo() -> UnknownImageError:
    return UnknownImageError("There is no correction of this image.")


def to_jpeg(data: bytes, limits: Limits, at_once: DecodingLimit = large_images_take_turns) -> bytes:
    """Encode an image anew: turned upright, RGB, at most `MAX_SIDE` wide and high, no metadata.

    Proportions are kept, except that no side falls below `limits.min_side`: what is stored must be
    fit to be decoded again, and the network sees a square anyway.

    Raises:
        ImageError: it cannot be decoded under `limits`.
        ClassifierError: what `at_once` raises; see `images.decode`.
    """
    # A huge image is decoded to twice the size wanted: that bounds what a JPEG takes of memory.
    image = decode(
        data,
        limits,
        image_size=lambda width, height: _decoding_size(width, height, limits),
        at_once=at_once,
    )
    upright_image = Image.fromarray(image.pixels)
    if max(upright_image.size) > MAX_SIDE:
        height, width = _reduced(image.width, image.height, MAX_SIDE, limits)
        # Smooths less than the bilinear filter: the network's own resizing comes on top.
        upright_image = upright_image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright_image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _decoding_size(width: int, height: int, limits: Limits) -> tuple[int, int] | None:
    if max(width, height) <= 2 * MAX_SIDE:
        return None
    return _reduced(width, height, 2 * MAX_SIDE, limits)


def _reduced(width: int, height: int, longest: int, limits: Limits) -> tuple[int, int]:
    """Return (height, width) in pixels with the longer side as asked."""
    scale = longest / max(width, height)
    return max(limits.min_side, round(height * scale)), max(limits.min_side, round(width * scale))
