"""Politeness to hosts: few requests at once, a pause between them, none to one that is down.

Jobs wait here for their host, so that a slow or popular host holds up its own images only, and
never a worker.
"""

import collections
import contextlib
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from imagesieve.web import urls

Job = TypeVar("Job")
Host = tuple[str, int]  # name and port; two ports are two hosts

_VISIT_SECONDS = 5.0
_MAX_FAILURES = 5  # in a row, without an answer; then the host counts as down


def host_of(url: str) -> Host:
    """Return name and port of a URL's host."""
    parsed = urls.parse(url)
    return parsed.host, parsed.port


class _HostState(Generic[Job]):
    def __init__(self) -> None:
        self.jobs: collections.deque[tuple[Job, str]] = collections.deque()
        self.num_busy = 0
        self.num_visitors = 0  # that wait; they hold up another host meanwhile, so they go first
        self.free_at = 0.0  # by the clock, when the next request may start
        self.num_failures = 0
        self.is_scheduled = False  # whether it has an event; more would cost time


class HostThrottle(Generic[Job]):
    """The jobs that wait, by host. Any thread may call any method."""

    def __init__(
        self,
        max_connections: int = 2,
        seconds_between_requests: float = 0.1,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._pause = seconds_between_requests
        self._clock = clock
        self._hosts: dict[Host, _HostState[Job]] = {}
        # Heap of moments at which the first job of a host may start, or a delayed one is put back.
        self._events: list[tuple[float, int, _HostState[Job], tuple[Job, str] | None]] = []
        self._order = itertools.count()
        lock = threading.RLock()
        self._jobs_changed = threading.Condition(lock)  # wakes one worker at a time
        self._hosts_changed = threading.Condition(lock)  # wakes all that wait for a host
        self._alarm = math.inf  # the moment at which a waiting worker wakes by itself
        self._is_closed = False

    def put(self, job: Job, url: str, delay: float = 0.0) -> None:
        """Have `job`, a request to `url`, wait for its host, but at least `delay` seconds."""
        with self._jobs_changed:
            host = self._host(url)
            if delay > 0:
                self._add_event(self._clock() + delay, host, (job, url))
            else:
                host.jobs.append((job, url))
                self._schedule(host)
            self._jobs_changed.notify()

    def take(self) -> tuple[Job, str] | None:
        """Wait for a job whose host is free and return it with its URL; None after `close`.

        The host counts as busy until `leave` is called with that URL.
        """
        with self._jobs_changed:
            while not self._is_closed:
                now = self._clock()
                if (found := self._pop_ready(now)) is not None:
                    self._jobs_changed.notify()  # another one must look after the next moment
                    return found
                self._wait_for_jobs(now)
            return None

    def leave(self, url: str, *, answered: bool | None) -> None:
        """Release the host of a URL that `take` returned; None: there was no request to answer."""
        with self._jobs_changed:
            host = self._host(url)
            if answered is not None:
                host.num_failures = 0 if answered else host.num_failures + 1
            self._release(host)

    def is_down(self, url: str) -> bool:
        """Return whether the last requests to the host of `url` all came to nothing."""
        with self._jobs_changed:
            return self._host(url).num_failures >= _MAX_FAILURES

    def pause(self, url: str) -> None:
        """Wait before one more request to a host that the caller has taken already."""
        with self._hosts_changed:
            host = self._host(url)
            now = self._clock()
            start = max(now, host.free_at)
            host.free_at = start + self._pause
            self._hosts_changed.wait_for(lambda: self._is_closed, start - now)

    @contextlib.contextmanager
    def visit(self, url: str) -> Iterator[None]:
        """Take the host of `url` for the block, as for a redirect; waits until it is free.

        Raises:
            TimeoutError: it stayed busy; two hosts that redirect to each other could wait for ever.
        """
        host = self._host(url)
        if not self._enter(host):
            raise TimeoutError(f"{urls.parse(url).origin} stayed busy for {_VISIT_SECONDS:.0f} s")
        try:
            self.pause(url)
            yield
        finally:
            with self._hosts_changed:
                self._release(host)

    def close(self) -> None:
        """End every wait, now and later."""
        with self._jobs_changed:
            self._is_closed = True
            self._jobs_changed.notify_all()
            self._hosts_changed.notify_all()

    def _host(self, url: str) -> _HostState[Job]:
        return self._hosts.setdefault(host_of(url), _HostState())

    def _enter(self, host: _HostState[Job]) -> bool:
        most = self._max_connections
        with self._hosts_changed:
            host.num_visitors += 1
            is_free = self._hosts_changed.wait_for(
                lambda: self._is_closed or host.num_busy < most, _VISIT_SECONDS
            )
            host.num_visitors -= 1
            host.num_busy += is_free
            self._schedule(host)
            self._jobs_changed.notify()
        return is_free

    def _release(self, host: _HostState[Job]) -> None:
        host.num_busy -= 1
        self._schedule(host)
        self._jobs_changed.notify()
        self._hosts_changed.notify_all()

    def _add_event(
        self, moment: float, host: _HostState[Job], delayed: tuple[Job, str] | None = None
    ) -> None:
        heapq.heappush(self._events, (moment, next(self._order), host, delayed))

    def _schedule(self, host: _HostState[Job]) -> None:
        """Note when the first job of a host may start; that may turn out to be later."""
        if host.jobs and self._is_free(host) and not host.is_scheduled:
            host.is_scheduled = True
            self._add_event(host.free_at, host)

    def _is_free(self, host: _HostState[Job]) -> bool:
        return host.num_busy + host.num_visitors < self._max_connections

    def _pop_ready(self, now: float) -> tuple[Job, str] | None:
        while self._events and self._events[0][0] <= now:
            _, _, host, delayed = heapq.heappop(self._events)
            if delayed is None:
                host.is_scheduled = False
            else:
                host.jobs.append(delayed)
            found = self._start_first(host, now)
            self._schedule(host)
            if found is not None:
                return found
        return None

    def _start_first(self, host: _HostState[Job], now: float) -> tuple[Job, str] | None:
        if not host.jobs or not self._is_free(host) or host.free_at > now:
            return None
        host.num_busy += 1
        host.free_at = now + self._pause
        return host.jobs.popleft()

    def _wait_for_jobs(self, now: float) -> None:
        """Wait to be woken, or for the next moment if no other worker wakes for it already."""
        moment = self._events[0][0] if self._events else math.inf
        if moment >= self._alarm:
            self._jobs_changed.wait()
            return
        self._alarm = moment
        self._jobs_changed.wait(moment - now if moment < math.inf else None)
        self._alarm = math.inf
