"""A data folder -> checked samples: classes in order, splits, and a list of what was left out.

`data/train/<class>/…`, `data/validation/<class>/…` and, if wanted, `data/test/<class>/…`. Without
`validation/` a part of `train/` is set aside: by content, so that a name or an order never matters;
near-duplicates stay on one side; and the choice is remembered in `data/.split.json`, so that adding
images never moves an old one.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from imagesieve import console, images
from imagesieve.class_folders import class_files, is_class_folder
from imagesieve.cores import cpu_count
from imagesieve.errors import DataError, ImageError, OutputError
from imagesieve.files import write_json
from imagesieve.images import fingerprints

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"

VALIDATION_FRACTION = 0.2  # of the images of each class, when there is no validation folder
MIN_IMAGES_PER_CLASS = 2  # one to learn from and one to measure on

_SPLIT_FILE = ".split.json"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image that decodes."""

    path: Path
    class_index: int  # in `Dataset.classes`
    sha256: str  # of the file's bytes
    fingerprint: bytes  # from `fingerprints.fingerprint`
    weight: float = 1.0  # how many times it counts in training
    group: str = ""  # equal for near-duplicates of one class; "" if it was not compared


@dataclasses.dataclass(frozen=True)
class Reject:
    """A file in a class folder that is not used, nearly always unreadable; it stays where it is."""

    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images of a data folder."""

    folder: Path
    classes: tuple[str, ...]  # alphabetical
    train: tuple[Sample, ...]  # to learn from
    validation: tuple[Sample, ...]  # to choose and measure on
    test: tuple[Sample, ...]  # which only the final report sees; often empty
    rejects: tuple[Reject, ...]
    split_by_content: bool  # whether `validation` was taken out of `train/`
    corrections: tuple[Sample, ...] = ()  # those of `train` that people corrected in the service

    @property
    def groups(self) -> np.ndarray:
        """Group number of each image of `train`, (images,) int64; near-duplicates share one."""
        names = [sample.group or sample.sha256 for sample in self.train]
        return np.unique(names, return_inverse=True)[1]

    def with_corrections(self, train: Sequence[Sample], corrections: Sequence[Sample]) -> "Dataset":
        """Return a dataset that learns from `train` and corrections, these grouped with it."""
        samples = list(train)
        index = fingerprints.FingerprintIndex()
        for number, sample in enumerate(samples):
            index.add(str(number), sample.fingerprint)
        for correction in corrections:
            near = [samples[int(number)] for number in index.find(correction.fingerprint)]
            groups = [x.group for x in near if x.class_index == correction.class_index]
            index.add(str(len(samples)), correction.fingerprint)
            group = groups[0] if groups else correction.sha256
            samples.append(dataclasses.replace(correction, group=group))
        taken = tuple(samples[len(train) :])
        return dataclasses.replace(self, train=tuple(samples), corrections=taken)

    def fingerprint(self) -> str:
        """Return a SHA-256 over content, class, weight and split of every image, not over names."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for line in sorted(_line(sample) for sample in split):
                digest.update(line.encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def counts(self, split: Sequence[Sample]) -> list[int]:
        """Return the number of samples of each class."""
        per_class = collections.Counter(sample.class_index for sample in split)
        return [per_class[index] for index in range(len(self.classes))]


def read_dataset(folder: Path, *, quiet: bool = True) -> Dataset:
    """Read a data folder and check every image in it, with progress unless `quiet`.

    Raises:
        DataError: there is nothing to train on; the sentence says what is missing.
    """
    files = {TRAIN: _train_files(folder / TRAIN)}
    classes = tuple(files[TRAIN])
    for split in (VALIDATION, TEST):
        if (folder / split).is_dir():
            files[split] = class_files(folder / split)
            _check_same_classes(folder, split, classes, files[split])
    samples, rejects = _check_splits(files, quiet=quiet)
    _check_counts(folder / TRAIN, classes, samples[TRAIN])
    split_by_content = VALIDATION not in files
    if split_by_content:
        samples[TRAIN], samples[VALIDATION] = _split_by_content(folder, samples[TRAIN])
    else:
        _check_counts(folder / VALIDATION, classes, samples[VALIDATION], minimum=1)
    return Dataset(
        folder=folder,
        classes=classes,
        train=tuple(samples[TRAIN]),
        validation=tuple(samples[VALIDATION]),
        test=tuple(samples.get(TEST, ())),
        rejects=tuple(rejects),
        split_by_content=split_by_content,
    )


def check_files(
    files: Sequence[tuple[Path, int]], advance: Callable[[int], None] = lambda count: None
) -> tuple[list[Sample], list[Reject]]:
    """Decode every file once, small, and separate readable from unusable ones, both in order.

    Args:
        files: paths and class indices.
        advance: called with the number of files just checked, from any thread.
    """

    def check(file: tuple[Path, int]) -> Sample | Reject:
        path, class_index = file
        try:
            image = images.decode(path, image_size=fingerprints.CHECK_SIZE)
        except ImageError as error:
            return Reject(path, error.reason)
        finally:
            advance(1)
        fingerprint = fingerprints.fingerprint(image.pixels)
        return Sample(path, class_index, image.sha256, fingerprint)

    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        checked = list(pool.map(check, files))
    samples = [found for found in checked if isinstance(found, Sample)]
    rejects = [found for found in checked if isinstance(found, Reject)]
    for reject in rejects:
        _log.debug("left out %s: %s", reject.path, reject.reason)
    return samples, rejects


def group_near_duplicates(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with their `group`, the least SHA-256 in it.

    An image belongs to the group of every near-duplicate of its class. Between classes there are no
    groups: two pages of text may look alike to the fingerprint.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [
        (one, other)
        for one, other in fingerprints.near_pairs([sample.fingerprint for sample in samples])
        if samples[one].class_index == samples[other].class_index
    ]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    shape = (len(samples), len(samples))
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=shape)
    _, numbers = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    for number, sample in zip(numbers.tolist(), samples, strict=True):
        names[number] = min(sample.sha256, names.get(number, sample.sha256))
    return [
        dataclasses.replace(sample, group=names[number])
        for number, sample in zip(numbers.tolist(), samples, strict=True)
    ]


def changed_since(error: ImageError) -> DataError:
    """Return the error for an image that could be read when its folder was checked."""
    return DataError(
        f"{error}. The image could be read when the data folder was checked: do not change the "
        "folder while training; start again."
    )


def _line(sample: Sample) -> str:
    weight = f" {sample.weight!r}" if sample.weight != 1 else ""
    return f"{sample.class_index} {sample.sha256}{weight}\n"


def _train_files(train: Path) -> dict[str, list[Path]]:
    if not train.is_dir():
        raise DataError(
            f"There is no folder {train}: put images into {train}/<class>/, one folder for each "
            "class (bing_downloader.py can fill them)."
        )
    files = class_files(train)
    for path in sorted(train.iterdir()):
        if is_class_folder(path) and path.name not in files:
            raise DataError(f"The class folder {path} is empty: add images to it or remove it.")
    if len(files) < 2:
        found = f"only the class {next(iter(files))!r}" if files else "no class"
        raise DataError(f"{train} holds {found}: at least two class folders are needed.")
    return files


def _check_same_classes(
    folder: Path, split: str, classes: Sequence[str], found: Iterable[str]
) -> None:
    missing = {split: sorted(set(classes) - set(found)), TRAIN: sorted(set(found) - set(classes))}
    detail = [f"missing in {x}: {', '.join(names)}" for x, names in missing.items() if names]
    if detail:
        raise DataError(
            f"{folder / TRAIN} and {folder / split} hold different classes ({'; '.join(detail)}): "
            "both need the same folders with at least one image each."
        )


def _check_counts(
    folder: Path,
    classes: Sequence[str],
    samples: Iterable[Sample],
    minimum: int = MIN_IMAGES_PER_CLASS,
) -> None:
    different = {(sample.class_index, sample.sha256) for sample in samples}  # copies do not count
    counts = collections.Counter(class_index for class_index, _ in different)
    for index, name in enumerate(classes):
        if counts[index] < minimum:
            raise DataError(
                f"The class folder {folder / name} holds {counts[index]} different readable "
                f"image{'' if counts[index] == 1 else 's'}: at least {minimum} are needed."
            )


def _check_splits(
    files: Mapping[str, Mapping[str, list[Path]]], *, quiet: bool
) -> tuple[dict[str, list[Sample]], list[Reject]]:
    """Return the samples of each split, near-duplicates found among all, and what is unusable."""
    listed = {
        (path, index): split
        for split, classes in files.items()
        for index, paths in enumerate(classes.values())
        for path in paths
    }
    with console.progress("checking images", len(listed), quiet=quiet) as advance:
        found, rejects = check_files(list(listed), advance)
    split_of = {path: split for (path, _), split in listed.items()}
    samples: dict[str, list[Sample]] = {split: [] for split in files}
    for sample in group_near_duplicates(found):
        samples[split_of[sample.path]].append(sample)
    return samples, rejects


def _split_by_content(folder: Path, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Set aside whole groups of near-duplicates, in an order that only content decides."""
    remembered = _read_split_file(folder)
    groups: dict[tuple[int, str], set[str]] = collections.defaultdict(set)
    for sample in samples:
        groups[sample.class_index, sample.group].add(sample.sha256)
    aside: set[tuple[int, str]] = set()  # an image in two classes takes a side in each
    for class_index in sorted({sample.class_index for sample in samples}):
        members = [sorted(group) for (index, _), group in groups.items() if index == class_index]
        chosen = _choose_aside(sorted(members), remembered)
        aside |= {(class_index, sha256) for sha256 in chosen}
    train = [sample for sample in samples if (sample.class_index, sample.sha256) not in aside]
    validation = [sample for sample in samples if (sample.class_index, sample.sha256) in aside]
    # Images that are away today keep their side for the day they come back.
    sides = remembered | dict.fromkeys((sample.sha256 for sample in train), False)
    sides |= dict.fromkeys((sample.sha256 for sample in validation), True)
    _write_split_file(folder, sides)
    return train, validation


def _choose_aside(groups: list[list[str]], remembered: dict[str, bool]) -> set[str]:
    """Choose from one class's groups of near-duplicates, each a sorted list of SHA-256."""
    total = sum(len(group) for group in groups)
    wanted = min(total - 1, max(1, round(total * VALIDATION_FRACTION)))
    aside: set[str] = set()
    undecided = []
    for group in groups:
        sides = [remembered[sha256] for sha256 in group if sha256 in remembered]
        if sides:
            # What is new in a group follows what is known; known images never move, even when
            # a new one shows that two of them, on different sides, belong together.
            majority = sum(sides) * 2 > len(sides)
            aside |= {sha256 for sha256 in group if remembered.get(sha256, majority)}
        else:
            undecided.append(group)
    for group in undecided:
        if len(aside) + len(group) <= wanted:
            aside |= set(group)
    # A class needs both sides, even if near-duplicates have to be parted or known ones moved.
    if not aside:
        chosen = min(undecided or groups, key=len)
        aside = set(chosen if len(groups) > 1 else chosen[:wanted])
    elif len(aside) == total:
        chosen = min(reversed(groups), key=len)
        aside -= set(chosen if len(groups) > 1 else chosen[wanted:])
    return aside


def _read_split_file(folder: Path) -> dict[str, bool]:
    path = folder / _SPLIT_FILE
    try:
        value = json.loads(path.read_bytes())
        key = "pictures" if "pictures" in value else "images"  # the former name, or today's
        return {sha256: split == VALIDATION for sha256, split in value[key].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is unreadable ({error}): it remembers which images are for validation; "
            "restore it, or delete it to have them chosen anew."
        ) from error


def _write_split_file(folder: Path, aside: dict[str, bool]) -> None:
    splits = {sha256: VALIDATION if aside[sha256] else TRAIN for sha256 in sorted(aside)}
    try:
        write_json(folder / _SPLIT_FILE, {"images": splits})
    except OutputError as error:
        _log.warning("The split into train and validation is not remembered: %s", error)
