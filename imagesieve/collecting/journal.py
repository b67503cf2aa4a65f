"""What was tried for a class folder: its journal, a JSON line for each attempt, and the history.

The journal is only ever appended to. It is the state from which the next run goes on, and survives
`kill -9`: the line of an image is written ahead of the image, so a line without its file means "not
kept", and a file without its line cannot be.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import imagesieve
from imagesieve.class_folders import split_of
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.targets import CollectSettings, Target
from imagesieve.errors import ClassifierError, DataError
from imagesieve.files import PARTIAL_PREFIX, locked, reporting_output_errors, sha256_of
from imagesieve.images import fingerprints
from imagesieve.web import urls

HISTORY_NAME = "download_history.pickle"  # what the first generation left behind
JOURNAL_NAME = ".bing_downloader.jsonl"  # hidden, so that neither an image nor a class

KEPT = "kept"
DUPLICATE = "duplicate"
FAILED = "failed"
TRIED = "tried"  # by the first generation, whose history does not say what came of it

TOO_SMALL = "too small"  # a reason to fail that depends on the settings

# Failures that may have passed by the next run; all others are remembered for good.
_PASSING = frozenset(
    {"timeout", "too slow", "no connection", "connection lost", "no safe connection"}
    | {"unknown host", "host is down", "not written"}
    | {f"http status {status}" for status in (408, 425, 429, *range(500, 600))}
)
_TEXTS = ("status", "path", "replaces", "bing_md5", "same_as")
_TYPES = {"url": str, "min_side": int | None, **dict.fromkeys(_TEXTS, str | None)}  # relied upon
_FINGERPRINT = re.compile(f"[0-9a-f]{{{2 * fingerprints.NUM_BYTES}}}")
_SYNC_SECONDS = 1.0

Entry = dict[str, Any]

_log = logging.getLogger(__name__)


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

    While it is open no other process can open it, and what a killed process left half done in the
    folder is tidied up. A folder in which nothing was tried is left as it was.

    Raises:
        BusyError: another process has opened it.
        OutputError: it could not be written.
    """
    path = folder / JOURNAL_NAME
    with contextlib.ExitStack() as stack:
        with reporting_output_errors(path):
            was_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(path, wait=False))
            except BlockingIOError as error:
                raise BusyError(
                    f"Another bing_downloader.py fills {folder}: wait until it has ended."
                ) from error
            file = stack.enter_context(open(path, "ab+", buffering=0))
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash tore the last line: do not glue ours to it
                    file.write(b"\n")
            for partial in folder.glob(f"{PARTIAL_PREFIX}*"):
                if partial.is_file():
                    partial.unlink()
            _finish_replacements(folder)
        try:
            yield Journal(path, file)
        finally:
            with reporting_output_errors(path):
                if os.fstat(file.fileno()).st_size:
                    os.fsync(file.fileno())
                else:  # no empty folder stays, which training would take for a class
                    path.unlink(missing_ok=True)
                    if was_new:
                        with contextlib.suppress(OSError):  # not empty any more
                            folder.rmdir()


def _finish_replacements(folder: Path) -> None:
    """Remove an image whose larger copy was written just before the run was killed."""
    written = kept_entries(folder)
    by_name = {entry["path"]: entry for entry in written}
    replaced: dict[str, str] = {}  # the smaller image -> the larger
    for entry in written:
        replaced.pop(entry["path"], None)  # it was written once more, beside the larger
        if isinstance(old := entry.get("replaces"), str) and old in by_name:
            replaced[old] = entry["path"]
    for pair in replaced.items():
        # Only if both are ours and unchanged: better a copy too many than a loss.
        if all(
            (folder / name).is_file() and is_as_written(folder / name, by_name[name])
            for name in pair
        ):
            (folder / pair[0]).unlink()


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the lines of a journal in order; those that a crash left unfinished are passed over."""
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


def kept_entries(folder: Path) -> list[Entry]:
    """Return the lines of images that were kept in a folder, if they are as we write them."""
    entries = read_entries(folder / JOURNAL_NAME)
    return [entry for entry in entries if entry.get("status") == KEPT and _is_complete(entry)]


def is_as_written(path: Path, entry: Entry, *, trusting: bool = False) -> bool:
    """Return whether a file is what its line says: its SHA-256, or if `trusting` its size."""
    is_same_size = path.stat().st_size == entry["bytes"]
    return is_same_size and (trusting or sha256_of(path) == entry["sha256"])


def _parse(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_usable = isinstance(entry, dict) and all(isinstance(entry.get(x), _TYPES[x]) for x in _TYPES)
    return entry if is_usable else None


def _is_complete(entry: Entry) -> bool:
    return (
        all(isinstance(entry.get(name), int) for name in ("bytes", "width", "height"))
        and all(isinstance(entry.get(name), str) for name in ("path", "sha256", "fingerprint"))
        and Path(entry["path"]).name == entry["path"]
        and _FINGERPRINT.fullmatch(entry["fingerprint"]) is not None
    )


@dataclasses.dataclass(eq=False)
class History:
    """What has been tried for a target, by all runs. Any thread may call any method.

    Raises:
        UsageError: the first generation's history is there, but cannot be read safely.
    """

    target: Target
    settings: CollectSettings
    journals: Mapping[Path, Journal]  # open, by folder of the target
    has: Callable[[str], bool]  # these two are those of `ClassFolder`
    has_anywhere: Callable[[str], bool]

    def __post_init__(self) -> None:
        self._filters = {query.text: _set_options(query.options) for query in self.target.queries}
        self._entries: dict[str, Entry] = {}
        for journal in self.journals.values():
            for entry in read_entries(journal.path):
                self._entries.pop(entry["url"], None)  # the last line decides on the order, too
                self._entries[entry["url"]] = entry
        self._import_original_history()
        kept = [entry for entry in self._entries.values() if self._is_kept(entry)]
        # Names of images that a larger copy has replaced.
        self._replaced = {entry["replaces"] for entry in kept if entry.get("replaces")}
        # Bing's digests of the images that are there.
        self._md5s = {entry["bing_md5"] for entry in kept if entry.get("bing_md5")}

    def is_settled(self, result: SearchResult) -> bool:
        """Return whether an earlier run has dealt with this URL for good."""
        entry = self._entries.get(result.url)
        if entry is None:
            return False
        status, reason = entry.get("status"), str(entry.get("reason", ""))
        if status == KEPT:
            return self._is_kept(entry) or entry.get("path") in self._replaced
        if status == DUPLICATE:
            return self.has_anywhere(str(entry.get("same_as")))
        if self.settings.retries_failed or reason in _PASSING:
            return False
        if reason == TOO_SMALL:
            return (entry.get("min_side") or 0) <= self.settings.min_side
        if reason == "private address":
            return not self.settings.fetch.allow_private_hosts
        return reason != "robots.txt" or self.settings.follows_robots

    def has_md5(self, md5: str) -> bool:
        return md5 in self._md5s

    def to_be_retried(self) -> list[SearchResult]:
        """Return the URLs that failed in earlier runs, if they are to be tried again."""
        return failed_results(self._entries.values()) if self.settings.retries_failed else []

    def add(
        self, result: SearchResult, status: str, *, folder: Path | None = None, **fields: Any
    ) -> None:
        """Write what became of a URL, to the journal of the folder for training or of another."""
        folder = folder or self.target.train.folder
        self.journals[folder].add(
            {
                "url": result.url,
                "page_url": result.page_url,
                "title": result.title,
                "class": folder.absolute().name,
                "split": split_of(folder),
                "query": result.query,
                "filters": self._filters.get(result.query) or "",
                "rank": result.rank or None,
                "bing_md5": result.md5,
                "robots": "" if self.settings.follows_robots else "ignored",
                "version": imagesieve.__version__,
                "status": status,
                "min_side": self.settings.min_side if fields.get("reason") == TOO_SMALL else "",
                **fields,
            }
        )
        if status == KEPT and result.md5:
            self._md5s.add(result.md5)

    def _is_kept(self, entry: Entry) -> bool:
        return entry.get("status") == KEPT and self.has(str(entry.get("sha256")))

    def _import_original_history(self) -> None:
        folder = self.target.train.folder
        for path in (folder / HISTORY_NAME, folder.parent / HISTORY_NAME):
            if not path.is_file():
                continue
            from imagesieve.collecting.original_history import read_urls  # hardly ever needed

            new = [url for url in read_urls(path) if url not in self._entries]
            for url in new:
                entry = {"url": url, "status": TRIED, "reason": HISTORY_NAME}
                self.journals[folder].add(entry)
                self._entries[url] = entry
            if new:
                _log.info("%d URLs imported from %s", len(new), path)


def failed_results(entries: Iterable[Entry]) -> list[SearchResult]:
    """Return the URLs that failed or were only tried, from the last entry about each."""
    failed = (entry for entry in entries if entry.get("status") in (FAILED, TRIED))
    results = ((entry, urls.normalize(entry["url"])) for entry in failed)
    return [_result(url, entry) for entry, url in results if url]


def _result(url: str, entry: Entry) -> SearchResult:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    rank = entry.get("rank")
    return SearchResult(
        url,
        page_url=text("page_url"),
        title=text("title"),
        md5=text("bing_md5"),
        query=text("query"),
        rank=rank if isinstance(rank, int) else 0,
    )


def _set_options(options: Any) -> dict[str, str]:
    """Return the search options that are not the default, as the journal records them."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }
