"""How many cores there are to work with, and a map over threads that works ahead."""

import collections
import concurrent.futures
import math
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Return the number of cores this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_quota()
    return max(1, min(cores or 1, math.ceil(quota)) if quota else cores or 1)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order, computed by a pool of threads.

    Items are read as results are taken, at most `ahead` + 1 of them, so they may be endless. What
    `function` or `items` raise comes at its place in the order; the pool is closed then, as it is
    when the caller stops early.
    """
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cgroup_quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
