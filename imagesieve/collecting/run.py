"""The run: fill the folders of one class after another with good images.

The main thread reads result pages and offers their images to a fixed number of workers, which
download, validate and write. An image counts once it is whole, decodable, large enough and new.
"""

import contextlib
import dataclasses
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from imagesieve import console, cores, files
from imagesieve.collecting import class_folder
from imagesieve.collecting.bing.errors import BlockedError, NetworkDownError
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.bing.search import ImageSearch, SavedPages
from imagesieve.collecting.candidates import TOO_SMALL, Candidate, reason_of, validate
from imagesieve.collecting.class_folder import ClassFolder, Destination, Refusal, StoredImage
from imagesieve.collecting.download_history import DownloadHistory
from imagesieve.collecting.journal import open_journal
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.politeness import Host, HostThrottle, host_of
from imagesieve.collecting.robots import RobotsPolicy
from imagesieve.collecting.targets import CollectSettings, Target
from imagesieve.errors import ImageError, SearchError
from imagesieve.images import FORMATS
from imagesieve.web.fetch import Fetched, Fetcher, FetchError

HOST_DOWN = "host is down"

_ACCEPT = {"Accept": ", ".join(f"image/{name.lower()}" for name in FORMATS)}
_SLOW_SECONDS = 3.0  # a download that runs longer may well fail: another one is started beside it
_LOOK_SECONDS = 0.5  # how often the main thread looks for slow downloads
_BACKOFF_SECONDS = 0.5  # before the second attempt; doubled for each further one
_MAX_RETRY_SECONDS = 30.0  # a host that asks for a longer wait is left alone
_MAX_ATTEMPTS = 3  # requests for one image while the failure may pass
_MAX_LARGE = 3  # images over `LARGE_BYTES` that may be in memory at the same time
_COUNTERS = {
    class_folder.DUPLICATE: "duplicates",
    class_folder.NEAR_DUPLICATE: "near_duplicates",
    class_folder.OTHER_SPLIT: "in_another_split",
}
_NO_ANSWER = frozenset({"timeout", "no connection", "connection lost", "unknown host"})
_NOT_ASKED = frozenset({HOST_DOWN, "opted out", "robots.txt", "private address", "stopped"})
_STOP_SECONDS = 1.5  # how long a stopped run waits for its workers
_RESULTS_IN_TURN = 35  # that a query gives before the next one goes on

Search = ImageSearch | SavedPages

_log = logging.getLogger(__name__)


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
        journals = {
            side.folder: stack.enter_context(open_journal(side.folder)) for side in target.sides
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


def _offer_results(search: Search, workers: "Workers", history: DownloadHistory) -> None:
    try:
        for result in _results(search, workers, history):
            if not workers.offer(result):
                return
    except SearchError as error:
        workers.outcome.error = error
    workers.wait_until_idle()


def _results(
    search: Search, workers: "Workers", history: DownloadHistory
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


@contextlib.contextmanager
def _working(workers: "Workers", num_threads: int) -> Iterator[None]:
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


@dataclasses.dataclass(eq=False)
class _Job:
    result: SearchResult
    num_attempts: int = 0  # requests made so far
    started: float | None = None  # when a worker took it, by `time.monotonic`; None while it waits
    waits_for_retry: bool = False  # it failed and will be tried again later
    has_large: bool = False  # a large body of it may be in memory


class Workers:
    """What the main thread and the workers share while one target is filled."""

    def __init__(
        self,
        outcome: Outcome,
        folder: ClassFolder,
        history: DownloadHistory,
        robots: RobotsPolicy,
        settings: CollectSettings,
        when_over: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to `work`; `when_over` is called once, by the thread that ends the run."""
        self.outcome = outcome
        self.over = threading.Event()  # all is full, or something failed, or Ctrl-C
        self.failure: Exception | None = None  # what ended the run, if it must be raised
        self._folder = folder
        self._history = history
        self._robots = robots
        self._settings = settings
        self._when_over = when_over
        self._fetcher = Fetcher(settings.fetch)
        self._throttle: HostThrottle[_Job] = HostThrottle(settings.politeness)
        self._large = threading.Semaphore(_MAX_LARGE)
        # Dozens of threads that compute at the same time spend a third of it on handing Python's
        # lock around; the other cores have enough to do with the connections.
        self._computing = threading.Semaphore(max(1, cores.cpu_count() // 2))
        self._counting = threading.Lock()  # guards the outcome
        self._changed = threading.Condition()  # guards all that follows
        self._jobs: set[_Job] = set()  # offered, and not dealt with
        self._max_jobs = 4 * settings.threads
        self._wake_at = 2 * settings.threads
        self._same: dict[str, list[SearchResult]] = {}  # Bing's digest of a job -> its other copies
        self._seen: set[str] = set()  # URLs that were offered
        self._robots_read: set[Host] = set()  # hosts whose robots.txt was requested

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

    def work(self) -> None:
        """Deal with results until the run is over."""
        while (taken := self._throttle.take()) is not None:
            job, url = taken
            job.started = time.monotonic()
            answered = None
            try:
                answered = self._deal_with(job)
            except Exception as error:
                self.failure = self.failure or error  # raised again by the main thread
                self.finish()
            finally:
                self._throttle.leave(url, answered=answered)
                if job.has_large:
                    job.has_large = False
                    self._large.release()

    def finish(self) -> None:
        """End the run: stop the downloads, and end every wait of the workers."""
        with self._changed:
            is_first = not self.over.is_set()
            self.over.set()
            self._changed.notify_all()
        self._throttle.close()
        self._fetcher.stop()
        if is_first:
            self._when_over()

    def run_out_of_time(self) -> None:
        """End the run because its time is over."""
        if not self.over.is_set():
            self.outcome.is_out_of_time = True
            self.finish()

    def _wait(self, is_reached: Callable[[], bool]) -> bool:
        with self._changed:
            while not self.over.is_set() and not is_reached():
                # No notification says that a download has become a slow one.
                self._changed.wait(_LOOK_SECONDS)
            return not self.over.is_set()

    def _needs_more(self) -> bool:
        # Half as many again as are missing, since about a third of all links fail; more would
        # only be thrown away. An image that is just being written is not missing any more.
        missing = self._folder.num_missing
        slow = time.monotonic() - _SLOW_SECONDS
        num_running = sum(
            not job.waits_for_retry and (job.started is None or job.started > slow)
            for job in self._jobs
        )
        return missing > 0 and num_running < min(self._max_jobs, missing * 3 // 2 + 1)

    def _needs_no_request(self, result: SearchResult) -> bool:
        if self._history.is_settled(result):
            self.outcome.known += 1
        elif self._history.has_md5(result.md5):
            self._count("duplicates")
        elif 0 < min(result.width, result.height) < self._settings.min_side:
            self._count_failure(TOO_SMALL)
            self._history.add_failure(result, TOO_SMALL, detail="says Bing")
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
        job.waits_for_retry = False
        fetched = None
        try:
            fetched = self._download(job)
            placed = self._place(fetched.body)
        except FetchError as error:
            if not self._retry(job, error):
                self._fail(job, error.reason, error.status)
            return _has_answered(error, job.result.url)
        except ImageError as error:
            self._fail(job, reason_of(error), 200)
        else:
            if placed is not None:
                self._keep(job, fetched, *placed)
        return True

    def _download(self, job: _Job) -> Fetched:
        url = job.result.url
        if self._throttle.is_down(url):
            raise FetchError(url, HOST_DOWN)
        self._require_permission(url)
        return self._fetcher.fetch(
            url,
            _ACCEPT,
            check=self._robots.check_headers,
            hop=self._hop,
            before_large=lambda: self._await_memory(job),
        )

    def _await_memory(self, job: _Job) -> None:
        while not job.has_large and not self.over.is_set():
            job.has_large = self._large.acquire(timeout=_LOOK_SECONDS)

    @contextlib.contextmanager
    def _hop(self, url: str) -> Iterator[None]:
        """Treat the host that a redirect leads to as well as any other."""
        with self._throttle.visit(url):
            self._require_permission(url)
            yield

    def _require_permission(self, url: str) -> None:
        """Raise FetchError unless the host, which the caller has taken, allows a request."""
        self._robots.check_host(url)
        if not self._settings.follows_robots:
            return
        host = host_of(url)
        is_new = host not in self._robots_read  # two threads may both find it so: no harm
        self._robots_read.add(host)
        if not self._robots.allows(url, self._fetcher):
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
            job.waits_for_retry = True
            job.started = None
            self._changed.notify_all()
        self._throttle.put(job, job.result.url, pause)
        return True

    def _place(self, data: bytes) -> tuple[Candidate, Destination | Refusal] | None:
        with self._computing:
            if self.over.is_set():
                return None
            candidate = validate(
                data,
                self._settings.limits,
                max_side=self._settings.max_side,
                file_format=self._settings.file_format,
            )
            return None if self.over.is_set() else (candidate, self._folder.place(candidate))

    def _keep(
        self, job: _Job, fetched: Fetched, candidate: Candidate, placed: Destination | Refusal
    ) -> None:
        if isinstance(placed, Destination):
            self._write(job.result, fetched, candidate, placed)
        elif placed.reason in _COUNTERS:
            self._count(_COUNTERS[placed.reason])
            self._history.add(job.result, fetched, candidate, placed)
        self._end_job(job, is_there=True)
        if self.outcome.is_filled:
            self.finish()

    def _write(
        self, result: SearchResult, fetched: Fetched, candidate: Candidate, place: Destination
    ) -> None:
        path = place.folder / candidate.file_name
        try:
            self._history.add(result, fetched, candidate, place)
            # After a power failure the journal says what is missing.
            files.write_bytes(path, candidate.data, must_outlive_power=False)
        except BaseException:
            self._folder.release(candidate, place)
            raise
        self._folder.settle(candidate)
        if place.replaces is not None:
            place.replaces.path.unlink(missing_ok=True)
        self._count("kept" if place.replaces is None else "enlarged")
        with self._counting:
            if place.also_in:
                self.outcome.also_in[path] = place.also_in
            if path in self.outcome.unusable:  # a damaged copy of it has been replaced
                self.outcome.unusable.remove(path)

    def _fail(self, job: _Job, reason: str, status: int | None) -> None:
        if not self.over.is_set():  # else it was cut by us
            self._count_failure(reason)
            self._history.add_failure(
                job.result, reason, http_status=status, attempts=job.num_attempts
            )
        self._end_job(job, is_there=False)

    def _end_job(self, job: _Job, *, is_there: bool) -> None:
        """Forget a job, and deal with the other copies of its image."""
        with self._changed:
            copies = self._same.pop(job.result.md5, [])
            if copies and not is_there:
                self._same[job.result.md5] = copies[1:]
                self._start(copies[0])
            self._jobs.discard(job)
            # The main thread is not woken for every single one: it offers many at a time.
            if len(self._jobs) <= self._wake_at:
                self._changed.notify_all()
        if copies and is_there:
            self._count("duplicates", len(copies))

    def _count(self, name: str, count: int = 1) -> None:
        with self._counting:
            setattr(self.outcome, name, getattr(self.outcome, name) + count)

    def _count_failure(self, reason: str) -> None:
        with self._counting:
            self.outcome.failed[reason] += 1


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
