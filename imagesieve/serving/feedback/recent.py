"""The images predicted last, which can be corrected by the id of their prediction.

All are in memory. Some are on disk too, so that reviewing goes on after a restart; a thread of its
own writes them, so that a prediction neither waits for the disk nor fails with it.
"""

import contextlib
import dataclasses
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import cachetools
import msgspec

from imagesieve.errors import OutputError
from imagesieve.feedback import open_database, transaction
from imagesieve.model.decisions import Prediction
from imagesieve.serving import schemas
from imagesieve.serving.errors import FeedbackUnavailableError

DATABASE_NAME = ".recent.sqlite"

Reason = Literal["uncertain", "audit", "recent"]

_IDS_PER_IMAGE = 16  # on average: the same image may be sent again and again
_MAX_WAITING = 32  # images for the writer
_CLOSE_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY, id TEXT NOT NULL, image BLOB NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS images_id ON images (id)
"""
_DISK_ERRORS = (OSError, OutputError, sqlite3.Error)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class RecentImage:
    """An image and the last prediction of it.

    Attributes:
        sha256: of the encoded bytes.
        id: of the prediction.
        digest: of the model that made it.
        reason: why it should be reviewed, from `Selection.reason`.
        created: ISO 8601, UTC.
    """

    sha256: str
    id: str
    prediction: Prediction
    digest: str
    reason: Reason
    created: str = dataclasses.field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )

    def to_review(self) -> schemas.ReviewImage:
        """Return the image as an answer."""
        return schemas.ReviewImage(
            sha256=self.sha256,
            id=self.id,
            reason=self.reason,
            created=self.created,
            **dataclasses.asdict(self.prediction),
        )


@dataclasses.dataclass(frozen=True)
class RecentLimits:
    """How many images, and how many bytes of them, are held; the oldest make room for others."""

    max_images: int = 1000
    max_bytes: int = 64 * 2**20


_IN_MEMORY = RecentLimits()
_ON_DISK = RecentLimits(max_images=2000, max_bytes=512 * 2**20)


class RecentImages:
    """Holds images for all threads; those on disk for all processes of one host, too.

    `add` never waits for a disk. A disk that fails is logged, and nothing is stored then.
    """

    def __init__(
        self,
        folder: Path = Path(),
        reasons_to_store: Collection[str] = (),
        is_corrected: Callable[[str], bool] = lambda sha256: False,
        *,
        in_memory: RecentLimits = _IN_MEMORY,
        on_disk: RecentLimits = _ON_DISK,
    ) -> None:
        """Start empty; before `open`, nothing is stored.

        Args:
            folder: for the database.
            reasons_to_store: which reasons bring an image onto the disk.
            is_corrected: whether an image, by SHA-256, was corrected, so that it is not stored
                however often it is predicted again. No request waits for it: it may read a disk.
            in_memory: what is in memory at most.
            on_disk: what is stored at most.
        """
        self._folder = folder
        self._reasons_to_store = frozenset(reasons_to_store)
        self._is_corrected = is_corrected
        self._max_images = in_memory.max_images
        self._on_disk = on_disk
        self._lock = threading.Lock()
        self._images: cachetools.FIFOCache[str, tuple[RecentImage, bytes]]
        self._images = cachetools.FIFOCache(in_memory.max_bytes, getsizeof=lambda it: len(it[1]))
        self._sha256: cachetools.FIFOCache[str, str]
        self._sha256 = cachetools.FIFOCache(_IDS_PER_IMAGE * in_memory.max_images)
        # Those that wait to be written, by SHA-256. One that was removed and put again meanwhile is
        # another object, so that the writer of the former knows.
        self._pending: dict[str, RecentImage] = {}
        self._waiting: queue.Queue[tuple[RecentImage, bytes] | None] = queue.Queue(_MAX_WAITING)
        self._writer: threading.Thread | None = None
        self._num_lost = 0  # images that could not be written
        self._database: sqlite3.Connection | None = None
        self._database_lock = threading.Lock()  # taken before the other one

    def open(self) -> None:
        """Find what was stored, less what was corrected meanwhile, and begin to write."""
        if not self._reasons_to_store:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / DATABASE_NAME
            # Not FULL: after a power failure some images less wait for review.
            self._database = open_database(path, _SCHEMA, synchronous="NORMAL")
        except _DISK_ERRORS as error:
            _log.warning("No image is stored for review in %s: %s", self._folder, error)
            return
        for image in self._select():
            if self._is_corrected(image.sha256):
                self.note_corrected(image.sha256)
        self._writer = threading.Thread(target=self._write_all, name="recent images", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Write what waits, for some seconds at most, and close the database."""
        if self._writer is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=_CLOSE_SECONDS)
            self._writer.join(_CLOSE_SECONDS)
            self._writer = None
            if self._num_lost:
                _log.warning("Not stored for review: %d images.", self._num_lost)
        with self._database_lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def add(self, image: RecentImage, data: bytes) -> bool:
        """Hold an image that was just predicted; return whether its id can be corrected now."""
        if len(data) > self._images.maxsize:
            return False
        with self._lock:
            self._images[image.sha256] = image, data
            self._sha256[image.id] = image.sha256
            while len(self._images) > self._max_images:
                self._images.popitem()
        self._store(image, data)
        return True

    def by_id(self, image_id: str) -> RecentImage | None:
        """Return the image of a prediction, or None."""
        with self._lock:
            found = self._images.get(self._sha256.get(image_id, ""))
        return found[0] if found else next(iter(self._select("WHERE id = ?", image_id)), None)

    def by_sha256(self, sha256: str) -> RecentImage | None:
        """Return an image by its content, or None."""
        with self._lock:
            found = self._images.get(sha256)
        return found[0] if found else next(iter(self._select("WHERE sha256 = ?", sha256)), None)

    def data(self, sha256: str) -> bytes | None:
        """Return the encoded image, or None when it is not there any more."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            return found[1]
        rows = self._query("SELECT data FROM images WHERE sha256 = ?", sha256)
        return rows[0][0] if rows else None

    def all(self) -> list[RecentImage]:
        """Return all images, in memory and on disk."""
        images = {image.sha256: image for image in self._select("ORDER BY rowid")}
        with self._lock:
            images |= {sha256: image for sha256, (image, _) in self._images.items()}
        return list(images.values())

    def note_corrected(self, sha256: str) -> None:
        """Remove an image from the disk. In memory it stays for a while."""
        with self._lock:
            self._pending.pop(sha256, None)
        self._query("DELETE FROM images WHERE sha256 = ?", sha256)

    def note_undone(self, sha256: str) -> None:
        """Store an image again, if it is still in memory: its correction was undone."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            self._store(*found)

    def wait(self) -> None:
        """Wait until all that is to be stored is written."""
        self._waiting.join()

    def _store(self, image: RecentImage, data: bytes) -> None:
        """Have an image written soon, unless it waits for that already."""
        is_small = len(data) <= self._on_disk.max_bytes
        if self._writer is None or image.reason not in self._reasons_to_store or not is_small:
            return
        with self._lock:
            if image.sha256 in self._pending:
                return
            self._pending[image.sha256] = image
        try:
            self._waiting.put_nowait((image, data))
        except queue.Full:
            self._lose(image, "The disk is too slow to store all images.")

    def _select(self, where: str = "", *values: str) -> list[RecentImage]:
        rows = self._query(f"SELECT image FROM images {where}", *values)  # noqa: S608
        return [msgspec.json.decode(row[0], type=RecentImage) for row in rows]

    def _query(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._database_lock:
            if self._database is None:
                return []
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                _log.warning("Images for review in %s cannot be used: %s", self._folder, error)
                return []

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._write(*item)
            except (*_DISK_ERRORS, FeedbackUnavailableError) as error:
                self._lose(item[0], str(error))
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, image: RecentImage, data: bytes) -> None:
        is_corrected = self._is_corrected(image.sha256)
        with self._database_lock:
            with self._lock:
                if self._pending.get(image.sha256) is not image:  # removed while it waited
                    return
                del self._pending[image.sha256]
            if self._database is None or is_corrected:
                return
            values = (image.sha256, image.id, msgspec.json.encode(image), data)
            with transaction(self._database):
                self._database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", values)
                self._make_room(self._database)

    def _make_room(self, database: sqlite3.Connection) -> None:
        database.execute(
            "DELETE FROM images WHERE rowid IN (SELECT rowid FROM (SELECT rowid, row_number() OVER "
            "newest AS place, sum(length(data)) OVER newest AS num_bytes FROM images "
            "WINDOW newest AS (ORDER BY rowid DESC)) WHERE place > ? OR num_bytes > ?)",
            (self._on_disk.max_images, self._on_disk.max_bytes),
        )

    def _lose(self, image: RecentImage, reason: str) -> None:
        with self._lock:
            if self._pending.get(image.sha256) is image:
                del self._pending[image.sha256]
            self._num_lost += 1
            is_first = self._num_lost == 1
        if is_first:  # their number is logged by `close`
            _log.warning("Images are not stored for review: %s", reason)
