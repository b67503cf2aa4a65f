"""Programs of this rig as processes, and what is measured with them."""

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagesieve.errors import ClassifierError, DataError, ImageError
from imagesieve.files import list_files
from imagesieve.images import decode
from imagesieve.serving.limits import ServingLimits
from serving_rig import load

NUM_SLOW = 300  # a third each: headers, bodies, nothing

_RIG = Path(__file__).resolve().parent
_PROBE_PAUSE_SECONDS = 0.02
_HEALTH = "/healthz"


class ProgramError(ClassifierError):
    """A program of the rig failed."""


def usable_images(folder: Path, number: int) -> list[str]:
    """Give at most so many images of a folder that can be judged, shuffled, always the same ones.

    Whoever comes no further than the first few has then met the same mixture as everybody else.

    Raises:
        DataError: there is none.
    """
    found = list_files(folder)
    random.Random(0).shuffle(found)
    usable = [str(path.resolve()) for path in found[:number] if _is_usable(path)]
    if not usable:
        raise DataError(f"There is no image in {folder} that the service would judge.")
    return usable


def _is_usable(path: Path) -> bool:
    try:
        decode(path, ServingLimits().images, image_size=(32, 32))
    except ImageError:
        return False
    return True


def run_load(scenario: load.Scenario) -> dict[str, Any]:
    """Run a scenario in a process of its own, and give its figures."""
    with _started("load.py") as process:
        _hand_over(process, dataclasses.asdict(scenario))
        return _finish(process)


def run_bare(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the engine without a service, in a process of its own."""
    with _started("bare.py") as process:
        _hand_over(process, arguments)
        return _finish(process)


def run_with_probe(scenario: load.Scenario) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a scenario and ask for the server's health meanwhile, each time as a new caller.

    Returns:
        the figures of the scenario and of the probe.
    """
    probe = load.Scenario(
        scenario.port,
        _HEALTH,
        load.GET,
        expected="ok",
        seconds=scenario.seconds,
        warm_up_seconds=scenario.warm_up_seconds,
        pause_seconds=_PROBE_PAUSE_SECONDS,
        keep_alive=False,
    )
    with _started("load.py") as asking, _started("load.py") as probing:
        for process, part in ((asking, scenario), (probing, probe)):
            _hand_over(process, dataclasses.asdict(part))
        probed = _finish(probing)
        return _finish(asking), probed


@contextlib.contextmanager
def slow_callers(port: int, number: int = NUM_SLOW) -> Iterator[dict[str, int]]:
    """Hold slow connections; how many were thrown out is there when the block has ended."""
    with _started("slow.py", str(port), str(number)) as process:
        assert process.stdin
        assert process.stdout
        figures = json.loads(process.stdout.readline())
        yield figures
        process.stdin.close()
        figures |= _finish(process)


@contextlib.contextmanager
def _started(name: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, str(_RIG / name), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with process:  # closes the pipes
            pass


def _hand_over(process: "subprocess.Popen[str]", value: Mapping[str, Any]) -> None:
    assert process.stdin
    with process.stdin:
        process.stdin.write(json.dumps(dict(value)))


def _finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for the end of a program that has all its input, and give what it printed."""
    assert process.stdout
    printed = process.stdout.read()
    if process.wait():
        name = Path(str(process.args[1])).name
        raise ProgramError(f"{name} failed with exit code {process.returncode}, see above.")
    found: dict[str, Any] = json.loads(printed)
    return found


def total(outcomes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add up what several runs saw."""
    names = sorted({name for found in outcomes for name in found})
    return {name: sum(found.get(name, 0) for found in outcomes) for name in names}
