"""The journal of a class folder: one JSON line for each attempt, only ever appended to.

It is the state from which the next run goes on, and survives `kill -9`: the line of an image is
written ahead of the image, so a line without its file means "not kept", and a file without its line
cannot be.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from imagesieve.errors import ClassifierError, DataError
from imagesieve.files import PARTIAL_PREFIX, locked, reporting_output_errors

HISTORY_NAME = "download_history.pickle"  # what the first generation left behind
JOURNAL_NAME = ".bing_downloader.jsonl"  # hidden, so that neither an image nor a class

KEPT = "kept"
DUPLICATE = "duplicate"
FAILED = "failed"
TRIED = "tried"  # by the first generation, whose history does not say what came of it

_SYNC_SECONDS = 1.0

Entry = dict[str, Any]


class BusyError(ClassifierError):
    """Another process fills the same folder."""


class Journal:
    """The open journal of one class folder; any thread may add to it. See `open_journal`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._synced_at = 0.0

    def add(self, entry: Entry) -> None:
        """Append a line, of at least `url` and `status`, with the time and without empty values."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {name: value for name, value in entry.items() if value not in ("", None)}
        data = (json.dumps({"time": moment, **fields}) + "\n").encode()
        with reporting_output_errors(self.path):
            # One call that appends, which the system keeps apart from those of other threads: a
            # lock would be held while all others compute.
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Lines that wait for the disk are lost when the power fails, not when we are killed.
            if time.monotonic() - self._synced_at > _SYNC_SECONDS:
                self._synced_at = time.monotonic()
                os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Yield the journal of a class folder, which is made if it is not there.

    While it is open no other process can open it, and what a killed process left half written in
    the folder is removed. A folder in which nothing was tried is left as it was.

    Raises:
        BusyError: another process has opened it.
        OutputError: it could not be written.
    """
    path = folder / JOURNAL_NAME
    with contextlib.ExitStack() as stack:
        with reporting_output_errors(path):
            was_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(_open(path))
            for partial in folder.glob(f"{PARTIAL_PREFIX}*"):
                if partial.is_file():
                    partial.unlink()
        try:
            yield Journal(path, file)
        finally:
            with reporting_output_errors(path):
                if os.fstat(file.fileno()).st_size:
                    os.fsync(file.fileno())
                else:
                    _remove_traces(path, was_new=was_new)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    import fcntl

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            raise BusyError(
                f"Another bing_downloader.py fills {path.parent}: wait until it has ended."
            ) from error
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash tore the last line: do not glue ours to it
                file.write(b"\n")
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
        yield file


def _remove_traces(path: Path, *, was_new: bool) -> None:
    """Leave no empty folder behind, which training would take for a class without images."""
    path.unlink(missing_ok=True)
    if was_new:
        with contextlib.suppress(OSError):  # not empty any more
            path.parent.rmdir()


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the lines of a journal in order; those that a crash left unfinished are passed over.

    Raises:
        DataError: it is there, but cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if (entry := _parse(line)) is not None:
                    yield entry
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"The journal {path} cannot be read: {error.strerror or error}.") from error


def last_entries(path: Path) -> Iterator[Entry]:
    """Yield the last entry about each URL, in the order of the file.

    A journal may have a line for every URL ever tried, so it is never in memory as a whole: one
    reading finds the last line about each, a second one yields those.
    """
    last = {entry["url"]: number for number, entry in enumerate(read_entries(path))}
    numbers = set(last.values())
    del last
    for number, entry in enumerate(read_entries(path)):
        if number in numbers:
            yield entry


def _parse(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("url"), str) else None
