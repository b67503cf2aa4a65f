"""The workers of one run: what they share, and what each does with one result."""

import contextlib
import dataclasses
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from imagesieve import cores, files
from imagesieve.collecting import class_folder
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.candidates import TOO_SMALL, Candidate, examine, reason_of
from imagesieve.collecting.class_folder import Place, Refusal, Shelf
from imagesieve.collecting.download_history import Memory
from imagesieve.collecting.hosts import Hosts, host_of
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.robots import Consent, Robots
from imagesieve.errors import ImageError
from imagesieve.images import FORMATS
from imagesieve.web.fetch import Fetched, Fetcher, FetchError, FetchSettings

if TYPE_CHECKING:
    from imagesieve.collecting.run import CollectSettings

HOST_DOWN = "host is down"

_ACCEPT = {"Accept": ", ".join(f"image/{name.lower()}" for name in FORMATS)}
_SLOW_SECONDS = 3.0  # a download that runs longer may well fail: another one is started beside it
_LOOK_SECONDS = 0.5  # how often the main thread looks for slow downloads
_BACKOFF_SECONDS = 0.5  # before the second attempt; doubled for each further one
_MAX_RETRY_SECONDS = 30.0  # a host that wants a longer wait is left alone
_MAX_LARGE = 3  # images over `LARGE_BYTES` that may be in memory at the same time
_COUNTERS = {
    class_folder.DUPLICATE: "duplicates",
    class_folder.NEAR_DUPLICATE: "near_duplicates",
    class_folder.OTHER_SPLIT: "leaks",
}
_NO_ANSWER = frozenset({"timeout", "no connection", "connection lost", "unknown host"})
_NOT_ASKED = frozenset({HOST_DOWN, "opted out", "robots.txt", "private address", "stopped"})


class Manners:
    """What a run has learnt of what hosts want; shared by all its targets."""

    def __init__(self) -> None:
        self.consent = Consent()
        self.robots = Robots()


@dataclasses.dataclass(eq=False)
class _Job:
    """A result on its way.

    Attributes:
        num_attempts: requests made so far.
        started: when a worker took it, by `time.monotonic`; None while it waits.
        waits_for_retry: whether it failed and will be tried again later.
    """

    result: SearchResult
    num_attempts: int = 0
    started: float | None = None
    waits_for_retry: bool = False


class _Worker:
    """What each thread has for itself."""

    def __init__(self, settings: FetchSettings) -> None:
        self.fetcher = Fetcher(settings)
        self.robots_fetcher = Fetcher(settings)  # may be needed in the middle of a download
        self.holds_large = False

    def stop(self) -> None:
        self.fetcher.stop()
        self.robots_fetcher.stop()


class Workers:
    """What the main thread and the workers share while one target is filled.

    Attributes:
        outcome: counted here.
        over: set when nothing more is wanted: all is full, or something failed, or Ctrl-C.
        failure: what ended the run, if it must be raised.
    """

    def __init__(
        self,
        outcome: Outcome,
        images: Shelf,
        memory: Memory,
        manners: Manners,
        settings: "CollectSettings",
    ) -> None:
        self.outcome = outcome
        self.over = threading.Event()
        self.failure: Exception | None = None
        self._shelf = images
        self._memory = memory
        self._consent = manners.consent
        self._robots = manners.robots
        self._settings = settings
        self._hosts: Hosts[_Job] = Hosts(settings.hosts)
        self._large = threading.Semaphore(_MAX_LARGE)
        # Dozens of threads that compute at the same time spend a third of it on handing Python's
        # lock around; the other cores have enough to do with the connections.
        self._judging = threading.Semaphore(max(1, cores.cpu_count() // 2))
        self._counting = threading.Lock()  # guards the outcome
        self._changed = threading.Condition()  # guards all that follows
        self._jobs: set[_Job] = set()  # offered, and not dealt with
        self._max_jobs = 4 * settings.threads
        self._wake_at = 2 * settings.threads
        self._same: dict[str, list[SearchResult]] = {}  # Bing's digest of a job -> its other copies
        self._seen: set[str] = set()  # addresses that were offered
        self._asked: set[str] = set()  # hosts whose robots.txt was asked for
        self._workers: list[_Worker] = []
        self._call_when_over: list[Callable[[], None]] = []

    def when_over(self, call: Callable[[], None]) -> None:
        """Have something called by whoever ends the run."""
        self._call_when_over.append(call)

    def offer(self, result: SearchResult) -> bool:
        """Hand a result over once one more is wanted; False when the run is over."""
        self.outcome.found += 1
        if result.url in self._seen:  # another query has it too
            self.outcome.known += 1
            return not self.over.is_set()
        self._seen.add(result.url)
        if self._needs_no_request(result):
            return not self.over.is_set()
        if not self._wait(self._wants_more):
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
        """Deal with results until the run is over. What a worker's thread runs."""
        worker = self._new_worker()
        while (taken := self._hosts.take()) is not None:
            job, url = taken
            job.started = time.monotonic()
            answered = None
            try:
                answered = self._deal_with(job, worker)
            except Exception as error:
                self.failure = self.failure or error  # raised again by the main thread
                self.finish()
            finally:
                self._hosts.leave(url, answered=answered)
                if worker.holds_large:
                    worker.holds_large = False
                    self._large.release()

    def finish(self) -> None:
        """End the run: cut the downloads and the search, and send the workers home."""
        with self._changed:
            is_first = not self.over.is_set()
            self.over.set()
            workers = list(self._workers)
            self._changed.notify_all()
        self._hosts.close()
        for worker in workers:
            worker.stop()
        if is_first:
            for call in self._call_when_over:
                call()

    def run_out_of_time(self) -> None:
        """End the run because its time is over, whatever it waits for."""
        if not self.over.is_set():
            self.outcome.is_out_of_time = True
            self.finish()

    def _wait(self, is_reached: Callable[[], bool]) -> bool:
        """Wait until something holds; False when the run is over."""
        with self._changed:
            while not self.over.is_set() and not is_reached():
                # What the end of slow downloads would allow is told by nobody.
                self._changed.wait(_LOOK_SECONDS)
            return not self.over.is_set()

    def _wants_more(self) -> bool:
        # Half as many again as are missing, since about a third of all links fail; more would
        # only be thrown away. An image that is just being written is not missing any more.
        missing = self._shelf.num_missing
        slow = time.monotonic() - _SLOW_SECONDS
        num_running = sum(
            not job.waits_for_retry and (job.started is None or job.started > slow)
            for job in self._jobs
        )
        return missing > 0 and num_running < min(self._max_jobs, missing * 3 // 2 + 1)

    def _needs_no_request(self, result: SearchResult) -> bool:
        """Deal with a result of which enough is known already."""
        if self._memory.knows(result):
            self.outcome.known += 1
        elif self._memory.has_md5(result.md5):
            self._count("duplicates")
        elif 0 < min(result.width, result.height) < self._settings.min_side:
            self._count_failure(TOO_SMALL)
            self._memory.note_failure(result, TOO_SMALL, detail="says Bing")
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
        self._hosts.put(job, result.url)

    def _new_worker(self) -> _Worker:
        worker = _Worker(self._settings.fetch)
        with self._changed:
            self._workers.append(worker)
            if self.over.is_set():
                worker.stop()
        return worker

    def _deal_with(self, job: _Job, worker: _Worker) -> bool | None:
        """Try a job once; tell whether its host answered, or None when it was not asked."""
        job.num_attempts += 1
        job.waits_for_retry = False
        fetched = None
        try:
            fetched = self._download(job.result.url, worker)
            judged = self._judge(fetched.body)
        except FetchError as error:
            if not self._retry(job, error):
                self._fail(job, error.reason, error.status)
            return _has_answered(error, job.result.url)
        except ImageError as error:
            self._fail(job, reason_of(error), 200)
        else:
            if judged is not None:
                self._keep(job, fetched, *judged)
        return True

    def _download(self, url: str, worker: "_Worker") -> Fetched:
        if self._hosts.is_down(url):
            raise FetchError(url, HOST_DOWN)
        self._require_consent(url, worker)
        return worker.fetcher.fetch(
            url,
            _ACCEPT,
            check=self._consent.check,
            hop=lambda target: self._hop(target, worker),
            before_large=lambda: self._await_memory(worker),
        )

    def _await_memory(self, worker: "_Worker") -> None:
        """Wait until few enough others hold a large body."""
        while not worker.holds_large and not self.over.is_set():
            worker.holds_large = self._large.acquire(timeout=_LOOK_SECONDS)

    @contextlib.contextmanager
    def _hop(self, url: str, worker: "_Worker") -> Iterator[None]:
        """Treat the host that a redirect leads to as well as any other."""
        with self._hosts.visit(url):
            self._require_consent(url, worker)
            yield

    def _require_consent(self, url: str, worker: "_Worker") -> None:
        """See whether the host lets us have `url`; the caller holds the host.

        Raises:
            FetchError: it does not; or it cannot be asked.
        """
        if directive := self._consent.refuses(url):
            raise FetchError(url, "opted out", directive)
        if not self._settings.follows_robots:
            return
        host = host_of(url)
        is_new = host not in self._asked  # two threads may both find it so, which does no harm
        self._asked.add(host)
        if not self._robots.allows(url, worker.robots_fetcher):
            raise FetchError(url, "robots.txt")
        if is_new:
            self._hosts.await_turn(url)

    def _retry(self, job: _Job, error: FetchError) -> bool:
        """Put a job back for later, if that may help."""
        pause = _BACKOFF_SECONDS * 2 ** (job.num_attempts - 1) * random.uniform(1, 1.5)  # noqa: S311
        pause = max(pause, error.retry_after or 0.0)
        may_pass = error.is_passing and job.num_attempts < self._settings.attempts
        if not may_pass or pause > _MAX_RETRY_SECONDS or self.over.is_set():
            return False
        with self._changed:
            job.waits_for_retry = True
            job.started = None
            self._changed.notify_all()
        self._hosts.put(job, job.result.url, pause)
        return True

    def _judge(self, data: bytes) -> tuple[Candidate, Place | Refusal] | None:
        """Check an image and find its place; None when the run is over."""
        with self._judging:
            if self.over.is_set():
                return None
            candidate = examine(
                data,
                self._settings.limits,
                max_side=self._settings.max_side,
                file_format=self._settings.file_format,
            )
            return None if self.over.is_set() else (candidate, self._shelf.place(candidate))

    def _keep(
        self, job: _Job, fetched: Fetched, candidate: Candidate, place: Place | Refusal
    ) -> None:
        if isinstance(place, Place):
            self._write(job.result, fetched, candidate, place)
        elif place.reason in _COUNTERS:
            self._count(_COUNTERS[place.reason])
            self._memory.note_duplicate(job.result, fetched, candidate, place)
        self._end_job(job, is_there=True)
        if self.outcome.is_filled:
            self.finish()

    def _write(
        self, result: SearchResult, fetched: Fetched, candidate: Candidate, place: Place
    ) -> None:
        path = place.folder / candidate.file_name
        try:
            self._memory.note_kept(result, fetched, candidate, place)
            # After a power failure the journal knows what is missing.
            files.write_bytes(path, candidate.data, must_outlive_power=False)
        except BaseException:
            self._shelf.release(candidate, place)
            raise
        self._shelf.settle(candidate)
        if place.replaces is not None:
            place.replaces.path.unlink(missing_ok=True)
        with self._counting:
            if place.replaces is not None:
                self.outcome.enlarged += 1
            else:
                self.outcome.kept += 1
            if place.also_in:
                self.outcome.also_in[path] = place.also_in
            if path in self.outcome.unusable:  # a damaged copy of it has been replaced
                self.outcome.unusable.remove(path)

    def _fail(self, job: _Job, reason: str, status: int | None) -> None:
        if not self.over.is_set():  # else it was cut by us
            self._count_failure(reason)
            self._memory.note_failure(
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
            # The main thread is not woken for every single one: it hands over many at a time.
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
    if host_of(error.url) != host_of(url):  # it did, and sent us to another host
        return True
    if error.status is None and error.reason in _NOT_ASKED:
        return None
    return error.status is not None or error.reason not in _NO_ANSWER
