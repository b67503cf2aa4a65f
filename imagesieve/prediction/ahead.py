"""A map over threads that works ahead of its consumer, within bounds."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order, computed by a pool of threads.

    Args:
        function: called from several threads at once.
        items: read one at a time as results are taken, so they may be endless.
        threads: how many.
        ahead: how many results at most are computed before they are taken, which bounds memory.

    Raises:
        Exception: what `function` raised, at its place in the order, or what `items` raised. The
            pool is closed then, as it is when the caller stops early.
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
