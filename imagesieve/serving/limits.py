"""What one request, all requests together, and those of one caller may cost."""

import contextlib
import dataclasses
import math
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterator

import cachetools

from imagesieve.images import DecodingLimit, Limits
from imagesieve.serving.errors import OverloadedError

BATCH_PATH = "/v1/predict/batch"  # the HTTP server lets larger bodies through to it
# The largest image as Base64 with its signs percent-encoded and its lines broken fits.
MAX_BODY_BYTES = 16 * 2**20
MAX_BATCH_BYTES = 32 * 2**20
MAX_OBJECT_BYTES = 65_536  # of a JSON body that carries no image

_IMAGES = Limits(max_bytes=10 * 2**20)  # a good photo at full size
_BUSY = "{} {} are being worked on already: try again in a moment."
_NEWEST = 0.1  # weight of the last request in how long they take of late


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """The limits of the service at work; those of a request's form are where it is read."""

    images: Limits = _IMAGES  # bytes, pixels and sides of one image
    max_batches: int = 2  # at once: each holds all its images
    max_fetches: int = 4  # images being fetched by URL at once
    max_in_flight: int = 16  # requests being worked on
    max_waiting: int = 48  # requests that wait for one of those places; the next one is refused
    max_waiting_seconds: float = 0.5  # then they are refused too: to come back soon costs more
    max_decoding: int = 4  # images decoded at once: up to 16 bytes a pixel each
    heavy_pixels: int = 8_000_000  # images above are decoded one after another
    max_decoding_wait: float = 20.0  # seconds to wait for a place to decode
    spare_threads: int = 16  # they answer health probes and refusals while all places are taken
    max_connections: int = 1000
    max_waiting_bytes: int = 512 * 2**20  # of all bodies being received or waiting, together
    idle_seconds: int = 30  # a silent connection is closed
    deadline_seconds: float = 20.0  # from the request's arrival to the engine's answer
    batch_deadline_seconds: float = 60.0
    cache_entries: int = 10_000  # predictions, by the image's content; 0 for none
    drain_seconds: float = 20.0  # how long a stopping server waits for requests in flight

    @property
    def num_threads(self) -> int:  # of the HTTP server
        return self.max_in_flight + self.max_waiting + self.spare_threads


class Admission:
    """The semaphores of `ServingLimits`, and how long requests take."""

    def __init__(self, limits: ServingLimits | None = None) -> None:
        self.limits = limits = limits or ServingLimits()
        self._requests = threading.BoundedSemaphore(limits.max_in_flight)
        self._waiting = threading.BoundedSemaphore(limits.max_waiting)
        self._batches = threading.BoundedSemaphore(limits.max_batches)
        self._decoding = threading.BoundedSemaphore(limits.max_decoding)
        self._decoding_large = threading.BoundedSemaphore(1)
        self._lock = threading.Lock()
        self.in_flight = 0  # requests being worked on
        self._seconds = 0.0  # that a request has taken of late

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request in flight; raise OverloadedError after a moment without."""
        if not self._requests.acquire(blocking=False):
            busy = _BUSY.format(self.limits.max_in_flight, "requests")
            with _held(self._waiting, 0, busy):
                is_free = self._requests.acquire(timeout=self.limits.max_waiting_seconds)
            if not is_free:
                raise OverloadedError(busy)
        begun = time.monotonic()
        with self._lock:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1
                self._seconds += _NEWEST * (time.monotonic() - begun - self._seconds)
            self._requests.release()

    def batch_place(self) -> contextlib.AbstractContextManager[None]:
        """Hold a place for a batch besides; never waits: raises OverloadedError at once."""
        return _held(self._batches, 0, _BUSY.format(self.limits.max_batches, "batches"))

    def retry_after(self) -> int:
        """Return the seconds in which a place should become free, 1 to 30."""
        # Those who were refused together shall not come back together.
        spread = random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
        return min(30, max(1, math.ceil(spread * self._seconds)))

    def decoding(self, deadline: float = math.inf) -> DecodingLimit:
        """Return the limit of images that are decoded at once, for `images.decode`.

        Large images are decoded one after another, and small ones never wait for them. Entering
        what the limit returns raises OverloadedError at the deadline, by `time.monotonic`.
        """

        def at_once(num_pixels: int) -> contextlib.AbstractContextManager[None]:
            is_large = num_pixels > self.limits.heavy_pixels
            return _held(
                self._decoding_large if is_large else self._decoding,
                min(self.limits.max_decoding_wait, max(0.0, deadline - time.monotonic())),
                "Other images take too long to decode: try again in a moment.",
            )

        return at_once


@contextlib.contextmanager
def _held(semaphore: threading.BoundedSemaphore, timeout: float, busy: str) -> Iterator[None]:
    if not semaphore.acquire(timeout=timeout):
        raise OverloadedError(busy)
    try:
        yield
    finally:
        semaphore.release()


class TokenBuckets:
    """A bucket of tokens for each of the callers seen last; any thread may take from them.

    A bucket that was forgotten comes back full, so a flood of new callers harms none of the old.
    """

    def __init__(
        self,
        rate: float,  # tokens a second, more than 0
        burst: int,  # tokens at once after a rest, 1 or more
        *,
        clock: Callable[[], float] = time.monotonic,
        max_callers: int = 10_000,
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        # Tokens, and the clock's seconds when they were counted.
        self._buckets: cachetools.LRUCache[Hashable, tuple[float, float]]
        self._buckets = cachetools.LRUCache(max_callers)

    def take(self, caller: Hashable, cost: float = 1, *, at_least: float = 1) -> int:
        """Take `cost` tokens, or none of them unless `at_least` so many are there.

        Return 0 when they were taken, else the whole seconds to wait for the missing ones. A bucket
        may owe tokens: even what costs more than a full one can be had, and the rate is kept.
        """
        with self._lock:
            now = self._clock()
            tokens, counted_at = self._buckets.get(caller, (self.burst, now))
            tokens = min(self.burst, tokens + (now - counted_at) * self.rate)
            missing = at_least - tokens
            self._buckets[caller] = (tokens if missing > 0 else tokens - cost), now
        return math.ceil(max(0.0, missing) / self.rate)
