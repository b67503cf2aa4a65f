"""Pictures for training: Keras's `ImageDataGenerator`, quicker, reproducible, on our own pixels.

What differs from the class it extends (which Keras 3 keeps under `tensorflow.keras`):

* files are read by `images.decode`, so training sees the pixels that prediction sees;
* rotation, shift, shear, zoom and flips are one warp of one picture instead of one per channel;
* chance depends on seed, epoch and picture alone, so any number of threads gives the same batches;
* hidden and empty folders are no classes, and unreadable files are left out by name.
"""

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image
from tensorflow.keras.preprocessing import image as keras_image

from classifier import images
from classifier.errors import DataError, UsageError
from classifier.files import list_files
from classifier.learning import dataset

FIRST_GENERATION = {"shear_range": 0.2, "zoom_range": 0.2, "horizontal_flip": True}

_log = logging.getLogger(__name__)

_RESAMPLING = {
    0: Image.Resampling.NEAREST,
    1: Image.Resampling.BILINEAR,
    3: Image.Resampling.BICUBIC,
}
_PAD_MODES = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap", "constant": "constant"}
_CLASS_MODES = ("categorical", "sparse", "binary", "input", None)


class ImageDataGenerator(keras_image.ImageDataGenerator):  # type: ignore[misc]
    """Keras's generator with the same constructor; see the module for what differs.

    `shear_range` is in degrees, as it has been since Keras 2.

    Raises:
        UsageError: `interpolation_order` is not 0, 1 or 3, `fill_mode` is unknown, or data is not
            channels-last.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.interpolation_order not in _RESAMPLING:
            raise UsageError(
                f"interpolation_order is {self.interpolation_order}: use 0 (nearest), 1 (bilinear) "
                "or 3 (bicubic)."
            )
        if self.data_format != "channels_last":
            raise UsageError(f"data_format is {self.data_format}: only channels_last is supported.")
        if self.fill_mode not in _PAD_MODES:
            raise UsageError(
                f"fill_mode is {self.fill_mode!r}: use {', '.join(sorted(_PAD_MODES))}."
            )

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
    ) -> "PictureIterator":
        """Feed pictures from class folders; see Keras for the arguments.

        `workers`, `use_multiprocessing` and `max_queue_size` are accepted too; above one worker
        Keras 3.15 was once seen to wait for ever at the end of an epoch. With
        `validation_split`, pictures are assigned by content and the validation subset is not
        augmented.

        Raises:
            DataError: there are no pictures in class folders.
            UsageError: an option that this generator does not have.
        """
        unsupported = {
            "color_mode": color_mode != "rgb",
            "save_to_dir": save_to_dir is not None,
            "interpolation": interpolation != "bilinear",
            "keep_aspect_ratio": keep_aspect_ratio,
        }
        for name, is_used in unsupported.items():
            if is_used:
                raise UsageError(
                    f"flow_from_directory does not support this value of {name}: pictures are RGB, "
                    "stretched with an antialiased bilinear filter, as in prediction."
                )
        if not Path(directory).is_dir():
            raise DataError(f"There is no folder {directory}.")
        names = list(classes) if classes else dataset.class_folders(Path(directory))
        samples = _list_samples(Path(directory), names)
        augment = True
        if subset is not None:
            samples = _subset(samples, subset, self._validation_split)
            augment = subset == "training"
        return self.flow_from_samples(
            samples,
            names,
            image_size=target_size,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            class_mode=class_mode,
            augment=augment,
            **dataset_options,
        )

    def flow_from_samples(
        self,
        samples: Sequence[dataset.Sample],
        classes: Sequence[str],
        *,
        image_size: tuple[int, int],
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        class_mode: str | None = "sparse",
        augment: bool = True,
        **dataset_options: Any,
    ) -> "PictureIterator":
        """Feed samples that `dataset.read_dataset` has checked.

        Args:
            samples: the pictures.
            classes: names in the order of `Sample.class_index`.
            image_size: (height, width) in pixels.
            batch_size: pictures in a batch; the last one may be smaller.
            shuffle: whether each epoch has an order of its own.
            seed: of order and augmentation; None draws one.
            class_mode: `categorical`, `sparse`, `binary`, `input` or None, as in Keras.
            augment: whether the random transformations are applied.
            dataset_options: `workers`, `use_multiprocessing`, `max_queue_size`.
        """
        height, width = image_size
        plan = _Plan((height, width), batch_size, shuffle, class_mode, augment)
        return PictureIterator(self, samples, classes, plan, seed, **dataset_options)

    def get_random_transform(
        self, img_shape: tuple[int, ...], seed: Any = None
    ) -> dict[str, float | bool | None]:
        """Draw parameters of one transformation.

        Args:
            img_shape: (height, width, channels).
            seed: an integer or a sequence of integers; the same one gives the same parameters, and
                no other random state is read or changed. None draws afresh.
        """
        random = np.random.default_rng(seed)
        height, width = img_shape[0], img_shape[1]
        zoom_low, zoom_high = self.zoom_range
        zx, zy = random.uniform(zoom_low, zoom_high, 2)
        parameters: dict[str, float | bool | None] = {
            "theta": random.uniform(-self.rotation_range, self.rotation_range),
            # Keras 3.15 has these two the wrong way round: its height shift moves to the side.
            "tx": _shift(random, self.width_shift_range, width),
            "ty": _shift(random, self.height_shift_range, height),
            "shear": random.uniform(-self.shear_range, self.shear_range),
            "zx": zx,
            "zy": zy,
            "flip_horizontal": bool(random.random() < 0.5) and self.horizontal_flip,
            "flip_vertical": bool(random.random() < 0.5) and self.vertical_flip,
            "channel_shift_intensity": None,
            "brightness": None,
        }
        if self.channel_shift_range != 0:
            limit = self.channel_shift_range
            parameters["channel_shift_intensity"] = random.uniform(-limit, limit)
        if self.brightness_range is not None:
            parameters["brightness"] = random.uniform(*self.brightness_range)
        return parameters

    def apply_transform(self, x: np.ndarray, transform_parameters: Mapping[str, Any]) -> np.ndarray:
        """Transform one picture; parameters are those of `get_random_transform`.

        Args:
            x: (height, width, channels), uint8 or a float type.

        Returns:
            an array of the same shape and type.
        """
        matrix = _matrix(transform_parameters, x.shape[0], x.shape[1])
        if not np.allclose(matrix, np.eye(3)):
            x = self._warp(x, matrix)
        shift = transform_parameters.get("channel_shift_intensity")
        if shift is not None:
            x = np.clip(x.astype(np.float32) + shift, x.min(), x.max()).astype(x.dtype)
        brightness = transform_parameters.get("brightness")
        if brightness is not None:
            x = np.clip(x.astype(np.float32) * brightness, 0, 255).astype(x.dtype)
        return x

    def _warp(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        height, width = x.shape[:2]
        top, bottom, left, right = _margins(matrix, height, width)
        pad: Any = {"mode": _PAD_MODES[self.fill_mode]}
        if self.fill_mode == "constant":
            pad["constant_values"] = self.cval
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), **pad)
        warp = _pillow_coefficients(matrix, left, top)
        resampling = _RESAMPLING[self.interpolation_order]

        def transform(image: Image.Image) -> np.ndarray:
            return np.asarray(
                image.transform((width, height), Image.Transform.AFFINE, warp, resampling)
            )

        if x.dtype == np.uint8 and x.shape[2] == 3:
            return transform(Image.fromarray(padded))
        channels = [
            transform(Image.fromarray(padded[..., channel].astype(np.float32)))
            for channel in range(x.shape[2])
        ]
        return np.stack(channels, axis=-1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class _Plan:
    image_size: tuple[int, int]
    batch_size: int
    shuffle: bool
    class_mode: str | None
    augment: bool

    def __post_init__(self) -> None:
        if self.class_mode not in _CLASS_MODES:
            raise UsageError(f"class_mode is {self.class_mode!r}: use one of {_CLASS_MODES}.")


class PictureIterator(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of pictures, for `fit` or a plain loop.

    Every picture comes exactly once in an epoch. Do not give `fit` a `steps_per_epoch`: Keras would
    then drop the rest of an epoch.

    Attributes:
        samples: number of pictures (also `n`, as in Keras).
        class_indices: class name -> index.
        classes: (samples,) int32 class index of each picture.
        filepaths: of each picture.
        epoch: which epoch's chance is in force; `fit` advances it, and so may you.
    """

    def __init__(
        self,
        generator: ImageDataGenerator,
        samples: Sequence[dataset.Sample],
        classes: Sequence[str],
        plan: _Plan,
        seed: int | None,
        **dataset_options: Any,
    ) -> None:
        super().__init__(**dataset_options)
        self._generator = generator
        self._samples = list(samples)
        self._plan = plan
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self.epoch = 0
        self.samples = self.n = len(self._samples)
        self.batch_size = plan.batch_size
        self.image_shape = (*plan.image_size, 3)
        self.class_indices = {name: index for index, name in enumerate(classes)}
        self.num_classes = len(self.class_indices)
        self.classes = np.array([sample.class_index for sample in self._samples], dtype=np.int32)
        self.filepaths = [str(sample.path) for sample in self._samples]
        self.filenames = [
            str(Path(sample.path.parent.name) / sample.path.name) for sample in self._samples
        ]

    @property
    def labels(self) -> np.ndarray:
        """Class index of each picture, (samples,) int32."""
        return self.classes

    def __len__(self) -> int:
        """Give the number of batches in an epoch."""
        return math.ceil(self.n / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Give batch `index`: float32 pictures (batch, height, width, 3) and, if any, labels."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        order = self._order()[index * self.batch_size : (index + 1) * self.batch_size]
        pictures = np.stack([self._picture(int(number)) for number in order])
        batch = self._standardised(pictures)
        if self._plan.class_mode is None:
            return batch
        return batch, self._labels(order, batch)

    def __iter__(self) -> Iterator[Any]:
        """Give the batches of epoch after epoch, without end, as Keras's own iterator does."""
        while True:
            for index in range(len(self)):
                yield self[index]
            self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order and augmentation."""
        self.epoch += 1

    def reset(self) -> None:
        """Go back to the first epoch."""
        self.epoch = 0

    def picture(self, number: int, view: int) -> np.ndarray:
        """Give one picture as (height, width, 3) uint8.

        Args:
            number: its position.
            view: 0 is the picture as it is; each other number is one augmentation of it.
        """
        sample = self._samples[number]
        pixels = images.decode(sample.path, image_size=self._plan.image_size).pixels
        if view == 0:
            return pixels
        # Keyed on content: the same picture gets the same views, wherever it stands in the list.
        seed = (self._seed, view, int(sample.sha256[:16], 16))
        parameters = self._generator.get_random_transform(self.image_shape, seed)
        return self._generator.apply_transform(pixels, parameters)

    def _picture(self, number: int) -> np.ndarray:
        return self.picture(number, self.epoch + 1 if self._plan.augment else 0)

    def _order(self) -> np.ndarray:
        if not self._plan.shuffle:
            return np.arange(self.n)
        return np.random.default_rng((self._seed, self.epoch)).permutation(self.n)

    def _standardised(self, pictures: np.ndarray) -> np.ndarray:
        batch = pictures.astype(np.float32)
        return np.stack([self._generator.standardize(picture) for picture in batch])

    def _labels(self, order: np.ndarray, batch: np.ndarray) -> np.ndarray:
        if self._plan.class_mode == "input":
            return batch.copy()
        labels: np.ndarray = self.classes[order]
        if self._plan.class_mode == "categorical":
            return np.asarray(np.eye(self.num_classes, dtype=np.float32)[labels])
        return np.asarray(labels, dtype=np.float32)


def _list_samples(directory: Path, names: Sequence[str]) -> list[dataset.Sample]:
    files = [
        (path, index) for index, name in enumerate(names) for path in list_files(directory / name)
    ]
    samples, rejects = dataset.check_files(
        [path for path, _ in files], [index for _, index in files]
    )
    for reject in rejects:
        _log.warning("left out %s: %s", reject.path, reject.reason)
    if not samples:
        raise DataError(f"{directory} holds no pictures in class folders.")
    _log.info("Found %d images belonging to %d classes.", len(samples), len(names))
    return samples


def _subset(samples: list[dataset.Sample], subset: str, fraction: float) -> list[dataset.Sample]:
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


def _matrix(parameters: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """Give the 3 × 3 map from output (x, y, 1) to input, between pixel centres, flips included."""
    theta = math.radians(parameters.get("theta", 0))
    shear = math.radians(parameters.get("shear", 0))
    tx, ty = parameters.get("tx", 0), parameters.get("ty", 0)
    cosine, sine = math.cos(theta), math.sin(theta)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    shift = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    shearing = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([parameters.get("zx", 1), parameters.get("zy", 1), 1])
    flip_x = -1 if parameters.get("flip_horizontal") else 1
    flip_y = -1 if parameters.get("flip_vertical") else 1
    to_centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    # Keras flips after the warp, so an output coordinate is flipped before it is mapped.
    linear = rotation @ shift @ shearing @ zoom @ np.diag([flip_x, flip_y, 1])
    return np.asarray(to_centre @ linear @ np.linalg.inv(to_centre))


def _margins(matrix: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Give how many pixels beyond each edge the warp reads: top, bottom, left, right."""
    right, bottom = width - 1, height - 1
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    x, y = (matrix @ corners)[:2]
    beyond = (-y.min(), y.max() - bottom, -x.min(), x.max() - right)
    top, below, left, after = (max(0, math.ceil(side)) + 2 for side in beyond)  # 2: bicubic's reach
    return top, below, left, after


def _pillow_coefficients(matrix: np.ndarray, left: int, top: int) -> tuple[float, ...]:
    """Turn a map between pixel centres into Pillow's, which runs between pixel corners."""
    (a, b, x), (c, d, y) = matrix[0], matrix[1]
    return (a, b, x + left + 0.5 - 0.5 * (a + b), c, d, y + top + 0.5 - 0.5 * (c + d))
