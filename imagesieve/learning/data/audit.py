"""What is wrong with a data folder, before any time is spent on training."""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from imagesieve.learning.data.dataset import Dataset, Sample, near_duplicates

MIN_IMAGES_TO_LEARN = 20  # for each class: below, a measured accuracy says next to nothing
_MAX_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        message: one sentence.
        paths: the files concerned, all of them.
    """

    message: str
    paths: tuple[Path, ...] = ()


def audit(dataset: Dataset) -> list[Finding]:
    """Look for unreadable files, leaks between splits, contradicting labels and thin classes."""
    return [
        *_unreadable(dataset),
        *_duplicates(dataset),
        *_thin_classes(dataset),
        *_unbalanced(dataset),
    ]


def describe(finding: Finding, *, all_paths: bool = False) -> list[str]:
    """Give a finding as lines: the sentence, then some or all of its files."""
    shown = finding.paths if all_paths else finding.paths[:_MAX_EXAMPLES]
    lines = [finding.message, *(f"  {path}" for path in shown)]
    if len(shown) < len(finding.paths):
        lines.append(f"  … and {len(finding.paths) - len(shown)} more, listed in the log file")
    return lines


def _unreadable(dataset: Dataset) -> Iterator[Finding]:
    by_reason: dict[str, list[Path]] = collections.defaultdict(list)
    for reject in dataset.rejects:
        by_reason[reject.reason].append(reject.path)
    for reason, paths in sorted(by_reason.items()):
        files = "1 file is" if len(paths) == 1 else f"{len(paths)} files are"
        yield Finding(f"{files} left out: {reason}.", tuple(paths))


def _duplicates(dataset: Dataset) -> Iterator[Finding]:
    samples = [*dataset.train, *dataset.validation, *dataset.test]
    split_of = ["train"] * len(dataset.train) + ["validation"] * len(dataset.validation)
    split_of += ["test"] * len(dataset.test)
    contradicting: list[Path] = []
    leaking: list[Path] = []
    num_same = 0
    for first, second in near_duplicates(samples):
        pair = (samples[first].path, samples[second].path)
        same_bytes = samples[first].sha256 == samples[second].sha256
        if samples[first].class_index != samples[second].class_index:
            # Two pages of text may look alike to the hash; only equal bytes are a contradiction.
            contradicting += pair if same_bytes else ()
        elif split_of[first] != split_of[second]:
            leaking += pair
        else:
            num_same += same_bytes
    if contradicting:
        yield _pairs("in two classes", "keep one of each", contradicting)
    if leaking:
        yield _pairs(
            "in train as well as in validation or test, the same or nearly so",
            "the metrics will flatter; remove one of each",
            leaking,
        )
    if num_same:
        yield Finding(f"{num_same} exact copies lie within one class and split: they weigh double.")


def _pairs(what: str, advice: str, paths: list[Path]) -> Finding:
    count = len(paths) // 2
    images = "1 image lies" if count == 1 else f"{count} images lie"
    return Finding(f"{images} {what}: {advice}.", tuple(paths))


def _thin_classes(dataset: Dataset) -> Iterator[Finding]:
    for split, samples in (("train", dataset.train), ("validation", dataset.validation)):
        for name, count in zip(dataset.classes, dataset.counts(samples), strict=True):
            if count < MIN_IMAGES_TO_LEARN:
                yield Finding(
                    f"The class {name!r} has {count} images in {split}: with fewer than "
                    f"{MIN_IMAGES_TO_LEARN} expect poor and uncertain results."
                )


def _unbalanced(dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.counts(dataset.train)
    most, least = max(counts), min(counts)
    if most > 1.5 * least:
        yield Finding(
            f"The largest class has {most / least:.1f} times the images of the smallest: class "
            "weights make up for it, more images would be better."
        )


def summary_rows(dataset: Dataset) -> list[tuple[str, int, int, int]]:
    """Give (class, train, validation, test) counts, one row for each class."""
    splits: tuple[tuple[Sample, ...], ...] = (dataset.train, dataset.validation, dataset.test)
    columns = [dataset.counts(split) for split in splits]
    return [
        (name, columns[0][index], columns[1][index], columns[2][index])
        for index, name in enumerate(dataset.classes)
    ]
