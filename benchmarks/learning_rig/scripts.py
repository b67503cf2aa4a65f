"""A training script as a user runs it, with a clock on each of its steps."""

import contextlib
import importlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagesieve.learning.features.store import FOLDER_NAME, FeatureStore
from learning_rig.problem import NO_LIMIT

TRAIN = "trainMyDataWithKerasModel"
RETRAIN = "reTrainMyDataWithKerasModel"

# Functions that the two scripts call, one after another, and the modules they are called from.
_STEPS = {
    "imagesieve.learning.script": ("read_data", "train", "train_further", "save"),
    "imagesieve.learning.results": ("promote_if_not_worse",),
    "imagesieve.model.versions": ("promote",),
}


def run_script(script: str, arguments: list[str], folder: str) -> dict[str, Any]:
    """Run `main` of a script, with the libraries loaded before.

    Args:
        script: its module.
        arguments: of its command line; `--json` is added.
        folder: to run in.

    Returns:
        JSON values: what the script printed, the seconds of its `main`, of its steps and of the
        loading before, and how many rows of features are kept after it.
    """
    os.chdir(folder)
    start = time.perf_counter()
    _load_libraries()
    steps: dict[str, float] = {}
    _put_clocks_on(steps)
    main = importlib.import_module(script).main
    load_seconds = time.perf_counter() - start
    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        main([*arguments, "--json"])
    seconds = time.perf_counter() - start
    return {
        "printed": json.loads(printed.getvalue().splitlines()[-1]),
        "seconds": seconds,
        "steps": steps,
        "load_seconds": load_seconds,
        "num_rows_kept": _num_rows(Path()),
    }


def _load_libraries() -> None:
    # What either script loads on its way, so that `seconds` is of work alone.
    import tensorflow  # noqa: F401

    from imagesieve.learning import train_run  # noqa: F401
    from imagesieve.model import engines

    engines.import_openvino()


def _put_clocks_on(seconds: dict[str, float]) -> None:
    for module_name, names in _STEPS.items():
        module = importlib.import_module(module_name)
        for name in names:
            setattr(module, name, _timed(getattr(module, name), name, seconds))


def _timed(
    function: Callable[..., Any], name: str, seconds: dict[str, float]
) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return call


def _num_rows(folder: Path) -> int:
    stores = [FeatureStore(path, NO_LIMIT) for path in folder.rglob(FOLDER_NAME)]
    return sum(entry.num_rows for store in stores for entry in store.entries())
