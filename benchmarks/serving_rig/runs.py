"""Loads and probes, each in a process of its own."""

import concurrent.futures
import multiprocessing
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagesieve.errors import DataError, ImageError
from imagesieve.files import list_files
from imagesieve.images import decode
from imagesieve.serving.limits import ServingLimits
from serving_rig import load

_PROBE_PAUSE_SECONDS = 0.02


def usable_images(folder: Path, number: int) -> list[str]:
    """Return at most so many images of a folder that can be predicted, in one shuffled order.

    So the first few are the same mixture as all of them."""
    found = list_files(folder)
    random.Random(0).shuffle(found)
    usable = [str(path.resolve()) for path in found[:number] if _is_usable(path)]
    if not usable:
        raise DataError(f"There is no image in {folder} that the service would accept.")
    return usable


def _is_usable(path: Path) -> bool:
    try:
        decode(path, ServingLimits().images, image_size=(32, 32))
    except ImageError:
        return False
    return True


def run_loads(*scenarios: load.Scenario) -> list[dict[str, Any]]:
    """Run scenarios at the same time, each in a new process, and return their figures."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(scenarios), spawn) as pool:
        return list(pool.map(load.run, scenarios))


def run_with_probe(scenario: load.Scenario) -> list[dict[str, Any]]:
    """Run a scenario and ask for the server's health meanwhile, each time by a new connection."""
    probe = load.Scenario(
        scenario.port,
        "/healthz",
        load.GET,
        expected="ok",
        seconds=scenario.seconds,
        warm_up_seconds=scenario.warm_up_seconds,
        pause_seconds=_PROBE_PAUSE_SECONDS,
        keep_alive=False,
    )
    return run_loads(scenario, probe)


def total(outcomes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of what several runs saw."""
    names = sorted({name for found in outcomes for name in found})
    return {name: sum(found.get(name, 0) for found in outcomes) for name in names}
