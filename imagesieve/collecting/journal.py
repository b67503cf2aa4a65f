"""The journal of a class folder: one JSON line for each attempt, only ever appended to.

It is the state from which the next run goes on, and survives `kill -9`: the line of an image is
written ahead of the image, so a line without its file means "not kept", and a file without its line
cannot be.
"""

import contextlib
import errno
import json
import os
import threading
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
    """The journal of one class folder; any thread may add to it. A context manager.

    While it is open no other process can open it, and what a killed process left half written in
    the folder is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._synced_at = 0.0
        self._was_new = False

    def __enter__(self) -> "Journal":
        with reporting_output_errors(self.path), contextlib.ExitStack() as on_error:
            self._was_new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = on_error.enter_context(self._open())
            for partial in self.folder.glob(f"{PARTIAL_PREFIX}*"):
                if partial.is_file():
                    partial.unlink()
            self._stack = on_error.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock, reporting_output_errors(self.path), self._stack:
            file, self._file = self._file, None
            if file is None:
                return
            if os.fstat(file.fileno()).st_size:
                os.fsync(file.fileno())
            else:
                self._remove_traces()

    def add(self, entry: Entry) -> None:
        """Append one line, of at least `url` and `status`, with the time and without empty values.

        Raises:
            OutputError: it could not be written.
        """
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {name: value for name, value in entry.items() if value not in ("", None)}
        data = (json.dumps({"time": moment, **fields}) + "\n").encode()
        file = self._file
        if file is None:
            raise ValueError("the journal is not open")
        with reporting_output_errors(self.path):
            # One call that appends, which the system keeps apart from those of other threads: a
            # lock would be held while all others compute.
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Lines that wait for the disk are lost when the power fails, not when we are killed.
            if time.monotonic() - self._synced_at > _SYNC_SECONDS:
                self._synced_at = time.monotonic()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        import fcntl

        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(locked(self.path, wait=False))
            except BlockingIOError as error:
                raise BusyError(
                    f"Another bing_downloader.py fills {self.folder}: wait until it has ended."
                ) from error
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash tore the last line: do not glue ours to it
                    file.write(b"\n")
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
            yield file

    def _remove_traces(self) -> None:
        """Leave no empty folder behind, which training would take for a class without images."""
        self.path.unlink(missing_ok=True)
        if self._was_new:
            with contextlib.suppress(OSError):  # not empty any more
                self.folder.rmdir()


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

    Raises:
        DataError: the journal cannot be read.
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
