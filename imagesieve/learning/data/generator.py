"""Images for training: Keras's `ImageDataGenerator`, quicker, reproducible, on our own pixels.

What differs from the class it extends (which Keras 3 keeps under `tensorflow.keras`):

* files are read by `images.decode`, so training sees the pixels that prediction sees;
* rotation, shift, shear, zoom and flips are one warp of one image instead of one per channel;
* chance depends on seed, epoch and image alone, so any number of threads gives the same batches;
* a plain loop over it has several threads at work, and the next batch under way;
* hidden and empty folders are no classes, and unreadable files are left out by name.
"""

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tensorflow.keras.preprocessing import image as keras_image

from imagesieve.class_folders import class_files
from imagesieve.errors import DataError, UsageError
from imagesieve.images import decode
from imagesieve.learning.data import warp
from imagesieve.learning.data.dataset import Sample, check_files
from imagesieve.threads import cpu_count, map_ahead

FIRST_GENERATION = {"shear_range": 0.2, "zoom_range": 0.2, "horizontal_flip": True}

_CLASS_MODES = ("categorical", "sparse", "binary", "input", None)

_Task = tuple[np.ndarray, int, int, int]  # a batch, the position in it, an image and its view

_log = logging.getLogger(__name__)


class ImageDataGenerator(keras_image.ImageDataGenerator):  # type: ignore[misc]  # untyped
    """Keras's generator with the same constructor; see the module for what differs.

    `shear_range` is in degrees, as it has been since Keras 2.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        allowed = {
            "interpolation_order": warp.RESAMPLING.keys(),
            "data_format": ["channels_last"],
            "fill_mode": warp.PAD_MODES.keys(),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                choices = ", ".join(map(str, values))
                raise UsageError(f"{name} is {getattr(self, name)!r}: use one of {choices}.")

    def flow_from_directory(
        self,
        directory: str,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "bilinear",
        keep_aspect_ratio: bool = False,
        **dataset_options: Any,
    ) -> "ImageIterator":
        """Feed images from class folders; see Keras for the arguments.

        `workers`, `use_multiprocessing` and `max_queue_size` are accepted too; above one worker
        Keras 3.15 was once seen to wait for ever at the end of an epoch. With
        `validation_split`, images are assigned by content and the validation subset is not
        augmented. An option that this generator does not have is a UsageError.
        """
        fixed = (color_mode, save_to_dir, follow_links, interpolation, keep_aspect_ratio)
        if fixed != ("rgb", None, False, "bilinear", False):
            raise UsageError(
                "flow_from_directory takes color_mode 'rgb', save_to_dir None, follow_links False, "
                "interpolation 'bilinear' and keep_aspect_ratio False alone: images are RGB, "
                "stretched with an antialiased bilinear filter, as in prediction."
            )
        if not Path(directory).is_dir():
            raise DataError(f"There is no folder {directory}.")
        files = class_files(Path(directory))
        names = list(classes) if classes else list(files)
        samples = _check(Path(directory), names, files)
        if subset is not None:
            samples = _subset(samples, subset, self._validation_split)
        flow = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, **dataset_options}
        flow |= {"class_mode": class_mode, "augment": subset != "validation"}
        return ImageIterator(self, samples, names, image_size=target_size, **flow)

    def get_random_transform(
        self, img_shape: tuple[int, ...], seed: Any = None
    ) -> dict[str, float | bool | None]:
        """Draw parameters of one transformation of a (height, width, channels) image.

        The same seed, an integer or a sequence of them, gives the same parameters, and no other
        random state is read or changed. None draws afresh.
        """
        random = np.random.default_rng(seed)
        height, width = img_shape[:2]
        zx, zy = random.uniform(self.zoom_range[0], self.zoom_range[1], 2)
        channel_shift, brightness = self.channel_shift_range, self.brightness_range
        return {
            "theta": random.uniform(-self.rotation_range, self.rotation_range),
            # Keras 3.15 has these two the wrong way round: its height shift moves to the side.
            "tx": _shift(random, self.width_shift_range, width),
            "ty": _shift(random, self.height_shift_range, height),
            "shear": random.uniform(-self.shear_range, self.shear_range),
            "zx": zx,
            "zy": zy,
            "flip_horizontal": bool(random.random() < 0.5) and self.horizontal_flip,
            "flip_vertical": bool(random.random() < 0.5) and self.vertical_flip,
            "channel_shift_intensity": random.uniform(-channel_shift, channel_shift)
            if channel_shift
            else None,
            "brightness": random.uniform(*brightness) if brightness is not None else None,
        }

    def apply_transform(self, x: np.ndarray, transform_parameters: Mapping[str, Any]) -> np.ndarray:
        """Return a transformed (height, width, channels) image, in its own type.

        The parameters are those of `get_random_transform`.
        """
        matrix = warp.matrix(transform_parameters, x.shape[0], x.shape[1])
        if not warp.is_identity(matrix):
            x = warp.warp(x, matrix, self.interpolation_order, self.fill_mode, self.cval)
        shift = transform_parameters.get("channel_shift_intensity")
        if shift is not None:
            x = np.clip(x.astype(np.float32) + shift, x.min(), x.max()).astype(x.dtype)
        brightness = transform_parameters.get("brightness")
        if brightness is not None:
            x = np.clip(x.astype(np.float32) * brightness, 0, 255).astype(x.dtype)
        return x


class ImageIterator(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of images, for `fit` or a plain loop, in which several threads fill them.

    A batch depends on seed, epoch and images alone, never on how many threads there are or which of
    them was first. Every image comes exactly once in an epoch. Do not give `fit` a
    `steps_per_epoch`: Keras would then drop the rest of an epoch.
    """

    def __init__(
        self,
        generator: ImageDataGenerator,
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
        """Feed samples, whose classes are in the order of `Sample.class_index`.

        `image_size` is (height, width); what is not said here is as in Keras's
        `flow_from_directory`. `dataset_options` are Keras's of a `PyDataset`, such as `workers`.
        """
        super().__init__(**dataset_options)
        if class_mode not in _CLASS_MODES:
            raise UsageError(f"class_mode is {class_mode!r}: use one of {_CLASS_MODES}.")
        self._generator = generator
        self._shuffle = shuffle
        self._class_mode = class_mode
        self._augment = augment
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self.epoch = 0  # whose order and chance are in force; `fit` advances it
        self.checked = tuple(samples)
        self.samples = self.n = len(self.checked)
        self.batch_size = batch_size
        self.image_shape = (*image_size, 3)
        self.class_indices = {name: index for index, name in enumerate(classes)}
        self.num_classes = len(self.class_indices)
        # Class index of each image, (samples,) int32.
        self.classes = self.labels = np.array([x.class_index for x in self.checked], np.int32)
        # How many times each counts, (samples,) float32. Keras's own `fit` is not told.
        self.weights = np.array([sample.weight for sample in self.checked], np.float32)
        self.sha256s = [sample.sha256 for sample in self.checked]
        self.filepaths = [str(sample.path) for sample in self.checked]
        self.filenames = [f"{x.path.parent.name}/{x.path.name}" for x in self.checked]

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

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of epoch after epoch, without end, as Keras's own iterator does.

        Several threads fill a batch, and the next one of the epoch while you are busy. They end
        with the epoch, or when the loop is left.
        """
        while True:
            epoch = self.epoch
            tasks = self._tasks(epoch, 0, len(self))
            ahead = map_ahead(self._fill, tasks, threads=cpu_count(), ahead=self.batch_size)
            with contextlib.closing(ahead) as filled:
                for index in range(len(self)):
                    order = self._chosen(epoch, index)
                    batch, *_ = itertools.islice(filled, len(order))
                    yield self._finished(batch, order)
            self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def reset(self) -> None:
        self.epoch = 0

    def weights_of(self, index: int) -> np.ndarray:
        """Return how many times each image of batch `index` counts, (batch,) float32."""
        return np.asarray(self.weights[self._chosen(self.epoch, index)])

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
        return f"{self._seed} {view} {sorted(vars(self._generator).items())}"

    def _view(self, pixels: np.ndarray, sample: Sample, view: int) -> np.ndarray:
        # Keyed on content: the same image gets the same views, wherever it stands in the list.
        seed = (self._seed, view, int(sample.sha256[:16], 16))
        parameters = self._generator.get_random_transform(self.image_shape, seed)
        return self._generator.apply_transform(pixels, parameters)

    def _tasks(self, epoch: int, start: int, stop: int) -> Iterator[_Task]:
        view = epoch + 1 if self._augment else 0
        for index in range(start, stop):
            order = self._chosen(epoch, index)
            batch = np.empty((len(order), *self.image_shape), np.float32)
            for position, number in enumerate(order.tolist()):
                yield batch, position, number, view

    def _fill(self, task: _Task) -> np.ndarray:
        """Decode and augment one image into its place in the batch; return the batch."""
        batch, position, number, view = task
        batch[position] = self.image(number, view)
        return batch

    def _chosen(self, epoch: int, index: int) -> np.ndarray:
        order = np.arange(self.n)
        if self._shuffle:
            order = np.random.default_rng((self._seed, epoch)).permutation(self.n)
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def _finished(self, batch: np.ndarray, order: np.ndarray) -> Any:
        # Here, not in the threads: a preprocessing function need not bear several of them.
        for position, image in enumerate(batch):
            standardised = self._generator.standardize(image)
            if standardised is not image:  # else there is nothing to do, or it was done in place
                batch[position] = standardised
        return batch if self._class_mode is None else (batch, self._targets(order, batch))

    def _targets(self, order: np.ndarray, batch: np.ndarray) -> np.ndarray:
        if self._class_mode == "input":
            return batch.copy()
        labels = self.classes[order]
        if self._class_mode == "categorical":
            return np.asarray(np.eye(self.num_classes, dtype=np.float32)[labels])
        return np.asarray(labels, dtype=np.float32)


def _check(
    directory: Path, names: Sequence[str], files: Mapping[str, Sequence[Path]]
) -> list[Sample]:
    listed = [(path, index) for index, name in enumerate(names) for path in files.get(name, ())]
    samples, rejects = check_files(listed, "checking images")
    for path, reason in rejects.items():
        _log.warning("left out %s: %s", path, reason)
    if not samples:
        raise DataError(f"{directory} holds no images in class folders.")
    _log.info("Found %d images belonging to %d classes.", len(samples), len(names))
    return samples


def _subset(samples: list[Sample], subset: str, fraction: float) -> list[Sample]:
    if subset not in ("training", "validation"):
        raise UsageError(f"subset is {subset!r}: use 'training' or 'validation'.")
    if not fraction:
        raise UsageError("subset needs a generator that was made with validation_split.")
    is_validation = subset == "validation"
    limit = int(fraction * 2**32)
    return [sample for sample in samples if (int(sample.sha256[:8], 16) < limit) is is_validation]


def _shift(random: np.random.Generator, shift_range: Any, side: int) -> float:
    if isinstance(shift_range, Sequence | np.ndarray):
        shift = float(random.choice(np.asarray(shift_range))) * random.choice([-1, 1])
    else:
        shift = random.uniform(-shift_range, shift_range)
    return float(shift * side if np.max(shift_range) < 1 else shift)
