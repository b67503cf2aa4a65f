"""Features of images, and batches of them for training."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from imagesieve.learning.features.store import FeatureTable

_EVALUATED_AT_ONCE = 256  # batches as small as a training step's cost time


@dataclasses.dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of an open table as an array (views, images, …) that is read piece by piece."""

    table: FeatureTable
    keys: Sequence[Sequence[bytes]]  # for each view, of each image

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.keys), len(self.keys[0]), *self.table.row_shape)

    def __getitem__(self, index: tuple[np.ndarray, np.ndarray]) -> npt.NDArray[np.float16]:
        """Return the rows at (views, images), two equally long arrays of integers."""
        chosen = zip(*index, strict=True)
        return self.table.read([self.keys[view][number] for view, number in chosen])


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a frozen network makes of images."""

    # (views, images, …) floating: pooled features, or maps before the last blocks. View 0 is the
    # image as it is.
    values: np.ndarray | StoredRows
    labels: np.ndarray  # (images,) int32 class index
    weights: np.ndarray | None = None  # (images,) float32: how many times each counts; None: once

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, views: np.ndarray, numbers: np.ndarray) -> npt.NDArray[np.float32]:
        """Return float32 (len(numbers), …): of each image the view that stands beside it."""
        return self.values[views, numbers].astype(np.float32)

    def plain(self, batch_size: int = _EVALUATED_AT_ONCE) -> "FeatureBatches":
        """Return batches of the images as they are, in order."""
        return FeatureBatches(self, batch_size, 0, shuffle=False)


class FeatureBatches:
    """Batches of features: each image once an epoch, in one of its views drawn by chance.

    Any thread may take a batch, but for `on_epoch_end`, which is the caller's alone.
    """

    def __init__(
        self, features: Features, batch_size: int, seed: int, *, shuffle: bool = True
    ) -> None:
        self.labels, self.weights = features.labels, features.weights
        self._features = features
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._features) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 features (batch, …) and their labels (batch,)."""
        chosen = self._chosen(index)
        return self._features.take(self._views[chosen], chosen), self.labels[chosen]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def weights_of(self, index: int) -> np.ndarray:
        """Return how many times each image of a batch counts, (batch,) float32."""
        chosen = self._chosen(index)
        return np.ones(len(chosen), np.float32) if self.weights is None else self.weights[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch: draw its order and views."""
        self._epoch += 1
        count = len(self._features)
        self._order, self._views = np.arange(count), np.zeros(count, dtype=np.int64)
        if self._shuffle:
            random = np.random.default_rng((self._seed, self._epoch))
            self._order = random.permutation(count)
            self._views = random.integers(self._features.values.shape[0], size=count)

    def _chosen(self, index: int) -> np.ndarray:
        return self._order[index * self._batch_size : (index + 1) * self._batch_size]
