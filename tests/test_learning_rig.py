"""The arithmetic of the benchmarks of learning, which themselves run with `make bench`."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import training
from learning_rig import first_generation

from imagesieve.learning.training.checkpoints import FitProgress


@pytest.mark.parametrize(
    ("values", "half"),
    [([1.0, 2.0, 3.0], 4.3027 / 3**0.5), ([0.0, 2.0], 12.7062), ([5.0] * 3, 0.0)],
)
def test_the_interval_is_students(values: list[float], half: float) -> None:
    mean, found = training.mean_and_half_width(values)
    assert mean == sum(values) / len(values)
    assert found == pytest.approx(half, rel=1e-4)


def test_a_single_value_has_no_interval() -> None:
    assert training.mean_and_half_width([2.5]) == (2.5, None)


def test_the_first_epoch_is_projected_once() -> None:
    assert first_generation.projected_seconds([10.0, 13.0, 17.0], 20) == 10 + 19 * 3.5
    assert first_generation.projected_seconds([10.0], 20) == 200


@pytest.mark.parametrize(("best", "behind"), [(0, 0.0), (1, 5.0), (2, 3.0), (3, 0.0)])
def test_what_comes_after_the_best_epoch_does_not_count(best: int, behind: float) -> None:
    history = {"val_loss": [0.5, 0.4, 0.6]}
    fits = [
        FitProgress("head", {}, 1, 0.5, [9.0, 99.0]),
        FitProgress("top", history, best, 0.4, [2.0, 4.0, 7.0]),
    ]
    assert training.seconds_behind_the_best(fits) == behind


def test_the_best_epoch_of_the_first_generation_is_its_most_accurate() -> None:
    history = {"val_accuracy": [0.5, 0.9, 0.9] + 17 * [0.8], "val_loss": [0.7, 0.3] + 18 * [0.2]}
    ends = [2.0 * number for number in range(1, 21)]
    found = first_generation.summarise(history, ends)
    assert (found["accuracy"], found["log_loss"]) == (0.9, 0.3)
    assert (found["seconds_to_best"], found["seconds_in_all"]) == (4.0, 40.0)
    assert not found["is_projected"]
