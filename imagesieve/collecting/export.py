"""What the journals say: tables of all attempts, lists of URLs, and whether the files agree."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from imagesieve import console, images
from imagesieve.collecting.class_folder import scan
from imagesieve.collecting.journal import JOURNAL_NAME, KEPT, Entry, last_entries
from imagesieve.errors import ImageError, UsageError
from imagesieve.files import PARTIAL_PREFIX

# `file` is relative to the folder that was exported; the others stand in the journal.
COLUMNS = (
    *("file", "on_disk", "class", "split", "status", "reason", "detail", "url", "final_url"),
    *("page_url", "title", "query", "filters", "rank", "width", "height", "format", "bytes"),
    *("sha256", "source_sha256", "fingerprint", "bing_md5", "same_as", "replaces"),
    *("http_status", "attempts", "robots", "elapsed_ms", "time", "version"),
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# What can be wrong with a class folder, in the order of the table.
PROBLEMS = ("missing", "changed", "unusable", "same bytes", "leftover")
MISSING, CHANGED, UNUSABLE, SAME_BYTES, LEFTOVER = PROBLEMS


@dataclasses.dataclass(frozen=True)
class Problem:
    kind: str  # one of `PROBLEMS`
    path: Path  # there or missing
    detail: str  # why, in a few words

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} ({self.detail})"


@dataclasses.dataclass(frozen=True)
class FolderCheck:
    folder: Path
    num_good: int  # images that can be used and are what the journal says, if it says anything
    num_unknown: int  # files that are not in the journal, such as the user's own images
    problems: tuple[Problem, ...]  # in the order of the folder, missing files last


def journals(folder: Path) -> list[Path]:
    """Return every journal in a folder and at any depth below, in order; there must be one."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the one that was passed as --output.")
    found = sorted(path for path in folder.rglob(JOURNAL_NAME) if path.is_file())
    if not found:
        raise UsageError(f"{folder} has no journal: nothing was downloaded to it or below it.")
    return found


def export(folder: Path, form: str, out: TextIO) -> None:
    """Write what the journals in `folder` and below say, to UTF-8 text with `newline=""`.

    `csv` has the last entry of each journal about each URL, whatever came of it; a text that a
    spreadsheet would take for a formula gets an apostrophe in front. `urls` has the URL of each
    image that is on disk now, one on a line.
    """
    sources = journals(folder)
    if form == "urls":
        for journal in sources:
            kept = (e for e in last_entries(journal) if _is_on_disk(journal, e))
            out.writelines(f"{_cell(entry['url'])}\n" for entry in kept)
        return
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for journal in sources:
        table.writerows(_row(entry, journal, folder) for entry in last_entries(journal))


def verify(folder: Path, limits: images.Limits = images.DEFAULT_LIMITS) -> list[FolderCheck]:
    """Compare each class folder in `folder` and below with its journal. Nothing is changed.

    Every file directly in a class folder is read, except hidden ones; see `class_folder.scan`.
    """
    first_with: dict[str, Path] = {}  # SHA-256 -> the first file with these bytes, in any folder
    return [_check_folder(journal, limits, first_with) for journal in journals(folder)]


def verify_table(checks: Sequence[FolderCheck]) -> str:
    rows = [
        [check.folder, check.num_good, check.num_unknown]
        + [[problem.kind for problem in check.problems].count(kind) for kind in PROBLEMS]
        for check in checks
    ]
    return console.table(["folder", "good", "not in the journal", *PROBLEMS], rows)


def _check_folder(journal: Path, limits: images.Limits, first_with: dict[str, Path]) -> FolderCheck:
    recorded = _recorded_files(journal)
    cut_off = "a run was cut off, or is still going"
    partials = sorted(journal.parent.glob(f"{PARTIAL_PREFIX}*"))
    problems = [Problem(LEFTOVER, path, cut_off) for path in partials]
    num_good = num_unknown = 0
    for path, found in scan(journal.parent, limits).items():
        num_unknown += path.name not in recorded
        sha256 = recorded.pop(path.name, "")
        if isinstance(found, ImageError):
            problems.append(Problem(UNUSABLE, path, found.reason))
            continue
        if sha256 not in ("", found.sha256):
            problems.append(Problem(CHANGED, path, "not the bytes that were downloaded"))
        else:
            num_good += 1
        first = first_with.setdefault(found.sha256, path)
        if first != path:
            problems.append(Problem(SAME_BYTES, path, f"as {first}"))
    gone = "the journal has it as kept; the next run fetches another"
    problems += [Problem(MISSING, journal.parent / name, gone) for name in recorded]
    return FolderCheck(journal.parent, num_good, num_unknown, tuple(problems))


def _recorded_files(journal: Path) -> dict[str, str]:
    """Return the names of the files that should be there, each with its SHA-256 or ""."""
    files: dict[str, str] = {}
    for entry in last_entries(journal):
        name = _file_name(entry)
        if not name:
            continue
        # The line is written before the file: until that is there, nothing has been replaced.
        if (journal.parent / name).exists():
            files.pop(str(entry.get("replaces")), None)
        files[name] = str(entry.get("sha256") or "")
    return files


def _file_name(entry: Entry) -> str:
    """Return the name of the file that an entry says was kept, or ""."""
    name = entry.get("path")
    if entry.get("status") != KEPT or not isinstance(name, str):
        return ""
    # A journal that came with someone's data set must not point out of its folder.
    is_plain = name == Path(name).name and name.isprintable() and len(name.encode()) <= 255
    return name if is_plain and not name.startswith(".") else ""


def _is_on_disk(journal: Path, entry: Entry) -> bool:
    return bool(name := _file_name(entry)) and (journal.parent / name).is_file()


def _row(entry: Entry, journal: Path, folder: Path) -> list[str]:
    name = _file_name(entry)
    file = (journal.parent / name).relative_to(folder).as_posix() if name else ""
    values = {**entry, "file": file, "on_disk": "yes" if _is_on_disk(journal, entry) else "no"}
    return [_cell(values.get(column)) for column in COLUMNS]


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    # A lone surrogate from a broken title could not be written as UTF-8.
    text = text.encode("utf-8", "replace").decode()
    is_formula = isinstance(value, str) and text.startswith(_FORMULA_STARTS)
    return f"'{text}" if is_formula else text
