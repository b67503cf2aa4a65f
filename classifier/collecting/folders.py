"""Class folders: their names, and the good pictures that lie in one."""

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from classifier import images
from classifier.errors import ImageError, UsageError

# Checking needs every byte but few pixels: at this size the JPEG decoder skips most of the work.
CHECK_SIZE = (32, 32)

# Names that Windows keeps for devices, whatever their extension.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
)
_MAX_NAME_BYTES = 150  # file systems take 255; others may want to add to it

_log = logging.getLogger(__name__)


def folder_name(query: str) -> str:
    """Turn a query into a folder name that every system takes and no scan takes for hidden."""
    text = unicodedata.normalize("NFC", query)
    is_bad = [character in '<>:"/\\|?*' or not character.isprintable() for character in text]
    text = "".join("_" if bad else char for char, bad in zip(text, is_bad, strict=True))
    text = text.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(" .")
    is_device = text.split(".")[0].casefold() in _DEVICES
    return f"{text}_" if is_device or not text else text


def folders_of(queries: Sequence[str], output: Path) -> list[tuple[str, Path]]:
    """Give each query its folder below `output`.

    Raises:
        UsageError: two queries would share a folder.
    """
    taken: dict[str, str] = {}
    for query in queries:
        other = taken.setdefault(folder_name(query).casefold(), query)
        if other != query:
            raise UsageError(f"{other!r} and {query!r} would share the folder {folder_name(query)}")
    return [(query, output / folder_name(query)) for query in taken.values()]


def scan(folder: Path, limits: images.Limits) -> tuple[set[str], list[Path]]:
    """Look at every file of a folder, hidden ones and subfolders aside.

    Returns:
        the SHA-256 of each good picture, and the paths of all other files, which are logged.
    """
    digests, unusable = set(), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            digests.add(images.decode(path, limits, image_size=CHECK_SIZE).sha256)
        except ImageError as error:
            unusable.append(path)
            _log.warning("not counted: %s", error)
    return digests, unusable
