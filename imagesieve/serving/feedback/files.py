"""The corrected images on disk: one folder for each class, one JPEG for each image."""

import collections
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagesieve import files
from imagesieve.class_folders import is_class_name
from imagesieve.errors import OutputError
from imagesieve.feedback import parse_stored_name

_log = logging.getLogger(__name__)


class FeedbackFiles:
    """Reads and writes by the names that `feedback_lines.stored_name` gives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, stored: str) -> bytes | None:
        """Give an image's bytes, or None when it is not there.

        Raises:
            OSError, OutputError: it cannot be read, or a link stands in its place.
        """
        try:
            handle = os.open(self._path(stored), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:
            return file.read()

    def write(self, stored: str, data: bytes) -> None:
        """Write an image so that it is there as a whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        path = self._path(stored)
        if not path.parent.exists():
            path.parent.mkdir()
            files.fsync_folder(self.folder)
        files.write_bytes(path, data)

    def remove(self, stored: str) -> None:
        """Remove an image if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        if self.num_bytes(stored):
            (self.folder / stored).unlink()

    def num_bytes(self, stored: str) -> int:
        """Give the size of an image, or 0 when it is not there, or only by way of a link."""
        try:
            status = self._path(stored).lstat()
        except (FileNotFoundError, NotADirectoryError, OutputError):
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def sha256(self, stored: str) -> str:
        """Give the SHA-256 of what is stored."""
        return files.sha256_of(self._path(stored))

    def find(self) -> Mapping[str, Mapping[str, int]]:
        """Look what is there, and remove what a killed writer left half written.

        Nobody may write meanwhile. Other files than ours are left alone.

        Returns:
            key -> path in the folder -> bytes; more than one path when a change was interrupted or
            somebody moved images.
        """
        found: dict[str, dict[str, int]] = collections.defaultdict(dict)
        num_partial = 0
        for folder in self._class_folders():
            with os.scandir(folder) as items:
                for item in sorted(items, key=lambda item: item.name):
                    if not item.is_file(follow_symlinks=False):
                        continue
                    if item.name.startswith(files.PARTIAL_PREFIX):
                        (folder / item.name).unlink()
                        num_partial += 1
                        continue
                    stored = f"{folder.name}/{item.name}"
                    try:
                        key = parse_stored_name(stored)[1]
                    except ValueError:
                        continue
                    found[key][stored] = item.stat(follow_symlinks=False).st_size
        if num_partial:
            _log.info("Removed %d unfinished files from %s.", num_partial, self.folder)
        return found

    def _class_folders(self) -> Iterator[Path]:
        with os.scandir(self.folder) as items:
            names = sorted(item.name for item in items if item.is_dir(follow_symlinks=False))
        return (self.folder / name for name in names if is_class_name(name))

    def _path(self, stored: str) -> Path:
        label, _ = parse_stored_name(stored)
        folder = self.folder / label
        if folder.resolve() != self.folder.resolve() / label:
            raise OutputError(
                f"Cannot use {folder}: it is a link that leads elsewhere, and must be a folder."
            )
        return self.folder / stored
