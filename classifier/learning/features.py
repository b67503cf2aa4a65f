"""Pictures -> features of a frozen network, each view of each picture computed once.

A frozen network gives the same answer for the same pixels in every epoch, so it is run once before
the training instead of in every step of it.
"""

import collections
import concurrent.futures
import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from classifier import engines
from classifier.cores import cpu_count
from classifier.errors import DataError, ImageError, WeightsError
from classifier.files import reporting_output_errors
from classifier.learning.generator import PictureIterator

_BATCHES_AHEAD = 2  # decoded while the network is busy; more would only cost memory


class Rows(Protocol):
    """An array (views, pictures, …), in memory or elsewhere."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Views, pictures, and the shape of a row."""

    def __getitem__(self, index: tuple[np.ndarray, np.ndarray], /) -> np.ndarray:
        """Give the rows at (views, pictures), two equally long arrays of integers."""


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a frozen network makes of pictures.

    Attributes:
        values: (views, pictures, …) floating: pooled features, or maps before the last blocks.
            View 0 is the picture as it is.
        labels: (pictures,) int32 class index.
    """

    values: Rows
    labels: np.ndarray

    def __len__(self) -> int:
        """Give the number of pictures."""
        return len(self.labels)

    @property
    def num_views(self) -> int:
        """How many views of each picture there are."""
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture's features in one view."""
        return self.values.shape[2:]

    def take(self, views: np.ndarray, numbers: np.ndarray) -> npt.NDArray[np.float32]:
        """Give float32 (len(numbers), …): of each picture the view that stands beside it.

        Args:
            views: integers from 0 to `num_views` - 1.
            numbers: as many positions of pictures.
        """
        return self.values[views, numbers].astype(np.float32)


def extract(
    network: Any,
    pictures: PictureIterator,
    num_views: int,
    *,
    advance: Callable[[int], None] = lambda count: None,
    scratch: Path | None = None,
) -> Features:
    """Run a frozen network over every view of every picture, once.

    Args:
        network: Keras model from float32 pixels (batch, height, width, 3), 0 to 255.
        pictures: what to run it on.
        num_views: 1 for the pictures as they are, more for augmented views beside them.
        advance: called with the number of pictures just done.
        scratch: a folder on whose disk the features are kept in half precision. They are kept in
            memory in single precision by default.

    Raises:
        DataError: a picture became unreadable since the data folder was checked.
        WeightsError: the network gives numbers that are not finite.
        OutputError: `scratch` cannot be written.
    """
    engine = engines.KerasEngine(network)
    shape = (num_views, pictures.n, *network.output_shape[1:])
    values = _array(shape, scratch)
    for view in range(num_views):
        done = 0
        for batch in _decoded_ahead(pictures, view):
            stored = values[view, done : done + len(batch)]
            # Half precision ends at 65504; what lies beyond is found below.
            with reporting_output_errors(scratch or "memory"), np.errstate(over="ignore"):
                stored[...] = engine.run(batch)
            if not np.isfinite(stored).all():
                raise WeightsError(
                    "The network gives features that are not finite numbers: its weights are "
                    "damaged or not for it; choose other weights with --weights."
                )
            done += len(batch)
            advance(len(batch))
    return Features(values, pictures.classes)


class FeatureBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Feeds features to `fit`: each picture once an epoch, in one of its views drawn by chance."""

    def __init__(
        self, features: Features, batch_size: int, seed: int, *, shuffle: bool = True
    ) -> None:
        super().__init__()
        self._features = features
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0

    def __len__(self) -> int:
        """Give the number of batches in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give float32 features (batch, …) and their labels (batch,)."""
        num_views, num_pictures = self._features.num_views, len(self._features)
        order: np.ndarray = np.arange(num_pictures)
        views: np.ndarray = np.zeros(num_pictures, dtype=np.int64)
        if self._shuffle:
            random = np.random.default_rng((self._seed, self._epoch))
            order = random.permutation(order)
            views = np.asarray(random.integers(num_views, size=num_pictures))
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._features.take(views[chosen], chosen), self._features.labels[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order and views."""
        self._epoch += 1


def _array(shape: tuple[int, ...], scratch: Path | None) -> np.ndarray:
    if scratch is None:
        return np.empty(shape, dtype=np.float32)
    with reporting_output_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        # The file has no name, so that its room is given back even if the process is killed.
        with tempfile.TemporaryFile(dir=scratch) as file:
            # A disk that is full must say so here: under a memory map it would kill the process.
            size = math.prod(shape) * np.dtype(np.float16).itemsize
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=np.float16, mode="r+", shape=shape)


def _decoded_ahead(pictures: PictureIterator, view: int) -> Iterator[np.ndarray]:
    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        waiting: collections.deque[list[concurrent.futures.Future[np.ndarray]]]
        waiting = collections.deque()
        for start in range(0, pictures.n, pictures.batch_size):
            stop = min(start + pictures.batch_size, pictures.n)
            waiting.append(
                [pool.submit(pictures.picture, number, view) for number in range(start, stop)]
            )
            if len(waiting) > _BATCHES_AHEAD:
                yield _stack(waiting.popleft())
        while waiting:
            yield _stack(waiting.popleft())


def _stack(futures: list[concurrent.futures.Future[np.ndarray]]) -> np.ndarray:
    try:
        return np.stack([future.result() for future in futures])
    except ImageError as error:
        raise DataError(
            f"{error}. The picture could be read when the data folder was checked: do not change "
            "the folder while training; start again."
        ) from error
