"""The child process that explains images, seen from the service.

`imagesieve/explaining/worker.py` is what it runs; the messages are told there.
"""

import contextlib
import logging
import os
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast

from imagesieve.cores import cpu_count
from imagesieve.errors import EngineError
from imagesieve.model import versions
from imagesieve.serving.errors import DeadlineExceededError

_WORKER = "imagesieve.explaining.worker"
_PROJECT = Path(__file__).resolve().parents[2]  # where Python finds that module
_LENGTH = struct.Struct(">I")

_log = logging.getLogger(__name__)


class Child:
    """The process, for one model version.

    Attributes:
        digest: of the version.
    """

    def __init__(self, version: versions.ModelVersion) -> None:
        """Start it; loading goes on while the first request is sent.

        Raises:
            EngineError: the system cannot start a process.
        """
        self.digest = version.digest
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-m", _WORKER, str(version.path.resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=_PROJECT,
                env=os.environ | _environment(),
                start_new_session=True,  # a Ctrl-C on the terminal is the server's to hear
            )
        except OSError as error:
            raise EngineError(f"No process for explanations can be started: {error}") from error
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._messages = cast(IO[bytes], self._process.stderr)
        _log.debug("process %d explains images for %s", self._process.pid, version.name)
        threading.Thread(target=self._listen, name="explain-messages", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, looked at while it has nothing to answer."""
        # `Popen.poll` knows nothing while another thread waits for the process. One that was not
        # asked writes nothing: what there is to read then is the end of the pipe.
        end = select.poll()
        end.register(self._answers, select.POLLIN | select.POLLHUP)
        return not end.poll(0)

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Send a request and give the answer; after an error the process is of no use any more.

        Raises:
            DeadlineExceededError: there was no answer in time.
            EngineError: the process ended.
        """
        overdue = threading.Event()
        # Killing it ends every wait for it, on any system: a pipe has no time limit of its own.
        timer = threading.Timer(seconds, self._give_up, [overdue])
        timer.daemon = True
        timer.start()
        try:
            self._requests.write(_LENGTH.pack(len(request)) + request)
            self._requests.flush()
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            return self._read(length)
        except (OSError, EOFError) as error:
            if overdue.is_set():
                raise DeadlineExceededError(
                    f"The image was not explained within {seconds:g} seconds."
                ) from error
            raise EngineError(
                "The process that explains images ended; the log has its last words."
            ) from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Kill it and do not wait."""
        self._process.kill()

    def end(self) -> None:
        """Kill it and clear up."""
        self.kill()
        self._process.wait()
        self._answers.close()
        with contextlib.suppress(OSError):  # half a request may be left to write, to nobody
            self._requests.close()

    def _give_up(self, overdue: threading.Event) -> None:
        overdue.set()
        self.kill()

    def _read(self, num_bytes: int) -> bytes:
        data = self._answers.read(num_bytes)
        if len(data) < num_bytes:
            raise EOFError
        return data

    def _listen(self) -> None:
        """Pass its messages on to the log; when it ends, see to it that it leaves no zombie."""
        with self._messages as messages:
            for line in messages:
                _log.debug("explaining: %s", line.decode("utf-8", "backslashreplace").rstrip())
        code = self._process.wait()
        _log.debug("process %d, which explained images, ended (%d)", self._process.pid, code)


def _environment() -> dict[str, str]:
    """Give what makes TensorFlow modest and quiet."""
    cores = str(cpu_count())
    return {
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",  # one image is not worth a graphics card's memory
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": cores,  # it would count those of the host, not the container's
        "TF_NUM_INTEROP_THREADS": "1",
    }
