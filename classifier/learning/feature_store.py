"""Features on disk: what a frozen network makes of a picture is computed once and kept.

A store is a folder of shelves. A shelf holds rows of one shape, made by one network in one
precision; a row is found by the content of its picture and by its view. Every process that adds
rows writes a segment of its own, rows ahead of their keys, so that a process that is killed loses
at most the row that it was writing, and two processes never write to the same file.

    <store>/<shelf>/about.json        what the rows are
    <store>/<shelf>/<segment>.rows    float16, one row after another
    <store>/<shelf>/<segment>.keys    for each row 16 bytes of key and 4 of CRC-32
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import math
import os
import secrets
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from classifier.console import amount
from classifier.errors import DataError, OutputError
from classifier.files import PARTIAL_PREFIX, reporting_output_errors, scratch_folder, write_json

FOLDER_NAME = ".features"  # hidden, so that nobody takes it for a model version

_FORMAT = 1  # raise it when older rows would be misread
_ABOUT = "about.json"
_LOCK = ".in-use"
_REMOVING = ".removing"  # locked by the one process that removes shelves
_ROWS, _KEYS = ".rows", ".keys"
_KEY_BYTES = 16
_RECORD = struct.Struct(f"<{_KEY_BYTES}sI")
_SPARE_BYTES = 100_000_000  # of the disk, which training itself needs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Holding:
    """What a shelf holds.

    Attributes:
        about: what the rows are, for people.
        num_rows: features of one picture in one view each.
        num_bytes: on disk.
        used_at: seconds since 1970, when a training last used it.
    """

    about: Mapping[str, Any]
    num_rows: int
    num_bytes: int
    used_at: float


class FeatureStore:
    """A folder of shelves, which any number of processes may use at the same time."""

    def __init__(self, folder: Path, limit: float) -> None:
        """Use a folder, which need not exist.

        Args:
            folder: holds nothing else.
            limit: bytes that all shelves together may take.
        """
        self.folder = folder
        self._limit = limit

    @contextlib.contextmanager
    def shelf(self, about: Mapping[str, Any], row_shape: Sequence[int]) -> Iterator["Shelf"]:
        """Open a shelf for the block; nothing removes it meanwhile.

        Args:
            about: JSON values that say what the rows are; other values, another shelf.
            row_shape: of the features of one picture in one view.

        Raises:
            OutputError: the folder cannot be written.
        """
        with (
            self.place(_of_rows(about, row_shape)) as path,
            Shelf(self, path, tuple(row_shape)) as shelf,
        ):
            yield shelf

    def has_shelf(self, about: Mapping[str, Any], row_shape: Sequence[int]) -> bool:
        """Tell whether there is a shelf, without making one; for the arguments see `shelf`."""
        return (self.folder / _name(_of_rows(about, row_shape))).is_dir()

    @contextlib.contextmanager
    def place(self, about: Mapping[str, Any]) -> Iterator[Path]:
        """Give a folder for other things than rows; nothing removes it during the block.

        Args:
            about: JSON values that say what it is for; other values, another folder.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.folder / _name(about)
        with _locked(path, shared=True):
            if not (path / _ABOUT).exists():
                write_json(path / _ABOUT, dict(about))
            yield path
            with reporting_output_errors(path):
                os.utime(path)  # which is when it was last used

    def holdings(self) -> list[Holding]:
        """Tell what is there, the last used first."""
        found = [_look_at(path) for path in self._shelves()]
        return sorted(found, key=lambda holding: -holding.used_at)

    def clear(self) -> int:
        """Remove what no training uses at the moment; gives the number of bytes.

        Raises:
            OutputError: something could not be removed.
        """
        return sum(_remove(path) for path in self._shelves())

    def make_room(self, num_bytes: int, what: str) -> None:
        """See that so much more can be kept; shelves that were not used for long give way.

        Args:
            num_bytes: that will be added.
            what: needs them, for the error.

        Raises:
            OutputError: the limit or the disk is too small.
        """
        if num_bytes > self._limit:
            raise OutputError(
                f"The features of {what} take {amount(num_bytes)}, more than the limit of "
                f"{amount(self._limit)}: raise it with --cache-limit, or use fewer --views."
            )
        total = sum(map(_size, self._shelves()))
        for path in sorted(self._shelves(), key=_used_at):
            if total + num_bytes <= self._limit:
                break
            about = _look_at(path).about
            if removed := _remove(path):
                total -= removed
                _log.info("Removed %s of features (%s).", amount(removed), describe(about))
        if total + num_bytes > self._limit:
            raise OutputError(
                f"The features of {what} take {amount(num_bytes)}, and {amount(total)} that this "
                f"or other trainings use lie in {self.folder} already: wait until the others have "
                f"ended, or raise the limit of {amount(self._limit)} with --cache-limit."
            )
        free = shutil.disk_usage(_existing(self.folder)).free
        if num_bytes + _SPARE_BYTES > free:
            raise OutputError(
                f"The features of {what} take {amount(num_bytes)} in {self.folder}, where "
                f"{amount(free)} are free: free some space, or use fewer --views."
            )

    def _shelves(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_dir() and not path.name.startswith(PARTIAL_PREFIX)
        ]


class Shelf:
    """Rows of one kind. Any thread may call any method. A context manager."""

    def __init__(self, store: FeatureStore, path: Path, row_shape: tuple[int, ...]) -> None:
        self.row_shape = row_shape
        self.row_bytes = math.prod(row_shape) * np.dtype(np.float16).itemsize
        self._store = store
        self._path = path
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int, int]] = {}  # key -> segment, row, CRC-32
        self._segments: list[Path] = []  # a year of trainings leaves more than can stay open
        self._own: tuple[IO[bytes], IO[bytes]] | None = None
        self._num_own = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Shelf":
        with reporting_output_errors(self._path):
            for keys in sorted(self._path.glob(f"*{_KEYS}")):
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
            if key in self._places:  # a copy of the same picture
                return
            rows, keys = self._own or self._start_segment()
            try:
                _write(rows, data)
                _write(keys, _RECORD.pack(key, checksum))  # only now the row counts
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
        self._store.make_room(num_rows * (self.row_bytes + _RECORD.size), what)

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
        rows = path.with_suffix(_ROWS)
        if not rows.exists():  # somebody cleared the store by hand, and not to the end
            return
        num_rows = min(len(data) // _RECORD.size, rows.stat().st_size // self.row_bytes)
        self._segments.append(rows)
        whole = memoryview(data)[: num_rows * _RECORD.size]
        for row, (key, checksum) in enumerate(_RECORD.iter_unpack(whole)):
            self._places.setdefault(key, (len(self._segments) - 1, row, checksum))

    def _start_segment(self) -> tuple[IO[bytes], IO[bytes]]:
        path = self._path / secrets.token_hex(8)
        rows = self._stack.enter_context(_create(path.with_suffix(_ROWS)))
        keys = self._stack.enter_context(_create(path.with_suffix(_KEYS)))
        self._segments.append(path.with_suffix(_ROWS))
        self._own, self._num_own = (rows, keys), 0
        return self._own


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of a shelf as an array (views, pictures, …) that is read piece by piece.

    Attributes:
        shelf: open as long as this is in use.
        keys: for each view, the key of each picture.
    """

    shelf: Shelf
    keys: Sequence[Sequence[bytes]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Views, pictures, and the shape of a row."""
        return (len(self.keys), len(self.keys[0]), *self.shelf.row_shape)

    def __getitem__(self, index: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Give the rows at (views, pictures), two equally long arrays of integers."""
        views, numbers = index
        return self.shelf.read(
            [self.keys[view][number] for view, number in zip(views, numbers, strict=True)]
        )

    def load(self) -> np.ndarray:
        """Give all rows as one array in memory."""
        return np.stack([self.shelf.read(keys) for keys in self.keys])


@contextlib.contextmanager
def temporary_store(parent: Path) -> Iterator[FeatureStore]:
    """Give a store that is gone after the block; a killed process's is removed by the next.

    Raises:
        OutputError: `parent` cannot be written.
    """
    with scratch_folder(parent, "features") as folder:
        yield FeatureStore(folder / FOLDER_NAME, limit=2**62)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time into the block.

    Args:
        path: of a file that is made, and stays, to be locked.

    Raises:
        OutputError: it cannot be made.
    """
    import fcntl

    with reporting_output_errors(path):
        file: IO[bytes] = open(path, "ab")  # noqa: SIM115
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def row_key(sha256: str, view: str) -> bytes:
    """Give the key of a picture's features in one view.

    Args:
        sha256: of the picture's file, hexadecimal.
        view: what was done to the picture, "" for nothing.
    """
    return hashlib.sha256(bytes.fromhex(sha256) + view.encode()).digest()[:_KEY_BYTES]


def describe(about: Mapping[str, Any]) -> str:
    """Say in a few words what a shelf's rows are, or what else a folder holds."""
    names = ("backbone", "image_size", "features", "holds", "engine")
    words = [about[name] for name in names if name in about]
    return ", ".join("×".join(map(str, x)) if isinstance(x, list) else str(x) for x in words) or "?"


def _create(path: Path) -> IO[bytes]:
    return open(path, "x+b", buffering=0)


def _write(file: IO[bytes], data: bytes) -> None:
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _of_rows(about: Mapping[str, Any], row_shape: Sequence[int]) -> dict[str, Any]:
    return {**about, "row_shape": list(row_shape)}


def _name(about: Mapping[str, Any]) -> str:
    text = json.dumps([_FORMAT, dict(about)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _look_at(path: Path) -> Holding:
    try:
        about = json.loads((path / _ABOUT).read_bytes())
    except (OSError, ValueError):  # just being made, or its writer was killed
        about = {}
    num_rows = sum(size // _RECORD.size for size in _sizes(path, _KEYS))
    return Holding(about, num_rows, _size(path), _used_at(path))


def _size(path: Path) -> int:
    return sum(_sizes(path))


def _sizes(path: Path, suffix: str = "") -> Iterator[int]:
    for folder, _, names in os.walk(path):  # which does not mind what vanishes meanwhile
        for name in names:
            if name.endswith(suffix):
                with contextlib.suppress(FileNotFoundError):  # another process clears the store
                    yield Path(folder, name).stat().st_size


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process clears the store
        return 0.0


def _remove(path: Path) -> int:
    """Remove a shelf that nobody uses; gives the number of bytes."""
    try:
        with (
            alone(path.with_name(_REMOVING)),
            _locked(path, shared=False),
            reporting_output_errors(path),
        ):
            size = _size(path)
            # Who opens the shelf now begins a new one, instead of one that is going to pieces; and
            # if this process is killed, what is left is no shelf that anybody would look into.
            doomed = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
            path.rename(doomed)
            shutil.rmtree(doomed)
            return size
    except BlockingIOError:
        return 0


@contextlib.contextmanager
def _locked(shelf: Path, *, shared: bool) -> Iterator[None]:
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        with reporting_output_errors(shelf):
            try:
                shelf.mkdir(parents=True, exist_ok=True)
                file = open(shelf / _LOCK, "ab")  # noqa: SIM115
            except (FileExistsError, FileNotFoundError):
                if not shelf.parent.is_dir() or shelf.is_file():
                    raise
                continue  # another process removed the shelf just now
        with file:
            fcntl.flock(file, kind)
            if _is_same(file, shelf / _LOCK):
                yield
                return


def _is_same(file: IO[bytes], path: Path) -> bool:
    """Tell whether an open file still has its name; another process may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _existing(path: Path) -> Path:
    return next(folder for folder in [path, *path.resolve().parents] if folder.exists())
