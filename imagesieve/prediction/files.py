"""Predictions for many files on the command line: which files, and where the results go."""

import argparse
import collections
import contextlib
import csv
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from imagesieve import console
from imagesieve.class_folders import is_class_name
from imagesieve.errors import DataError, ImageError, UsageError
from imagesieve.files import list_files, new_partial, reporting_output_errors, write_bytes
from imagesieve.prediction.predictor import Prediction, Predictor

STANDARD_INPUT = "-"

UNUSABLE = "unusable"

_log = logging.getLogger(__name__)

Outcome = Prediction | ImageError
Sink = Callable[[str, Outcome], None]  # takes a path and its result; may raise OutputError
Counts = collections.Counter[str | None]  # decision -> images; None: those that are unusable


def predict(
    predictor: Predictor, options: argparse.Namespace, standard_input: TextIO | None
) -> Counts:
    """Predict every image, and hand each result on as the command line asks, in the order given.

    A DataError is raised if there was no image at all.
    """
    counts = Counts()
    with contextlib.ExitStack() as stack:
        sinks = _open_sinks(predictor, options, stack)
        for path, outcome in predictor.predict_files(find_images(options.paths, standard_input)):
            counts[None if isinstance(outcome, ImageError) else outcome.decision] += 1
            for sink in sinks:
                sink(path, outcome)
    if not counts:
        raise DataError(f"No image was found in {', '.join(options.paths)}.")
    return counts


def describe(counts: Counts) -> str:
    """Return one line, such as `3 images: 2 menu, 1 unusable`."""
    names = sorted(counts, key=lambda name: (name is None, name))
    parts = [f"{counts[name]} {UNUSABLE if name is None else name}" for name in names]
    total = counts.total()
    return f"{total} image{'' if total == 1 else 's'}: {', '.join(parts)}"


def _open_sinks(
    predictor: Predictor, options: argparse.Namespace, stack: contextlib.ExitStack
) -> list[Sink]:
    decisions = [*predictor.classes, predictor.policy.fallback_class]
    sinks: list[Sink] = []
    if options.json:
        sinks.append(_print_json)
    elif not options.quiet:
        width = max(map(len, [*decisions, UNUSABLE]))
        sinks.append(lambda path, outcome: print(_line(path, outcome, width), flush=True))
    if options.sort_into:
        sinks.append(sorter(options.sort_into, options.paths, decisions))
    if options.csv:
        sinks.append(stack.enter_context(csv_file(options.csv, predictor.classes)))
    return sinks


def find_images(arguments: Sequence[str], standard_input: TextIO | None) -> Iterator[str]:
    """Yield paths of images: files as they are, a folder's files in order, `-` a list to read.

    The list on standard input is read line by line, so that it may be endless.
    """
    for argument in arguments:
        if argument == STANDARD_INPUT:
            # None: the caller closed it.
            yield from (line.rstrip("\r\n") for line in standard_input or () if line.strip())
        elif Path(argument).is_dir():
            yield from (os.fspath(path) for path in list_files(Path(argument)))
        else:
            yield argument


def _print_json(path: str, outcome: Outcome) -> None:
    if isinstance(outcome, ImageError):
        error = {"type": outcome.slug, "detail": outcome.reason}
        console.print_json({"path": path, "error": error})
    else:
        console.print_json({"path": path, **vars(outcome)})


def _line(path: str, outcome: Outcome, width: int) -> str:
    if isinstance(outcome, ImageError):
        return f"{UNUSABLE:<{width}}           {path}: {outcome.reason}"
    unsure = "" if outcome.decision == outcome.label else f"  (unsure: {outcome.label})"
    return f"{outcome.decision:<{width}}  {100 * outcome.probability:6.2f} %  {path}{unsure}"


@contextlib.contextmanager
def csv_file(path: Path, classes: Sequence[str]) -> Iterator[Sink]:
    """Yield a function that writes rows of path, label, probability, decision, error, and classes.

    The file appears under its name when the block ends. If the block is interrupted, the rows so
    far are kept: whole rows, but fewer. An old file is untouched if there are none.
    """
    if path.exists() and not path.is_file():  # a folder; or a device, which must not be replaced
        raise UsageError(f"--csv {path} is not a file: choose another name.")
    with reporting_output_errors(path):
        handle, temporary = new_partial(path.parent)
        file = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="")
    rows = csv.writer(file)
    num_rows = 0

    def write(image: str, outcome: Outcome) -> None:
        nonlocal num_rows
        with reporting_output_errors(path):
            if not num_rows:
                rows.writerow(["path", "label", "probability", "decision", "error", *classes])
            rows.writerow(_row(image, outcome, classes))
        num_rows += 1

    try:
        yield write
    finally:
        try:
            with reporting_output_errors(path), file:
                file.flush()
                os.fsync(file.fileno())
                if num_rows:
                    temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # still there only if it could not be finished


def _row(image: str, outcome: Outcome, classes: Sequence[str]) -> list[object]:
    if isinstance(outcome, ImageError):
        return [image, "", "", "", f"{outcome.slug}: {outcome.reason}", *[""] * len(classes)]
    probabilities = [outcome.probabilities[name] for name in classes]
    return [image, outcome.label, outcome.probability, outcome.decision, "", *probabilities]


def sorter(folder: Path, inputs: Iterable[str], decisions: Iterable[str]) -> Sink:
    """Return a function that copies each image into `<folder>/<decision>/`.

    No other image of the same name is overwritten. Raises a UsageError when `folder` lies in an
    input folder, or a decision cannot name a folder.
    """
    for argument in inputs:
        is_folder = argument != STANDARD_INPUT and Path(argument).is_dir()
        if is_folder and folder.resolve().is_relative_to(Path(argument).resolve()):
            raise UsageError(
                f"--sort-into {folder} lies inside the input {argument}: choose another folder."
            )
    for name in decisions:
        if not is_class_name(name):
            raise UsageError(f"The class {name!r} cannot name a folder: leave out --sort-into.")

    def copy(path: str, outcome: Outcome) -> None:
        if isinstance(outcome, ImageError):
            return
        source = Path(path)
        preferred = folder / outcome.decision / source.name
        try:
            data = source.read_bytes()
        except OSError as error:  # it was there when it was predicted
            _log.warning("%s is not copied, for it cannot be read: %s.", path, error.strerror)
            return
        with reporting_output_errors(preferred):
            target = _free_name(preferred, data)
        if not target.exists():
            write_bytes(target, data)

    return copy


def _free_name(target: Path, data: bytes) -> Path:
    """Return `target`, or the first numbered name that is unused or holds the same bytes."""
    numbered = (f"{target.stem}-{number}{target.suffix}" for number in itertools.count(2))
    candidates = itertools.chain([target], map(target.with_name, numbered))
    return next(x for x in candidates if not x.exists() or (x.is_file() and x.read_bytes() == data))
