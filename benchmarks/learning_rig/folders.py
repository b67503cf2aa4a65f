"""A checked data set as class folders, for what reads nothing else; and copies of it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from imagesieve.learning.data.dataset import TRAIN, VALIDATION, Dataset, Sample


def link_as_folders(dataset: Dataset, folder: Path) -> list[str]:
    """Lay the images out as `folder/<split>/<number of the class>/<number>.jpg`, by links.

    Keras goes by a file's ending, the decoder behind it by content: so every image counts.

    Returns:
        the names of the class folders, in the order of the classes.
    """
    names = [f"{index:04d}" for index in range(len(dataset.classes))]
    for split, samples in ((TRAIN, dataset.train), (VALIDATION, dataset.validation)):
        for number, sample in enumerate(samples):
            path = folder / split / names[sample.class_index] / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(sample.path.resolve())
    return names


def copy(samples: Sequence[Sample], classes: Sequence[str], folder: Path) -> None:
    """Copy images to `folder/<class>/`; their names say what they are copies of."""
    for sample in samples:
        path = folder / classes[sample.class_index] / f"{sample.sha256}{sample.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.path, path)
