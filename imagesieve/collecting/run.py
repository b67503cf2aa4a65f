"""The run: fill the folders of one class after another with good images.

The main thread reads result pages and offers their images to a fixed number of workers, which
download, check and write. An image counts once it is whole, decodable, large enough and new.
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from imagesieve import console
from imagesieve.collecting import candidates
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.bing.search import BlockedError, NetworkDownError
from imagesieve.collecting.class_folder import Shelf
from imagesieve.collecting.download_history import Memory
from imagesieve.collecting.hosts import HostSettings
from imagesieve.collecting.journal import Journal
from imagesieve.collecting.on_disk import Image
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.pipeline import Manners, Workers
from imagesieve.collecting.targets import Target
from imagesieve.errors import SearchError
from imagesieve.images import DEFAULT_LIMITS, Limits
from imagesieve.web.fetch import FetchSettings

_STOP_SECONDS = 1.5  # how long a stopped run waits for its workers
_TURN = 35  # results that a query gives before the next one has its turn

_log = logging.getLogger(__name__)


class Search(Protocol):
    """Where images come from."""

    def results(self, query: Query, stop: threading.Event | None = None) -> Iterator[SearchResult]:
        """Yield what a query finds."""

    def cut(self) -> None:
        """End the search that is running, from any thread."""


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """How a run works.

    Attributes:
        threads: downloads at the same time.
        min_side: pixels that both sides of an image must have.
        max_side: larger images are scaled down to it, in pixels; None keeps their size.
        file_format: one of `candidates.FILE_FORMATS`.
        keeps_near_duplicates: keep images that are nearly the same.
        retries_failed: try addresses again that failed for good in an earlier run.
        follows_robots: leave out what a host's robots.txt forbids.
        attempts: how often one image is asked for while the failure may pass.
        fetch: what one download may cost.
        hosts: what one host has to bear.
        seconds: what the whole run may take, or None.
        quiet: show no progress.
    """

    threads: int = 32
    min_side: int = 64
    max_side: int | None = None
    file_format: str = candidates.KEEP
    keeps_near_duplicates: bool = False
    retries_failed: bool = False
    follows_robots: bool = True
    attempts: int = 3
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    hosts: HostSettings = dataclasses.field(default_factory=HostSettings)
    seconds: float | None = None
    quiet: bool = False

    @property
    def limits(self) -> Limits:
        """The caps that an image must keep to."""
        return dataclasses.replace(
            DEFAULT_LIMITS, min_side=self.min_side, max_bytes=self.fetch.max_bytes
        )


def collect_all(
    targets: Sequence[Target],
    search: Search,
    settings: CollectSettings,
    outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Fill one target after another; a search that fails does not stop the next target.

    Args:
        targets: in this order.
        search: where the images come from.
        settings: for each target.
        outcomes: an empty list to fill, for a caller who may be interrupted: one for each target
            from the start.

    Raises:
        OutputError: an image or the journal could not be written.
        BusyError: another process fills one of the folders.
    """
    outcomes = [] if outcomes is None else outcomes
    end = None if settings.seconds is None else time.monotonic() + settings.seconds
    manners = Manners()
    folders = [side.folder for target in targets for side in target.sides]
    scanned: dict[Path, list[Image]] = {}
    outcomes += map(Outcome, targets)
    for outcome in outcomes:
        _collect(outcome, search, settings, manners, folders, scanned, end)
        if not outcome.is_filled:
            _log.warning("%s", outcome.explanation)
        if outcome.surplus and outcome.target.validation:
            _log.warning(
                "%s: one side of the split has %d images more than its share; they stay there.",
                outcome.target.name,
                outcome.surplus,
            )
        for path, paths in outcome.also_in.items():
            _log.debug("%s is in another class too: %s", path, ", ".join(map(str, paths)))
        if outcome.also_in:
            _log.warning(
                "%s: %d images, the first %s, are in other classes too (all are in the log): "
                "delete the wrong ones.",
                outcome.target.name,
                len(outcome.also_in),
                next(iter(outcome.also_in)),
            )
    return outcomes


def _collect(
    outcome: Outcome,
    search: Search,
    settings: CollectSettings,
    manners: Manners,
    folders: Iterable[Path],
    scanned: dict[Path, list[Image]],
    end: float | None,
) -> None:
    start = time.monotonic()
    target = outcome.target
    with contextlib.ExitStack() as stack:
        journals = {side.folder: stack.enter_context(Journal(side.folder)) for side in target.sides}
        shelf = Shelf(
            target,
            folders,
            settings.limits,
            keeps_near_duplicates=settings.keeps_near_duplicates,
            scanned=scanned,
        )
        stack.callback(lambda: scanned.update(shelf.images()))
        outcome.before, outcome.surplus = shelf.num_before, shelf.num_surplus
        outcome.unusable = shelf.unusable
        if not shelf.num_missing:
            return
        memory = Memory(target, journals, shelf, settings)
        workers = Workers(outcome, shelf, memory, manners, settings)
        stack.enter_context(_progress(outcome, quiet=settings.quiet))
        with _working(workers, search, settings.threads), _ending(workers, end):
            _offer_results(search, workers, memory)
        outcome.seconds = time.monotonic() - start


def _progress(
    outcome: Outcome, *, quiet: bool
) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    start = time.monotonic()
    target = outcome.target

    def status() -> tuple[int, str]:
        return outcome.num_images, outcome.progress(time.monotonic() - start)

    return console.progress(target.name, target.limit, quiet=quiet, status=status)


def _offer_results(search: Search, workers: Workers, memory: Memory) -> None:
    try:
        for result in _results(search, workers, memory):
            if not workers.offer(result):
                return
    except SearchError as error:
        workers.outcome.error = error
    workers.wait_until_idle()


def _results(search: Search, workers: Workers, memory: Memory) -> Iterator[SearchResult]:
    """Give what is to be tried again, then what the queries find, each in its turn.

    Raises:
        SearchError: the search as a whole is of no use; or, at the end, one query was.
    """
    yield from memory.to_be_retried()
    problem: SearchError | None = None
    running = deque(search.results(query, workers.over) for query in workers.outcome.target.queries)
    turn = max(1, min(_TURN, -(-workers.outcome.target.limit // max(1, len(running)))))
    while running:
        results = running.popleft()
        num_given = 0
        try:
            for result in islice(results, turn):
                num_given += 1
                yield result
        except (BlockedError, NetworkDownError):
            raise
        except SearchError as error:
            problem = problem or error
            continue
        if num_given == turn:
            running.append(results)
    if problem is not None:
        raise problem


@contextlib.contextmanager
def _working(workers: Workers, search: Search, num_threads: int) -> Iterator[None]:
    """Have threads work; they are stopped when the block ends, however it ends."""
    threads = [
        threading.Thread(target=workers.work, name=f"fetch-{number}", daemon=True)
        for number in range(num_threads)
    ]
    workers.when_over(search.cut)
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        workers.finish()
        end = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
    if workers.failure is not None:
        raise workers.failure


@contextlib.contextmanager
def _ending(workers: Workers, end: float | None) -> Iterator[None]:
    """End the run at a moment of `time.monotonic`, even while a result page is awaited."""
    if end is None:
        yield
        return
    alarm = threading.Timer(max(0.0, end - time.monotonic()), workers.run_out_of_time)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
