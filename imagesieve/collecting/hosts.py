"""Manners towards hosts: few requests at once, a pause between them, and none to one that is down.

Jobs wait here for their host's turn, so that a slow or popular host holds up its own images only,
and never a worker.
"""

import collections
import contextlib
import dataclasses
import functools
import heapq
import itertools
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Job = TypeVar("Job")

_VISIT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class HostSettings:
    """What one host has to bear."""

    max_connections: int = 2
    seconds_between_requests: float = 0.1
    max_failures: int = 5  # in a row, without an answer; then the host counts as down


@functools.lru_cache(4096)  # each is asked about several times on its way
def host_of(url: str) -> str:
    """Give host and port of an address; two ports are two hosts."""
    default = 443 if url[:6].lower() == "https:" else 80
    try:
        parts = urllib.parse.urlsplit(url)
        return f"{(parts.hostname or '').lower()}:{parts.port or default}"
    except ValueError:  # no host, or a port that cannot be: the fetcher will say what is wrong
        return f":{default}"


class _Host(Generic[Job]):
    def __init__(self) -> None:
        self.jobs: collections.deque[tuple[Job, str]] = collections.deque()
        self.num_busy = 0
        self.num_visitors = 0  # that wait; they hold up another host meanwhile, so they go first
        self.free_at = 0.0  # by the clock, when the next request may start
        self.num_failures = 0
        self.is_scheduled = False  # whether `_ready` has a note of it; more would only cost time


class Hosts(Generic[Job]):
    """The jobs that wait, by host. Any thread may call any method."""

    def __init__(
        self, settings: HostSettings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings or HostSettings()
        self._clock = clock
        self._hosts: dict[str, _Host[Job]] = {}
        self._ready: list[tuple[float, int, str]] = []  # heap: when a host's first job may start
        self._delayed: list[tuple[float, int, Job, str]] = []  # heap: jobs to be put back
        self._order = itertools.count()
        lock = threading.RLock()
        self._jobs_changed = threading.Condition(lock)  # told to one worker at a time
        self._hosts_changed = threading.Condition(lock)  # told to whoever waits for a host
        self._alarm = math.inf  # the moment at which a waiting worker wakes by itself
        self._is_closed = False

    def put(self, job: Job, url: str, delay: float = 0.0) -> None:
        """Have `job`, a request to `url`, wait for its host, but at least `delay` seconds."""
        with self._jobs_changed:
            if delay > 0:
                entry = (self._clock() + delay, next(self._order), job, url)
                heapq.heappush(self._delayed, entry)
            else:
                self._enqueue(job, url)
            self._jobs_changed.notify()

    def take(self) -> tuple[Job, str] | None:
        """Wait for a job whose host is free and give it with its address; None after `close`.

        The host counts as busy until `leave` is called with that address.
        """
        with self._jobs_changed:
            while not self._is_closed:
                now = self._clock()
                self._put_back_delayed(now)
                if (found := self._pop_ready(now)) is not None:
                    self._jobs_changed.notify()  # somebody else must look after the next moment
                    return found
                self._wait_for_jobs(now)
            return None

    def leave(self, url: str, *, answered: bool | None) -> None:
        """Give a host back after a job.

        Args:
            url: as `take` gave it.
            answered: whether the host answered at all, be it with an error; None if it was not
                asked.
        """
        with self._jobs_changed:
            host = self._host(url)
            if answered is not None:
                host.num_failures = 0 if answered else host.num_failures + 1
            self._let_go(url)

    def is_down(self, url: str) -> bool:
        """Tell whether the last requests to the host of `url` all came to nothing."""
        with self._jobs_changed:
            return self._host(url).num_failures >= self.settings.max_failures

    def await_turn(self, url: str) -> None:
        """Keep the pause before one more request to a host that the caller holds already."""
        with self._hosts_changed:
            host = self._host(url)
            now = self._clock()
            start = max(now, host.free_at)
            host.free_at = start + self.settings.seconds_between_requests
            self._hosts_changed.wait_for(lambda: self._is_closed, start - now)

    @contextlib.contextmanager
    def visit(self, url: str) -> Iterator[None]:
        """Hold the host of `url` for the block, as for a redirect; waits until it is free.

        Raises:
            TimeoutError: it stayed busy; two hosts that redirect to each other could wait for ever.
        """
        self._enter(url)
        try:
            self.await_turn(url)
            yield
        finally:
            with self._hosts_changed:
                self._let_go(url)

    def close(self) -> None:
        """Send everybody home who waits here, now or later."""
        with self._jobs_changed:
            self._is_closed = True
            self._jobs_changed.notify_all()
            self._hosts_changed.notify_all()

    def _host(self, url: str) -> _Host[Job]:
        return self._hosts.setdefault(host_of(url), _Host())

    def _enter(self, url: str) -> None:
        host = self._host(url)
        most = self.settings.max_connections
        with self._hosts_changed:
            host.num_visitors += 1
            is_free = self._hosts_changed.wait_for(
                lambda: self._is_closed or host.num_busy < most, _VISIT_SECONDS
            )
            host.num_visitors -= 1
            host.num_busy += is_free
            self._schedule(host_of(url))
            self._jobs_changed.notify()
        if not is_free:
            raise TimeoutError(f"{host_of(url)} stayed busy for {_VISIT_SECONDS:.0f} s")

    def _let_go(self, url: str) -> None:
        self._host(url).num_busy -= 1
        self._schedule(host_of(url))
        self._jobs_changed.notify()
        self._hosts_changed.notify_all()

    def _enqueue(self, job: Job, url: str) -> None:
        self._host(url).jobs.append((job, url))
        self._schedule(host_of(url))

    def _schedule(self, name: str) -> None:
        """Note when the first job of a host may start; that may turn out to be later."""
        host = self._hosts[name]
        if host.jobs and self._is_free(host) and not host.is_scheduled:
            host.is_scheduled = True
            heapq.heappush(self._ready, (host.free_at, next(self._order), name))

    def _is_free(self, host: _Host[Job]) -> bool:
        return host.num_busy + host.num_visitors < self.settings.max_connections

    def _pop_ready(self, now: float) -> tuple[Job, str] | None:
        while self._ready and self._ready[0][0] <= now:
            _, _, name = heapq.heappop(self._ready)
            host = self._hosts[name]
            host.is_scheduled = False
            if not host.jobs or not self._is_free(host):
                continue
            if host.free_at > now:  # an older note; the host has been asked since
                self._schedule(name)
                continue
            host.num_busy += 1
            host.free_at = now + self.settings.seconds_between_requests
            found = host.jobs.popleft()
            self._schedule(name)
            return found
        return None

    def _put_back_delayed(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            _, _, job, url = heapq.heappop(self._delayed)
            self._enqueue(job, url)

    def _wait_for_jobs(self, now: float) -> None:
        """Wait to be told, or for the next moment if nobody else wakes for it already."""
        moment = min(
            (heap[0][0] for heap in (self._ready, self._delayed) if heap), default=math.inf
        )
        if moment >= self._alarm:
            self._jobs_changed.wait()
            return
        self._alarm = moment
        self._jobs_changed.wait(moment - now if moment < math.inf else None)
        self._alarm = math.inf
