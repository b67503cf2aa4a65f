"""What was tried: one JSON line for each address, only ever appended to.

The journal of a class folder is the state from which the next run goes on. It survives `kill -9`:
the line of an image is written ahead of the image, so a line without its file means "not kept",
and a file without its line cannot be.
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
from imagesieve.files import PARTIAL_PREFIX, reporting_output_errors

HISTORY_NAME = "download_history.pickle"  # what the first generation left behind
JOURNAL_NAME = ".bing_downloader.jsonl"  # hidden, so that it is no image and no class

KEPT = "kept"
DUPLICATE = "duplicate"
FAILED = "failed"
TRIED = "tried"  # by the first generation, as its history says; nobody knows what came of it

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
        self._file: IO[bytes] | None = None
        self._synced_at = 0.0
        self._was_new = False

    def __enter__(self) -> "Journal":
        with reporting_output_errors(self.path):
            self._was_new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as on_error:
                self._file = on_error.enter_context(_open_alone(self.path))
                for partial in self.folder.glob(f"{PARTIAL_PREFIX}*"):
                    if partial.is_file():
                        partial.unlink()
                on_error.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock, reporting_output_errors(self.path):
            if self._file is None:
                return
            file, self._file = self._file, None
            with file:
                if not os.fstat(file.fileno()).st_size:
                    self._remove_traces()
                else:
                    os.fsync(file.fileno())

    def add(self, entry: Entry) -> None:
        """Append one line; empty values are left out.

        Args:
            entry: at least `url` and `status`; the time is added.

        Raises:
            OutputError: it could not be written.
        """
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {name: value for name, value in entry.items() if value not in ("", None)}
        line = json.dumps({"time": moment, **fields}) + "\n"
        file = self._file
        if file is None:
            raise ValueError("the journal is not open")
        with reporting_output_errors(self.path):
            # One call that appends, which the system keeps apart from those of other threads: a
            # lock would be held while all others compute.
            data = line.encode()
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Lines that wait for the disk are lost when the power fails, not when we are killed.
            if time.monotonic() - self._synced_at > _SYNC_SECONDS:
                self._synced_at = time.monotonic()
                os.fsync(file.fileno())

    def _remove_traces(self) -> None:
        """Leave no empty folder behind, which training would take for a class without images."""
        self.path.unlink(missing_ok=True)
        if self._was_new:
            with contextlib.suppress(OSError):  # somebody has put something there meanwhile
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


def _parse(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("url"), str) else None


def _open_alone(path: Path) -> IO[bytes]:
    import fcntl

    while True:
        file = open(path, "a+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise BusyError(
                f"Another bing_downloader.py fills {path.parent}: wait until it has ended."
            ) from error
        # Between our opening and our locking, another process may have ended and removed the file.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    if os.fstat(file.fileno()).st_size and not _ends_with_newline(file):
        file.write(b"\n")  # a crash tore the last line: do not glue ours to it
        file.flush()
    return file


def _ends_with_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
