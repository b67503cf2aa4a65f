"""Images that people corrected in the service, added to a training.

They lie in `<folder>/<class>/`, encoded again, with a history that has the SHA-256 of what was
sent. A model is trained on them and never measured: they were chosen because another model was
wrong on them.
"""

import collections
import dataclasses
import datetime
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from imagesieve.class_folders import TRAIN, class_files
from imagesieve.errors import DataError
from imagesieve.feedback import CORRECT, FeedbackEvent, read_corrections
from imagesieve.images.fingerprints import FingerprintIndex
from imagesieve.learning.data.dataset import Dataset, Sample, check_files

# What counts for a file that is not in the history.
_UNKNOWN = FeedbackEvent(
    CORRECT, sha256="", time=datetime.datetime.min.replace(tzinfo=datetime.UTC)
)
_ROUNDING = 1e-9

_log = logging.getLogger(__name__)


def take_in(
    dataset: Dataset, folder: Path, *, weight: float, max_share: float, quiet: bool = True
) -> Dataset:
    """Return a dataset with corrected images added to those to train on, less what they contradict.

    Each file that is left out, of the corrections or of `train`, is in `Dataset.rejects` of the
    result with the reason. A correction on which the model was wrong counts `weight` times, one
    that only said it was right once. They may make up `max_share` of a class's weight, above 0 and
    up to 1; the newest are taken. A DataError is raised if no other image of a class is left.
    """
    history = read_corrections(folder)
    files, reasons = _list(folder, dataset.classes, history)
    found, unreadable = check_files(files, "checking corrections", quiet=quiet)
    events = {sample.path: history.get(sample.path.stem, _UNKNOWN) for sample in found}
    if num_unknown := list(events.values()).count(_UNKNOWN):
        text = "note: %d of %d corrections are not in the history of %s: they count as the oldest."
        _log.warning(text, num_unknown, len(found), folder)
    train_copies = _Copies(dataset.train)
    measured_copies = _Copies((*dataset.validation, *dataset.test))
    for correction in found:
        event, name = events[correction.path], dataset.classes[correction.class_index]
        # A correction that is left out for other reasons still says that a label is wrong.
        for other in train_copies.of(correction, event):
            if other.class_index != correction.class_index:
                reasons[other.path] = f"corrected to {name!r} in {folder}"
        if measured := measured_copies.of(correction, event):
            reasons[correction.path] = _why_not_learned(correction, measured)
    reasons |= _rejected(dataset, history, folder)
    train = [sample for sample in dataset.train if sample.path not in reasons]
    _check_counts(dataset, train, folder)
    weighted = [
        dataclasses.replace(x, weight=1.0 if _was_right(x, events[x.path], dataset) else weight)
        for x in found
        if x.path not in reasons
    ]
    newest_first = sorted(weighted, key=lambda x: (events[x.path].time, x.sha256), reverse=True)
    reasons |= _beyond_share(newest_first, dataset.counts(train), max_share)
    taken = tuple(train_copies.grouped(x) for x in weighted if x.path not in reasons)
    rejects = {**dataset.rejects, **unreadable, **reasons}
    train += taken
    return dataclasses.replace(dataset, train=tuple(train), corrections=taken, rejects=rejects)


def _list(
    folder: Path, classes: Sequence[str], history: Mapping[str, FeedbackEvent]
) -> tuple[list[tuple[Path, int]], dict[Path, str]]:
    """Return the files to check with their class indices, and why others are left out."""
    listed = [(name, path) for name, paths in class_files(folder).items() for path in paths]
    there = {(name, path.stem) for name, path in listed}
    files, reasons = [], {}
    for name, path in listed:
        event = history.get(path.stem)
        label = event.label if event else name
        if name not in classes:
            reasons[path] = f"{name!r} is not a class of {TRAIN}, and corrections alone make none"
        # The next two were left by a service that was killed; it removes them when it starts.
        elif label is None:
            reasons[path] = f"rejected in {folder}"
        elif label != name and (label, path.stem) in there:
            reasons[path] = f"corrected to {label!r} since"
        else:
            files.append((path, classes.index(name)))
    return files, reasons


class _Copies:
    """Finds what a corrected image was made from among samples, and what is nearly the same."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._index = FingerprintIndex()
        self._by_sha256: dict[str, list[Sample]] = collections.defaultdict(list)
        for sample in samples:
            self._add(sample)

    def of(self, correction: Sample, event: FeedbackEvent) -> list[Sample]:
        near = self._index.find(correction.fingerprint)
        alike = dict.fromkeys([correction.sha256, event.sha256, *near])
        return [sample for sha256 in alike for sample in self._by_sha256.get(sha256, [])]

    def grouped(self, correction: Sample) -> Sample:
        """Return a correction in the group of its near-duplicates, and add it to them."""
        near = self.of(correction, _UNKNOWN)
        groups = [x.group for x in near if x.class_index == correction.class_index]
        group = groups[0] if groups else correction.sha256
        grouped = dataclasses.replace(correction, group=group)
        self._add(grouped)
        return grouped

    def _add(self, sample: Sample) -> None:
        self._by_sha256[sample.sha256].append(sample)
        self._index.add(sample.sha256, sample.fingerprint)


def _why_not_learned(correction: Sample, measured: Sequence[Sample]) -> str:
    reason = "the same or nearly so as an image in validation or test"
    if any(sample.class_index != correction.class_index for sample in measured):
        reason += ", where it has another class: move it there if the correction is right"
    return reason


def _rejected(
    dataset: Dataset, history: Mapping[str, FeedbackEvent], folder: Path
) -> dict[Path, str]:
    """Return why images of `train` are left out that belong to no class; warn of all others."""
    rejected = {event.sha256 for event in history.values() if event.label is None}
    for sample in (*dataset.validation, *dataset.test):
        if sample.sha256 in rejected:
            text = "note: %s was rejected as belonging to no class, but is still measured on."
            _log.warning(text, sample.path)
    return {x.path: f"rejected in {folder}" for x in dataset.train if x.sha256 in rejected}


def _check_counts(dataset: Dataset, train: Sequence[Sample], folder: Path) -> None:
    for name, count in zip(dataset.classes, dataset.counts(train), strict=True):
        if not count:
            raise DataError(
                f"With the corrections in {folder}, no image in {dataset.folder / TRAIN / name} "
                "is left to learn from: add images, or leave them out with --no-feedback."
            )


def _was_right(correction: Sample, event: FeedbackEvent, dataset: Dataset) -> bool:
    return (event.predicted or {}).get("label") == dataset.classes[correction.class_index]


def _beyond_share(
    newest_first: Sequence[Sample], num_others: Sequence[int], max_share: float
) -> dict[Path, str]:
    """Return why corrections are left out that are beyond the share of their class."""
    # Weights of corrections c and of others n: c / (c + n) is the share.
    ratio = max_share / (1 - max_share) if max_share < 1 else math.inf
    taken = [0.0] * len(num_others)
    reasons = {}
    for correction in newest_first:
        index = correction.class_index
        taken[index] += correction.weight
        if taken[index] > ratio * num_others[index] + _ROUNDING:
            reason = f"beyond the share of {max_share:g} of its class (--feedback-max-share)"
            reasons[correction.path] = reason
    return reasons
