"""Batches of images for training; in a plain loop several threads decode and warp them.

A batch depends on seed, epoch and images alone, never on how many threads there are or which of
them was first.
"""

import contextlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tensorflow.keras.preprocessing import image as keras_image

from imagesieve.cores import cpu_count
from imagesieve.errors import UsageError
from imagesieve.images import decode
from imagesieve.learning.data.dataset import Sample
from imagesieve.prediction.ahead import map_ahead

_CLASS_MODES = ("categorical", "sparse", "binary", "input", None)
# What of a generator's settings changes the values of a batch; without any, the call is spared.
_STANDARDISING = (
    "preprocessing_function",
    "rescale",
    "samplewise_center",
    "samplewise_std_normalization",
    "featurewise_center",
    "featurewise_std_normalization",
    "zca_whitening",
)
# What of them makes a view of an image.
_TRANSFORMING = (
    "rotation_range",
    "width_shift_range",
    "height_shift_range",
    "shear_range",
    "zoom_range",
    "horizontal_flip",
    "vertical_flip",
    "channel_shift_range",
    "brightness_range",
    "fill_mode",
    "cval",
    "interpolation_order",
)


Task = tuple[np.ndarray, int, int, int]  # a batch, the position in it, an image and its view


class ImageIterator(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of images, for `fit` or a plain loop.

    Every image comes exactly once in an epoch. Do not give `fit` a `steps_per_epoch`: Keras would
    then drop the rest of an epoch.

    Attributes:
        samples: number of images (also `n`, as in Keras).
        class_indices: class name -> index.
        classes: (samples,) int32 class index of each image.
        filepaths: of each image.
        checked: the samples themselves, in order.
        sha256s: of each image's file.
        weights: (samples,) float32: how many times each image counts. Keras's own `fit` is not
            told; see `weights_of`.
        epoch: which epoch's chance is in force; `fit` advances it, and so may you.
        threads: how many fill the batches of a plain loop, by default one for each core; 1 is the
            caller's own. `fit` and `[index]` use the thread that asks.
    """

    def __init__(
        self,
        generator: keras_image.ImageDataGenerator,
        samples: Sequence[Sample],
        classes: Sequence[str],
        *,
        image_size: tuple[int, int],
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        class_mode: str | None = "sparse",
        augment: bool = True,
        **dataset_options: Any,
    ) -> None:
        """See `ImageDataGenerator.flow_from_samples`."""
        super().__init__(**dataset_options)
        if class_mode not in _CLASS_MODES:
            raise UsageError(f"class_mode is {class_mode!r}: use one of {_CLASS_MODES}.")
        self._generator = generator
        self.checked = tuple(samples)
        self._shuffle = shuffle
        self._class_mode = class_mode
        self._augment = augment
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self.epoch = 0
        self.threads = cpu_count()
        self.samples = self.n = len(self.checked)
        self.batch_size = batch_size
        self.image_shape = (*image_size, 3)
        self.class_indices = {name: index for index, name in enumerate(classes)}
        self.num_classes = len(self.class_indices)
        self.classes = np.array([sample.class_index for sample in self.checked], dtype=np.int32)
        self.filepaths = [str(sample.path) for sample in self.checked]
        self.sha256s = [sample.sha256 for sample in self.checked]
        self.weights = np.array([sample.weight for sample in self.checked], dtype=np.float32)
        self.filenames = [
            str(Path(sample.path.parent.name) / sample.path.name) for sample in self.checked
        ]

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image, (samples,) int32."""
        return self.classes

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`: float32 images (batch, height, width, 3) and, if any, labels."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        # No threads of our own here: when `fit` stops early, Python's garbage collector may run in
        # one of them and close tf.data's iterator, which waits for Keras's feeding thread, which
        # would wait for ours. Keras asks ahead by itself.
        epoch = self.epoch
        batch, *_ = map(self._fill, self._tasks(epoch, index, index + 1))
        return self._finished(batch, self._chosen(epoch, index))

    def weights_of(self, index: int) -> np.ndarray:
        """Return how many times each image of batch `index` counts, (batch,) float32."""
        weights: np.ndarray = self.weights[self._chosen(self.epoch, index)]
        return weights

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of epoch after epoch, without end, as Keras's own iterator does.

        Several threads fill a batch, and the next one of the epoch while you are busy. They end
        with the epoch, or when the loop is left.
        """
        while True:
            yield from self._one_epoch()
            self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def reset(self) -> None:
        self.epoch = 0

    def image(self, number: int, view: int) -> np.ndarray:
        """Return one image as (height, width, 3) uint8: view 0 as it is, others augmented."""
        return self.views(number, [view])[0]

    def views(self, number: int, views: Sequence[int]) -> list[np.ndarray]:
        """Return several views of one image, which is decoded once; see `image`."""
        sample = self.checked[number]
        pixels = decode(sample.path, image_size=self.image_shape[:2]).pixels
        return [self._view(pixels, sample, view) if view else pixels for view in views]

    def view_name(self, view: int) -> str:
        """Name all that makes a view of an image; equal names stand for equal pixels.

        "" is the image as it is.
        """
        if not view:
            return ""
        settings = [repr(getattr(self._generator, name)) for name in _TRANSFORMING]
        return " ".join([str(self._seed), str(view), *settings])

    def _view(self, pixels: np.ndarray, sample: Sample, view: int) -> np.ndarray:
        # Keyed on content: the same image gets the same views, wherever it stands in the list.
        seed = (self._seed, view, int(sample.sha256[:16], 16))
        parameters = self._generator.get_random_transform(self.image_shape, seed)
        return np.asarray(self._generator.apply_transform(pixels, parameters))

    def _one_epoch(self) -> Iterator[Any]:
        index = 0
        while index < len(self):  # again from here if you have set another epoch meanwhile
            epoch = self.epoch
            tasks = self._tasks(epoch, index, len(self))
            with contextlib.closing(self._filled(tasks)) as filled:
                while index < len(self) and self.epoch == epoch:
                    order = self._chosen(epoch, index)
                    index += 1
                    batch, *_ = itertools.islice(filled, len(order))
                    yield self._finished(batch, order)

    def _filled(self, tasks: Iterator[Task]) -> Generator[np.ndarray, None, None]:
        if self.threads == 1:
            return (self._fill(task) for task in tasks)
        return map_ahead(self._fill, tasks, threads=self.threads, ahead=self.batch_size)

    def _tasks(self, epoch: int, start: int, stop: int) -> Iterator[Task]:
        view = epoch + 1 if self._augment else 0
        for index in range(start, stop):
            order = self._chosen(epoch, index)
            batch = np.empty((len(order), *self.image_shape), np.float32)
            for position, number in enumerate(order.tolist()):
                yield batch, position, number, view

    def _fill(self, task: Task) -> np.ndarray:
        """Decode and augment one image into its place in the batch; return the batch."""
        batch, position, number, view = task
        batch[position] = self.image(number, view)
        return batch

    def _finished(self, batch: np.ndarray, order: np.ndarray) -> Any:
        # Here, not in the threads: a preprocessing function need not bear several of them.
        if self._standardises():
            for position, image in enumerate(batch):
                batch[position] = self._generator.standardize(image)
        if self._class_mode is None:
            return batch
        return batch, self._labels(order, batch)

    def _standardises(self) -> bool:
        is_keras_s = type(self._generator).standardize is keras_image.ImageDataGenerator.standardize
        return not is_keras_s or any(getattr(self._generator, name) for name in _STANDARDISING)

    def _chosen(self, epoch: int, index: int) -> np.ndarray:
        return self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self.n)
        return np.random.default_rng((self._seed, epoch)).permutation(self.n)

    def _labels(self, order: np.ndarray, batch: np.ndarray) -> np.ndarray:
        if self._class_mode == "input":
            return batch.copy()
        labels: np.ndarray = self.classes[order]
        if self._class_mode == "categorical":
            return np.asarray(np.eye(self.num_classes, dtype=np.float32)[labels])
        return np.asarray(labels, dtype=np.float32)
