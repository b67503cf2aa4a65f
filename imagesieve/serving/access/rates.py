"""How often each caller may come: a bucket of tokens for each."""

import math
import threading
import time
from collections.abc import Callable, Hashable

import cachetools


class TokenBuckets:
    """A bucket for each of the callers seen last; any thread may take from them.

    A bucket that was forgotten comes back full, so a flood of new callers harms none of the old.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_callers: int = 10_000,
    ) -> None:
        """Fill all buckets.

        Args:
            rate: tokens a second, more than 0.
            burst: tokens at once after a rest, 1 or more.
            clock: returns seconds.
            max_callers: how many buckets to remember.
        """
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        # Tokens, and the clock's seconds when they were counted.
        self._buckets: cachetools.LRUCache[Hashable, tuple[float, float]]
        self._buckets = cachetools.LRUCache(max_callers)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: Hashable, cost: float = 1, *, at_least: float = 1) -> int:
        """Take tokens, or none of them.

        Args:
            caller: whose bucket.
            cost: tokens to take. They may be more than are there: the bucket owes them then, and
                gives nothing before they are paid back. So even what costs more than a full
                bucket can be had, and the rate is kept all the same.
            at_least: tokens that must be there.

        Returns:
            0 when they were taken, else the whole seconds to wait for the missing ones.
        """
        with self._lock:
            now = self._clock()
            tokens, counted_at = self._buckets.get(caller, (self.burst, now))
            tokens = min(self.burst, tokens + (now - counted_at) * self.rate)
            missing = at_least - tokens
            self._buckets[caller] = (tokens if missing > 0 else tokens - cost), now
        return math.ceil(max(0.0, missing) / self.rate)
