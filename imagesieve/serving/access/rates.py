"""How often each caller may come: a bucket of tokens for each."""

import dataclasses
import threading
import time
from collections.abc import Callable, Hashable

import cachetools

MAX_CALLERS = 10_000


@dataclasses.dataclass(frozen=True)
class RateLimit:
    """What one caller may ask for."""

    rate: float  # tokens a second, more than 0
    burst: int  # tokens at once after a rest, 1 or more


@dataclasses.dataclass
class _Bucket:
    tokens: float
    filled_at: float  # seconds of the clock


class TokenBuckets:
    """A bucket for each of the callers seen last; any thread may take from them.

    A bucket that was forgotten comes back full, so a flood of new callers harms none of the old.
    """

    def __init__(
        self,
        limit: RateLimit,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_callers: int = MAX_CALLERS,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: cachetools.LRUCache[Hashable, _Bucket] = cachetools.LRUCache(max_callers)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: Hashable, cost: float = 1, *, at_least: float = 1) -> float:
        """Take tokens, or none of them.

        Args:
            caller: whose bucket.
            cost: tokens to take. They may be more than are there: the bucket owes them then, and
                gives nothing before they are paid back. So even what costs more than a full
                bucket can be had, and the rate is kept all the same.
            at_least: tokens that must be there.

        Returns:
            0 when they were taken, else the seconds to wait for the missing ones.
        """
        with self._lock:
            bucket = self._filled(caller)
            missing = at_least - bucket.tokens
            if missing > 0:
                return missing / self._limit.rate
            bucket.tokens -= cost
            return 0

    def _filled(self, caller: Hashable) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._limit.burst, now)
        gained = (now - bucket.filled_at) * self._limit.rate
        bucket.tokens = min(self._limit.burst, bucket.tokens + gained)
        bucket.filled_at = now
        return bucket
