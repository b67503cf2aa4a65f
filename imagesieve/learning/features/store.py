"""Features on disk, shared by trainings: each image goes through a frozen network once.

    .features/index.sqlite     the entries, and where each row of a table lies
    .features/<entry>/         of a table, the file `rows`: float16, in the order they were added
                               of anything else, its files: a converted network, for instance

Rows lie in files because SQLite takes 5 to 10 times as long to write them and twice as long to read
them in batches (5,000 rows of 2,048 numbers, 1,000 maps of 8 × 8 × 1,280), and because a removed
file frees its space at once. The index has a rollback journal, which works wherever files can be
locked, also on network file systems. It is not synchronised with the disk: a process that is killed
loses nothing but the row it was writing; what a power failure spoils is found by its checksum.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import logging
import math
import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imagesieve.console import amount
from imagesieve.errors import DataError, OutputError
from imagesieve.files import locked, reporting_output_errors

FOLDER_NAME = ".features"  # hidden, so that it is not mistaken for a model version

_FORMAT = 2  # raise it when older rows would be misread
_INDEX, _ROWS, _LOCK = "index.sqlite", "rows", ".in-use"
_SCHEMA = """
PRAGMA journal_mode = PERSIST;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS entries
    (name TEXT PRIMARY KEY, about TEXT NOT NULL, used_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS features
    (entry TEXT, key BLOB, place INTEGER NOT NULL, checksum INTEGER NOT NULL,
     PRIMARY KEY (entry, key)) WITHOUT ROWID;
"""
_BUSY_SECONDS = 600.0  # another process may be removing tens of gigabytes
_SPARE_BYTES = 100_000_000  # of the disk, which training itself needs

_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """What one folder of the store holds."""

    about: Mapping[str, Any]
    num_rows: int
    num_bytes: int
    used_at: float  # seconds since 1970


class FeatureStore:
    """Tables of features, and what else is costly to compute, for any number of processes."""

    def __init__(self, folder: Path, limit: float) -> None:
        """Use a folder, which need not exist and holds nothing else, for at most `limit` bytes."""
        self.folder = folder
        self._limit = limit

    @contextlib.contextmanager
    def table(self, about: Mapping[str, Any]) -> Iterator["FeatureTable"]:
        """Open the table of what is described for the block; see `place`.

        The `row_shape` in `about` is that of the features of one image in one view.
        """
        with self.place(about) as path, self._connection() as index:
            with reporting_output_errors(path):
                file = open(path / _ROWS, "a+b", buffering=0)  # noqa: SIM115 - closed below
            with file:
                try:
                    yield FeatureTable(index, path, file, tuple(about["row_shape"]))
                finally:
                    with reporting_output_errors(path):
                        os.fsync(file.fileno())

    def has(self, about: Mapping[str, Any]) -> bool:
        """Return whether there is a table or place, without creating one."""
        return (self.folder / _name(about)).is_dir()

    @contextlib.contextmanager
    def place(self, about: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a folder for what JSON values describe; no process removes it during the block.

        A DataError is raised if the index is damaged, an OutputError if nothing can be written.
        """
        path = self.folder / _name(about)
        with contextlib.ExitStack() as stack:
            with self._transaction() as index:
                self._remove_unknown(index)
                path.mkdir(exist_ok=True)
                stack.enter_context(locked(path / _LOCK, shared=True))
                entry = (path.name, json.dumps(dict(about)), time.time())
                index.execute("REPLACE INTO entries VALUES (?, ?, ?)", entry)
            yield path

    def entries(self) -> list[Entry]:
        """Return what is there, the last used first."""
        if not (self.folder / _INDEX).exists():
            return []
        with self._connection() as index:
            found = index.execute(
                "SELECT name, about, (SELECT count(*) FROM features WHERE entry = name), used_at "
                "FROM entries ORDER BY used_at DESC"
            ).fetchall()
        return [
            Entry(json.loads(about), num_rows, _size(self.folder / name), used_at)
            for name, about, num_rows, used_at in found
        ]

    def clear(self) -> int:
        """Remove what no training uses at the moment; return the number of bytes."""
        if not self.folder.is_dir():
            return 0
        try:
            with self._transaction() as index:
                for (name,) in index.execute("SELECT name FROM entries").fetchall():
                    self._forget(index, name)
            with self._transaction() as index:
                return self._remove_unknown(index)
        except DataError:  # the index is damaged: nothing can be found by it any more
            size = _size(self.folder)
            with reporting_output_errors(self.folder):
                shutil.rmtree(self.folder)
            return size

    def make_room(self, num_bytes: int, what: str) -> None:
        """Ensure that so many bytes can be added; entries not used for longest are removed.

        An OutputError is raised if the limit or the disk is too small for `what`.
        """
        needed = f"The features of {what} take {amount(num_bytes)}"
        if num_bytes > self._limit:
            raise OutputError(
                f"{needed}, more than the limit of {amount(self._limit)}: raise it with "
                "--cache-limit, or use fewer --views."
            )
        with self._transaction() as index:
            found = index.execute("SELECT name, about FROM entries ORDER BY used_at").fetchall()
            total = sum(_size(self.folder / name) for name, _ in found)
            for name, about in found:
                if total + num_bytes <= self._limit:
                    break
                if removed := self._forget(index, name):
                    total -= removed
                    described = describe(json.loads(about))
                    _log.info("Removed %s of features (%s).", amount(removed), described)
        with self._transaction() as index:
            self._remove_unknown(index)
        if total + num_bytes > self._limit:
            raise OutputError(
                f"{needed}, and {amount(total)} in {self.folder} are in use: wait until other "
                f"trainings have ended, or raise the limit of {amount(self._limit)} with "
                "--cache-limit."
            )
        free = shutil.disk_usage(self.folder).free
        if num_bytes + _SPARE_BYTES > free:
            raise OutputError(
                f"{needed} in {self.folder}, where {amount(free)} are free: free some space, or "
                "use fewer --views."
            )

    def _forget(self, index: sqlite3.Connection, name: str) -> int:
        """Delete an entry unless it is in use; return the number of bytes.

        Its folder goes once that is committed: a killed process leaves no entry without its files.
        """
        path = self.folder / name
        path.mkdir(exist_ok=True)
        try:
            with locked(path / _LOCK, wait=False):
                size = _size(path)
        except BlockingIOError:
            return 0
        index.execute("DELETE FROM features WHERE entry = ?", (name,))
        index.execute("DELETE FROM entries WHERE name = ?", (name,))
        return size

    def _remove_unknown(self, index: sqlite3.Connection) -> int:
        """Remove folders without an entry, of this removal, a killed one or an older release."""
        known = {name for (name,) in index.execute("SELECT name FROM entries")}
        unknown = [x for x in self.folder.iterdir() if x.is_dir() and x.name not in known]
        size = sum(map(_size, unknown))
        for path in unknown:
            shutil.rmtree(path)
        return size

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / _INDEX
        with reporting_output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # Threads take turns by a lock of their own, so any of them may use the connection.
            index = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            with contextlib.closing(index):
                index.executescript(_SCHEMA)
                yield index
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise _damaged(self.folder) from error
            raise OutputError(f"Cannot write {path}: {error}.") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the index; no other process writes to it during the block."""
        with self._connection() as index, reporting_output_errors(self.folder), index:
            index.execute("BEGIN IMMEDIATE")
            yield index


class FeatureTable:
    """Rows of one kind, found by the content of an image and its augmentation; for any thread."""

    def __init__(
        self, index: sqlite3.Connection, path: Path, file: io.FileIO, row_shape: tuple[int, ...]
    ) -> None:
        self.row_shape = row_shape
        self.row_bytes = math.prod(row_shape) * np.dtype(np.float16).itemsize
        self._index = index
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        # Rows beyond the end were removed by hand, or lost with the power; new ones will lie there.
        with index:
            index.execute("BEGIN IMMEDIATE")
            end = os.fstat(file.fileno()).st_size - self.row_bytes
            index.execute("DELETE FROM features WHERE entry = ? AND place > ?", (path.name, end))
        query = "SELECT key, place, checksum FROM features WHERE entry = ?"
        found = index.execute(query, (path.name,))
        # Key -> byte in the file, CRC-32.
        self._places = {key: (place, checksum) for key, place, checksum in found}

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, keys: Sequence[bytes], rows: Iterable[np.ndarray]) -> None:
        """Add rows, each `row_shape` float16; those whose keys are there are ignored."""
        with self._lock, reporting_output_errors(self._path):
            places = {}
            with self._index:
                self._index.execute("BEGIN IMMEDIATE")  # other processes append to the file, too
                for key, row in zip(keys, rows, strict=True):
                    if key in self._places or key in places:
                        continue
                    data = np.ascontiguousarray(row, dtype=np.float16).tobytes()
                    places[key] = (self._file.seek(0, os.SEEK_END), zlib.crc32(data))
                    if self._file.write(data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._index.executemany(
                    "REPLACE INTO features VALUES (?, ?, ?, ?)",
                    [(self._path.name, key, *place) for key, place in places.items()],
                )
            self._places |= places

    def read(self, keys: Sequence[bytes]) -> npt.NDArray[np.float16]:
        """Return (len(keys), *row_shape), or raise a DataError if a row was altered."""
        rows = np.empty((len(keys), *self.row_shape), np.float16)
        for row, key in zip(rows, keys, strict=True):
            place, checksum = self._places[key]
            buffer = memoryview(row).cast("B")
            count = os.preadv(self._file.fileno(), [buffer], place)
            if count != self.row_bytes or zlib.crc32(buffer) != checksum:
                raise _damaged(self._path)
        return rows


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of an open table as an array (views, images, …) that is read piece by piece."""

    table: FeatureTable
    keys: Sequence[Sequence[bytes]]  # for each view, of each image

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.keys), len(self.keys[0]), *self.table.row_shape)

    def __getitem__(self, index: tuple[np.ndarray, np.ndarray]) -> npt.NDArray[np.float16]:
        """Return the rows at (views, images), two equally long arrays of integers."""
        chosen = zip(*index, strict=True)
        return self.table.read([self.keys[view][number] for view, number in chosen])


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a frozen network makes of images."""

    # (views, images, …) floating: pooled features, or maps before the last blocks. View 0 is the
    # image as it is.
    values: np.ndarray | StoredRows
    labels: np.ndarray  # (images,) int32 class index
    weights: np.ndarray | None = None  # (images,) float32: how many times each counts; None: once

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, views: np.ndarray, numbers: np.ndarray) -> npt.NDArray[np.float32]:
        """Return float32 (len(numbers), …): of each image the view that stands beside it."""
        return self.values[views, numbers].astype(np.float32)


def row_key(sha256: str, augmentation: str) -> bytes:
    """Return the key of an image's features in one augmentation ("" for none)."""
    return hashlib.sha256(bytes.fromhex(sha256) + augmentation.encode()).digest()[:16]


def describe(about: Mapping[str, Any]) -> str:
    """Return in a few words what the rows of a table are, or what else a folder holds."""
    names = ("backbone", "image_size", "features", "holds", "engine")
    words = [about[name] for name in names if name in about]
    return ", ".join("×".join(map(str, x)) if isinstance(x, list) else str(x) for x in words) or "?"


def _name(about: Mapping[str, Any]) -> str:
    text = json.dumps([_FORMAT, dict(about)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _size(path: Path) -> int:
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process removes the entry
                size += Path(folder, name).stat().st_size
    return size


def _damaged(path: Path) -> DataError:
    return DataError(
        f"The features in {path} are damaged: remove them with --clear-cache "
        "(of trainMyDataWithKerasModel.py) and start again; they will be computed anew."
    )
