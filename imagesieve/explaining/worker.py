"""A process that explains images: only this one loads TensorFlow, and others may kill it.

The program and the process are connected by two pipes. On one each request is answered with one
message; the other takes what the process prints, for the log.
"""

import contextlib
import io
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imagesieve.cores import cpu_count
from imagesieve.errors import ClassifierError, EngineError, ModelDamagedError, UsageError
from imagesieve.model import versions

if TYPE_CHECKING:
    from imagesieve.explaining.grad_cam import GradCam

_NICENESS = 5
_OOM_SCORE = "500"  # of 1000, where memory runs out
_OK, _UNAVAILABLE, _FAILED = "ok", "unavailable", "failed"

_log = logging.getLogger(__name__)


class Question(NamedTuple):
    """What is to be explained."""

    pixels: np.ndarray  # (height, width, 3) uint8, RGB, of the model's size
    class_index: int  # of the model's outputs
    size: tuple[int, int]  # (width, height) of the PNG, in pixels


class ExplainingProcess:
    """The process, for one model version, as its program sees it.

    It loads the version with the first question.
    """

    def __init__(self, version: versions.ModelVersion) -> None:
        # Spawned, since a fork would have the locks of this process's threads, and its memory.
        context = multiprocessing.get_context("spawn")
        self.digest = version.digest
        self._connection, connection = context.Pipe()
        self._messages, messages = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_main,
            args=(connection, messages, version.path.resolve(), version.digest),
            daemon=True,
        )
        try:
            self.process.start()
        except OSError as error:
            raise EngineError(f"No process for explanations can be started: {error}") from error
        finally:
            connection.close()
            messages.close()
        _log.debug("process %d explains images for %s", self.process.pid, version.name)
        threading.Thread(target=self._log_messages, name="explain-messages", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        # `Process.is_alive` reaps the process, for which another thread waits.
        return not multiprocessing.connection.wait([self.process.sentinel], 0)

    def ask(self, question: Question, seconds: float) -> bytes:
        """Return the PNG for a question; after OSError and EOFError the process is of no more use.

        Raises:
            TimeoutError: there was no answer within `seconds`.
            OSError, EOFError: the process ended.
            UsageError: such a model cannot be explained at all.
            EngineError: it went wrong this time.
        """
        overdue = threading.Event()
        # Killing it ends every wait for it: a pipe that is full has no time limit of its own.
        timer = threading.Timer(seconds, self._give_up, [overdue])
        timer.daemon = True
        timer.start()
        try:
            self._connection.send(question)
            answer = self._connection.recv_bytes()
        except (OSError, EOFError) as error:
            if overdue.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
        # Bytes, not objects: a pickle from a process that reads a model file could run code here.
        status, _, data = answer.partition(b"\n")
        if status.decode() == _UNAVAILABLE:
            raise UsageError(json.loads(data))
        if status.decode() != _OK:
            raise EngineError(f"The image cannot be explained: {json.loads(data)}")
        return data

    def end(self) -> None:
        """Kill it and clear up."""
        self.process.kill()
        self.process.join()
        self._connection.close()

    def _give_up(self, overdue: threading.Event) -> None:
        overdue.set()
        self.process.kill()

    def _log_messages(self) -> None:
        """Copy what the process prints to the log, and leave no zombie when it ends."""
        with self._messages, open(self._messages.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                _log.debug("explaining: %s", line.decode("utf-8", "backslashreplace").rstrip())
        self.process.join()
        _log.debug("process %d, which explained images, ended", self.process.pid)


def _main(connection: Connection, messages: Connection, path: Path, digest: str) -> None:
    """Answer questions until the program ends or kills this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C on the terminal is for the program
    os.dup2(messages.fileno(), 1)
    os.dup2(messages.fileno(), 2)
    os.environ.update(_tensorflow_settings())
    warnings.resetwarnings()  # `python -W error` is inherited, and TensorFlow's own would be errors
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, questions), daemon=True).start()
    _step_back()
    network = None
    while True:
        question = questions.get()
        try:
            network = network or _open(path, digest)
            connection.send_bytes(f"{_OK}\n".encode() + _explain(network, question))
        except UsageError as error:
            connection.send_bytes(f"{_UNAVAILABLE}\n{json.dumps(str(error))}".encode())
        except Exception as error:  # Keras raises whatever its layers raise; the next may work
            traceback.print_exc()
            reason = str(error) if isinstance(error, ClassifierError) else repr(error)
            connection.send_bytes(f"{_FAILED}\n{json.dumps(reason)}".encode())


def _tensorflow_settings() -> dict[str, str]:
    """Return the environment that makes TensorFlow modest and quiet."""
    return {
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",  # one image is not worth a graphics card's memory
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": str(cpu_count()),  # it would count the host's, not ours
        "TF_NUM_INTEROP_THREADS": "1",
    }


def _step_back() -> None:
    """Let predictions go first, and let the system end this process before it ends the service."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # another system than Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


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
        raise ModelDamagedError(
            f"The model version {path} is not the one that is served: it was replaced meanwhile."
        )

    from imagesieve.explaining import grad_cam

    return grad_cam.load(version)


def _explain(network: "GradCam", question: Question) -> bytes:
    from imagesieve.explaining import grad_cam

    heat = network.heat_map(question.pixels, question.class_index)
    buffer = io.BytesIO()
    grad_cam.overlay(question.pixels, heat, question.size).save(buffer, "PNG")
    return buffer.getvalue()
