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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from imagesieve import images
from imagesieve.cores import cpu_count
from imagesieve.errors import DataError, ImageError, OutputError
from imagesieve.files import list_files, write_json
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
    """One image that decodes.

    Attributes:
        path: where it lies.
        class_index: position of its class in `Dataset.classes`.
        sha256: of the file's bytes.
        fingerprint: from `fingerprints.fingerprint`.
        weight: how many times it counts in training.
    """

    path: Path
    class_index: int
    sha256: str
    fingerprint: bytes
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Reject:
    """A file in a class folder that is not used, nearly always unreadable; it stays where it is."""

    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a data folder holds.

    Attributes:
        folder: the data folder.
        classes: names, alphabetical; a sample's `class_index` points into it.
        train: samples to learn from.
        validation: samples to choose and measure on.
        test: samples that only the final report sees; often empty.
        rejects: files that are left out, unreadable ones above all.
        split_by_content: whether `validation` was taken out of `train/`.
        corrections: those of `train` that people corrected in the service.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    rejects: tuple[Reject, ...]
    split_by_content: bool
    corrections: tuple[Sample, ...] = ()

    def fingerprint(self) -> str:
        """Give a SHA-256 over content, class, weight and split of every image, not over names."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for line in sorted(_line(sample) for sample in split):
                digest.update(line.encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def counts(self, split: Sequence[Sample]) -> list[int]:
        """Give the number of samples of each class."""
        per_class = collections.Counter(sample.class_index for sample in split)
        return [per_class[index] for index in range(len(self.classes))]


def read_dataset(
    folder: Path,
    *,
    validation_fraction: float = VALIDATION_FRACTION,
    advance: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """Read a data folder and check every image in it.

    Args:
        folder: holds `train/` and perhaps `validation/` and `test/`.
        validation_fraction: 0 to 1, of each class, when there is no `validation/`.
        advance: called with the number of files just checked.

    Raises:
        DataError: there is nothing to train on; the sentence says what is missing.
    """
    classes = _train_classes(folder)
    train, rejects = _read_split(folder / TRAIN, classes, advance)
    _check_counts(folder / TRAIN, classes, train)
    split_by_content = not (folder / VALIDATION).is_dir()
    if split_by_content:
        train, validation = _split_by_content(folder, train, validation_fraction)
    else:
        _check_same_classes(folder, VALIDATION, classes)
        validation, more = _read_split(folder / VALIDATION, classes, advance)
        rejects += more
        _check_counts(folder / VALIDATION, classes, validation, minimum=1)
    test: list[Sample] = []
    if (folder / TEST).is_dir():
        _check_same_classes(folder, TEST, classes)
        test, more = _read_split(folder / TEST, classes, advance)
        rejects += more
    return Dataset(
        folder=folder,
        classes=classes,
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        rejects=tuple(rejects),
        split_by_content=split_by_content,
    )


def count_files(folder: Path) -> int:
    """Give the number of files that `read_dataset` will check."""
    return sum(
        len(list_files(folder / split / name))
        for split in (TRAIN, VALIDATION, TEST)
        if (folder / split).is_dir()
        for name in class_folders(folder / split)
    )


def class_folders(folder: Path) -> list[str]:
    """Give the names of class folders in order: not hidden, and with at least one file."""
    return [
        path.name
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.is_dir() and not path.name.startswith(".") and list_files(path)
    ]


def check_files(
    paths: Sequence[Path],
    class_indices: Sequence[int],
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[list[Sample], list[Reject]]:
    """Decode every file once, small, and sort the good from the unusable; the order is kept."""

    def check(path: Path, class_index: int) -> Sample | Reject:
        try:
            image = images.decode(path, image_size=fingerprints.CHECK_SIZE)
        except ImageError as error:
            return Reject(path, error.reason)
        finally:
            advance(1)
        fingerprint = fingerprints.fingerprint(image.pixels)
        return Sample(path, class_index, image.sha256, fingerprint)

    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        checked = list(pool.map(check, paths, class_indices))
    samples = [found for found in checked if isinstance(found, Sample)]
    rejects = [found for found in checked if isinstance(found, Reject)]
    for reject in rejects:
        _log.debug("left out %s: %s", reject.path, reject.reason)
    return samples, rejects


def changed_since(error: ImageError) -> DataError:
    """Say that an image, which could be read when its folder was checked, no longer can."""
    return DataError(
        f"{error}. The image could be read when the data folder was checked: do not change the "
        "folder while training; start again."
    )


def near_duplicates(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Give pairs of positions whose images are the same or nearly so."""
    return fingerprints.near_pairs([sample.fingerprint for sample in samples])


def _line(sample: Sample) -> str:
    weight = f" {sample.weight!r}" if sample.weight != 1 else ""
    return f"{sample.class_index} {sample.sha256}{weight}\n"


def _train_classes(folder: Path) -> tuple[str, ...]:
    train = folder / TRAIN
    if not train.is_dir():
        raise DataError(
            f"There is no folder {train}: put images into {train}/<class>/, one folder for each "
            "class (bing_downloader.py can fill them)."
        )
    for path in sorted(train.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and not list_files(path):
            raise DataError(f"The class folder {path} is empty: add images to it or remove it.")
    classes = class_folders(train)
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no class"
        raise DataError(f"{train} holds {found}: at least two class folders are needed.")
    return tuple(classes)


def _check_same_classes(folder: Path, split: str, classes: Sequence[str]) -> None:
    found = class_folders(folder / split)
    if list(classes) != found:
        missing = sorted(set(classes) - set(found))
        unknown = sorted(set(found) - set(classes))
        detail = "; ".join(
            f"{what}: {', '.join(names)}"
            for what, names in (
                (f"missing in {split}", missing),
                (f"missing in {TRAIN}", unknown),
            )
            if names
        )
        raise DataError(
            f"{folder / TRAIN} and {folder / split} hold different classes ({detail}): both need "
            "the same folders with at least one image each."
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


def _read_split(
    folder: Path, classes: Sequence[str], advance: Callable[[int], None]
) -> tuple[list[Sample], list[Reject]]:
    files = [
        (path, index) for index, name in enumerate(classes) for path in list_files(folder / name)
    ]
    return check_files([path for path, _ in files], [index for _, index in files], advance)


def _split_by_content(
    folder: Path, samples: list[Sample], fraction: float
) -> tuple[list[Sample], list[Sample]]:
    """Set aside whole groups of near-duplicates, in an order that only content decides."""
    remembered = _read_split_file(folder)
    groups = _groups(samples)
    aside: set[tuple[int, str]] = set()  # an image in two classes takes a side in each
    for class_index in sorted({sample.class_index for sample in samples}):
        members = [
            sorted({sample.sha256 for sample in group})
            for group in groups
            if group[0].class_index == class_index
        ]
        chosen = _choose_aside(sorted(members), fraction, remembered)
        aside |= {(class_index, sha256) for sha256 in chosen}
    train = [sample for sample in samples if (sample.class_index, sample.sha256) not in aside]
    validation = [sample for sample in samples if (sample.class_index, sample.sha256) in aside]
    sides = {sample.sha256: False for sample in train}
    _write_split_file(folder, sides | {sample.sha256: True for sample in validation})
    return train, validation


def _choose_aside(
    groups: list[list[str]], fraction: float, remembered: dict[str, bool]
) -> set[str]:
    """Choose from one class's groups of near-duplicates, each a sorted list of SHA-256."""
    total = sum(len(group) for group in groups)
    wanted = min(total - 1, max(1, round(total * fraction)))
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


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Join near-duplicates of one class, directly or through others (union-find)."""
    parent = list(range(len(samples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in near_duplicates(samples):
        if samples[first].class_index == samples[second].class_index:
            parent[root(second)] = root(first)
    groups: dict[int, list[Sample]] = collections.defaultdict(list)
    for index, sample in enumerate(samples):
        groups[root(index)].append(sample)
    return list(groups.values())


def _read_split_file(folder: Path) -> dict[str, bool]:
    path = folder / _SPLIT_FILE
    try:
        value = json.loads(path.read_bytes())
        return {sha256: split == VALIDATION for sha256, split in value["images"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is unreadable ({error}): it remembers which images are for validation; "
            "restore it, or delete it to have them chosen anew."
        ) from error


def _write_split_file(folder: Path, aside: dict[str, bool]) -> None:
    remembered = {sha256: VALIDATION if is_aside else TRAIN for sha256, is_aside in aside.items()}
    # Images that are away today keep their side for the day they come back.
    for sha256, is_aside in _read_split_file(folder).items():
        remembered.setdefault(sha256, VALIDATION if is_aside else TRAIN)
    try:
        write_json(folder / _SPLIT_FILE, {"images": dict(sorted(remembered.items()))})
    except OutputError as error:
        _log.warning("The split into train and validation is not remembered: %s", error)
