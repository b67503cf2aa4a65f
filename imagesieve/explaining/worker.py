"""A process that explains images: only this one loads TensorFlow, and others may kill it.

With TensorFlow it is several times as large as the program. So the first image starts it, it
explains those that follow, and it ends when no more come. On one pipe each question is answered
with one message; another takes what the process prints, for the log.
"""

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import queue
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imagesieve.errors import ClassifierError, EngineError, ModelDamagedError, UsageError
from imagesieve.model import versions
from imagesieve.threads import cpu_count

if TYPE_CHECKING:
    from imagesieve.explaining.grad_cam import GradCam

_NICENESS = 5
_OOM_SCORE = "500"  # of 1000, where memory runs out
_TENSORFLOW_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",  # one image is not worth a graphics card's memory
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": str(cpu_count()),  # it would count the host's, not ours
    "TF_NUM_INTEROP_THREADS": "1",
}
_OK, _UNAVAILABLE, _FAILED = b"ok", b"unavailable", b"failed"  # then a line break and the rest

_log = logging.getLogger(__name__)


class Question(NamedTuple):
    pixels: np.ndarray  # (height, width, 3) uint8, RGB, of the model's size
    class_index: int  # of the model's outputs
    size: tuple[int, int]  # (width, height) of the PNG, in pixels


def obstacle(version: versions.ModelVersion) -> str | None:
    """Return why images cannot be explained for a version, or None; it is quick."""
    if not all(map(importlib.util.find_spec, ("keras", "tensorflow"))):
        return "Explanations need Keras and TensorFlow on the server: install requirements.txt."
    if version.file(versions.KERAS_MODEL) is None:
        return f"Explanations need a Keras model, and {version.name} has no {versions.KERAS_MODEL}."
    return None


class _Child(NamedTuple):
    process: SpawnProcess
    connection: Connection
    digest: str  # of the version that it explains


class Explainer:
    """Explains one image at a time; safe to call from many threads."""

    def __init__(self, idle_seconds: float = 60, deadline_seconds: float = 60) -> None:
        self._idle_seconds = idle_seconds  # that the process outlives its last answer
        self._deadline_seconds = deadline_seconds  # for an answer and the start of the process
        self._busy = threading.Lock()  # its holder alone starts, asks and ends the process
        self._child: _Child | None = None
        self._idle = threading.Timer(0, self._end_if_idle)
        self._closed = False

    def explain(self, version: versions.ModelVersion, question: Question) -> bytes:
        """Return a PNG of the image as the model saw it, brighter where it speaks for the class.

        Raises:
            BlockingIOError: another image is being explained.
            TimeoutError: it took too long.
            UsageError: such a model cannot be explained at all.
            EngineError: the process ended, or the model could not be loaded or explained.
        """
        if not self._busy.acquire(blocking=False):
            raise BlockingIOError("Another image is being explained: try again in a moment.")
        try:
            self._idle.cancel()
            return self._ask(self._child_for(version), question)
        finally:
            if self._child:
                self._idle = _timer(self._idle_seconds, self._end_if_idle)
            self._busy.release()

    def close(self) -> None:
        """End the process whatever it does, and start none any more."""
        self._closed = True
        if child := self._child:
            child.process.kill()  # the thread that waits for it gets an error: it frees the lock
        with self._busy:
            self._end()

    def _child_for(self, version: versions.ModelVersion) -> _Child:
        child = self._child
        # `Process.is_alive` reaps the process, for which another thread waits.
        if child and (child.digest != version.digest or wait([child.process.sentinel], 0)):
            self._end()
        child = self._child = self._child or _start(version)
        if self._closed:  # checked when `close` can see the process, so `close` or this ends it
            self._end()
            raise EngineError("The program is stopping.")
        return child

    def _ask(self, child: _Child, question: Question) -> bytes:
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            child.process.kill()

        # Killing it ends every wait for it: a pipe that is full has no time limit of its own.
        timer = _timer(self._deadline_seconds, give_up)
        try:
            child.connection.send(question)
            answer = child.connection.recv_bytes()
        except (OSError, EOFError) as error:
            self._end()
            if overdue.is_set():
                late = f"The image was not explained within {self._deadline_seconds:g} seconds."
                raise TimeoutError(late) from error
            ended = "The process that explains images ended; the log has its last words."
            raise EngineError(ended) from error
        finally:
            timer.cancel()
        # Bytes, not objects: a pickle from a process that reads a model file could run code here.
        status, _, data = answer.partition(b"\n")
        if status == _UNAVAILABLE:
            raise UsageError(data.decode())
        if status == _FAILED:
            raise EngineError(f"The image cannot be explained: {data.decode()}")
        return data

    def _end_if_idle(self) -> None:
        if self._busy.acquire(blocking=False):
            self._end()
            self._busy.release()

    def _end(self) -> None:
        self._idle.cancel()
        if self._child:
            self._child.process.kill()
            self._child.process.join()
            self._child.connection.close()
        self._child = None


def _timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def _start(version: versions.ModelVersion) -> _Child:
    # Spawned, since a fork would have the locks of this process's threads, and its memory.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    messages, messages_there = context.Pipe(duplex=False)
    arguments = there, messages_there, version.path.resolve(), version.digest
    process = context.Process(target=_main, args=arguments, daemon=True)
    try:
        process.start()
    except OSError as error:
        raise EngineError(f"No process for explanations can be started: {error}") from error
    finally:
        there.close()
        messages_there.close()
    _log.debug("process %d explains images for %s", process.pid, version.name)
    threading.Thread(target=_log_messages, args=(process, messages), daemon=True).start()
    return _Child(process, here, version.digest)


def _log_messages(process: SpawnProcess, messages: Connection) -> None:
    """Copy what the process prints to the log; reap it when it ends."""
    with messages, open(messages.fileno(), "rb", closefd=False) as lines:
        for line in lines:
            _log.debug("explaining: %s", line.decode("utf-8", "backslashreplace").rstrip())
    process.join()
    _log.debug("process %d, which explained images, ended", process.pid)


def _main(connection: Connection, messages: Connection, path: Path, digest: str) -> None:
    """Answer questions until the program ends or kills this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C on the terminal is for the program
    os.dup2(messages.fileno(), 1)
    os.dup2(messages.fileno(), 2)
    os.environ.update(_TENSORFLOW_SETTINGS)
    warnings.resetwarnings()  # `python -W error` is inherited, and TensorFlow's own would be errors
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, questions), daemon=True).start()
    # Predictions go first, and the system ends this process before it ends the service.
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # another system than Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    network = None
    while True:
        question = questions.get()
        try:
            network = network or _open(path, digest)
            answer = _OK, network.explain(*question)
        except UsageError as error:
            answer = _UNAVAILABLE, str(error).encode()
        except Exception as error:  # Keras raises whatever its layers raise; the next may work
            traceback.print_exc()
            reason = str(error) if isinstance(error, ClassifierError) else repr(error)
            answer = _FAILED, reason.encode("utf-8", "backslashreplace")
        connection.send_bytes(b"\n".join(answer))


def _receive(connection: Connection, questions: "queue.SimpleQueue[Question]") -> None:
    """Queue questions; end this process with the program, even in the middle of TensorFlow."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            questions.put(connection.recv())
    os._exit(0)


def _open(path: Path, digest: str) -> "GradCam":
    """Load a version; TensorFlow, which takes seconds, comes after every check."""
    version = versions.load(path)
    if version.digest != digest:
        raise ModelDamagedError(f"The model version {path} is not the one that is served any more.")

    from imagesieve.explaining import grad_cam

    return grad_cam.load(version)
