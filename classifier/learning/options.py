"""The options that training and retraining share. Free of heavy imports, for a quick `--help`."""

import argparse
from pathlib import Path

from classifier.errors import UsageError

TOP, ALL = "top", "all"
LOGISTIC, DENSE = "logistic", "dense"
EXPORT_FORMATS = ("onnx", "saved_model", "litert")

_CACHE_GB = 20.0  # 60,000 pictures in two views at InceptionV3's cut
_LOWEST = {"epochs": 1, "batch_size": 1, "views": 1, "fine_tune_epochs": 0}


def add_options(
    parser: argparse.ArgumentParser, *, epochs: int, learning_rate: float, rate_help: str
) -> None:
    """Add the options; the two scripts differ in these defaults.

    Args:
        parser: of the script.
        epochs: default of `--epochs`.
        learning_rate: default of `--learning-rate`.
        rate_help: what the rate is for.
    """
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=epochs,
        help=f"of a dense head or of SmallCNN, at most; it stops by itself ({epochs})",
    )
    parser.add_argument(
        "--fine-tune-epochs",
        type=int,
        default=0,
        metavar="N",
        help="after the head train the backbone's top blocks too, at most N epochs (0)",
    )
    parser.add_argument(
        "--fine-tune-layers",
        choices=(TOP, ALL),
        default=TOP,
        help="top: the blocks above the cut, from kept features (default); all: the whole network "
        "from pixels, which wants a GPU",
    )
    parser.add_argument("--learning-rate", type=float, default=learning_rate, help=rate_help)
    parser.add_argument("--batch-size", type=int, default=32, help="pictures in a step (32)")
    parser.add_argument(
        "--views",
        type=int,
        default=2,
        help="1 shows pictures as they are, more adds sheared, zoomed and flipped variants (2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the training that was interrupted"
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="neither use nor keep features for later trainings",
    )
    parser.add_argument(
        "--cache-limit",
        type=float,
        default=_CACHE_GB,
        metavar="GB",
        help=f"most that kept features may take; those not used for long give way ({_CACHE_GB:g})",
    )
    parser.add_argument(
        "--int8-max-drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="of validation accuracy that the int8 model may lose against f32, else the version "
        "goes without it (0.5)",
    )
    parser.add_argument("--no-int8", action="store_true", help="make no int8 model")
    parser.add_argument(
        "--export",
        action="append",
        choices=EXPORT_FORMATS,
        default=[],
        metavar="FORMAT",
        help="also write onnx, saved_model or litert; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def check(options: argparse.Namespace) -> None:
    """Check the numbers.

    Raises:
        UsageError: one of them makes no sense.
    """
    for name, lowest in _LOWEST.items():
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value < lowest:
            raise UsageError(f"{option} is {value}: it must be at least {lowest}.")
    if options.fine_tune_layers != TOP and not options.fine_tune_epochs:
        raise UsageError(
            f"--fine-tune-layers {options.fine_tune_layers} needs --fine-tune-epochs: say how many."
        )
    if not 0 <= options.seed < 2**32:  # what NumPy takes
        raise UsageError(f"--seed is {options.seed}: it must lie from 0 to {2**32 - 1}.")
    if not 0 < options.learning_rate <= 1:
        raise UsageError(
            f"--learning-rate is {options.learning_rate}: it must be above 0 and at most 1."
        )
    if not 0 < options.cache_limit < 1e9:
        raise UsageError(f"--cache-limit is {options.cache_limit}: it must be above 0 (GB).")
    if not 0 <= options.int8_max_drop <= 100:
        raise UsageError(
            f"--int8-max-drop is {options.int8_max_drop}: it must lie from 0 to 100 (points)."
        )
