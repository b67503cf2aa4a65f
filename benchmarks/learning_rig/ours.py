"""Our own ways of learning, timed: the thin layer between the benchmarks and `recipes`."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learning_rig.problem import Problem, prepare


def ours(problem: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Train a network that is built already, with no features from an earlier run.

    Args:
        problem: values of a `Problem`.
        settings: fields of `train_run.TrainSettings`, besides the seed.

    Returns:
        JSON values; times in seconds from the first look at an image on.
    """
    from imagesieve.learning import train_run
    from imagesieve.learning.training import fine_tuning

    asked = Problem(**problem)
    fine_tuning.make_reproducible(asked.seed)
    prepared = prepare(asked)
    chosen = train_run.TrainSettings(seed=asked.seed, **settings)
    start = time.perf_counter()
    trained = train_run.train(
        prepared.network,
        prepared.dataset,
        chosen,
        Path("log"),
        store=prepared.store,
        quiet=True,
    )
    seconds = time.perf_counter() - start
    return {
        "accuracy": trained.metrics.accuracy,
        "accuracy_by_loss": trained.metrics.accuracy,
        "accuracy_left": trained.metrics.accuracy,
        "log_loss": trained.metrics.log_loss,
        "num_validation": trained.metrics.num_images,
        "seconds_in_all": seconds,
        "seconds_to_best": seconds - seconds_behind_the_best(trained.fits),
        "fits": [dataclasses.asdict(fit) for fit in trained.fits],
        "settings": dataclasses.asdict(chosen),
        "check_seconds": prepared.check_seconds,
        "build_seconds": prepared.build_seconds,
    }


def seconds_behind_the_best(fits: Sequence[Any]) -> float:
    """Give what the last fit took after the epoch whose weights it kept.

    A fit that kept none counts in full: only its end tells that nothing came of it.
    """
    last = fits[-1]
    if not last.best_epoch:
        return 0.0
    return float(last.epoch_seconds[-1] - last.epoch_seconds[last.best_epoch - 1])
