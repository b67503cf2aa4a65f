"""What earlier runs have recorded about a URL, and the line that this one adds to the journal."""

import dataclasses
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import imagesieve
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.candidates import TOO_SMALL, Candidate
from imagesieve.collecting.class_folder import ClassFolder, Destination, Refusal
from imagesieve.collecting.journal import (
    DUPLICATE,
    FAILED,
    HISTORY_NAME,
    KEPT,
    TRIED,
    Entry,
    Journal,
    read_entries,
)
from imagesieve.collecting.targets import CollectSettings, Target, split_of
from imagesieve.web import urls
from imagesieve.web.fetch import Fetched

# Failures that may have passed by the next run; all others are remembered for good.
_PASSING = frozenset(
    {"timeout", "too slow", "no connection", "connection lost", "no safe connection"}
    | {"unknown host", "host is down", "not written"}
    | {f"http status {status}" for status in (408, 425, 429, *range(500, 600))}
)

_log = logging.getLogger(__name__)


class DownloadHistory:
    """The journals of a target's folders. Any thread may call any method."""

    def __init__(
        self,
        target: Target,
        journals: Mapping[Path, Journal],
        class_folder: ClassFolder,
        settings: CollectSettings,
    ) -> None:
        """Read what earlier runs, and the first generation, have tried.

        There must be an open journal for each folder of the target.

        Raises:
            ClassifierError: the first generation's history is there, but cannot be read safely.
        """
        self._target = target
        self._journals = journals
        self._class_folder = class_folder
        self._settings = settings
        self._lock = threading.Lock()
        self._filters = {query.text: _set_options(query.options) for query in target.queries}
        self._places = {
            folder: {"class": folder.absolute().name, "split": split_of(folder)}
            for folder in journals
        }
        self._entries: dict[str, Entry] = {}
        for journal in journals.values():
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
            return self._class_folder.has_anywhere(str(entry.get("same_as")))
        if self._settings.retries_failed or reason in _PASSING:
            return False
        if reason == TOO_SMALL:
            return int(entry.get("min_side") or 0) <= self._settings.min_side
        if reason == "private address":
            return not self._settings.fetch.allow_private_hosts
        if reason == "robots.txt":
            return self._settings.follows_robots
        return True

    def has_md5(self, md5: str) -> bool:
        """Return whether an image of which Bing gave this digest is there."""
        with self._lock:
            return md5 in self._md5s

    def to_be_retried(self) -> Iterator[SearchResult]:
        """Yield the URLs that failed in earlier runs, if they are to be tried again."""
        if self._settings.retries_failed:
            yield from failed_results(self._entries.values())

    def add(
        self,
        result: SearchResult,
        fetched: Fetched,
        candidate: Candidate,
        placed: Destination | Refusal,
    ) -> None:
        """Write the line of an image, ahead of its file; or of one that is there already."""
        fields = {
            "final_url": fetched.url,
            "http_status": 200,
            "elapsed_ms": round(1000 * fetched.seconds),
            "bytes": len(candidate.data),
            "sha256": candidate.sha256,
            "source_sha256": candidate.source_sha256,
            "fingerprint": candidate.fingerprint.hex(),
            "format": candidate.format,
            "width": candidate.width,
            "height": candidate.height,
        }
        if isinstance(placed, Refusal):
            twin = placed.twin.sha256 if placed.twin else ""
            fields |= {"status": DUPLICATE, "reason": placed.reason, "same_as": twin}
            self._add(self._target.train.folder, result, fields)
            return
        replaced = placed.replaces.path.name if placed.replaces else ""
        fields |= {"status": KEPT, "path": candidate.file_name, "replaces": replaced}
        self._add(placed.folder, result, fields)
        if result.md5:
            with self._lock:
                self._md5s.add(result.md5)

    def add_failure(self, result: SearchResult, reason: str, **fields: Any) -> None:
        """Write the line of a URL that gave nothing usable, with more of the journal's fields."""
        if reason == TOO_SMALL:
            fields["min_side"] = self._settings.min_side
        fields |= {"status": FAILED, "reason": reason}
        self._add(self._target.train.folder, result, fields)

    def _add(self, folder: Path, result: SearchResult, fields: Entry) -> None:
        self._journals[folder].add(
            {
                "url": result.url,
                "page_url": result.page_url,
                "title": result.title,
                **self._places[folder],
                "query": result.query,
                "filters": self._filters.get(result.query) or "",
                "rank": result.rank or None,
                "bing_md5": result.md5,
                "robots": "" if self._settings.follows_robots else "ignored",
                "version": imagesieve.__version__,
                **fields,
            }
        )

    def _is_kept(self, entry: Entry) -> bool:
        return entry.get("status") == KEPT and self._class_folder.has(str(entry.get("sha256")))

    def _import_original_history(self) -> None:
        folder = self._target.train.folder
        for path in (folder / HISTORY_NAME, folder.parent / HISTORY_NAME):
            if not path.is_file():
                continue
            from imagesieve.collecting.original_history import read_urls  # hardly ever needed

            new = [url for url in read_urls(path) if url not in self._entries]
            for url in new:
                entry = {"url": url, "status": TRIED, "reason": HISTORY_NAME}
                self._journals[folder].add(entry)
                self._entries[url] = entry
            if new:
                _log.info("%d URLs imported from %s", len(new), path)


def failed_results(entries: Iterable[Entry]) -> list[SearchResult]:
    """Return the URLs that failed or were only tried, from the last entry about each."""
    failed = (entry for entry in entries if entry.get("status") in (FAILED, TRIED))
    results = ((entry, urls.normalize(entry["url"])) for entry in failed)
    return [_result(url, entry) for entry, url in results if url]


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


def _set_options(options: Any) -> dict[str, str]:
    """Return the search options that are not the default, as the journal records them."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }
