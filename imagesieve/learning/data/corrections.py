"""Images that people corrected in the service, added to a training.

They lie in `<folder>/<class>/`, encoded again, with a history that has the SHA-256 of what was
sent. A model is trained on them and never measured: they were chosen because another model was
wrong on them.
"""

import collections
import dataclasses
import datetime
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from imagesieve.class_folders import class_files
from imagesieve.errors import DataError
from imagesieve.feedback import FeedbackEvent, read_corrections
from imagesieve.images.fingerprints import FingerprintIndex
from imagesieve.learning.data.dataset import TRAIN, Dataset, Reject, Sample, check_files

History = Mapping[str, FeedbackEvent]  # what is in force, by the key of the image

_LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_ROUNDING = 1e-9

_log = logging.getLogger(__name__)


def count_files(folder: Path) -> int:
    """Return the number of files that `take_in` will check."""
    return sum(map(len, class_files(folder).values()))


def take_in(
    dataset: Dataset,
    folder: Path,
    *,
    weight: float,
    max_share: float,
    advance: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """Return a dataset with corrected images added to those to train on, less what they contradict.

    Each file that is left out, of the corrections or of `train`, is in `Dataset.rejects` of the
    result with the reason; all stay where they are.

    Args:
        dataset: as it was read.
        folder: of the corrections.
        weight: how many times each counts on which the model was wrong; where people only said that
            it was right, the image counts once.
        max_share: of a class's weight that corrections may make up, above 0 and up to 1; the newest
            are taken.
        advance: called with the number of files just checked.

    Raises:
        DataError: no other training image of a class is left.
    """
    history = read_corrections(folder)
    files, rejects = _list(folder, dataset.classes, history)
    advance(len(rejects))
    found, unreadable = check_files(files, advance)
    _warn_of_unknown(found, history, folder)
    _warn_of_rejected(dataset, history)
    train, outdated = _without_outdated(dataset, found, history, folder)
    unseen, measured_on = _without_measured_on(dataset, found, history)
    weighted = [_weighted(sample, weight, dataset.classes, history) for sample in unseen]
    taken, too_many = _newest(weighted, dataset.counts(train), max_share, history)
    return dataclasses.replace(
        dataset.with_corrections(train, taken),
        rejects=(*dataset.rejects, *rejects, *unreadable, *outdated, *measured_on, *too_many),
    )


def _list(
    folder: Path, classes: Sequence[str], history: History
) -> tuple[list[tuple[Path, int]], list[Reject]]:
    listed = [(name, path) for name, paths in class_files(folder).items() for path in paths]
    there = {(name, path.stem) for name, path in listed}
    files, rejects = [], []
    for name, path in listed:
        event = history.get(path.stem)
        label = event.label if event else None
        if name not in classes:
            reason = f"{name!r} is not a class of {TRAIN}, and corrections alone make none"
            rejects.append(Reject(path, reason))
        # The next two were left by a service that was killed; it removes them when it starts.
        elif label != name and (label, path.stem) in there:
            rejects.append(Reject(path, f"corrected to {label!r} since"))
        elif event and label is None:
            rejects.append(Reject(path, f"rejected in {folder}"))
        else:
            files.append((path, classes.index(name)))
    return files, rejects


class _Copies:
    """Finds what a corrected image was made from among samples, and what is nearly the same."""

    def __init__(self, samples: Iterable[Sample], history: History) -> None:
        self._history = history
        self._index = FingerprintIndex()
        self._by_sha256: dict[str, list[Sample]] = collections.defaultdict(list)
        for sample in samples:
            self._by_sha256[sample.sha256].append(sample)
            self._index.add(sample.sha256, sample.fingerprint)

    def of(self, correction: Sample) -> list[Sample]:
        event = self._history.get(correction.path.stem)
        same = [correction.sha256, *([event.sha256] if event else [])]
        alike = dict.fromkeys([*same, *self._index.find(correction.fingerprint)])
        return [sample for sha256 in alike for sample in self._by_sha256.get(sha256, [])]


def _without_outdated(
    dataset: Dataset, corrections: Sequence[Sample], history: History, folder: Path
) -> tuple[list[Sample], list[Reject]]:
    # A correction that is left out for other reasons still says that a label is wrong.
    copies = _Copies(dataset.train, history)
    reasons = {
        sample.path: f"corrected to {dataset.classes[correction.class_index]!r} in {folder}"
        for correction in corrections
        for sample in copies.of(correction)
        if sample.class_index != correction.class_index
    }
    rejected = _rejected(history)
    for sample in dataset.train:
        if sample.sha256 in rejected:
            reasons[sample.path] = f"rejected in {folder}"
    remaining = [sample for sample in dataset.train if sample.path not in reasons]
    for name, count in zip(dataset.classes, dataset.counts(remaining), strict=True):
        if not count:
            raise DataError(
                f"With the corrections in {folder}, no image in {dataset.folder / TRAIN / name} "
                "is left to learn from: all are corrected to other classes, or rejected. Add "
                "images, or leave the corrections out with --no-feedback."
            )
    return remaining, [Reject(path, reason) for path, reason in reasons.items()]


def _without_measured_on(
    dataset: Dataset, corrections: Sequence[Sample], history: History
) -> tuple[list[Sample], list[Reject]]:
    copies = _Copies((*dataset.validation, *dataset.test), history)
    unseen, rejects = [], []
    for correction in corrections:
        found = copies.of(correction)
        if not found:
            unseen.append(correction)
            continue
        reason = "the same or nearly so as an image in validation or test"
        if any(sample.class_index != correction.class_index for sample in found):
            reason += ", where it has another class: move it there if the correction is right"
        rejects.append(Reject(correction.path, reason))
    return unseen, rejects


def _weighted(
    correction: Sample, weight: float, classes: Sequence[str], history: History
) -> Sample:
    event = history.get(correction.path.stem)
    predicted = (event.predicted or {}).get("label") if event else None
    was_right = predicted == classes[correction.class_index]
    return dataclasses.replace(correction, weight=1.0 if was_right else weight)


def _newest(
    corrections: Sequence[Sample], num_others: Sequence[int], max_share: float, history: History
) -> tuple[list[Sample], list[Reject]]:
    """Return the corrections within the share of their class, and the older rest."""

    def age(correction: Sample) -> tuple[datetime.datetime, str]:
        event = history.get(correction.path.stem)
        return (event.time if event else _LONG_AGO, correction.sha256)

    # Weights of corrections c and of others n: c / (c + n) is the share.
    most = [max_share / (1 - max_share) * count for count in num_others] if max_share < 1 else None
    too_many: set[Path] = set()
    taken = [0.0] * len(num_others)
    for correction in sorted(corrections, key=age, reverse=True):
        taken[correction.class_index] += correction.weight
        if most and taken[correction.class_index] > most[correction.class_index] + _ROUNDING:
            too_many.add(correction.path)
    reason = f"beyond the share of {max_share:g} of its class (--feedback-max-share)"
    return (
        [sample for sample in corrections if sample.path not in too_many],
        [Reject(sample.path, reason) for sample in corrections if sample.path in too_many],
    )


def _rejected(history: History) -> set[str]:
    return {event.sha256 for event in history.values() if event.label is None}


def _warn_of_unknown(corrections: Sequence[Sample], history: History, folder: Path) -> None:
    num_unknown = sum(history.get(sample.path.stem) is None for sample in corrections)
    if num_unknown:
        _log.warning(
            "note: %d of %d corrections are not in the history of %s: they count as the oldest, "
            "and what they were made from is found by likeness alone.",
            num_unknown,
            len(corrections),
            folder,
        )


def _warn_of_rejected(dataset: Dataset, history: History) -> None:
    rejected = _rejected(history)
    for sample in (*dataset.validation, *dataset.test):
        if sample.sha256 in rejected:
            _log.warning(
                "note: %s was rejected as belonging to no class; it is still measured on: remove "
                "it if that is right.",
                sample.path,
            )
