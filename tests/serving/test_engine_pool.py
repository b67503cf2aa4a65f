"""The threads that run an engine: deadlines, engines that hang, threads that end."""

import functools
import gc
import threading
import time
import weakref

import pytest

from imagesieve.serving.errors import DeadlineExceededError
from imagesieve.serving.pipeline import EnginePool


def soon() -> float:
    return time.monotonic() + 10


def at_once() -> float:
    return time.monotonic() + 0.02


def engine_threads() -> int:
    return sum(thread.name.startswith("engine_") for thread in threading.enumerate())


def settled_engine_threads() -> int:
    """Count when those that were to end have ended."""
    gc.collect()
    count = engine_threads()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        if count != (count := engine_threads()):
            end = time.monotonic() + 0.3
        time.sleep(0.02)
    return count


def test_what_work_raises_reaches_the_caller_and_the_next_is_done() -> None:
    pool = EnginePool(1)

    def fail() -> None:
        raise ZeroDivisionError("the engine's")

    with pytest.raises(ZeroDivisionError, match="the engine's"):
        pool.run(fail, soon())
    with pytest.raises(TimeoutError):  # not to be taken for our own deadline
        pool.run(lambda: (_ for _ in ()).throw(TimeoutError("own")), soon())
    result, waited = pool.run(lambda: 1, soon())
    assert (result, waited >= 0) == (1, True)


def test_nothing_keeps_the_image_of_a_failed_run() -> None:
    class Image:
        pass

    pool = EnginePool(1)
    image = Image()
    remembered = weakref.ref(image)

    def fail(image: Image) -> None:
        raise ZeroDivisionError

    gc.disable()  # what goes in circles would stay until it is looked for
    try:
        with pytest.raises(ZeroDivisionError):
            pool.run(functools.partial(fail, image), soon())
        del image
        pool.run(lambda: None, soon())  # the thread itself remembers its last work
        assert remembered() is None
    finally:
        gc.enable()


def test_as_many_run_at_once_as_there_are_threads() -> None:
    pool, both = EnginePool(2), threading.Barrier(2, timeout=5)
    threads = [threading.Thread(target=pool.run, args=(both.wait, soon())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not both.broken


def test_an_engine_that_hangs_is_not_waited_for_and_shows() -> None:
    pool, go_on, begun = EnginePool(2), threading.Event(), threading.Event()
    ran = []

    def hang() -> None:
        begun.set()
        go_on.wait(10)

    with pytest.raises(DeadlineExceededError):
        pool.run(hang, at_once())
    assert begun.is_set()
    assert not pool.is_wedged  # the other thread is free
    with pytest.raises(DeadlineExceededError):
        pool.run(hang, at_once())
    assert pool.is_wedged
    with pytest.raises(DeadlineExceededError):
        pool.run(lambda: ran.append("too late"), at_once())
    go_on.set()
    assert pool.run(lambda: "again", soon())[0] == "again"
    assert not pool.is_wedged
    assert ran == []  # what no client waits for is never begun


def test_the_threads_end_with_the_pool_and_what_waits_is_done_first() -> None:
    before = settled_engine_threads()
    pool, go_on, done = EnginePool(1), threading.Event(), []
    waiting = [
        threading.Thread(target=pool.run, args=(lambda: (go_on.wait(5), done.append(1)), soon()))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    assert engine_threads() == before + 1
    del pool
    go_on.set()
    for thread in waiting:
        thread.join(5)
    waiting.clear()
    del thread
    assert (settled_engine_threads(), done) == (before, [1, 1, 1])
