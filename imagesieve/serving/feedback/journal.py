"""The journal of corrections on disk, and the lock that every writer holds.

Beside it lies the lock file. While a change is under way it says which one, so that whoever comes
after a process that was killed knows what was meant.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagesieve import files
from imagesieve.feedback import JOURNAL_NAME, Entry, parse_stored_name
from imagesieve.serving.errors import FeedbackFullError

LOCK_NAME = ".feedback.lock"

_BLOCK_BYTES = 65_536
_LOCK_SECONDS = 5.0  # another process writes for some milliseconds
_NO_ENTRY = (ValueError, KeyError, TypeError, RecursionError)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Change:
    """A change under way.

    Attributes:
        entry: the line that it writes.
        removes: path in the feedback folder of an image that goes afterwards.
    """

    entry: Entry
    removes: str | None = None


class Journal:
    """The journal of one folder. For one thread at a time; processes wait for each other."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Name the files; nothing is opened.

        Args:
            folder: of the corrections.
            max_bytes: that the journal may grow to.
        """
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._max_bytes = max_bytes
        self._end = 0  # of the whole lines that were read or written, in bytes
        self._identity: tuple[int, int] | None = None  # device and inode of the file read
        self._lock = self._file = -1

    def open_to_read(self) -> tuple[BinaryIO, int]:
        """Open the file as it is now, written by whichever process.

        The lock is not needed, so a disk that cannot be written can still be read: lines are only
        added, and only the last one goes again, when it cannot be brought to the disk.

        Returns:
            the file, at its start, and how many bytes of it are whole lines; a line that is being
            written is not counted.

        Raises:
            OSError: it cannot be read, or a link stands in its place.
        """
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(open(self.path, "rb", opener=_open_no_link))
            num_bytes = _end_of_last_line(file)
            file.seek(0)
            opened.pop_all()  # the caller closes it
            return file, num_bytes

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock and have the journal open; the folder is made if need be.

        Raises:
            OSError: it cannot be written, or another process does not let go of the lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as opened:
            self._lock = os.open(self.folder / LOCK_NAME, flags, 0o666)
            opened.callback(os.close, self._lock)
            _take(self._lock)
            is_new = not self.path.exists()
            self._file = os.open(self.path, flags | os.O_APPEND, 0o666)
            opened.callback(os.close, self._file)
            if is_new:
                files.fsync_folder(self.folder)
            yield

    def catch_up(self) -> tuple[list[Entry], bool]:
        """Read the lines that are new to us; what a killed writer left half written is cut off.

        Returns:
            the entries, and whether they start from the first line: for the first time, or because
            somebody put another file in the journal's place.
        """
        status = os.fstat(self._file)
        identity = (status.st_dev, status.st_ino)
        is_fresh = identity != self._identity or status.st_size < self._end
        if is_fresh:
            self._end = 0
        self._identity = None  # if this fails halfway, the next time starts from the first line
        entries, num_damaged = [], 0
        with open(os.dup(self._file), "rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    _log.warning("The last line of %s was torn, and is cut off.", self.path)
                    os.ftruncate(self._file, self._end)
                    break
                self._end += len(line)
                try:
                    entries.append(Entry.from_json(json.loads(line)))
                except _NO_ENTRY:
                    num_damaged += 1
        if num_damaged:
            _log.warning("%d lines of %s are damaged; the others count.", num_damaged, self.path)
        self._identity = identity
        return entries, is_fresh

    def append(self, entry: Entry) -> None:
        """Write a line to the disk, whole or not at all.

        Raises:
            FeedbackFullError: the journal has grown to its limit.
            OSError: it could not be written.
        """
        line = json.dumps(entry.to_json(), allow_nan=False).encode() + b"\n"
        if self._end + len(line) > self._max_bytes:
            raise FeedbackFullError(
                "The journal of corrections is full: train with them, then move them elsewhere."
            )
        try:
            _write(self._file, line)
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(line)

    def begin(self, change: Change) -> None:
        """Note down what is about to be done."""
        value = {"entry": change.entry.to_json(), "removes": change.removes}
        os.ftruncate(self._lock, 0)
        os.lseek(self._lock, 0, os.SEEK_SET)
        _write(self._lock, json.dumps(value).encode())
        if change.removes is not None:  # else nothing would be lost with the power but a note
            os.fsync(self._lock)

    def end(self) -> None:
        """Note down that it is done, or undone."""
        os.ftruncate(self._lock, 0)

    def begun(self) -> Change | None:
        """Give the change that a killed process has not ended, if there is one."""
        os.lseek(self._lock, 0, os.SEEK_SET)
        text = os.read(self._lock, 100_000)
        if not text:
            return None
        try:
            value = json.loads(text)
            removes = value["removes"]
            if removes is not None:
                parse_stored_name(removes)
            return Change(Entry.from_json(value["entry"]), removes)
        except _NO_ENTRY:  # it was killed while it wrote this: nothing had been done
            return None


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _end_of_last_line(file: BinaryIO) -> int:
    """Give the bytes up to and with the last line break, looking from the end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _take(lock: int) -> None:
    import fcntl

    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _write(file: int, data: bytes) -> None:
    while data:
        written = os.write(file, data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]
