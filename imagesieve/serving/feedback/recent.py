"""The images predicted last, which can be corrected by the id of their prediction.

All are in memory. Some are on disk too, so that reviewing goes on after a restart; a thread of its
own writes them, so that a prediction neither waits for the disk nor fails with it.
"""

import concurrent.futures
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import cachetools
import msgspec

from imagesieve.errors import OutputError
from imagesieve.feedback import open_database, remove_oldest
from imagesieve.serving import schemas
from imagesieve.serving.errors import FeedbackUnavailableError

DATABASE_NAME = ".recent.sqlite"

# The oldest images make room for others.
MAX_IMAGES, MAX_BYTES = 1000, 64 * 2**20
MAX_STORED_IMAGES, MAX_STORED_BYTES = 2000, 512 * 2**20
_IDS_PER_IMAGE = 16  # on average: the same image may be sent again and again
_MAX_WAITING = 32  # images for the writer
_CLOSE_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS recent (
    sha256 TEXT PRIMARY KEY, id TEXT NOT NULL, image TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS recent_id ON recent (id)
"""

_log = logging.getLogger(__name__)


class RecentImage(msgspec.Struct, frozen=True):
    """An image and the last prediction of it."""

    shown: schemas.ReviewImage
    model: str  # digest of the model that predicted it

    def as_reviewed(self) -> dict[str, Any]:
        """Return what a FeedbackEvent says of the prediction that is corrected."""
        names = ("label", "probability", "decision")
        predicted = {name: getattr(self.shown, name) for name in names}
        return {"predicted": predicted, "model": self.model, "reason": self.shown.reason}


class RecentImages:
    """Holds images for all threads; those on disk for all processes of one host, too.

    `hold` never waits for a disk. A disk that fails is logged, and nothing is stored then.
    """

    def __init__(
        self,
        folder: Path = Path(),
        reasons_to_store: Collection[str] = (),
        is_corrected: Callable[[str], bool] = lambda sha256: False,
    ) -> None:
        """Start empty; before `open`, nothing is stored.

        An image is stored in the folder's database for one of the reasons, unless it
        `is_corrected`, by SHA-256. That may read a disk: no request waits for it.
        """
        self._folder = folder
        self._reasons_to_store = frozenset(reasons_to_store)
        self._is_corrected = is_corrected
        self._lock = threading.Lock()
        self._images: cachetools.FIFOCache[str, tuple[RecentImage, bytes]]
        self._images = cachetools.FIFOCache(MAX_BYTES, getsizeof=lambda found: len(found[1]))
        self._sha256: cachetools.FIFOCache[str, str]
        self._sha256 = cachetools.FIFOCache(_IDS_PER_IMAGE * MAX_IMAGES)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "recent images")
        self._waiting: set[str] = set()  # SHA-256 of images that will be written
        self._num_lost = 0  # images that could not be written
        self._database: sqlite3.Connection | None = None
        self._database_lock = threading.Lock()

    def open(self) -> None:
        """Find what was stored, less what was corrected meanwhile, and begin to write."""
        if not self._reasons_to_store:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / DATABASE_NAME
            # Not FULL: after a power failure some images less wait for review.
            self._database = open_database(path, _SCHEMA, synchronous="NORMAL")
        except (OSError, OutputError, sqlite3.Error) as error:
            _log.warning("No image is stored for review in %s: %s", self._folder, error)
            return
        for (sha256,) in self._query("SELECT sha256 FROM recent"):
            with contextlib.suppress(FeedbackUnavailableError):  # the store's log says why
                if self._is_corrected(sha256):
                    self.note_corrected(sha256)

    def close(self) -> None:
        """Write what waits, for some seconds at most, and close the database."""
        if self._database is None:
            return
        self.wait(_CLOSE_SECONDS)
        with self._lock, self._database_lock:
            self._database.close()
            self._database = None
        self._writer.shutdown(cancel_futures=True)
        if self._num_lost:
            _log.warning("Not stored for review: %d images.", self._num_lost)

    def hold(self, image: RecentImage, data: bytes) -> bool:
        """Hold an image that was just predicted; return whether its id can be corrected now."""
        if len(data) > self._images.maxsize:
            return False
        with self._lock:
            self._images[image.shown.sha256] = image, data
            self._sha256[image.shown.id] = image.shown.sha256
            while len(self._images) > MAX_IMAGES:
                self._images.popitem()
        self._store(image, data)
        return True

    def by_id(self, image_id: str) -> RecentImage | None:
        with self._lock:
            sha256 = self._sha256.get(image_id)
        # On disk an image has the id of its first prediction only.
        return self.by_sha256(sha256) if sha256 else self._read("id", image_id)[0]

    def by_sha256(self, sha256: str) -> RecentImage | None:
        return self._find(sha256)[0]

    def data(self, sha256: str) -> bytes | None:
        return self._find(sha256)[1]

    def all(self) -> list[RecentImage]:
        rows = self._query("SELECT image FROM recent ORDER BY rowid")
        images = {image.shown.sha256: image for image in map(_decode, rows)}
        with self._lock:
            images |= {sha256: image for sha256, (image, _) in self._images.items()}
        return list(images.values())

    def note_corrected(self, sha256: str) -> None:
        """Remove an image from the disk. In memory it stays for a while."""
        self._query("DELETE FROM recent WHERE sha256 = ?", sha256)

    def note_undone(self, sha256: str) -> None:
        """Store an image again, if it is still in memory: its correction was undone."""
        with self._lock:
            found = self._images.get(sha256)
        if found is not None:
            self._store(*found)

    def wait(self, seconds: float | None = None) -> None:
        concurrent.futures.wait([self._writer.submit(lambda: None)], seconds)

    def _find(self, sha256: str) -> tuple[RecentImage, bytes] | tuple[None, None]:
        with self._lock:
            found = self._images.get(sha256)
        return found or self._read("sha256", sha256)

    def _read(self, column: str, value: str) -> tuple[RecentImage, bytes] | tuple[None, None]:
        rows = self._query(f"SELECT image, data FROM recent WHERE {column} = ?", value)  # noqa: S608
        return (_decode(rows[0]), rows[0]["data"]) if rows else (None, None)

    def _store(self, image: RecentImage, data: bytes) -> None:
        """Have an image written soon, unless it waits for that already."""
        sha256 = image.shown.sha256
        if image.shown.reason not in self._reasons_to_store or len(data) > MAX_STORED_BYTES:
            return
        with self._lock:
            if self._database is None or sha256 in self._waiting:
                return
            if is_free := len(self._waiting) < _MAX_WAITING:
                self._waiting.add(sha256)
                self._writer.submit(self._write, image, data)
        if not is_free:
            self._lose("The disk is too slow to store all images.")

    def _write(self, image: RecentImage, data: bytes) -> None:
        sha256 = image.shown.sha256
        with self._lock:
            self._waiting.remove(sha256)
        try:
            if self._is_corrected(sha256):
                return
            values = (sha256, image.shown.id, msgspec.json.encode(image).decode(), data)
            self._execute("INSERT OR IGNORE INTO recent VALUES (?, ?, ?, ?)", *values)
            # Once more: whoever corrects it now finds it and removes it.
            if self._is_corrected(sha256):
                self.note_corrected(sha256)
            with self._database_lock:
                if self._database is not None:
                    limits = MAX_STORED_BYTES, MAX_STORED_IMAGES
                    remove_oldest(self._database, "recent", "data", *limits)
        except (sqlite3.Error, FeedbackUnavailableError) as error:
            self._lose(str(error))

    def _query(self, query: str, *values: str) -> list[Any]:
        try:
            return self._execute(query, *values)
        except sqlite3.Error as error:
            _log.warning("Images for review in %s cannot be used: %s", self._folder, error)
            return []

    def _execute(self, query: str, *values: str | bytes) -> list[Any]:
        with self._database_lock:
            return self._database.execute(query, values).fetchall() if self._database else []

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._num_lost += 1
            is_first = self._num_lost == 1
        if is_first:  # their number is logged by `close`
            _log.warning("Images are not stored for review: %s", reason)


def _decode(row: sqlite3.Row) -> RecentImage:
    return msgspec.json.decode(row["image"], type=RecentImage)
