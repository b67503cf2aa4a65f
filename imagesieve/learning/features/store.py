"""Features on disk: what a frozen network makes of an image is computed once and kept.

A store is a folder of shelves. A shelf holds rows of one shape, made by one network in one
precision; see `feature_shelf`. Other folders hold what else is costly to make: a converted network,
or the statistics of random weights. Each has an `about.json` that says what it is.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from imagesieve.console import amount
from imagesieve.errors import OutputError
from imagesieve.files import PARTIAL_PREFIX, reporting_output_errors, scratch_folder, write_json
from imagesieve.learning.features.table import KEYS, RECORD, Shelf

FOLDER_NAME = ".features"  # hidden, so that nobody takes it for a model version

_FORMAT = 1  # raise it when older rows would be misread
_ABOUT = "about.json"
_LOCK = ".in-use"
_REMOVING = ".removing"  # locked by the one process that removes shelves
_SPARE_BYTES = 100_000_000  # of the disk, which training itself needs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Holding:
    """What a shelf holds.

    Attributes:
        about: what the rows are, for people.
        num_rows: features of one image in one view each.
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
    def shelf(self, about: Mapping[str, Any], row_shape: Sequence[int]) -> Iterator[Shelf]:
        """Open a shelf for the block; nothing removes it meanwhile.

        Args:
            about: JSON values that say what the rows are; other values, another shelf.
            row_shape: of the features of one image in one view.

        Raises:
            OutputError: the folder cannot be written.
        """
        with (
            self.place(_of_rows(about, row_shape)) as path,
            Shelf(path, tuple(row_shape), self.make_room) as shelf,
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


def describe(about: Mapping[str, Any]) -> str:
    """Say in a few words what a shelf's rows are, or what else a folder holds."""
    names = ("backbone", "image_size", "features", "holds", "engine")
    words = [about[name] for name in names if name in about]
    return ", ".join("×".join(map(str, x)) if isinstance(x, list) else str(x) for x in words) or "?"


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
    num_rows = sum(size // RECORD.size for size in _sizes(path, KEYS))
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
