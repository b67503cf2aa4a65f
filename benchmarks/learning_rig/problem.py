"""What is to be learned and with which network: the same for every way of learning it."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagesieve.class_folders import TRAIN, VALIDATION
from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones

NO_LIMIT = 2**62  # bytes


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every recipe of a comparison gets."""

    data: Path  # the data folder
    backbone: str  # a name of the table
    weights: str  # `imagenet`, `random`, or the path of a file
    side: int | None  # of the input in pixels; None for the backbone's own
    seed: int  # of all randomness

    @property
    def row(self) -> backbones.Backbone:
        """The backbone's row of the table."""
        return backbones.find(self.backbone)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.side, self.side) if self.side else self.row.image_size


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A checked data folder and an untrained network: the same for every recipe, so not timed."""

    dataset: Dataset
    # `train_run.build_network`'s; with random weights its base is fitted to the images in mean
    # and deviation
    network: Any
    store: FeatureStore  # as empty as at the beginning of the first training, but for that
    check_seconds: float  # reading and checking the images
    build_seconds: float  # building the network


def prepare(problem: Problem) -> Prepared:
    """Read the data folder and build the network."""
    from imagesieve.learning import train_run

    start = time.perf_counter()
    dataset = read_dataset(problem.data)
    checked = time.perf_counter()
    store = FeatureStore(Path("store"), NO_LIMIT)  # in the folder of the run
    network = train_run.build_network(
        dataset, problem.row, problem.weights, problem.image_size, problem.seed
    )
    return Prepared(dataset, network, store, checked - start, time.perf_counter() - checked)


def link_as_folders(dataset: Dataset, folder: Path) -> list[str]:
    """Link the images as `folder/<split>/<number of the class>/<number>.jpg`, for Keras.

    Keras goes by a file's ending, the decoder behind it by content: so every image counts.
    Return the names of the class folders, in the order of the classes.
    """
    names = [f"{index:04d}" for index in range(len(dataset.classes))]
    for split, samples in ((TRAIN, dataset.train), (VALIDATION, dataset.validation)):
        for number, sample in enumerate(samples):
            path = folder / split / names[sample.class_index] / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(sample.path.resolve())
    return names


def copy(samples: Sequence[Sample], classes: Sequence[str], folder: Path) -> None:
    """Copy images to `folder/<class>/`; their names are their digests."""
    for sample in samples:
        path = folder / classes[sample.class_index] / f"{sample.sha256}{sample.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.path, path)
