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
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="data folder (data)")
    about = f"of a dense head or of SmallCNN, at most; it stops by itself ({epochs})"
    add("--epochs", type=whole_number(), default=epochs, help=about)
    about = "after the head train the backbone's top blocks too, at most N epochs (0)"
    add("--fine-tune-epochs", type=whole_number(0), default=0, metavar="N", help=about)
    about = (
        "top: the blocks above the split layer, from stored features (default); all: the whole "
        "network from pixels, which wants a GPU"
    )
    add("--fine-tune-layers", choices=(TOP, ALL), default=TOP, help=about)
    add("--learning-rate", type=number(above=0, most=1), default=learning_rate, help=rate_help)
    add("--batch-size", type=whole_number(), default=32, help="images in a step (32)")
    about = "1 shows images as they are, more adds sheared, zoomed and flipped variants (2)"
    add("--views", type=whole_number(), default=2, help=about)
    seed = whole_number(0, 2**32 - 1)  # what NumPy takes
    add("--seed", type=seed, default=0, help="of everything random (0)")
    add("--resume", action="store_true", help="continue the training that was interrupted")
    about = "neither use nor store features for later trainings"
    add("--no-cache", action="store_true", help=about)
    about = f"most that stored features may take; the oldest are removed ({_CACHE_GB:g})"
    gigabytes = number(above=0, most=1_000_000, what="number of gigabytes")
    add("--cache-limit", type=gigabytes, default=_CACHE_GB, metavar="GB", help=about)
    about = "of validation accuracy that the int8 model may lose against f32 (0.5)"
    points = number(0, 100, what="number of points")
    add("--int8-max-drop", type=points, default=0.5, metavar="POINTS", help=about)
    add("--no-int8", action="store_true", help="make no int8 model")
    add(
        "--export",
        action="append",
        choices=EXPORT_FORMATS,
        default=[],
        metavar="FORMAT",
        help=f"also write {', '.join(EXPORT_FORMATS)}; may be given several times",
    )
    add("--json", action="store_true", help="print the result as one JSON object")
    _add_feedback_options(parser)


def feedback_folder(options: argparse.Namespace) -> Path | None:
    """Return the folder of corrected images, or None when there is none or it is not wanted."""
    if options.no_feedback:
        return None
    folder: Path = options.feedback or options.data / FEEDBACK
    if options.feedback and not folder.is_dir():
        raise UsageError(f"--feedback is {folder}: there is no such folder.")
    return folder if folder.is_dir() else None


def _add_feedback_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "images that people corrected in the service",
        "They are learned from, never measured on: what lies in validation or test, or\n"
        "nearly the same, is left out. So is an image in train that was corrected to\n"
        "another class. No file is moved or deleted.",
    )
    which = group.add_mutually_exclusive_group()
    about = "where they are (feedback in the data folder)"
    which.add_argument("--feedback", type=Path, metavar="DIR", help=about)
    which.add_argument("--no-feedback", action="store_true", help="learn without them")
    weight, share = number(above=0, most=100), number(above=0, most=1)
    about = "how many times each counts; once where people only confirmed the model's label (2)"
    group.add_argument("--feedback-weight", type=weight, default=2.0, metavar="W", help=about)
    about = "most of a class's weight that they may make up, the newest first (0.5)"
    group.add_argument("--feedback-max-share", type=share, default=0.5, metavar="P", help=about)
