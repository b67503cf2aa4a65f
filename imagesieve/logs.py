"""Logging for scripts: short lines for a person, every detail in `log/<script>-<time>.log`.

Modules only call `logging.getLogger(__name__)`; scripts alone call `start_logging`.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from imagesieve.files import output_error, reporting_output_errors

LOG_FOLDER = Path("log")
MAX_FILE_BYTES = 50 * 2**20  # a service writes a line for each request, for months
NUM_OLDER_FILES = 5


def timestamp() -> str:
    """Return the local time as `YYYYMMDD-HHMMSS`, fit for file names and sortable."""
    return time.strftime("%Y%m%d-%H%M%S")


def start_logging(script: str, *, quiet: bool = False, folder: Path = LOG_FOLDER) -> Path:
    """Send the package's log lines to standard error and to a new file, and return its path.

    The file gets everything from DEBUG up with times; standard error gets INFO and above, or
    WARNING and above when `quiet`. A file that has grown to `MAX_FILE_BYTES` is put aside as
    `.log.1` and so on, of which `NUM_OLDER_FILES` are kept.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    path = folder / f"{script}-{timestamp()}.log"
    with reporting_output_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        to_file = _LogFile(
            path,
            maxBytes=MAX_FILE_BYTES,
            backupCount=NUM_OLDER_FILES,
            encoding="utf-8",
            errors="backslashreplace",
        )
    to_file.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s")
    )
    to_file.setLevel(logging.DEBUG)
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter("%(message)s"))
    to_console.setLevel(logging.WARNING if quiet else logging.INFO)

    root = logging.getLogger()
    _remove_handlers(root)
    root.addHandler(to_file)
    root.setLevel(logging.WARNING)  # other people's libraries: only what went wrong
    ours = logging.getLogger("imagesieve")
    _remove_handlers(ours)
    ours.setLevel(logging.DEBUG)
    ours.addHandler(to_console)
    return path


@contextlib.contextmanager
def native_messages_in_log() -> Iterator[None]:
    """Send what C++ libraries write to standard error during the block to the log file.

    TensorFlow prints half a dozen lines before any of its own switches is read. Without a log
    file nothing is redirected: a message is never lost.
    """
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    if not files:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for what it says after the block
    sys.stderr.flush()
    terminal = os.dup(2)
    log = os.open(files[0].baseFilename, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(log)


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log file whose disk may fill up: one warning, and the script goes on without it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):  # closing writes what is left
            self.close()
        with contextlib.suppress(OSError, ValueError):  # standard error may be closed
            trouble = output_error(os.path.relpath(self.baseFilename), error)
            print(f"warning: {trouble} The log ends here.", file=sys.stderr)


def _remove_handlers(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
