"""Recent images on disk, so that reviewing goes on after a restart.

A thread of its own writes them: a prediction neither waits for the disk nor fails with it.
"""

import contextlib
import dataclasses
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagesieve.errors import OutputError
from imagesieve.feedback import open_database, transaction
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.errors import FeedbackUnavailableError
from imagesieve.serving.feedback.recent import RecentImage, RecentLimits

DATABASE_NAME = ".recent.sqlite"

_MAX_WAITING = 32  # images for the writer
_CLOSE_SECONDS = 5.0
_LIMITS = RecentLimits(max_images=2000, max_bytes=512 * 2**20)
_FIELDS = ", ".join(RecentImage.__dataclass_fields__)  # not the image itself, which is large
_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY, id TEXT NOT NULL, prediction TEXT NOT NULL, digest TEXT NOT NULL,
    name TEXT NOT NULL, reason TEXT NOT NULL, num_bytes INTEGER NOT NULL, created TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS images_id ON images (id)
"""
_DISK_ERRORS = (OSError, OutputError, sqlite3.Error)

_log = logging.getLogger(__name__)


class ImageStore:
    """A database of images; all threads and processes of one host may use it."""

    def __init__(
        self,
        folder: Path,
        limits: RecentLimits = _LIMITS,
        is_corrected: Callable[[str], bool] = lambda sha256: False,
    ) -> None:
        """Name the folder; `open` and `put` touch the disk.

        Args:
            folder: for the database.
            limits: what is stored at most.
            is_corrected: whether an image, by SHA-256, was corrected, so that it is not stored
                however often it is predicted again. Only the thread that writes calls it: this may
                wait for a disk.
        """
        self._folder = folder
        self._limits = limits
        self._is_corrected = is_corrected
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        # Those that wait to be written, by SHA-256. One that was removed and put again meanwhile is
        # another object, so that the writer of the former knows.
        self._pending: dict[str, RecentImage] = {}
        self._pending_lock = threading.Lock()
        self._waiting: queue.Queue[tuple[RecentImage, bytes] | None] = queue.Queue(_MAX_WAITING)
        self._writer: threading.Thread | None = None
        self._num_lost = 0  # images that could not be written

    def open(self) -> None:
        """Begin to write. When the folder cannot be used, that is logged and nothing is stored."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / DATABASE_NAME
            # Not FULL: after a power failure some images less wait for review.
            self._database = open_database(path, _SCHEMA, synchronous="NORMAL")
        except _DISK_ERRORS as error:
            _log.warning("No image is stored for review in %s: %s", self._folder, error)
            return
        self._writer = threading.Thread(target=self._write_all, name="image store", daemon=True)
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
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def put(self, image: RecentImage, data: bytes) -> None:
        """Have an image written soon; one that is there already is not written again."""
        if self._writer is None or len(data) > self._limits.max_bytes:
            return
        with self._pending_lock:
            if image.sha256 in self._pending:
                return
            self._pending[image.sha256] = image
        try:
            self._waiting.put_nowait((image, data))
        except queue.Full:
            self._lose(image, "The disk is too slow to store all images.")

    def wait(self) -> None:
        """Wait until all that was put is written."""
        self._waiting.join()

    def by_id(self, image_id: str) -> RecentImage | None:
        """Return the image of a prediction, or None."""
        return next(iter(self._select("WHERE id = ?", image_id)), None)

    def by_sha256(self, sha256: str) -> RecentImage | None:
        """Return an image by its content, or None."""
        return next(iter(self._select("WHERE sha256 = ?", sha256)), None)

    def all(self) -> list[RecentImage]:
        """Return all images, the oldest first."""
        return self._select("ORDER BY rowid")

    def data(self, sha256: str) -> bytes | None:
        """Return the encoded image, or None."""
        rows = self._query("SELECT data FROM images WHERE sha256 = ?", sha256)
        return rows[0][0] if rows else None

    def remove(self, sha256: str) -> None:
        """Remove an image, if it is there."""
        with self._pending_lock:
            self._pending.pop(sha256, None)
        self._query("DELETE FROM images WHERE sha256 = ?", sha256)

    def _select(self, where: str, *values: str) -> list[RecentImage]:
        rows = self._query(f"SELECT {_FIELDS} FROM images {where}", *values)  # noqa: S608
        return [
            RecentImage(sha256, image_id, Prediction(**json.loads(prediction)), *others)
            for sha256, image_id, prediction, *others in rows
        ]

    def _query(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
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
        fields = dataclasses.asdict(image)
        fields["prediction"] = json.dumps(fields["prediction"], allow_nan=False)
        with self._lock:
            with self._pending_lock:
                if self._pending.get(image.sha256) is not image:  # removed while it waited
                    return
                del self._pending[image.sha256]
            if self._database is None or is_corrected:
                return
            with transaction(self._database):
                self._insert(self._database, (*fields.values(), data))

    def _insert(self, database: sqlite3.Connection, values: tuple[object, ...]) -> None:
        marks = ", ".join("?" * len(values))
        database.execute(f"INSERT OR IGNORE INTO images VALUES ({marks})", values)  # noqa: S608
        database.execute(
            "DELETE FROM images WHERE rowid IN (SELECT rowid FROM (SELECT rowid, row_number() OVER "
            "newest AS place, sum(num_bytes) OVER newest AS num_bytes FROM images "
            "WINDOW newest AS (ORDER BY rowid DESC)) WHERE place > ? OR num_bytes > ?)",
            (self._limits.max_images, self._limits.max_bytes),
        )

    def _lose(self, image: RecentImage, reason: str) -> None:
        with self._pending_lock:
            if self._pending.get(image.sha256) is image:
                del self._pending[image.sha256]
            self._num_lost += 1
            is_first = self._num_lost == 1
        if is_first:  # their number is logged by `close`
            _log.warning("Images are not stored for review: %s", reason)
