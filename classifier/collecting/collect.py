"""The run: fill a folder with good pictures of what was searched for.

The main thread reads result pages and offers their pictures to a fixed number of workers, which
download, check and write. A picture counts once it is whole, decodable, large enough and new.
"""

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from classifier import console, files, images
from classifier.collecting import folders
from classifier.collecting.fetch import Fetcher, FetchError, FetchSettings
from classifier.collecting.journal import Journal
from classifier.collecting.outcome import Outcome
from classifier.collecting.search import ImageSearch, SearchResult
from classifier.errors import (
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    SearchError,
    TooManyPixelsError,
    TruncatedImageError,
    UndecodableImageError,
    UnsupportedImageFormatError,
)

_ACCEPT = {"Accept": ", ".join(f"image/{name.lower()}" for name in images.FORMATS)}
_STOP_SECONDS = 2.0  # how long a stopped run waits for its workers

_REASONS: dict[type[ImageError], str] = {
    EmptyImageError: "empty",
    ImageTooLargeError: "too many bytes",
    UnsupportedImageFormatError: "not a picture",
    TooManyPixelsError: "too many pixels",
    ImageTooSmallError: "too small",
    TruncatedImageError: "truncated",
    UndecodableImageError: "damaged",
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """What a run should reach, and how.

    Attributes:
        limit: good pictures that each folder shall hold, those of earlier runs included.
        threads: downloads at the same time.
        min_side: pixels that both sides of a picture must have.
        fetch: what one download may cost.
        quiet: show no progress.
    """

    limit: int = 100
    threads: int = 32
    min_side: int = 64
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    quiet: bool = False

    @property
    def limits(self) -> images.Limits:
        """The caps that a picture must keep to."""
        return dataclasses.replace(
            images.DEFAULT_LIMITS, min_side=self.min_side, max_bytes=self.fetch.max_bytes
        )


def collect_all(
    targets: Sequence[tuple[str, Path]], search: ImageSearch, settings: CollectSettings
) -> list[Outcome]:
    """Fill one folder after another; a search that fails does not stop the next query.

    Args:
        targets: (query, folder) pairs.
        search: where the pictures come from.
        settings: for each folder.

    Raises:
        OutputError: a picture or the journal could not be written.
    """
    return [collect(query, folder, search, settings) for query, folder in targets]


def collect(query: str, folder: Path, search: ImageSearch, settings: CollectSettings) -> Outcome:
    """Search for `query` until `folder` holds `settings.limit` good pictures, or Bing has no more.

    If the folder holds them already, nothing is asked of anybody. A search that fails is reported
    in the outcome, beside what was kept until then.

    Raises:
        OutputError: a picture or the journal could not be written.
    """
    outcome = Outcome(query, folder, settings.limit)
    digests, outcome.unusable = folders.scan(folder, settings.limits)
    outcome.found = len(digests)
    missing = settings.limit - outcome.found
    if missing <= 0:
        return outcome
    with (
        Journal(folder) as journal,
        console.progress(query, missing, quiet=settings.quiet) as advance,
    ):
        run = _Run(outcome, digests, journal, settings, advance)
        with _workers(run, settings.threads):
            _offer_results(search, run)
    if outcome.error is not None and not outcome.is_filled:
        _log.error("%s: %s", query, outcome.error)
    return outcome


def _offer_results(search: ImageSearch, run: "_Run") -> None:
    try:
        for result in search.results(run.outcome.query, run.over):
            if not run.offer(result):
                return
    except SearchError as error:
        run.outcome.error = error
    run.wait_until_idle()


@contextlib.contextmanager
def _workers(run: "_Run", num_threads: int) -> Iterator[None]:
    """Have threads work for the run; they are stopped when the block ends, however it ends."""
    threads = [
        threading.Thread(target=run.work, name=f"fetch-{number}", daemon=True)
        for number in range(num_threads)
    ]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        run.dismiss(num_threads)
        end = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
    if run.failure is not None:
        raise run.failure


class _Run:
    """What the main thread and the workers share while one folder is filled.

    Attributes:
        over: set when nothing more is wanted: the folder is full, or something failed, or Ctrl-C.
        failure: what ended the run, if it must be raised.
    """

    def __init__(
        self,
        outcome: Outcome,
        digests: set[str],
        journal: Journal,
        settings: CollectSettings,
        advance: Callable[[int], None],
    ) -> None:
        self.outcome = outcome
        self.over = threading.Event()
        self.failure: Exception | None = None
        self._digests = digests  # of pictures on disk or about to be
        self._md5s: set[str] = set()  # Bing's digests of the pictures that were kept
        self._journal = journal
        self._known = journal.known()
        self._settings = settings
        self._advance = advance
        self._queue: queue.SimpleQueue[SearchResult | None] = queue.SimpleQueue()
        self._num_pending = 0  # offered, and not dealt with
        self._changed = threading.Condition()  # guards all that changes; told when pending falls
        self._fetchers: list[Fetcher] = []

    def offer(self, result: SearchResult) -> bool:
        """Hand a result over once one more is wanted; False when the run is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over.is_set() or self._wants_more())
            if self.over.is_set():
                return False
            self._num_pending += 1
        self._queue.put(result)
        return True

    def wait_until_idle(self) -> None:
        """Return when every offered result has been dealt with, or the run is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over.is_set() or not self._num_pending)

    def work(self) -> None:
        """Deal with results until dismissed. What a worker runs."""
        fetcher = self._new_fetcher()
        while (result := self._queue.get()) is not None:
            try:
                if not self.over.is_set():
                    self._deal_with(result, fetcher)
            except Exception as error:
                self.failure = self.failure or error  # raised again by the main thread
                self._finish()
            with self._changed:
                self._num_pending -= 1
                self._changed.notify_all()

    def dismiss(self, num_workers: int) -> None:
        """End the run, cut the downloads, and send the workers home."""
        self._finish()
        for _ in range(num_workers):
            self._queue.put(None)

    def _wants_more(self) -> bool:
        # Half as many again as are missing, since about a third of all links fail; more would
        # only be thrown away. A picture that is just being written is not missing any more.
        missing = self.outcome.limit - len(self._digests)
        most = min(2 * self._settings.threads, missing + missing // 2 + 1)
        return missing > 0 and self._num_pending < most

    def _new_fetcher(self) -> Fetcher:
        fetcher = Fetcher(self._settings.fetch)
        with self._changed:
            self._fetchers.append(fetcher)
            if self.over.is_set():
                fetcher.stop()
        return fetcher

    def _finish(self) -> None:
        with self._changed:
            self.over.set()
            for fetcher in self._fetchers:
                fetcher.stop()
            self._changed.notify_all()

    def _deal_with(self, result: SearchResult, fetcher: Fetcher) -> None:
        if self._is_here(result):
            self._count_duplicate(result, self._known.get(result.url, ""))
            return
        try:
            data = fetcher.fetch(result.url, _ACCEPT).body
            picture = images.decode(data, self._settings.limits, image_size=folders.CHECK_SIZE)
        except FetchError as error:
            self._count_failure(result, error.reason)
        except ImageError as error:
            self._count_failure(result, _REASONS.get(type(error), "damaged"))
        else:
            self._keep(result, data, picture)

    def _is_here(self, result: SearchResult) -> bool:
        """Tell without any request whether we have this very picture."""
        with self._changed:
            return self._known.get(result.url) in self._digests or result.md5 in self._md5s

    def _keep(self, result: SearchResult, data: bytes, picture: images.DecodedImage) -> None:
        with self._changed:
            if self.over.is_set():
                return
            is_new = picture.sha256 not in self._digests
            if is_new and len(self._digests) >= self.outcome.limit:
                return  # another worker is just writing the last picture that was wanted
            self._digests.add(picture.sha256)
        if is_new:
            self._write(result, data, picture)
        else:
            self._count_duplicate(result, picture.sha256)

    def _write(self, result: SearchResult, data: bytes, picture: images.DecodedImage) -> None:
        name = f"{picture.sha256[:16]}{images.EXTENSIONS[picture.format]}"
        path = self.outcome.folder / name
        files.write_bytes(path, data)
        self._record(result, "kept", sha256=picture.sha256, path=name)
        with self._changed:
            self.outcome.kept += 1
            self._advance(1)
            if path in self.outcome.unusable:  # a damaged copy of it has been replaced
                self.outcome.unusable.remove(path)
            if result.md5:
                self._md5s.add(result.md5)
        if self.outcome.is_filled:
            self._finish()

    def _count_duplicate(self, result: SearchResult, sha256: str) -> None:
        with self._changed:
            self.outcome.duplicates += 1
        if result.url not in self._known:
            self._record(result, "duplicate", sha256=sha256)

    def _count_failure(self, result: SearchResult, reason: str) -> None:
        if self.over.is_set():
            return  # cut by us
        with self._changed:
            self.outcome.failed[reason] += 1
        self._record(result, "failed", reason=reason)

    def _record(self, result: SearchResult, status: str, **fields: str) -> None:
        self._journal.add(result.url, status, page_url=result.page_url, **fields)
