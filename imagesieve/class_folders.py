"""A data set on disk, `<data>/<split>/<class>/`: its splits, and the one rule for class names."""

import re
import unicodedata
from pathlib import Path

from imagesieve.files import list_files

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")

# Names that Windows reserves for devices, whatever their extension.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
_MAX_BYTES = 200  # file systems take 255; temporary names beside it add to it
_MAX_NEW_BYTES = 150  # of a name that is made from a text


def is_class_name(name: str) -> bool:
    """Return whether a class folder may have this name: one level, not hidden, not too long.

    What people label images with, and where `--sort-into` copies them, must pass; see
    `to_class_name` for a name that every system takes.
    """
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return False
    return (
        0 < num_bytes <= _MAX_BYTES
        and not name.startswith(".")
        and not re.search(r"[/\\\x00-\x1f\x7f]", name)
    )


def to_class_name(text: str) -> str:
    """Return the nearest class name that every system takes; `text` itself if it is one."""
    name = unicodedata.normalize("NFC", text)
    is_bad = [character in ' <>:"/\\|?*' or not character.isprintable() for character in name]
    name = "".join("_" if bad else char for char, bad in zip(name, is_bad, strict=True))
    name = name.encode()[:_MAX_NEW_BYTES].decode(errors="ignore").strip(" .")
    is_device = name.split(".")[0].casefold() in _DEVICES
    return f"_{name}" if is_device or not name else name


def is_class_folder(path: Path) -> bool:
    """Return whether `path` is a class folder: any that is not hidden; no image vanishes."""
    return path.is_dir() and not path.name.startswith(".")


def split_of(folder: Path) -> str:
    """Return the split of a class folder `<data>/<split>/<class>`, or "" outside a data set."""
    name = folder.absolute().parent.name
    return name if name in SPLITS else ""


def class_files(folder: Path) -> dict[str, list[Path]]:
    """Return class name -> files, both in order; hidden and empty folders are left out."""
    folders = sorted(folder.iterdir(), key=lambda path: path.name)
    files = {path.name: list_files(path) for path in folders if is_class_folder(path)}
    return {name: paths for name, paths in files.items() if paths}
