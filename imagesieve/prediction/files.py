"""Predictions for many files on the command line: which files, and where the results go."""

import argparse
import collections
import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from imagesieve import console
from imagesieve.class_folders import is_class_name
from imagesieve.errors import DataError, ImageError, UsageError
from imagesieve.files import list_files, new_partial, reporting_output_errors, write_bytes
from imagesieve.prediction.predictor import Prediction, Predictor

STANDARD_INPUT = "-"

UNUSABLE = "unusable"

Outcome = Prediction | ImageError
Sink = Callable[[str, Outcome], None]  # takes a path and its result; may raise OutputError


class Counts:
    """How many images got which decision, and how many could not be used."""

    def __init__(self) -> None:
        self.decisions: collections.Counter[str] = collections.Counter()
        self.num_failed = 0

    def add(self, outcome: Outcome) -> None:
        """Count one image."""
        if isinstance(outcome, ImageError):
            self.num_failed += 1
        else:
            self.decisions[outcome.decision] += 1

    @property
    def num_predicted(self) -> int:
        """Images that got a prediction."""
        return self.decisions.total()

    def __str__(self) -> str:
        """Return one line, such as `3 images: 2 menu, 1 unusable`."""
        parts = [f"{count} {name}" for name, count in sorted(self.decisions.items())]
        if self.num_failed:
            parts.append(f"{self.num_failed} {UNUSABLE}")
        total = self.num_predicted + self.num_failed
        images = "1 image" if total == 1 else f"{total} images"
        return f"{images}: {', '.join(parts)}"


@contextlib.contextmanager
def open_sinks(predictor: Predictor, options: argparse.Namespace) -> Iterator[list[Sink]]:
    """Yield a function for each place the results go to, as the command line asks.

    Raises:
        UsageError: `--csv` or `--sort-into` cannot work.
        OutputError: a file cannot be written.
    """
    decisions = [*predictor.classes, predictor.policy.fallback_class]
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if options.json:
            sinks.append(lambda path, outcome: console.print_json(as_json(path, outcome)))
        elif not options.quiet:
            width = max(map(len, [*decisions, UNUSABLE]))
            sinks.append(lambda path, outcome: print(as_line(path, outcome, width), flush=True))
        if options.csv:
            sinks.append(stack.enter_context(csv_file(options.csv, predictor.classes)))
        if options.sort_into:
            sinks.append(sorter(options.sort_into, options.paths, decisions))
        yield sinks


def predict(
    predictor: Predictor,
    arguments: Sequence[str],
    standard_input: TextIO | None,
    sinks: Sequence[Sink],
) -> Counts:
    """Predict every image and hand each result to every sink, in the order given.

    Raises:
        DataError: there was no image at all.
        EngineError: the engine failed.
    """
    counts = Counts()
    for path, outcome in predictor.predict_files(find_images(arguments, standard_input)):
        counts.add(outcome)
        for sink in sinks:
            sink(path, outcome)
    if not counts.num_predicted + counts.num_failed:
        raise DataError(f"No image was found in {', '.join(arguments)}.")
    return counts


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


def as_json(path: str, outcome: Outcome) -> dict[str, Any]:
    """Return one result as JSON values."""
    if isinstance(outcome, ImageError):
        return {"path": path, "error": {"type": outcome.slug, "detail": outcome.reason}}
    return {
        "path": path,
        "label": outcome.label,
        "probability": outcome.probability,
        "probabilities": outcome.probabilities,
        "decision": outcome.decision,
    }


def as_line(path: str, outcome: Outcome, width: int) -> str:
    """Return one result as a line of text; `width` is that of the longest class name."""
    if isinstance(outcome, ImageError):
        return f"{UNUSABLE:<{width}}           {path}: {outcome.reason}"
    unsure = "" if outcome.decision == outcome.label else f"  (unsure: {outcome.label})"
    return f"{outcome.decision:<{width}}  {100 * outcome.probability:6.2f} %  {path}{unsure}"


@contextlib.contextmanager
def csv_file(path: Path, classes: Sequence[str]) -> Iterator[Sink]:
    """Yield a function that writes rows of path, label, probability, decision, error, and classes.

    The file appears under its name when the block ends. If the block is interrupted, the rows so
    far are kept: whole rows, but fewer.

    Raises:
        UsageError: something that is not a file has that name.
        OutputError: the file cannot be written; an old one is untouched.
    """
    if path.exists() and not path.is_file():  # a folder; or a device, which must not be replaced
        raise UsageError(f"--csv {path} is not a file: choose another name.")
    with reporting_output_errors(path):
        handle, temporary = new_partial(path.parent)
        file = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield _rows_into(path, file, classes)
    finally:
        try:
            with reporting_output_errors(path), file:
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # still there only if it could not be finished


def _rows_into(path: Path, file: TextIO, classes: Sequence[str]) -> Sink:
    rows = csv.writer(file)

    def write_row(row: Sequence[str]) -> None:
        with reporting_output_errors(path):
            rows.writerow(row)

    def write(image: str, outcome: Outcome) -> None:
        if isinstance(outcome, ImageError):
            blanks = [""] * len(classes)
            write_row([image, "", "", "", f"{outcome.slug}: {outcome.reason}", *blanks])
            return
        numbers = [repr(outcome.probabilities[name]) for name in classes]
        write_row([image, outcome.label, repr(outcome.probability), outcome.decision, "", *numbers])

    write_row(["path", "label", "probability", "decision", "error", *classes])
    return write


def sorter(folder: Path, inputs: Iterable[str], decisions: Iterable[str]) -> Sink:
    """Return a function that copies each image into `<folder>/<decision>/`.

    The originals stay where they are; another image of the same name is never overwritten.

    Raises:
        UsageError: `folder` lies in an input folder, or a decision cannot name a folder.
    """
    for argument in inputs:
        if argument != STANDARD_INPUT and _is_inside(folder, Path(argument)):
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
        with reporting_output_errors(preferred):
            data = source.read_bytes()
            target = _free_name(preferred, data)
        if not target.exists():
            write_bytes(target, data)

    return copy


def _free_name(target: Path, data: bytes) -> Path:
    """Return `target`, or the first numbered name that is unused or holds the same bytes."""
    number = 1
    candidate = target
    while candidate.exists() and not (candidate.is_file() and candidate.read_bytes() == data):
        number += 1
        candidate = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return candidate


def _is_inside(folder: Path, parent: Path) -> bool:
    return parent.is_dir() and folder.resolve().is_relative_to(parent.resolve())
