"""The options that training and retraining share. Free of heavy imports, for a quick `--help`."""

import argparse
from pathlib import Path

from imagesieve.console import number, whole_number
from imagesieve.errors import UsageError

TOP, ALL = "top", "all"
LOGISTIC, DENSE = "logistic", "dense"
EXPORT_FORMATS = ("onnx", "saved_model", "litert")

FEEDBACK = "feedback"  # where in the data folder the service leaves corrected images

_CACHE_GB = 20.0  # 60,000 images in two views at InceptionV3's split layer


def add_options(
    parser: argparse.ArgumentParser, *, epochs: int, learning_rate: float, rate_help: str
) -> None:
    """Add the options; the two scripts differ in two defaults, and in what the rate is for."""
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument(
        "--epochs",
        type=whole_number(),
        default=epochs,
        help=f"of a dense head or of SmallCNN, at most; it stops by itself ({epochs})",
    )
    parser.add_argument(
        "--fine-tune-epochs",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="after the head train the backbone's top blocks too, at most N epochs (0)",
    )
    parser.add_argument(
        "--fine-tune-layers",
        choices=(TOP, ALL),
        default=TOP,
        help="top: the blocks above the split layer, from stored features (default); all: the "
        "whole network from pixels, which wants a GPU",
    )
    parser.add_argument(
        "--learning-rate", type=number(above=0, most=1), default=learning_rate, help=rate_help
    )
    parser.add_argument(
        "--batch-size", type=whole_number(), default=32, help="images in a step (32)"
    )
    parser.add_argument(
        "--views",
        type=whole_number(),
        default=2,
        help="1 shows images as they are, more adds sheared, zoomed and flipped variants (2)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**32 - 1),  # what NumPy takes
        default=0,
        help="of everything random (0)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the training that was interrupted"
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="neither use nor store features for later trainings",
    )
    parser.add_argument(
        "--cache-limit",
        type=number(above=0, most=1_000_000, what="number of gigabytes"),
        default=_CACHE_GB,
        metavar="GB",
        help="most that stored features may take; those not used for longest are removed "
        f"({_CACHE_GB:g})",
    )
    parser.add_argument(
        "--int8-max-drop",
        type=number(0, 100, what="number of points"),
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
    _add_feedback_options(parser)


def feedback_folder(options: argparse.Namespace) -> Path | None:
    """Return the folder of corrected images, or None when there is none or it is not wanted.

    Raises:
        UsageError: a folder was named that is not there.
    """
    if options.no_feedback:
        return None
    folder: Path = options.feedback or options.data / FEEDBACK
    if options.feedback and not folder.is_dir():
        raise UsageError(f"--feedback is {folder}: there is no such folder.")
    return folder if folder.is_dir() else None


def check(options: argparse.Namespace) -> None:
    """Check what goes together.

    Raises:
        UsageError: `--fine-tune-layers` stands without `--fine-tune-epochs`.
    """
    if options.fine_tune_layers != TOP and not options.fine_tune_epochs:
        raise UsageError(
            f"--fine-tune-layers {options.fine_tune_layers} needs --fine-tune-epochs: say how many."
        )


def _add_feedback_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "images that people corrected in the service",
        "They are learned from, never measured on: what lies in validation or test, or\n"
        "nearly the same, is left out. So is an image in train that was corrected to\n"
        "another class. No file is moved or deleted.",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--feedback", type=Path, metavar="DIR", help="where they are (feedback in the data folder)"
    )
    which.add_argument("--no-feedback", action="store_true", help="learn without them")
    group.add_argument(
        "--feedback-weight",
        type=number(above=0, most=100),
        default=2.0,
        metavar="W",
        help="how many times each counts on which the model was wrong, for such images are few; "
        "where people only confirmed the model's label, an image counts once (2)",
    )
    group.add_argument(
        "--feedback-max-share",
        type=number(above=0, most=1),
        default=0.5,
        metavar="SHARE",
        help="of a class's weight that they may make up; beyond it only the newest count (0.5)",
    )
