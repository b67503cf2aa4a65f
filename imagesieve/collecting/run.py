"""The run: fill the folders of one class after another with good images.

The main thread reads result pages and offers their images to a fixed number of workers, which
download, validate and write. An image counts once it is whole, decodable, large enough and new.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from imagesieve import console
from imagesieve.collecting.bing.errors import BlockedError, NetworkDownError
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.class_folder import ClassFolder, StoredImage
from imagesieve.collecting.download_history import DownloadHistory
from imagesieve.collecting.journal import Journal
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.pipeline import Workers
from imagesieve.collecting.robots import RobotsPolicy
from imagesieve.collecting.targets import CollectSettings, Target
from imagesieve.errors import SearchError

_STOP_SECONDS = 1.5  # how long a stopped run waits for its workers
_RESULTS_IN_TURN = 35  # that a query gives before the next one goes on

_log = logging.getLogger(__name__)


class Search(Protocol):
    """Where images come from."""

    def results(self, query: Query) -> Iterator[SearchResult]:
        """Yield what a query finds."""

    def cut(self) -> None:
        """End the searches that are running, from any thread."""


def collect_all(
    targets: Sequence[Target],
    search: Search,
    settings: CollectSettings,
    outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Fill one target after another; a search that fails does not stop the next target.

    A caller who may be interrupted passes an empty list of `outcomes` to fill: there is one for
    each target from the start.

    Raises:
        OutputError: an image or the journal could not be written.
        BusyError: another process fills one of the folders.
    """
    outcomes = [] if outcomes is None else outcomes
    end = None if settings.seconds is None else time.monotonic() + settings.seconds
    robots = RobotsPolicy()
    folders = [side.folder for target in targets for side in target.sides]
    scanned: dict[Path, list[StoredImage]] = {}
    outcomes += map(Outcome, targets)
    for outcome in outcomes:
        _collect(outcome, search, settings, robots, folders, scanned, end)
        _log_warnings(outcome)
    return outcomes


def _log_warnings(outcome: Outcome) -> None:
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


def _collect(
    outcome: Outcome,
    search: Search,
    settings: CollectSettings,
    robots: RobotsPolicy,
    folders: Iterable[Path],
    scanned: dict[Path, list[StoredImage]],
    end: float | None,
) -> None:
    start = time.monotonic()
    target = outcome.target
    with contextlib.ExitStack() as stack:
        journals = {side.folder: stack.enter_context(Journal(side.folder)) for side in target.sides}
        folder = ClassFolder(
            target,
            folders,
            settings.limits,
            keeps_near_duplicates=settings.keeps_near_duplicates,
            scanned=scanned,
        )
        stack.callback(lambda: scanned.update(folder.images()))
        outcome.before, outcome.surplus = folder.num_before, folder.num_surplus
        outcome.unusable = folder.unusable
        if not folder.num_missing:
            return
        history = DownloadHistory(target, journals, folder, settings)
        workers = Workers(outcome, folder, history, robots, settings, when_over=search.cut)
        stack.enter_context(_progress(outcome, quiet=settings.quiet))
        if end is not None:
            # A timer, since the main thread may be waiting for a result page.
            alarm = threading.Timer(max(0.0, end - time.monotonic()), workers.run_out_of_time)
            alarm.daemon = True
            alarm.start()
            stack.callback(alarm.cancel)
        with _working(workers, settings.threads):
            _offer_results(search, workers, history)
        outcome.seconds = time.monotonic() - start


def _progress(
    outcome: Outcome, *, quiet: bool
) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    start = time.monotonic()
    target = outcome.target

    def status() -> tuple[int, str]:
        return outcome.num_images, outcome.progress(time.monotonic() - start)

    return console.progress(target.name, target.limit, quiet=quiet, status=status)


def _offer_results(search: Search, workers: Workers, history: DownloadHistory) -> None:
    try:
        for result in _results(search, workers, history):
            if not workers.offer(result):
                return
    except SearchError as error:
        workers.outcome.error = error
    workers.wait_until_idle()


def _results(search: Search, workers: Workers, history: DownloadHistory) -> Iterator[SearchResult]:
    """Yield what is to be tried again, then what the queries find, each in its turn.

    Raises:
        SearchError: the search as a whole is of no use; or, at the end, one query was.
    """
    yield from history.to_be_retried()
    problem: SearchError | None = None
    target = workers.outcome.target
    running = deque(search.results(query) for query in target.queries)
    num_in_turn = max(1, min(_RESULTS_IN_TURN, -(-target.limit // max(1, len(running)))))
    while running and not workers.over.is_set():
        results = running.popleft()
        num_given = 0
        try:
            for result in islice(results, num_in_turn):
                num_given += 1
                yield result
        except (BlockedError, NetworkDownError):
            raise
        except SearchError as error:
            problem = problem or error
            continue
        if num_given == num_in_turn:
            running.append(results)
    if problem is not None:
        raise problem


@contextlib.contextmanager
def _working(workers: Workers, num_threads: int) -> Iterator[None]:
    """Have threads work; they are stopped when the block ends, however it ends."""
    threads = [
        threading.Thread(target=workers.work, name=f"fetch-{number}", daemon=True)
        for number in range(num_threads)
    ]
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
