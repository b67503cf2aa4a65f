"""The run: fill the folders of one class after another with good images.

The main thread reads result pages and offers their images to a fixed number of workers, which
download, validate and write. An image counts once it is whole, decodable, large enough and new.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from imagesieve import console
from imagesieve.collecting import class_folder, journal
from imagesieve.collecting.bing.errors import BlockedError, NetworkDownError
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.bing.search import ImageSearch, SavedPages
from imagesieve.collecting.class_folder import Candidate, ClassFolder, Destination, NotPlaced
from imagesieve.collecting.journal import DUPLICATE, FAILED, KEPT, TOO_SMALL, Entry
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.politeness import Host, HostThrottle, host_of
from imagesieve.collecting.robots import RobotsPolicy
from imagesieve.collecting.targets import CollectSettings, Target
from imagesieve.errors import ImageError, SearchError
from imagesieve.images import FORMATS
from imagesieve.threads import cpu_count
from imagesieve.web.fetch import Fetched, Fetcher, FetchError

HOST_DOWN = "host is down"

_ACCEPT = {"Accept": ", ".join(f"image/{name.lower()}" for name in FORMATS)}
_SLOW_SECONDS = 3.0  # a download that runs longer may well fail: another one is started beside it
_LOOK_SECONDS = 0.5  # how often the main thread looks for slow downloads
_BACKOFF_SECONDS = 0.5  # before the second attempt; doubled for each further one
_MAX_RETRY_SECONDS = 30.0  # a host that asks for a longer wait is left alone
_MAX_ATTEMPTS = 3  # requests for one image while the failure may pass
_MAX_LARGE = 3  # images over `LARGE_BYTES` that may be in memory at the same time
_STOP_SECONDS = 1.5  # how long a stopped run waits for its workers
_RESULTS_IN_TURN = 35  # that a query gives before the next one goes on

_COUNTERS = {
    class_folder.DUPLICATE: "duplicates",
    class_folder.NEAR_DUPLICATE: "near_duplicates",
    class_folder.OTHER_SPLIT: "in_another_split",
}
_UNUSABLE = {  # slug of an ImageError -> the reason that is counted, where that is not the slug
    "empty-image": "empty",
    "image-too-large": "too many bytes",
    "unsupported-image-format": "not an image",
    "image-too-small": TOO_SMALL,
    "truncated-image": "truncated",
    "undecodable-image": "damaged",
}
_NO_ANSWER = frozenset({"timeout", "no connection", "connection lost", "unknown host"})
_NOT_ASKED = frozenset({HOST_DOWN, "opted out", "robots.txt", "private address", "stopped"})

Search = ImageSearch | SavedPages

_log = logging.getLogger(__name__)


def collect_all(
    targets: Sequence[Target],
    search: Search,
    settings: CollectSettings,
    outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Fill one target after another; a search that fails does not stop the next target.

    A caller who may be interrupted passes an empty list of `outcomes`: it is filled at the start.
    """
    outcomes = [] if outcomes is None else outcomes
    end = None if settings.seconds is None else time.monotonic() + settings.seconds
    robots = RobotsPolicy()
    folders = [side.folder for target in targets for side in target.sides]
    scanned: dict[Path, list[class_folder.StoredImage]] = {}
    outcomes += map(Outcome, targets)
    for outcome in outcomes:
        _collect(outcome, search, settings, robots, folders, scanned, end)
        _log_warnings(outcome)
    return outcomes


def _log_warnings(outcome: Outcome) -> None:
    if not outcome.is_filled:
        _log.warning("%s", outcome.explanation)
    name, surplus = outcome.target.name, outcome.surplus
    if surplus and outcome.target.validation:
        _log.warning("%s: one side of the split has %d images more than its share.", name, surplus)
    for path, paths in outcome.also_in.items():
        _log.debug("%s is in another class too: %s", path, ", ".join(map(str, paths)))
    if outcome.also_in:
        found = len(outcome.also_in), next(iter(outcome.also_in))
        text = "%s: %d images, the first %s, are in other classes too (all are in the log): "
        _log.warning(f"{text}delete the wrong ones.", name, *found)


def _collect(
    outcome: Outcome,
    search: Search,
    settings: CollectSettings,
    robots: RobotsPolicy,
    folders: Iterable[Path],
    scanned: dict[Path, list[class_folder.StoredImage]],
    end: float | None,
) -> None:
    start = time.monotonic()
    target = outcome.target
    with contextlib.ExitStack() as stack:
        journals = {
            side.folder: stack.enter_context(journal.open_journal(side.folder))
            for side in target.sides
        }
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
        history = journal.History(target, settings, journals, folder.has, folder.has_anywhere)
        workers = Workers(outcome, folder, history, robots, settings, search.cut)

        def status() -> tuple[int, str]:
            return outcome.num_images, outcome.progress(time.monotonic() - start)

        stack.enter_context(
            console.progress(target.name, target.limit, quiet=settings.quiet, status=status)
        )
        if end is not None:
            # A timer, since the main thread may be waiting for a result page.
            alarm = threading.Timer(max(0.0, end - time.monotonic()), workers.run_out_of_time)
            alarm.daemon = True
            alarm.start()
            stack.callback(alarm.cancel)
        with workers.working():
            try:
                for result in _results(search, workers, history):
                    if not workers.offer(result):
                        break
            except SearchError as error:
                outcome.error = error
            workers.wait_until_idle()
        outcome.seconds = time.monotonic() - start


def _results(
    search: Search, workers: "Workers", history: journal.History
) -> Iterator[SearchResult]:
    """Yield what is to be tried again, then what the queries find, each in its turn."""
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


@dataclasses.dataclass(eq=False)
class _Job:
    result: SearchResult
    num_attempts: int = 0  # requests made so far
    counts_until: float = math.inf  # by `time.monotonic`; then it is no help with what is missing


@dataclasses.dataclass(eq=False)
class Workers:
    """What the main thread and the workers share while one target is filled."""

    outcome: Outcome
    folder: ClassFolder
    history: journal.History
    robots: RobotsPolicy
    settings: CollectSettings
    when_over: Callable[[], None]  # called once, by the thread that ends the run

    def __post_init__(self) -> None:
        settings = self.settings
        self.over = threading.Event()  # all is full, or something failed, or Ctrl-C
        self._failure: Exception | None = None  # what ended the run, if it must be raised
        self._fetcher = Fetcher(
            dataclasses.replace(
                settings.fetch,
                check=self.robots.check_headers,
                hop=self._hop,
                before_large=self._await_memory,
            )
        )
        self._throttle: HostThrottle[_Job] = HostThrottle(
            settings.max_connections, settings.seconds_between_requests
        )
        self._large = threading.Semaphore(_MAX_LARGE)
        self._own = threading.local()  # `has_large`: a large body of the thread may be in memory
        # Dozens of threads that compute at the same time spend a third of it on handing Python's
        # lock around; the other cores have enough to do with the connections.
        self._computing = threading.Semaphore(max(1, cpu_count() // 2))
        self._changed = threading.Condition()  # guards the outcome and all that follows
        self._jobs: set[_Job] = set()  # offered, and not dealt with
        self._same: dict[str, list[SearchResult]] = {}  # Bing's digest of a job -> its other copies
        self._seen: set[str] = set()  # URLs that were offered
        self._robots_read: set[Host] = set()  # hosts whose robots.txt was requested

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Have threads deal with what is offered during the block."""
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(self.settings.threads)
        ]
        try:
            for thread in threads:
                thread.start()
            yield
        finally:
            self._finish()
            last = time.monotonic() + _STOP_SECONDS
            for thread in threads:
                if thread.is_alive():
                    thread.join(max(0.0, last - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def offer(self, result: SearchResult) -> bool:
        """Add a job for a result once one more is needed; False when the run is over."""
        self.outcome.found += 1
        if result.url in self._seen:  # another query has it too
            self.outcome.known += 1
            return not self.over.is_set()
        self._seen.add(result.url)
        if self._needs_no_request(result):
            return not self.over.is_set()
        if not self._wait(self._needs_more):
            return False
        with self._changed:
            if result.md5:
                self._same[result.md5] = []
            self._start(result)
        return True

    def wait_until_idle(self) -> None:
        """Return when every offered result has been dealt with, or the run is over."""
        self._wait(lambda: not self._jobs)

    def _work(self) -> None:
        while (taken := self._throttle.take()) is not None:
            job, url = taken
            job.counts_until = time.monotonic() + _SLOW_SECONDS
            answered, self._own.has_large = None, False
            try:
                answered = self._deal_with(job)
            except Exception as error:
                self._failure = self._failure or error  # raised again by the main thread
                self._finish()
            finally:
                self._throttle.leave(url, answered=answered)
                if self._own.has_large:
                    self._large.release()

    def _finish(self) -> None:
        """End the run: stop the downloads, and end every wait of the workers."""
        with self._changed:
            is_first = not self.over.is_set()
            self.over.set()
            self._changed.notify_all()
        self._throttle.close()
        self._fetcher.stop()
        if is_first:
            self.when_over()

    def run_out_of_time(self) -> None:
        if not self.over.is_set():
            self.outcome.is_out_of_time = True
            self._finish()

    def _wait(self, is_reached: Callable[[], bool]) -> bool:
        with self._changed:
            while not self.over.is_set() and not is_reached():
                # No notification says that a download has become a slow one.
                self._changed.wait(_LOOK_SECONDS)
            return not self.over.is_set()

    def _needs_more(self) -> bool:
        # Half as many again as are missing, since about a third of all links fail; more would
        # only be thrown away. An image that is just being written is not missing any more.
        missing = self.folder.num_missing
        now = time.monotonic()
        num_running = sum(job.counts_until > now for job in self._jobs)
        return missing > 0 and num_running < min(4 * self.settings.threads, missing * 3 // 2 + 1)

    def _needs_no_request(self, result: SearchResult) -> bool:
        if self.history.is_settled(result):
            self.outcome.known += 1
        elif self.history.has_md5(result.md5):
            self._count("duplicates")
        elif 0 < min(result.width, result.height) < self.settings.min_side:
            self._fail(result, TOO_SMALL, detail="says Bing")
        else:
            with self._changed:
                copies = self._same.get(result.md5)
                if copies is not None:  # wait for what becomes of the one that is on its way
                    copies.append(result)
                return copies is not None
        return True

    def _start(self, result: SearchResult) -> None:
        job = _Job(result)
        self._jobs.add(job)
        self._throttle.put(job, result.url)

    def _deal_with(self, job: _Job) -> bool | None:
        """Try a job once; returns whether its host answered, None when there was no request."""
        job.num_attempts += 1
        status: int | None = 200
        answered: bool | None = True
        try:
            fetched = self._download(job)
            placed = self._place(fetched.body)
        except ImageError as error:
            reason = unusable_reason(error)
        except FetchError as error:
            answered = _has_answered(error, job.result.url)
            if self._retry(job, error):
                return answered
            reason, status = error.reason, error.status
        else:
            if placed is not None:
                self._keep(job, fetched, *placed)
            return True
        if not self.over.is_set():  # else it was cut by us
            self._fail(job.result, reason, http_status=status, attempts=job.num_attempts)
        self._end_job(job, is_there=False)
        return answered

    def _download(self, job: _Job) -> Fetched:
        url = job.result.url
        if self._throttle.is_down(url):
            raise FetchError(url, HOST_DOWN)
        self._require_permission(url)
        return self._fetcher.fetch(url, _ACCEPT)

    def _await_memory(self) -> None:
        while not self._own.has_large and not self.over.is_set():
            self._own.has_large = self._large.acquire(timeout=_LOOK_SECONDS)

    @contextlib.contextmanager
    def _hop(self, url: str) -> Iterator[None]:
        """Treat the host that a redirect leads to as well as any other."""
        with self._throttle.visit(url):
            self._require_permission(url)
            yield

    def _require_permission(self, url: str) -> None:
        """Raise FetchError unless the host, which the caller has taken, allows a request."""
        self.robots.check_host(url)
        if not self.settings.follows_robots:
            return
        host = host_of(url)
        is_new = host not in self._robots_read  # two threads may both find it so: no harm
        self._robots_read.add(host)
        if not self.robots.allows(url, self._fetcher):
            raise FetchError(url, "robots.txt")
        if is_new:
            self._throttle.pause(url)

    def _retry(self, job: _Job, error: FetchError) -> bool:
        pause = _BACKOFF_SECONDS * 2 ** (job.num_attempts - 1) * random.uniform(1, 1.5)  # noqa: S311
        pause = max(pause, error.retry_after or 0.0)
        may_pass = error.is_passing and job.num_attempts < _MAX_ATTEMPTS
        if not may_pass or pause > _MAX_RETRY_SECONDS or self.over.is_set():
            return False
        with self._changed:
            job.counts_until = 0.0
            self._changed.notify_all()
        self._throttle.put(job, job.result.url, pause)
        return True

    def _place(self, data: bytes) -> tuple[Candidate, Destination | NotPlaced] | None:
        """Return the image and where it goes; None when the run is over."""
        with self._computing:
            if self.over.is_set():
                return None
            one = self.settings
            candidate = class_folder.validate(data, one.limits, one.max_side, one.file_format)
            return None if self.over.is_set() else (candidate, self.folder.place(candidate))

    def _keep(
        self, job: _Job, fetched: Fetched, candidate: Candidate, placed: Destination | NotPlaced
    ) -> None:
        milliseconds = round(1000 * fetched.seconds)
        fields: Entry = {"final_url": fetched.url, "elapsed_ms": milliseconds, "http_status": 200}
        fields |= candidate.journal_fields()
        if isinstance(placed, Destination):
            self._write(job.result, fields, candidate, placed)
        elif placed.reason != class_folder.NO_ROOM:
            self._count(_COUNTERS[placed.reason])
            fields |= {"reason": placed.reason, "same_as": placed.twin and placed.twin.sha256}
            self.history.add(job.result, DUPLICATE, **fields)
        self._end_job(job, is_there=True)
        if self.outcome.is_filled:
            self._finish()

    def _write(
        self, result: SearchResult, fields: Entry, candidate: Candidate, place: Destination
    ) -> None:
        path, replaced = place.path, place.replaces
        fields |= {"path": path.name, "replaces": replaced and replaced.path.name}
        note = functools.partial(self.history.add, result, KEPT, folder=path.parent, **fields)
        self.folder.write(candidate, place, note)
        self._count("enlarged" if replaced else "kept")
        with self._changed:
            if place.also_in:
                self.outcome.also_in[path] = place.also_in
            if path in self.outcome.unusable:  # a damaged copy of it has been replaced
                self.outcome.unusable.remove(path)

    def _fail(self, result: SearchResult, reason: str, **fields: Any) -> None:
        with self._changed:
            self.outcome.failed[reason] += 1
        self.history.add(result, FAILED, reason=reason, **fields)

    def _end_job(self, job: _Job, *, is_there: bool) -> None:
        """Forget a job, and deal with the other copies of its image."""
        with self._changed:
            copies = self._same.pop(job.result.md5, [])
            if copies and not is_there:
                self._same[job.result.md5] = copies[1:]
                self._start(copies[0])
            self._jobs.discard(job)
            # The main thread is not woken for every single one: it offers many at a time.
            if len(self._jobs) <= 2 * self.settings.threads:
                self._changed.notify_all()
        if copies and is_there:
            self._count("duplicates", len(copies))

    def _count(self, name: str, count: int = 1) -> None:
        with self._changed:
            setattr(self.outcome, name, getattr(self.outcome, name) + count)


def unusable_reason(error: ImageError) -> str:
    return _UNUSABLE.get(error.slug, error.slug.replace("-", " "))


def _has_answered(error: FetchError, url: str) -> bool | None:
    try:
        is_of_host = host_of(error.url) == host_of(url)
    except FetchError:  # a redirect to something that is not a URL
        is_of_host = False
    if not is_of_host:  # it answered, and redirected to another host
        return True
    if error.status is None and error.reason in _NOT_ASKED:
        return None
    return error.status is not None or error.reason not in _NO_ANSWER
