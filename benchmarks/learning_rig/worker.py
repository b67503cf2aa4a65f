"""The other side of `processes.run_task`: arguments.json in, result.json out, in this folder."""

import importlib
import json
import sys
from pathlib import Path

_BENCHMARKS = Path(__file__).resolve().parent.parent
sys.path[0] = str(_BENCHMARKS)  # was this folder
sys.path.insert(1, str(_BENCHMARKS.parent))

# Task -> the module of this rig whose function of that name runs it.
TASKS = {
    "engine": "engine",
    "extraction": "extraction",
    "first_generation": "first_generation",
    "ours": "ours",
    "run_script": "scripts",
}


def main(task: str) -> None:
    """Run a task on what its caller has written down."""
    arguments = json.loads(Path("arguments.json").read_text())
    module = importlib.import_module(f"learning_rig.{TASKS[task]}")
    result_path = Path("result.json").absolute()  # the task may go elsewhere
    result = getattr(module, task)(**arguments)
    result_path.write_text(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1])
