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
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from learning_rig import intervals, processes  # noqa: E402
from learning_rig import options as rig  # noqa: E402
from learning_rig.problem import Problem  # noqa: E402

from imagesieve import console  # noqa: E402
from imagesieve.intervals import wilson_interval  # noqa: E402

FIRST = "first-generation"
FIRST_EPOCHS = 20
# Ours, as fields of `recipes.TrainSettings`; the options fill in the numbers of epochs.
OURS = {
    "head": {},
    "dense-head": {"head": "dense"},
    "top": {"fine_tune_layers": "top"},
    "dense-top": {"head": "dense", "fine_tune_layers": "top"},
    "full": {"fine_tune_layers": "all"},
}
RECIPES = (FIRST, *OURS)
SPEEDUPS = {
    "head": "head_speedup",
    "dense-head": "dense_head_speedup",
    "top": "fine_tune_speedup",
    "dense-top": "dense_fine_tune_speedup",
    "full": "full_fine_tune_speedup",
}

_HEADER = (
    *("", "best, %", "95 % of", "log loss", "by loss, %", "as left, %"),
    *("minutes to best", "minutes in all", "x first", "peak MiB"),
)
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
    result: dict[str, Any] = {
        "machine": rig.machine(),
        "data": options.data.name,
        "backbone": options.backbone,
        "weights": "file" if Path(options.weights).is_file() else options.weights,
        "image_size": list(problem_of(options, 0).image_size),
        "seeds": options.seeds,
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.recipes}
    for seed in options.seeds:
        for name in options.recipes:
            runs[name].append(run(name, seed, options))
    result |= summarise(runs) | {"runs": runs}
    print(f"\n{table(result)}\n\n{_LEGEND}\n{remark(result)}")
    return rig.finish(result, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = rig.parser(__doc__)
    rig.add_network(parser)
    parser.add_argument(
        "--recipes",
        type=_list_of(_recipe),
        default=[FIRST, "head", "top"],
        metavar="NAMES",
        help=f"some of {','.join(RECIPES)} (first-generation,head,top)",
    )
    parser.add_argument(
        "--seeds", type=_list_of(console.whole_number(0)), default=[0], metavar="N,N,…", help="(0)"
    )
    parser.add_argument(
        "--first-generation-epochs",
        type=console.whole_number(1),
        default=FIRST_EPOCHS,
        metavar="N",
        help="that really run, of 20 (20)",
    )
    parser.add_argument(
        "--right-scaling",
        action="store_true",
        help="give the first generation the pixels that the backbone wants",
    )
    parser.add_argument(
        "--epochs", type=console.whole_number(1), default=20, help="of a dense head, at most (20)"
    )
    parser.add_argument(
        "--fine-tune-epochs",
        type=console.whole_number(1),
        default=10,
        metavar="N",
        help="at most (10)",
    )
    parser.add_argument(
        "--full-fine-tune-epochs",
        type=console.whole_number(1),
        default=10,
        metavar="N",
        help="of the recipe full, after the head, at most (10)",
    )
    parser.add_argument(
        "--views", type=console.whole_number(1), default=2, help="of each image, ours (2)"
    )
    options = parser.parse_args(arguments)
    options.weights = rig.weights_of(options)
    options.first_generation_epochs = min(options.first_generation_epochs, FIRST_EPOCHS)
    return options


def problem_of(options: argparse.Namespace, seed: int) -> Problem:
    """Give what is to be learnt."""
    data = str(options.data.resolve())
    return Problem(data, options.backbone, options.weights, options.image_size, seed)


def run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, in a process of its own."""
    title = "" if options.quiet else f"{name}, seed {seed}"
    problem = problem_of(options, seed).to_json()
    if name == FIRST:
        how = {
            "num_epochs": options.first_generation_epochs,
            "right_scaling": options.right_scaling,
        }
        task = "first_generation"
    else:
        how = {"settings": settings_of(name, options)}
        task = "ours"
    return processes.run_task(task, {"problem": problem, **how}, options.scratch, title=title)


def settings_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Give the fields of `recipes.TrainSettings` for one of our recipes."""
    settings = {"epochs": options.epochs, "views": options.views, **OURS[name]}
    match settings.get("fine_tune_layers"):
        case "top":
            settings["fine_tune_epochs"] = options.fine_tune_epochs
        case "all":
            settings["fine_tune_epochs"] = options.full_fine_tune_epochs
    return settings


def summarise(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Give the means of each recipe and how many times sooner each of ours was."""
    summary = {name: _means(found) for name, found in runs.items()}
    result: dict[str, Any] = {"recipes": summary}
    first = summary.get(FIRST)
    if first is None:
        return result
    result["speedup_is_projected"] = first["seconds_to_best"] is None
    for name, key in SPEEDUPS.items():
        if name not in summary:
            continue
        ours = summary[name]["seconds_to_best"]
        result[f"{key}_against_{FIRST_EPOCHS}_epochs"] = first["seconds_in_all"] / ours
        result[key] = (first["seconds_to_best"] or first["seconds_in_all"]) / ours
    return result


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    accuracy = statistics.fmean(run["accuracy"] for run in found)
    num_images = found[0]["num_validation"]
    means: dict[str, Any] = {
        "accuracy": accuracy,
        "accuracy_interval": wilson_interval(accuracy * num_images, num_images),
        "num_validation": num_images,
    }
    for key in (
        "accuracy",
        "accuracy_by_loss",
        "accuracy_left",
        "log_loss",
        "seconds_to_best",
        "seconds_in_all",
        "peak_mib",
    ):
        values = [run[key] for run in found]
        if None in values:
            means[key] = None
            continue
        mean, half = intervals.mean_and_half_width(values)
        means |= {key: mean, f"{key}_half_width": half}
    return means


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out."""
    return console.table(
        _HEADER, [_row(name, result["runs"][name], result) for name in result["recipes"]]
    )


def _row(name: str, runs: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> list[str]:
    def mean(key: str, digits: int, factor: float = 1.0) -> str:
        values = [run[key] for run in runs]
        return "?" if None in values else intervals.text(values, digits, factor)

    low, high = result["recipes"][name]["accuracy_interval"]
    speedup = result.get(SPEEDUPS.get(name, ""), 1.0 if name == FIRST else None)
    return [
        name,
        mean("accuracy", 2, 100),
        f"{100 * low:.1f} to {100 * high:.1f}",
        mean("log_loss", 4),
        mean("accuracy_by_loss", 2, 100),
        mean("accuracy_left", 2, 100),
        mean("seconds_to_best", 2, 1 / 60),
        mean("seconds_in_all", 2, 1 / 60),
        "-" if speedup is None else f"{speedup:.1f}",
        mean("peak_mib", 0),
    ]


def remark(result: Mapping[str, Any]) -> str:
    """Say what the first generation's times are, and what nobody's time is."""
    shared = [run for found in result["runs"].values() for run in found]
    seconds = statistics.fmean(run["check_seconds"] + run["build_seconds"] for run in shared)
    lines = [f"Not counted for any: {seconds:.1f} s for checking images and building."]
    for first in result["runs"].get(FIRST, [])[:1]:
        if first["is_projected"]:
            lines.append(
                f"The first generation ran for {first['epochs']} of {FIRST_EPOCHS} epochs: its "
                f"minutes are projected to {FIRST_EPOCHS}, its accuracy is of these, and the "
                "speed-ups are against the projected whole."
            )
        if not first["right_scaling"]:
            lines.append("Its backbone got pixels from 0 to 1, as it had it (--right-scaling).")
    return "\n".join(lines)


def _recipe(name: str) -> str:
    if name not in RECIPES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(RECIPES)}")
    return name


def _list_of(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [read(part) for part in text.split(",")]


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
