"""Logging for scripts: short lines for a person, every detail in `log/<script>-<time>.log`.

Modules only call `logging.getLogger(__name__)`; scripts alone call `start_logging`.
"""

import logging
import sys
import time
from pathlib import Path

from classifier.files import reporting_output_errors

LOG_FOLDER = Path("log")


def timestamp() -> str:
    """Give the local time as `YYYYMMDD-HHMMSS`, fit for file names and sortable."""
    return time.strftime("%Y%m%d-%H%M%S")


def start_logging(script: str, *, quiet: bool = False, folder: Path = LOG_FOLDER) -> Path:
    """Send the package's log lines to standard error and to a new file.

    The file gets everything from DEBUG up with times; standard error gets INFO and above, or
    WARNING and above when `quiet`. Standard output is left to data.

    Returns:
        the path of the log file.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    path = folder / f"{script}-{timestamp()}.log"
    with reporting_output_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s")
    )
    to_file.setLevel(logging.DEBUG)
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter("%(message)s"))
    to_console.setLevel(logging.WARNING if quiet else logging.INFO)

    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(to_file)
    root.setLevel(logging.WARNING)  # other people's libraries: only what went wrong
    ours = logging.getLogger("classifier")
    for handler in ours.handlers[:]:
        ours.removeHandler(handler)
    ours.setLevel(logging.DEBUG)
    ours.addHandler(to_console)
    return path
