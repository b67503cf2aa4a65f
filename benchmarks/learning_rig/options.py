"""Command lines, headings and result files that the benchmarks of learning have in common."""

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from imagesieve import console
from imagesieve.cores import cpu_count
from imagesieve.errors import UsageError
from imagesieve.files import write_json


def parser(description: str | None) -> argparse.ArgumentParser:
    """Give a parser with `--json` and `--scratch`.

    Args:
        description: a benchmark's docstring: one sentence, a paragraph of examples, and notes.
    """
    head, _, rest = (description or "").partition("\n\n")
    examples, _, notes = rest.partition("\n\n")
    made = console.argument_parser(f"{head}\n\n{notes}", examples)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    made.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="for what is removed in the end (%(default)s)",
    )
    return made


def add_network(made: argparse.ArgumentParser, *, data: bool = True) -> None:
    """Add what says what is to be learnt, and with which network."""
    if data:
        made.add_argument("--data", type=Path, required=True, help="data folder")
    made.add_argument("--backbone", default="InceptionV3", help="(%(default)s)")
    made.add_argument(
        "--weights", default="imagenet", help="imagenet, random, or a file (%(default)s)"
    )
    made.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the input (the backbone's own)"
    )


def weights_of(options: argparse.Namespace) -> str:
    """Give `--weights` so that it means the same from any folder.

    Raises:
        UsageError: it is neither `imagenet` nor `random`, and there is no such file.
    """
    if options.weights in ("imagenet", "random"):
        return str(options.weights)
    path = Path(options.weights).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"--weights {options.weights} is no file.")
    return str(path)


def machine() -> dict[str, Any]:
    """Say what is measured on, and how busy it is already."""
    return {
        "python": platform.python_version(),
        "cpus": cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def finish(result: dict[str, Any], options: argparse.Namespace) -> int:
    """Write the JSON if it was asked for; gives the exit code.

    Raises:
        OutputError: it could not be written.
    """
    if options.json:
        write_json(options.json, result)
    return console.EXIT_OK
