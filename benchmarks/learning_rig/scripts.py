"""A training script as a user runs it, with a clock on each of its steps."""

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rig

from imagesieve.learning.features.store import FOLDER_NAME, FeatureStore
from learning_rig.problem import NO_LIMIT

TRAIN = "trainMyDataWithKerasModel"
RETRAIN = "reTrainMyDataWithKerasModel"

# Functions that the two scripts call, one after another, and the modules they are called from.
_STEPS = {
    "imagesieve.learning.cli": ("read_data", "train", "save", "promote_if_not_worse"),
    "imagesieve.model.versions": ("promote",),
}


def network_arguments(options: argparse.Namespace) -> list[str]:
    """Return a training's arguments for the options of `rig.add_network` and of fine-tuning."""
    arguments = ["--backbone", options.backbone, "--weights", options.weights]
    arguments += ["--fine-tune-epochs", str(options.fine_tune_epochs)]
    if options.image_size:
        arguments += ["--image-size", str(options.image_size)]
    return arguments


def run_script(
    script: str, arguments: Sequence[str], folder: Path, options: argparse.Namespace, title: str
) -> dict[str, Any]:
    """Run a script in a folder, in a process of its own, with the libraries loaded before.

    Returns:
        what `rig.run_alone` adds; what the script printed; the seconds of its `main`, of its steps
        and of the loading before; and how many rows of features there are after it.
    """
    what = {"script": script, "script_arguments": list(arguments), "folder": folder}
    return rig.run_alone(_run, options, title, **what)


def _run(script: str, script_arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    os.chdir(folder)
    start = time.perf_counter()
    _load_libraries()
    steps: dict[str, float] = {}
    for module_name, names in _STEPS.items():
        module = importlib.import_module(module_name)
        for name in names:
            setattr(module, name, _timed(getattr(module, name), name, steps))
    main = importlib.import_module(script).main
    load_seconds = time.perf_counter() - start
    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        main([*script_arguments, "--json"])
    seconds = time.perf_counter() - start
    stores = [FeatureStore(path, NO_LIMIT) for path in Path().rglob(FOLDER_NAME)]
    return {
        "printed": json.loads(printed.getvalue().splitlines()[-1]),
        "seconds": seconds,
        "steps": steps,
        "load_seconds": load_seconds,
        "num_rows": sum(entry.num_rows for store in stores for entry in store.entries()),
    }


def _load_libraries() -> None:
    # What either script loads on its way, so that `seconds` is of work alone.
    import tensorflow  # noqa: F401

    from imagesieve.learning import train_run  # noqa: F401
    from imagesieve.model import engines

    engines.import_openvino()


def _timed(
    function: Callable[..., Any], name: str, seconds: dict[str, float]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return call
