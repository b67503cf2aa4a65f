"""The engine's places: as many runs at once as it has streams, each with a deadline."""

import dataclasses
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from imagesieve.serving.errors import DeadlineExceededError


@dataclasses.dataclass(eq=False)
class _Run:
    """One run of the engine, which a caller waits for."""

    work: Callable[[], Any]
    is_wanted: bool = True
    started: float = 0.0
    result: Any = None
    error: BaseException | None = None
    done: threading.Event = dataclasses.field(default_factory=threading.Event)


class _Room:
    """What callers and threads share; it knows nothing of `EngineSlots`, so that that can go."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self.overdue = 0
        self._lock = threading.Lock()

    def give_up(self, run: _Run) -> bool:
        """Wait for a run no longer; False when it was done in the very last moment."""
        with self._lock:
            if run.done.is_set():
                return False
            run.is_wanted = False
            if run.started:
                self.overdue += 1
            return True

    def serve(self) -> None:
        """Do what waits, until a None comes."""
        while (run := self.waiting.get()) is not None:
            if self._begin(run):
                try:
                    run.result = run.work()
                except BaseException as error:  # the caller's to judge; the thread must live on
                    run.error = error
                self._end(run)
            del run  # its pixels must not outlive it while the thread waits for the next

    def close(self, num_threads: int) -> None:
        """End the threads once they have done what waits."""
        for _ in range(num_threads):
            self.waiting.put(None)

    def _begin(self, run: _Run) -> bool:
        with self._lock:
            if run.is_wanted:
                run.started = time.monotonic()
            return run.is_wanted

    def _end(self, run: _Run) -> None:
        with self._lock:
            if not run.is_wanted:
                self.overdue -= 1
            run.done.set()


class EngineSlots:
    """Threads that run an engine, so that a caller can stop waiting for one that hangs.

    They end when nobody has these slots any more. They are daemons: an engine that never comes back
    must not keep the server from leaving.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._room = _Room()
        weakref.finalize(self, self._room.close, num_slots)
        for number in range(num_slots):
            threading.Thread(target=self._room.serve, name=f"engine-{number}", daemon=True).start()

    @property
    def is_wedged(self) -> bool:
        """Whether every place is held by a run that nobody waits for any more."""
        return self._room.overdue >= self._num_slots

    def run(self, work: Callable[[], Any], deadline: float) -> tuple[Any, float]:
        """Do `work` in one of the places.

        Args:
            work: what runs the engine.
            deadline: when to stop waiting, by `time.monotonic`. Work that has not begun by then
                never begins; work that has begun goes on, and its place is taken until it ends.

        Returns:
            What `work` gave, and the seconds it waited for its place.

        Raises:
            DeadlineExceededError: it was not done by then.
            BaseException: whatever `work` raised.
        """
        begun = time.monotonic()
        run = _Run(work)
        self._room.waiting.put(run)
        if not run.done.wait(max(0.0, deadline - begun)) and self._room.give_up(run):
            raise DeadlineExceededError("The model did not answer in time: try again in a moment.")
        if run.error is None:
            return run.result, run.started - begun
        try:
            raise run.error
        finally:
            del run  # or its error, which knows this frame, would keep the image for a while
