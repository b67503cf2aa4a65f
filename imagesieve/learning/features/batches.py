"""Features of images, and batches of them for training."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesieve.errors import ImageError
from imagesieve.learning.data.dataset import changed_since
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.store import StoredRows
from imagesieve.model import engines


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a frozen network makes of images.

    Attributes:
        values: (views, images, …) floating: pooled features, or maps before the last blocks.
            View 0 is the image as it is.
        labels: (images,) int32 class index.
        weights: (images,) float32: how many times each counts in training; None: all once.
    """

    values: np.ndarray | StoredRows
    labels: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_views(self) -> int:
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image's features in one view."""
        return self.values.shape[2:]

    def take(self, views: np.ndarray, numbers: np.ndarray) -> npt.NDArray[np.float32]:
        """Return float32 (len(numbers), …): of each image the view that stands beside it."""
        return self.values[views, numbers].astype(np.float32)


def extract(network: Any, images: ImageIterator) -> npt.NDArray[np.float32]:
    """Return what a network gives for images as they are, (images, …) float32.

    Args:
        network: Keras model from float32 pixels (batch, height, width, 3), 0 to 255.
        images: neither shuffled nor augmented, with labels.

    Raises:
        DataError: an image became unreadable since the data folder was checked.
    """
    engine = engines.KerasEngine(network)
    try:
        batches = itertools.islice(images, len(images))
        return np.concatenate([engine.run(batch.astype(np.uint8)) for batch, _ in batches])
    except ImageError as error:
        raise changed_since(error) from error


class FeatureBatches:
    """Batches of features: each image once an epoch, in one of its views drawn by chance.

    Any thread may take a batch, but for `on_epoch_end`, which is the caller's alone.
    """

    def __init__(
        self, features: Features, batch_size: int, seed: int, *, shuffle: bool = True
    ) -> None:
        self._features = features
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._order, self._views = self._drawn()

    def __len__(self) -> int:
        return -(-len(self._features) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 features (batch, …) and their labels (batch,)."""
        chosen = self._chosen(index)
        return self._features.take(self._views[chosen], chosen), self._features.labels[chosen]

    def weights_of(self, index: int) -> np.ndarray:
        """Return how many times each image of a batch counts, (batch,) float32."""
        chosen, weights = self._chosen(index), self._features.weights
        return np.ones(len(chosen), np.float32) if weights is None else weights[chosen]

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order, self._views = self._drawn()

    def _chosen(self, index: int) -> np.ndarray:
        return self._order[index * self._batch_size : (index + 1) * self._batch_size]

    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self._features)
        if not self._shuffle:
            return np.arange(count), np.zeros(count, dtype=np.int64)
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(count)
        return order, np.asarray(random.integers(self._features.num_views, size=count))
