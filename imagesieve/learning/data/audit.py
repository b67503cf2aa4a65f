"""What is wrong with a data folder, before any time is spent on training."""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from imagesieve.learning.data.dataset import Dataset, Sample

MIN_IMAGES_TO_LEARN = 20  # for each class: below, a measured accuracy says next to nothing
TOLERATED_RATIO = 1.5  # of the largest class to the smallest, up to which they count as equal
_MAX_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of trouble: a sentence, and all files concerned."""

    message: str
    paths: tuple[Path, ...] = ()


def audit(dataset: Dataset) -> list[Finding]:
    """Look for unreadable files, leaks between splits, contradicting labels and thin classes."""
    looks = (_left_out, _duplicates, _thin_classes, _unbalanced)
    return [finding for look in looks for finding in look(dataset)]


def describe(finding: Finding) -> list[str]:
    """Return a finding as lines: the sentence, then some of its files."""
    shown = finding.paths[:_MAX_EXAMPLES]
    lines = [finding.message, *(f"  {path}" for path in shown)]
    if len(shown) < len(finding.paths):
        lines.append(f"  … and {len(finding.paths) - len(shown)} more, listed in the log file")
    return lines


def _left_out(dataset: Dataset) -> Iterator[Finding]:
    by_reason: dict[str, list[Path]] = collections.defaultdict(list)
    for path, reason in dataset.rejects.items():
        by_reason[reason].append(path)
    for reason, paths in sorted(by_reason.items()):
        files = "1 file is" if len(paths) == 1 else f"{len(paths)} files are"
        yield Finding(f"{files} left out: {reason}.", tuple(paths))


def _duplicates(dataset: Dataset) -> Iterator[Finding]:
    splits = enumerate((dataset.train, dataset.validation, dataset.test))
    placed = [(sample, split) for split, samples in splits for sample in samples]
    # Two pages of text may look alike to the fingerprint: only equal bytes are a contradiction.
    copies, groups = collections.defaultdict(list), collections.defaultdict(list)
    for sample, split in placed:
        copies[sample.sha256].append((sample, split))
        groups[sample.class_index, sample.group].append((sample, split))
    contradicting = [
        found for found in copies.values() if len({sample.class_index for sample, _ in found}) > 1
    ]
    leaking = [found for found in groups.values() if len({split for _, split in found}) > 1]
    yield from _repeated("in two classes: keep one of each", contradicting)
    yield from _repeated(
        "in train as well as in validation or test, the same or nearly so: the metrics will "
        "flatter; remove one of each",
        leaking,
    )
    num_places = len({(sample.sha256, sample.class_index, split) for sample, split in placed})
    if num_copies := len(placed) - num_places:
        copies_lie = "1 exact copy lies" if num_copies == 1 else f"{num_copies} exact copies lie"
        yield Finding(f"{copies_lie} beside the same image of its class and split: counted twice.")


def _repeated(what: str, found: list[list[tuple[Sample, int]]]) -> Iterator[Finding]:
    if found:
        images = "1 image lies" if len(found) == 1 else f"{len(found)} images lie"
        paths = tuple(sample.path for samples in found for sample, _ in samples)
        yield Finding(f"{images} {what}.", paths)


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
    if most > TOLERATED_RATIO * least:
        yield Finding(
            f"The largest class has {most / least:.1f} times the images of the smallest: class "
            "weights make up for it, more images would be better."
        )
