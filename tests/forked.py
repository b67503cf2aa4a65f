"""Functions in processes of their own, forked from one that has imported TensorFlow already.

To import it takes ten seconds of a processor; to fork, a tenth of one.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["keras"])


class Forked:
    """A function that runs in a folder, with its output in files of a folder of their own."""

    def __init__(
        self, folder: Path, outputs: Path, function: Callable[..., object], *arguments: object
    ) -> None:
        self._outputs = outputs
        outputs.mkdir(exist_ok=True)
        for name in ("stdout", "stderr"):
            (outputs / name).write_bytes(b"")
        self._process = _context.Process(target=_run, args=(folder, outputs, function, arguments))
        self._process.start()

    @property
    def stdout(self) -> str:
        return (self._outputs / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._outputs / "stderr").read_text()

    def wait_for(self, is_so: Callable[[str], object]) -> str:
        """Wait until something is so, which is given what stands in standard error; return that."""
        while True:
            is_alive = self._process.is_alive()
            if is_so(read := self.stderr):
                return read
            assert is_alive, read
            time.sleep(0.002)

    def end(self, signal_number: int | None = None, timeout: float = 240) -> int:
        """Wait for the end, after a signal if one is named; return the exit code."""
        if signal_number is not None:
            assert self._process.pid
            os.kill(self._process.pid, signal_number)
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        self._process.close()
        assert code is not None, f"it did not end:\n{self.stderr}"
        return code


def _run(
    folder: Path, outputs: Path, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(outputs / name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    function(*arguments)
