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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from imagesieve import console, images
from imagesieve.class_folders import TEST, TRAIN, VALIDATION, class_files, is_class_folder
from imagesieve.errors import DataError, ImageError, OutputError
from imagesieve.files import write_json
from imagesieve.images import fingerprints
from imagesieve.threads import cpu_count

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
class Dataset:
    """The images of a data folder."""

    folder: Path
    classes: tuple[str, ...]  # alphabetical
    train: tuple[Sample, ...]  # to learn from
    validation: tuple[Sample, ...]  # to choose and measure on
    test: tuple[Sample, ...]  # which only the final report sees; often empty
    rejects: Mapping[Path, str]  # files that are not used, and why; they stay where they are
    split_by_content: bool  # whether `validation` was taken out of `train/`
    corrections: tuple[Sample, ...] = ()  # those of `train` that people corrected in the service

    @property
    def groups(self) -> np.ndarray:
        """Group number of each image of `train`, (images,) int64; near-duplicates share one."""
        names = [sample.group or sample.sha256 for sample in self.train]
        return np.unique(names, return_inverse=True)[1]

    def digest(self) -> str:
        """Return a SHA-256 over content, class, weight and split of every image, not over names."""
        splits = [
            sorted((sample.class_index, sample.sha256, sample.weight) for sample in split)
            for split in (self.train, self.validation, self.test)
        ]
        return hashlib.sha256(json.dumps(splits).encode()).hexdigest()

    def counts(self, split: Sequence[Sample]) -> list[int]:
        """Return the number of samples of each class."""
        per_class = collections.Counter(sample.class_index for sample in split)
        return [per_class[index] for index in range(len(self.classes))]


def read_dataset(folder: Path, *, quiet: bool = True) -> Dataset:
    """Read a data folder and check every image in it, or raise a DataError: what is missing."""
    files = {TRAIN: _train_files(folder / TRAIN)}
    classes = tuple(files[TRAIN])
    for split in (VALIDATION, TEST):
        if (folder / split).is_dir():
            files[split] = class_files(folder / split)
            if odd := set(classes) ^ set(files[split]):
                only = [f"{x} ({TRAIN if x in classes else split})" for x in sorted(odd)]
                raise DataError(
                    f"Only one of {folder / TRAIN} and {folder / split} has images of "
                    f"{', '.join(only)}: both need the same classes."
                )
    listed = [
        (path, index)
        for by_class in files.values()
        for index, paths in enumerate(by_class.values())
        for path in paths
    ]
    found, rejects = check_files(listed, "checking images", quiet=quiet)
    samples: dict[str, list[Sample]] = {TRAIN: [], VALIDATION: [], TEST: []}
    for sample in _grouped(found):
        samples[sample.path.relative_to(folder).parts[0]].append(sample)
    _check_counts(folder / TRAIN, classes, samples[TRAIN], MIN_IMAGES_PER_CLASS)
    if VALIDATION in files:
        _check_counts(folder / VALIDATION, classes, samples[VALIDATION], 1)
    else:
        samples[TRAIN], samples[VALIDATION] = _split_by_content(folder, samples[TRAIN])
    return Dataset(
        folder,
        classes,
        tuple(samples[TRAIN]),
        tuple(samples[VALIDATION]),
        tuple(samples[TEST]),
        rejects,
        split_by_content=VALIDATION not in files,
    )


def check_files(
    files: Sequence[tuple[Path, int]], what: str, *, quiet: bool = True
) -> tuple[list[Sample], dict[Path, str]]:
    """Decode files (paths and class indices) small; return samples, and why others are unusable.

    Progress is shown as `what`, unless `quiet`.
    """

    rejects = {}

    def check(file: tuple[Path, int]) -> Sample | None:
        path, class_index = file
        try:
            image = images.decode(path, image_size=fingerprints.CHECK_SIZE)
        except ImageError as error:
            rejects[path] = error.reason
            return None
        finally:
            advance(1)
        return Sample(path, class_index, image.sha256, fingerprints.fingerprint(image.pixels))

    with (
        console.progress(what, len(files), quiet=quiet) as advance,
        concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool,
    ):
        samples = [found for found in pool.map(check, files) if found]
    return samples, {path: rejects[path] for path in sorted(rejects)}


def decode_samples(samples: Iterable[Sample], image_size: tuple[int, int]) -> list[np.ndarray]:
    """Return the samples' pixels, each (height, width, 3) uint8."""
    return [images.decode(sample.path, image_size=image_size).pixels for sample in samples]


def changed_since(error: ImageError) -> DataError:
    """Return the error for an image that could be read when its folder was checked."""
    return DataError(
        f"{error}. The image could be read when the data folder was checked: do not change the "
        "folder while training; start again."
    )


def _train_files(train: Path) -> dict[str, list[Path]]:
    if not train.is_dir():
        raise DataError(
            f"There is no folder {train}: put images into {train}/<class>/ (bing_downloader.py can "
            "fill it), or name another data folder with --data."
        )
    files = class_files(train)
    for path in sorted(train.iterdir()):
        if is_class_folder(path) and path.name not in files:
            raise DataError(f"The class folder {path} is empty: add images to it or remove it.")
    if len(files) < 2:
        found = f"only the class {next(iter(files))!r}" if files else "no class"
        raise DataError(f"{train} holds {found}: at least two class folders are needed.")
    return files


def _check_counts(
    folder: Path, classes: Sequence[str], samples: Sequence[Sample], minimum: int
) -> None:
    different = {(sample.class_index, sample.sha256) for sample in samples}  # copies do not count
    counts = collections.Counter(class_index for class_index, _ in different)
    for index, name in enumerate(classes):
        if counts[index] < minimum:
            raise DataError(
                f"The class folder {folder / name} holds {counts[index]} different readable "
                f"image{'' if counts[index] == 1 else 's'}: at least {minimum} are needed."
            )


def _grouped(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with their `group`, the least SHA-256 among near-duplicates of a class."""
    # Between classes there are no groups: two pages of text may look alike to the fingerprint.
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
    numbers = connected_components(graph, directed=False)[1].tolist()
    groups: dict[int, str] = {}
    for number, sample in zip(numbers, samples, strict=True):
        groups[number] = min(sample.sha256, groups.get(number, sample.sha256))
    return [
        dataclasses.replace(sample, group=groups[number])
        for number, sample in zip(numbers, samples, strict=True)
    ]


def _split_by_content(folder: Path, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Set aside whole groups of near-duplicates, in an order that only content decides."""
    remembered = _read_split_file(folder)
    groups: dict[int, dict[str, set[str]]] = collections.defaultdict(dict)
    for sample in samples:
        groups[sample.class_index].setdefault(sample.group, set()).add(sample.sha256)
    aside = {  # an image in two classes takes a side in each
        (class_index, sha256)
        for class_index, members in groups.items()
        for sha256 in _choose_aside(sorted(map(sorted, members.values())), remembered)
    }
    train = [sample for sample in samples if (sample.class_index, sample.sha256) not in aside]
    validation = [sample for sample in samples if (sample.class_index, sample.sha256) in aside]
    # Images that are away today keep their side for the day they come back.
    sides = remembered | dict.fromkeys((sample.sha256 for sample in train), False)
    sides |= dict.fromkeys((sample.sha256 for sample in validation), True)
    splits = {sha256: VALIDATION if sides[sha256] else TRAIN for sha256 in sorted(sides)}
    try:
        write_json(folder / _SPLIT_FILE, {"images": splits})
    except OutputError as error:
        _log.warning("The split into train and validation is not remembered: %s", error)
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
