"""Training: the first generation's recipe against ours, in time and in accuracy.

    python benchmarks/training.py --data data --weights random --first-generation-epochs 2
    python benchmarks/training.py --data data --backbone MobileNetV2 --weights FILE --right-scaling
    python benchmarks/training.py --data data --recipes first-generation,head,top,full --seeds 0,1,2

Every training runs in a process of its own, one after another, with no features from before. The
clock starts when the images are checked and the network is built, which is the same for all, and
stops when the epoch has ended whose network is the best: the first generation's by its validation
accuracy, ours by validation loss. Our head is a logistic regression, or 512 units as in the first
generation (dense-head); then the top blocks may learn (top, dense-top), or all the network (full).

The first generation has 20 epochs; with --first-generation-epochs it runs fewer, its time is
projected to 20, and its accuracy is what it has until then. It divides pixels by 255 whatever the
backbone wants, unless --right-scaling.

Machines differ and are shared: the ratios are what counts.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rig
from learning_rig.first_generation import EPOCHS as FIRST_EPOCHS
from learning_rig.first_generation import first_generation
from learning_rig.problem import Problem, prepare

from imagesieve import console
from imagesieve.intervals import wilson_interval

FIRST = "first-generation"
# Ours, as fields of `train_run.TrainSettings`; the options fill in the numbers of epochs.
OURS = {
    "head": {},
    "dense-head": {"head": "dense"},
    "top": {"fine_tune_layers": "top"},
    "dense-top": {"head": "dense", "fine_tune_layers": "top"},
    "full": {"fine_tune_layers": "all"},
}
RECIPES = (FIRST, *OURS)

COLUMNS = (
    *(" | {name}", "best, % | {accuracy}", "95 % of | {interval[0]:.1%} to {interval[1]:.1%}"),
    *("log loss | {log_loss}", "by loss, % | {accuracy_by_loss}", "as left, % | {accuracy_left}"),
    *("minutes to best | {seconds_to_best}", "minutes in all | {seconds_in_all}"),
    *("x first | {speedup}", "peak MiB | {peak_mib}"),
)
MEANS = {  # digits and factor in the table
    "accuracy": (2, 100),
    "accuracy_by_loss": (2, 100),
    "accuracy_left": (2, 100),
    "log_loss": (4, 1),
    "seconds_to_best": (2, 1 / 60),
    "seconds_in_all": (2, 1 / 60),
    "peak_mib": (0, 1),
}
_LEGEND = (
    "±: 95 % t-interval over the seeds. 95 % of: Wilson interval of the mean accuracy, for there\n"
    "are only so many validation images. By loss: accuracy of the epoch with the lowest\n"
    "validation loss, which is how ours is chosen; the first generation's best is chosen by the\n"
    "very accuracy that it is measured by. As left: accuracy of the network that is there in the\n"
    "end; the first generation keeps its last epoch. x first: how many times sooner than the\n"
    "first recipe is at its best."
)


def main(arguments: Sequence[str]) -> int:
    """Run every recipe with every seed, print the table, write the JSON."""
    options = parse(arguments)
    network = (options.backbone, options.weights, options.image_size)
    problems = [Problem(options.data.resolve(), *network, seed) for seed in options.seeds]
    result: dict[str, Any] = {
        "machine": rig.machine(),
        "data": options.data.name,
        "backbone": options.backbone,
        "weights": "file" if Path(options.weights).is_file() else options.weights,
        "image_size": list(problems[0].image_size),
        "seeds": options.seeds,
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.recipes}
    for problem in problems:
        for name in options.recipes:
            runs[name].append(run(name, problem, options))
    result |= summarise(runs) | {"runs": runs}
    return rig.finish(options, result, table(result), f"{_LEGEND}\n{remark(result)}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    add = parser.add_argument
    number = {"type": console.whole_number(1), "metavar": "N"}
    names = f"some of {','.join(RECIPES)} (first-generation,head,top)"
    default = [FIRST, "head", "top"]
    add("--recipes", type=rig.some_of(RECIPES), default=default, metavar="NAMES", help=names)
    add("--seeds", type=rig.numbers(0), default=[0], metavar="N,N,…", help="(0)")
    epochs = "that really run, of 20 (20)"
    add("--first-generation-epochs", default=FIRST_EPOCHS, help=epochs, **number)
    scaling = "give the first generation the pixels that the backbone wants"
    add("--right-scaling", action="store_true", help=scaling)
    add("--epochs", default=20, help="of a dense head, at most (20)", **number)
    add("--fine-tune-epochs", default=10, help="at most (10)", **number)
    full = "of the recipe full, after the head, at most (10)"
    add("--full-fine-tune-epochs", default=10, help=full, **number)
    add("--views", default=2, help="of each image, ours (2)", **number)
    options = parser.parse_args(arguments)
    options.first_generation_epochs = min(options.first_generation_epochs, FIRST_EPOCHS)
    return options


def run(name: str, problem: Problem, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, in a process of its own."""
    title = f"{name}, seed {problem.seed}"
    if name != FIRST:
        settings = settings_of(name, options)
        return rig.run_alone(ours, options, title, problem=problem, settings=settings)
    how = {"num_epochs": options.first_generation_epochs, "right_scaling": options.right_scaling}
    return rig.run_alone(first_generation, options, title, problem=problem, **how)


def ours(problem: Problem, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train a network that is built already, with no features from an earlier run.

    Times are in seconds from the first look at an image on.
    """
    from imagesieve.learning import train_run
    from imagesieve.learning.training import fine_tuning

    fine_tuning.make_reproducible(problem.seed)
    prepared = prepare(problem)
    chosen = train_run.TrainSettings(seed=problem.seed, **settings)
    network, dataset, store = prepared.network, prepared.dataset, prepared.store
    start = time.perf_counter()
    trained = train_run.train(network, dataset, chosen, Path("log"), store=store, quiet=True)
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
    """Return what the last fit took after its best epoch.

    A fit without one counts in full: only its end shows that it found nothing better.
    """
    seconds, best = fits[-1].epoch_seconds, fits[-1].best_epoch
    return float(seconds[-1] - seconds[best - 1]) if best else 0.0


def settings_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `train_run.TrainSettings` for one of our recipes."""
    settings = {"epochs": options.epochs, "views": options.views, **OURS[name]}
    if layers := settings.get("fine_tune_layers"):
        epochs = {"top": options.fine_tune_epochs, "all": options.full_fine_tune_epochs}
        settings["fine_tune_epochs"] = epochs[layers]
    return settings


def summarise(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the means of each recipe and how many times sooner each of ours was."""
    summary = {name: _means(found) for name, found in runs.items()}
    if first := summary.get(FIRST):
        soonest = first["seconds_to_best"] or first["seconds_in_all"]
        for recipe in summary.values():
            ours = recipe["seconds_to_best"] or soonest
            recipe["speedup"] = soonest / ours
            recipe[f"speedup_against_{FIRST_EPOCHS}_epochs"] = first["seconds_in_all"] / ours
    return {"recipes": summary}


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    accuracy = statistics.fmean(run["accuracy"] for run in found)
    num_images = found[0]["num_validation"]
    interval = wilson_interval(accuracy * num_images, num_images)
    means: dict[str, Any] = {"accuracy_interval": interval, "num_validation": num_images}
    for key in MEANS:
        values = [run[key] for run in found]
        mean_and_half = (None, None) if None in values else mean_and_half_width(values)
        means[key], means[f"{key}_half_width"] = mean_and_half
    return means


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half of its 95 % t-interval, None for a single value."""
    from scipy import stats

    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = []
    for name, recipe in result["recipes"].items():
        row = {"name": name, "interval": recipe["accuracy_interval"]}
        for key, (digits, factor) in MEANS.items():
            row[key] = _text(recipe[key], recipe[f"{key}_half_width"], digits, factor)
        row["speedup"] = _text(recipe.get("speedup"), None, 1, 1)
        rows.append(row)
    return rig.table(COLUMNS, rows)


def _text(mean: float | None, half: float | None, digits: int, factor: float) -> str:
    if mean is None:
        return "?"
    spread = "" if half is None else f" ± {factor * half:.{digits}f}"
    return f"{factor * mean:.{digits}f}{spread}"


def remark(result: Mapping[str, Any]) -> str:
    """Return what the first generation's times are, and what is not counted."""
    shared = [run for found in result["runs"].values() for run in found]
    seconds = statistics.fmean(run["check_seconds"] + run["build_seconds"] for run in shared)
    text = f"Not counted for any: {seconds:.1f} s for checking images and building."
    for first in result["runs"].get(FIRST, [])[:1]:
        if first["is_projected"]:
            text += (
                f"\nThe first generation ran for {first['epochs']} of {FIRST_EPOCHS} epochs: its "
                f"minutes are projected to {FIRST_EPOCHS}, its accuracy is of these, and the "
                "speed-ups are against the projected whole."
            )
        if not first["right_scaling"]:
            text += "\nIts backbone got pixels from 0 to 1, as it had it (--right-scaling)."
    return text


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
