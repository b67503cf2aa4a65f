"""One task in a process of its own: nothing that ran before it is warm, and its memory is its own.

Peak memory is VmHWM of /proc/PID/status, looked at every 50 ms; a file that is mapped into memory
counts as far as it is there.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from downloads_rig import measure

from imagesieve.errors import ClassifierError

_WORKER = Path(__file__).resolve().with_name("worker.py")
_MAX_SECONDS = 24 * 3600.0
_LAST_LINES = 15


class TaskError(ClassifierError):
    """A process of a benchmark failed."""


def run_task(
    task: str, arguments: Mapping[str, Any], scratch: Path, *, title: str = ""
) -> dict[str, Any]:
    """Run one of `worker.TASKS` to its end.

    Args:
        task: its name.
        arguments: of the task, as JSON values.
        scratch: a folder for its folder, which is removed in the end.
        title: printed on standard error, with the time that it took; nothing if empty.

    Returns:
        what the task gave, and `process_seconds`, `process_cpu_seconds` and `peak_mib` of the
        process, its start and the loading of its libraries included.

    Raises:
        TaskError: it failed.
    """
    _say(f"{title} … " if title else "")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as name:
        folder = Path(name)
        (folder / "arguments.json").write_text(json.dumps(dict(arguments)))
        cost = measure.run([sys.executable, str(_WORKER), task], folder, _MAX_SECONDS)
        result = folder / "result.json"
        if cost.exit_code != 0 or not result.is_file():
            _say(f"\n{_tail(folder / 'output.txt')}\n")
            raise TaskError(f"The process for {title or task} failed ({cost.end}), see above.")
        found = json.loads(result.read_text())
    _say(f"{cost.seconds:.0f} s, {cost.peak_mib:.0f} MiB\n" if title else "")
    return {
        **found,
        "process_seconds": cost.seconds,
        "process_cpu_seconds": cost.cpu_seconds,
        "peak_mib": cost.peak_mib,
    }


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
