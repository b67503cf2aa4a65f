"""Rows of features of one kind in a folder, found by the content of an image and by its view.

    <segment>.rows    float16, one row after another
    <segment>.keys    for each row 16 bytes of key and 4 of CRC-32

Every process that adds rows writes a segment of its own, rows ahead of their keys, so that a
process that is killed loses at most the row that it was writing, and two processes never write to
the same file.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import math
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from imagesieve.errors import DataError
from imagesieve.files import reporting_output_errors

ROWS, KEYS = ".rows", ".keys"
_KEY_BYTES = 16
RECORD = struct.Struct(f"<{_KEY_BYTES}sI")


class Shelf:
    """Rows of one kind. Any thread may call any method. A context manager."""

    def __init__(
        self, path: Path, row_shape: tuple[int, ...], make_room: Callable[[int, str], None]
    ) -> None:
        """Use a folder that exists.

        Args:
            path: the folder.
            row_shape: of the features of one image in one view.
            make_room: called with a number of bytes to be added and what needs them.
        """
        self.row_shape = row_shape
        self.row_bytes = math.prod(row_shape) * np.dtype(np.float16).itemsize
        self._make_room = make_room
        self._path = path
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int, int]] = {}  # key -> segment, row, CRC-32
        self._segments: list[Path] = []  # a year of trainings leaves more than can stay open
        self._own: tuple[IO[bytes], IO[bytes]] | None = None
        self._num_own = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Shelf":
        with reporting_output_errors(self._path):
            for keys in sorted(self._path.glob(f"*{KEYS}")):
                self._read_segment(keys)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock, reporting_output_errors(self._path), self._stack:
            if self._own is not None:
                for file in self._own:
                    os.fsync(file.fileno())

    def __contains__(self, key: bytes) -> bool:
        """Tell whether there is a row of this key."""
        return key in self._places

    def add(self, key: bytes, row: np.ndarray) -> None:
        """Keep a row.

        Args:
            key: from `row_key`.
            row: `row_shape`, float16.

        Raises:
            OutputError: it could not be written.
        """
        data = np.ascontiguousarray(row, dtype=np.float16).tobytes()
        checksum = zlib.crc32(data)
        with self._lock, reporting_output_errors(self._path):
            if key in self._places:  # a copy of the same image
                return
            rows, keys = self._own or self._start_segment()
            try:
                _write(rows, data)
                _write(keys, RECORD.pack(key, checksum))  # only now the row counts
            except OSError:
                self._own = None  # half a row would shift all that follow
                raise
            self._places[key] = (len(self._segments) - 1, self._num_own, checksum)
            self._num_own += 1

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """Give (len(keys), …) float16 rows.

        Raises:
            KeyError: one of them is not there.
            DataError: a row was altered on disk.
        """
        found = np.empty((len(keys), *self.row_shape), np.float16)
        places = [self._places[key] for key in keys]
        in_order = sorted(range(len(keys)), key=lambda number: places[number][0])
        for segment, numbers in itertools.groupby(in_order, lambda number: places[number][0]):
            with self._open(self._segments[segment]) as file:
                for number in numbers:
                    _, row, checksum = places[number]
                    buffer = memoryview(found[number]).cast("B")
                    count = os.preadv(file.fileno(), [buffer], row * self.row_bytes)
                    if count != self.row_bytes or zlib.crc32(buffer) != checksum:
                        raise self._damaged()
        return found

    def make_room(self, num_rows: int, what: str) -> None:
        """See `FeatureStore.make_room`."""
        self._make_room(num_rows * (self.row_bytes + RECORD.size), what)

    def _open(self, rows: Path) -> IO[bytes]:
        try:
            return open(rows, "rb", buffering=0)
        except FileNotFoundError as error:  # not by us, who would have seen the lock
            raise self._damaged() from error

    def _damaged(self) -> DataError:
        return DataError(
            f"The features in {self._path} are damaged: remove them with --clear-cache "
            "(of trainMyDataWithKerasModel.py) and start again; they will be computed anew."
        )

    def _read_segment(self, path: Path) -> None:
        data = path.read_bytes()
        rows = path.with_suffix(ROWS)
        if not rows.exists():  # somebody cleared the store by hand, and not to the end
            return
        num_rows = min(len(data) // RECORD.size, rows.stat().st_size // self.row_bytes)
        self._segments.append(rows)
        whole = memoryview(data)[: num_rows * RECORD.size]
        for row, (key, checksum) in enumerate(RECORD.iter_unpack(whole)):
            self._places.setdefault(key, (len(self._segments) - 1, row, checksum))

    def _start_segment(self) -> tuple[IO[bytes], IO[bytes]]:
        path = self._path / secrets.token_hex(8)
        rows = self._stack.enter_context(_create(path.with_suffix(ROWS)))
        keys = self._stack.enter_context(_create(path.with_suffix(KEYS)))
        self._segments.append(path.with_suffix(ROWS))
        self._own, self._num_own = (rows, keys), 0
        return self._own


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of a shelf as an array (views, images, …) that is read piece by piece.

    Attributes:
        shelf: open as long as this is in use.
        keys: for each view, the key of each image.
    """

    shelf: Shelf
    keys: Sequence[Sequence[bytes]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Views, images, and the shape of a row."""
        return (len(self.keys), len(self.keys[0]), *self.shelf.row_shape)

    def __getitem__(self, index: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Give the rows at (views, images), two equally long arrays of integers."""
        views, numbers = index
        return self.shelf.read(
            [self.keys[view][number] for view, number in zip(views, numbers, strict=True)]
        )

    def load(self) -> np.ndarray:
        """Give all rows as one array in memory."""
        return np.stack([self.shelf.read(keys) for keys in self.keys])


def row_key(sha256: str, view: str) -> bytes:
    """Give the key of an image's features in one view.

    Args:
        sha256: of the image's file, hexadecimal.
        view: what was done to the image, "" for nothing.
    """
    return hashlib.sha256(bytes.fromhex(sha256) + view.encode()).digest()[:_KEY_BYTES]


def _create(path: Path) -> IO[bytes]:
    return open(path, "x+b", buffering=0)


def _write(file: IO[bytes], data: bytes) -> None:
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
