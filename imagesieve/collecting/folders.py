"""The names of class folders."""

import unicodedata
from collections.abc import Sequence

from imagesieve.errors import UsageError

# Names that Windows keeps for devices, whatever their extension.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
_MAX_NAME_BYTES = 150  # file systems take 255; others may want to add to it


def folder_name(query: str) -> str:
    """Turn a query into a folder name that every system takes and no scan takes for hidden."""
    text = unicodedata.normalize("NFC", query)
    is_bad = [character in ' <>:"/\\|?*' or not character.isprintable() for character in text]
    text = "".join("_" if bad else char for char, bad in zip(text, is_bad, strict=True))
    text = text.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(" .")
    is_device = text.split(".")[0].casefold() in _DEVICES
    return f"_{text}" if is_device or not text else text


def distinct(queries: Sequence[str]) -> list[str]:
    """Give the queries of a file without repetitions, in order.

    Raises:
        UsageError: two different queries would share a folder.
    """
    taken: dict[str, str] = {}
    for query in queries:
        other = taken.setdefault(folder_name(query).casefold(), query)
        if other != query:
            raise UsageError(f"{other!r} and {query!r} would share the folder {folder_name(query)}")
    return list(taken.values())
