"""What is to be learnt and with which network: the same for every way of learning it."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones

NO_LIMIT = 2**62  # bytes


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every recipe of a comparison gets.

    Attributes:
        data: path of the data folder.
        backbone: a name of the table.
        weights: `imagenet`, `random`, or the path of a file.
        side: of the input in pixels; None for the backbone's own.
        seed: of everything that chance decides.
    """

    data: str
    backbone: str
    weights: str
    side: int | None
    seed: int

    @property
    def row(self) -> backbones.Backbone:
        """The backbone's row of the table."""
        return backbones.find(self.backbone)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.side, self.side) if self.side else self.row.image_size

    def to_json(self) -> dict[str, Any]:
        """Give JSON values, from which `Problem(**values)` is made again."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A checked data folder and an untrained network: the same for every recipe, so nobody's time.

    Attributes:
        network: `train_run.build_network`'s; with random weights its base is fitted to the images
            in mean and deviation.
        store: as empty as at the beginning of the first training, but for that.
        check_seconds: reading and checking the images.
        build_seconds: building the network.
    """

    dataset: Dataset
    network: Any
    store: FeatureStore
    check_seconds: float
    build_seconds: float


def prepare(problem: Problem) -> Prepared:
    """Read the data folder and build the network."""
    from imagesieve.learning import train_run

    start = time.perf_counter()
    dataset = read_dataset(Path(problem.data))
    checked = time.perf_counter()
    store = FeatureStore(Path("store"), NO_LIMIT)  # in the folder of the run
    settings = train_run.TrainSettings(seed=problem.seed)
    network = train_run.build_network(
        dataset, problem.row, problem.weights, problem.image_size, settings, store
    )
    built = time.perf_counter()
    return Prepared(dataset, network, store, checked - start, built - checked)
