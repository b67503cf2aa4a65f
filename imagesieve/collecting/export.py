"""What the journals tell: tables of all attempts, lists of addresses, and whether the files agree.

A journal may have a line for every address ever tried, so none is held in memory as a whole: one
reading finds the last line about each address, a second one yields those.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from imagesieve import console, images
from imagesieve.collecting.bing.result_page import SearchResult, clean_url
from imagesieve.collecting.journal import FAILED, JOURNAL_NAME, KEPT, TRIED, Entry, read_entries
from imagesieve.errors import DataError, ImageError, UsageError
from imagesieve.files import PARTIAL_PREFIX
from imagesieve.images.fingerprints import CHECK_SIZE

FORMS = ("csv", "urls")

# `file` is relative to the folder that was exported; the others stand in the journal.
COLUMNS = (
    *("file", "on_disk", "class", "split", "status", "reason", "detail", "url", "final_url"),
    *("page_url", "title", "query", "filters", "rank", "width", "height", "format", "bytes"),
    *("sha256", "source_sha256", "fingerprint", "bing_md5", "same_as", "replaces"),
    *("http_status", "attempts", "robots", "elapsed_ms", "time", "version"),
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# What can be wrong with a class folder, in the order of the table.
MISSING = "missing"
CHANGED = "changed"
UNUSABLE = "unusable"
SAME_BYTES = "same bytes"
LEFTOVER = "leftover"
PROBLEMS = (MISSING, CHANGED, UNUSABLE, SAME_BYTES, LEFTOVER)

_RETRIED = (FAILED, TRIED)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One file that is not as it should be.

    Attributes:
        kind: one of `PROBLEMS`.
        path: the file, there or missing.
        detail: why, in a few words.
    """

    kind: str
    path: Path
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} ({self.detail})"


@dataclasses.dataclass(frozen=True)
class FolderCheck:
    """What was found in one class folder.

    Attributes:
        num_good: images that can be used and are what the journal says, if it says anything.
        num_unknown: files that the journal does not know, such as the user's own images; they
            are checked like all others.
        problems: in the order of the folder, missing files last.
    """

    folder: Path
    num_good: int
    num_unknown: int
    problems: tuple[Problem, ...]


def journals(folder: Path) -> list[Path]:
    """Give every journal in a folder and at any depth below, in order.

    Raises:
        UsageError: there is no such folder, or no journal in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name the one that was given as --output.")
    found = sorted(path for path in folder.rglob(JOURNAL_NAME) if path.is_file())
    if not found:
        raise UsageError(f"{folder} holds no journal: nothing was downloaded to it or below it.")
    return found


def last_words(journal: Path) -> Iterator[Entry]:
    """Yield the last entry about each address, in the order of the file.

    Raises:
        ClassifierError: the journal cannot be read.
    """
    last = {entry["url"]: number for number, entry in enumerate(read_entries(journal))}
    numbers = set(last.values())
    del last
    for number, entry in enumerate(read_entries(journal)):
        if number in numbers:
            yield entry


def export(folder: Path, form: str, out: TextIO) -> None:
    """Write what the journals in `folder` and below know.

    Args:
        folder: a class folder, or one above several.
        form: `csv`: the last word of each journal on each address, whatever became of it, under
            `COLUMNS`; a text that a spreadsheet would take for a formula gets an apostrophe in
            front. `urls`: the address of each image that is on disk now, one on a line.
        out: where to; an open file should be UTF-8 with `newline=""`.

    Raises:
        UsageError: no such form, folder or journal.
        ClassifierError: a journal cannot be read.
    """
    if form not in FORMS:
        raise UsageError(f"{form!r} is no form of export: use {' or '.join(FORMS)}")
    sources = journals(folder)
    if form == "urls":
        for journal in sources:
            out.writelines(f"{_cell(e['url'])}\n" for e in last_words(journal) if _file(journal, e))
        return
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for journal in sources:
        table.writerows(_row(entry, journal, folder) for entry in last_words(journal))


def failed_results(journal: Path) -> list[SearchResult]:
    """Give the addresses whose last word is that they failed or were only tried, in order.

    Raises:
        ClassifierError: the journal cannot be read.
    """
    entries = (entry for entry in last_words(journal) if entry.get("status") in _RETRIED)
    results = ((entry, clean_url(entry["url"])) for entry in entries)
    return [_result(url, entry) for entry, url in results if url]


def verify(
    folder: Path,
    limits: images.Limits = images.DEFAULT_LIMITS,
    advance: Callable[[int], None] = lambda count: None,
) -> list[FolderCheck]:
    """Compare each class folder in `folder` and below with its journal. Nothing is changed.

    Every file directly in a class folder is read and decoded, except hidden ones.

    Args:
        folder: a class folder, or one above several.
        limits: what an image must keep to.
        advance: called with the number of files just read.

    Raises:
        UsageError: there is no such folder, or no journal in it.
        ClassifierError: a journal or a folder cannot be read.
    """
    first_with: dict[str, Path] = {}  # SHA-256 -> the first file with these bytes, in any folder
    return [_check_folder(journal, limits, first_with, advance) for journal in journals(folder)]


def verify_table(checks: Sequence[FolderCheck]) -> str:
    """Lay out how many files of each folder are good, unknown to the journal, or wrong."""
    rows = [[check.folder, check.num_good, check.num_unknown, *_counts(check)] for check in checks]
    return console.table(["folder", "good", "not in the journal", *PROBLEMS], rows)


def _counts(check: FolderCheck) -> list[int]:
    kinds = [problem.kind for problem in check.problems]
    return [kinds.count(kind) for kind in PROBLEMS]


def _check_folder(
    journal: Path,
    limits: images.Limits,
    first_with: dict[str, Path],
    advance: Callable[[int], None],
) -> FolderCheck:
    known = _kept_files(journal)
    problems: list[Problem] = []
    num_good = num_unknown = 0
    for path in _list_folder(journal.parent):
        if path.name.startswith(PARTIAL_PREFIX):
            problems.append(Problem(LEFTOVER, path, "a run was cut off, or is still going"))
        elif not path.name.startswith(".") and path.is_file():
            num_unknown += path.name not in known
            found = _check_file(path, known.pop(path.name, ""), limits, first_with)
            problems += found
            num_good += all(problem.kind == SAME_BYTES for problem in found)
            advance(1)
    gone = "the journal has it as kept; the next run fetches another"
    problems += [Problem(MISSING, journal.parent / name, gone) for name in known]
    return FolderCheck(journal.parent, num_good, num_unknown, tuple(problems))


def _check_file(
    path: Path, sha256: str, limits: images.Limits, first_with: dict[str, Path]
) -> list[Problem]:
    try:
        image = images.decode(path, limits, image_size=CHECK_SIZE)
    except ImageError as error:
        return [Problem(UNUSABLE, path, error.reason)]
    problems = []
    if sha256 not in ("", image.sha256):
        problems.append(Problem(CHANGED, path, "not the bytes that were downloaded"))
    first = first_with.setdefault(image.sha256, path)
    if first != path:
        problems.append(Problem(SAME_BYTES, path, f"as {first}"))
    return problems


def _kept_files(journal: Path) -> dict[str, str]:
    """Give the names of the files that should be there, each with its SHA-256 or ""."""
    files: dict[str, str] = {}
    for entry in last_words(journal):
        name = _file_name(entry)
        if not name:
            continue
        # The line is written before the file: until that is there, nothing has been replaced.
        if (journal.parent / name).exists():
            files.pop(str(entry.get("replaces")), None)
        files[name] = str(entry.get("sha256") or "")
    return files


def _file(journal: Path, entry: Entry) -> Path | None:
    name = _file_name(entry)
    path = journal.parent / name
    return path if name and path.is_file() else None


def _file_name(entry: Entry) -> str:
    """Give the name of the file that an entry says was kept, or ""."""
    name = entry.get("path")
    if entry.get("status") != KEPT or not isinstance(name, str):
        return ""
    # A journal that came with someone's data set must not point out of its folder.
    is_plain = name == Path(name).name and name.isprintable() and len(name.encode()) <= 255
    return name if is_plain and not name.startswith(".") else ""


def _list_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _row(entry: Entry, journal: Path, folder: Path) -> list[str]:
    name = _file_name(entry)
    own = {
        "file": (journal.parent / name).relative_to(folder).as_posix() if name else "",
        "on_disk": "yes" if _file(journal, entry) else "no",
    }
    return [_cell(value) for value in (own.get(name, entry.get(name)) for name in COLUMNS)]


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    # A lone surrogate from a broken title could not be written as UTF-8.
    text = text.encode("utf-8", "replace").decode()
    is_formula = isinstance(value, str) and text.startswith(_FORMULA_STARTS)
    return f"'{text}" if is_formula else text


def _result(url: str, entry: Entry) -> SearchResult:
    texts = {name: value for name, value in entry.items() if isinstance(value, str)}
    rank = entry.get("rank")
    return SearchResult(
        url,
        page_url=texts.get("page_url", ""),
        title=texts.get("title", ""),
        md5=texts.get("bing_md5", ""),
        query=texts.get("query", ""),
        rank=rank if isinstance(rank, int) else 0,
    )
