"""What earlier runs know about an address, and the line that this one adds to the journal."""

import dataclasses
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagesieve
from imagesieve.collecting import candidates
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.candidates import Candidate
from imagesieve.collecting.class_folder import Place, Refusal, Shelf
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
from imagesieve.collecting.targets import SPLITS, Target
from imagesieve.web.fetch import Fetched

if TYPE_CHECKING:
    from imagesieve.collecting.run import CollectSettings

# Failures that may have passed by the next run; everything else is remembered for good.
_PASSING = frozenset(
    {"timeout", "too slow", "no connection", "connection lost", "no safe connection"}
    | {"unknown host", "host is down", "not written"}
    | {f"http status {status}" for status in (408, 425, 429, *range(500, 600))}
)

_log = logging.getLogger(__name__)


class Memory:
    """The journals of a target's folders. Any thread may call any method."""

    def __init__(
        self,
        target: Target,
        journals: Mapping[Path, Journal],
        shelf: Shelf,
        settings: "CollectSettings",
    ) -> None:
        """Read what earlier runs, and the first generation, have tried.

        Args:
            journals: an open one for each folder of the target.

        Raises:
            ClassifierError: the first generation's history is there, but cannot be read safely.
        """
        self._target = target
        self._journals = journals
        self._shelf = shelf
        self._settings = settings
        self._lock = threading.Lock()
        self._filters = {query.text: _set_options(query.options) for query in target.queries}
        self._places = {folder: _place_of(folder) for folder in journals}
        self._entries: dict[str, Entry] = {}
        for journal in journals.values():
            for entry in read_entries(journal.path):
                self._entries[entry["url"]] = entry
        self._import_history()
        self._replaced = {  # names of images that a larger copy has replaced
            entry["replaces"]
            for entry in self._entries.values()
            if entry.get("replaces") and self._is_kept(entry)
        }
        self._md5s = {  # Bing's digests of the images that are there
            entry["bing_md5"]
            for entry in self._entries.values()
            if entry.get("bing_md5") and self._is_kept(entry)
        }

    def knows(self, result: SearchResult) -> bool:
        """Tell whether an earlier run has dealt with this address for good."""
        entry = self._entries.get(result.url)
        return entry is not None and self._is_settled(entry)

    def has_md5(self, md5: str) -> bool:
        """Tell whether an image of which Bing gave this digest is there."""
        with self._lock:
            return md5 in self._md5s

    def to_be_retried(self) -> Iterator[SearchResult]:
        """Give the addresses that failed in earlier runs, if they are to be tried again."""
        if not self._settings.retries_failed:
            return
        from imagesieve.collecting.export import failed_results

        for journal in self._journals.values():
            yield from failed_results(journal.path)

    def note_kept(
        self, result: SearchResult, fetched: Fetched, candidate: Candidate, place: Place
    ) -> None:
        """Write down an image, ahead of its file."""
        self._add(
            place.folder,
            result,
            status=KEPT,
            **_of_fetched(fetched),
            **_of_candidate(candidate),
            path=candidate.file_name,
            replaces=place.replaces.path.name if place.replaces else "",
        )
        if result.md5:
            with self._lock:
                self._md5s.add(result.md5)

    def note_duplicate(
        self, result: SearchResult, fetched: Fetched, candidate: Candidate, refusal: Refusal
    ) -> None:
        """Write down an image that is there already."""
        self._add(
            self._target.train.folder,
            result,
            status=DUPLICATE,
            reason=refusal.reason,
            **_of_fetched(fetched),
            **_of_candidate(candidate),
            same_as=refusal.twin.sha256 if refusal.twin else "",
        )

    def note_failure(self, result: SearchResult, reason: str, **fields: Any) -> None:
        """Write down an address that gave nothing usable.

        Args:
            reason: a few words.
            fields: `http_status`, `attempts`, `detail`.
        """
        if reason == candidates.TOO_SMALL:
            fields["min_side"] = self._settings.min_side
        self._add(self._target.train.folder, result, status=FAILED, reason=reason, **fields)

    def _add(self, folder: Path, result: SearchResult, **fields: Any) -> None:
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
        return entry.get("status") == KEPT and self._shelf.holds(str(entry.get("sha256")))

    def _is_settled(self, entry: Entry) -> bool:
        status, reason = entry.get("status"), str(entry.get("reason", ""))
        if status == KEPT:
            return self._is_kept(entry) or entry.get("path") in self._replaced
        if status == DUPLICATE:
            return self._shelf.knows(str(entry.get("same_as")))
        if self._settings.retries_failed or reason in _PASSING:
            return False
        if reason == candidates.TOO_SMALL:
            return int(entry.get("min_side") or 0) <= self._settings.min_side
        if reason == "private address":
            return not self._settings.fetch.allow_private_hosts
        if reason == "robots.txt":
            return self._settings.follows_robots
        return True

    def _import_history(self) -> None:
        """Take over what the first generation's downloader has tried."""
        folder = self._target.train.folder
        for path in (folder / HISTORY_NAME, folder.parent / HISTORY_NAME):
            if not path.is_file():
                continue
            from imagesieve.collecting.original_history import read_history  # hardly ever needed

            new = [url for url in read_history(path).urls if url not in self._entries]
            for url in new:
                entry = {"url": url, "status": TRIED, "reason": HISTORY_NAME}
                self._journals[folder].add(entry)
                self._entries[url] = entry
            if new:
                _log.info("%d addresses taken over from %s", len(new), path)


def _of_fetched(fetched: Fetched) -> Entry:
    return {
        "final_url": fetched.url,
        "http_status": fetched.status,
        "elapsed_ms": round(1000 * fetched.seconds),
    }


def _of_candidate(candidate: Candidate) -> Entry:
    return {
        "bytes": len(candidate.data),
        "sha256": candidate.sha256,
        "source_sha256": candidate.source_sha256,
        "fingerprint": candidate.fingerprint.hex(),
        "format": candidate.format,
        "width": candidate.width,
        "height": candidate.height,
    }


def _place_of(folder: Path) -> Entry:
    split = folder.absolute().parent.name
    return {"class": folder.absolute().name, "split": split if split in SPLITS else ""}


def _set_options(options: Any) -> dict[str, str]:
    """Give the search options that are not the default, as the journal records them."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }
