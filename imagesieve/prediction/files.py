"""Many images on the command line: where they come from, and where the answers go."""

import argparse
import collections
import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from imagesieve import console
from imagesieve.class_folders import is_class_name
from imagesieve.errors import DataError, ImageError, UsageError
from imagesieve.files import PARTIAL_PREFIX, list_files, reporting_output_errors, write_bytes
from imagesieve.prediction.predictor import Prediction, Predictor

STANDARD_INPUT = "-"

UNUSABLE = "unusable"

Outcome = Prediction | ImageError
Sink = Callable[[str, Outcome], None]


class Tally:
    """Counts what came out."""

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
    def num_judged(self) -> int:
        """Images that got an answer."""
        return self.decisions.total()

    def __str__(self) -> str:
        """Give one line for a person."""
        parts = [f"{count} {name}" for name, count in sorted(self.decisions.items())]
        if self.num_failed:
            parts.append(f"{self.num_failed} unusable")
        total = self.num_judged + self.num_failed
        images = "1 image" if total == 1 else f"{total} images"
        return f"{images}: {', '.join(parts)}"


@contextlib.contextmanager
def open_sinks(predictor: Predictor, options: argparse.Namespace) -> Iterator[list[Sink]]:
    """Give a function for each place the answers go to, as the command line asks.

    Args:
        predictor: whose classes and policy name columns and folders.
        options: `json`, `quiet`, `csv`, `sort_into` and `paths` are read.

    Raises:
        UsageError: `--sort-into` cannot work.
        OutputError: a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if options.json:
            sinks.append(lambda path, outcome: console.print_json(as_json(path, outcome)))
        elif not options.quiet:
            names = [*predictor.classes, predictor.policy.fallback_class, UNUSABLE]
            width = max(map(len, names))
            sinks.append(lambda path, outcome: print(as_line(path, outcome, width), flush=True))
        if options.csv:
            writer = stack.enter_context(csv_writer(options.csv, predictor.classes))
            sinks.append(writer.write)
        if options.sort_into:
            names = [*predictor.classes, predictor.policy.fallback_class]
            sinks.append(Sorter(options.sort_into, options.paths, names).put)
        yield sinks


def judge(
    predictor: Predictor,
    arguments: Sequence[str],
    standard_input: TextIO | None,
    sinks: list[Sink],
) -> Tally:
    """Judge every image and hand each outcome to every sink, in the order given.

    Raises:
        DataError: there was no image at all.
        EngineError: the engine failed.
    """
    tally = Tally()
    for path, outcome in predictor.judge_files(find_images(arguments, standard_input)):
        tally.add(outcome)
        for sink in sinks:
            sink(path, outcome)
    if not tally.num_judged + tally.num_failed:
        raise DataError(f"No image was found in {', '.join(arguments)}.")
    return tally


def find_images(arguments: Sequence[str], standard_input: TextIO | None) -> Iterator[str]:
    """Give paths of images: files as they are, a folder's files in order, `-` a list to read.

    Args:
        arguments: files, folders, or `-` for one path a line on `standard_input`.
        standard_input: read line by line, so that a list may be endless.
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
    """Give one outcome as JSON values."""
    value: dict[str, Any] = {"path": path}
    if isinstance(outcome, ImageError):
        value["error"] = {"type": outcome.slug, "detail": outcome.reason}
    else:
        value |= {
            "label": outcome.label,
            "probability": outcome.probability,
            "probabilities": outcome.probabilities,
            "decision": outcome.decision,
        }
    return value


def as_line(path: str, outcome: Outcome, width: int) -> str:
    """Give one outcome as a line for a person; `width` is that of the longest class name."""
    if isinstance(outcome, ImageError):
        return f"{UNUSABLE:<{width}}           {path}: {outcome.reason}"
    unsure = "" if outcome.decision == outcome.label else f"  (unsure: {outcome.label})"
    return f"{outcome.decision:<{width}}  {100 * outcome.probability:6.2f} %  {path}{unsure}"


@contextlib.contextmanager
def csv_writer(path: Path, classes: Sequence[str]) -> Iterator["CsvWriter"]:
    """Give a writer of a CSV file, which appears under its name when the block ends.

    If the block is interrupted, the rows so far are kept: whole rows, but fewer.

    Raises:
        UsageError: something that is no file has that name.
        OutputError: the file cannot be written; an old one is untouched.
    """
    if path.exists() and not path.is_file():  # a folder; or a device, which must not be replaced
        raise UsageError(f"--csv {path} is no file: choose another name.")
    with reporting_output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL_PREFIX, dir=path.parent)
        file = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield CsvWriter(path, file, classes)
    finally:
        try:
            with reporting_output_errors(path), file:
                file.flush()
                os.fsync(file.fileno())
                Path(name).chmod(0o644)
                Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)  # still there only if it could not be finished


class CsvWriter:
    """Writes outcomes as rows: path, label, probability, decision, error, and every class."""

    def __init__(self, path: Path, file: TextIO, classes: Sequence[str]) -> None:
        self._path = path
        self._classes = classes
        self._rows = csv.writer(file)
        self._write(["path", "label", "probability", "decision", "error", *classes])

    def write(self, path: str, outcome: Outcome) -> None:
        """Add a row.

        Raises:
            OutputError: it could not be written.
        """
        if isinstance(outcome, ImageError):
            blanks = [""] * len(self._classes)
            self._write([path, "", "", "", f"{outcome.slug}: {outcome.reason}", *blanks])
            return
        numbers = [repr(outcome.probabilities[name]) for name in self._classes]
        self._write(
            [path, outcome.label, repr(outcome.probability), outcome.decision, "", *numbers]
        )

    def _write(self, row: Sequence[str]) -> None:
        with reporting_output_errors(self._path):
            self._rows.writerow(row)


class Sorter:
    """Copies images into one folder for each decision; the originals stay where they are."""

    def __init__(self, folder: Path, inputs: Iterable[str], decisions: Iterable[str]) -> None:
        """Check that the copies cannot be mistaken for input.

        Raises:
            UsageError: `folder` lies in an input folder, or a decision is no folder's name.
        """
        for argument in inputs:
            if argument != STANDARD_INPUT and _is_inside(folder, Path(argument)):
                raise UsageError(
                    f"--sort-into {folder} lies inside the input {argument}: choose another folder."
                )
        for name in decisions:
            if not is_class_name(name):
                raise UsageError(f"The class {name!r} cannot name a folder: leave out --sort-into.")
        self._folder = folder

    def put(self, path: str, outcome: Outcome) -> None:
        """Copy a judged image; another one of that name there is never overwritten.

        Raises:
            OutputError: it could not be written.
        """
        if isinstance(outcome, ImageError):
            return
        source = Path(path)
        wanted = self._folder / outcome.decision / source.name
        with reporting_output_errors(wanted):
            data = source.read_bytes()
            target = self._free_name(wanted, data)
        if not target.exists():
            write_bytes(target, data)

    @staticmethod
    def _free_name(target: Path, data: bytes) -> Path:
        number = 1
        candidate = target
        while candidate.exists() and not (candidate.is_file() and candidate.read_bytes() == data):
            number += 1
            candidate = target.with_name(f"{target.stem}-{number}{target.suffix}")
        return candidate


def _is_inside(folder: Path, parent: Path) -> bool:
    return parent.is_dir() and folder.resolve().is_relative_to(parent.resolve())
