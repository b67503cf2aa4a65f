"""Images for training: Keras's `ImageDataGenerator`, quicker, reproducible, on our own pixels.

What differs from the class it extends (which Keras 3 keeps under `tensorflow.keras`):

* files are read by `images.decode`, so training sees the pixels that prediction sees;
* rotation, shift, shear, zoom and flips are one warp of one image instead of one per channel;
* chance depends on seed, epoch and image alone, so any number of threads gives the same batches;
* a plain loop over it has several threads at work, and the next batch under way;
* hidden and empty folders are no classes, and unreadable files are left out by name.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.keras.preprocessing import image as keras_image

from imagesieve.class_folders import class_files
from imagesieve.errors import DataError, UsageError
from imagesieve.learning.data import dataset, warp
from imagesieve.learning.data.image_iterator import ImageIterator

__all__ = ["FIRST_GENERATION", "ImageDataGenerator", "ImageIterator"]

FIRST_GENERATION = {"shear_range": 0.2, "zoom_range": 0.2, "horizontal_flip": True}

_log = logging.getLogger(__name__)


class ImageDataGenerator(keras_image.ImageDataGenerator):  # type: ignore[misc]  # untyped
    """Keras's generator with the same constructor; see the module for what differs.

    `shear_range` is in degrees, as it has been since Keras 2.

    Raises:
        UsageError: `interpolation_order` is not 0, 1 or 3, `fill_mode` is unknown, or data is not
            channels-last.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.interpolation_order not in warp.RESAMPLING:
            raise UsageError(
                f"interpolation_order is {self.interpolation_order}: use 0 (nearest), 1 (bilinear) "
                "or 3 (bicubic)."
            )
        if self.data_format != "channels_last":
            raise UsageError(f"data_format is {self.data_format}: only channels_last is supported.")
        if self.fill_mode not in warp.PAD_MODES:
            raise UsageError(
                f"fill_mode is {self.fill_mode!r}: use {', '.join(sorted(warp.PAD_MODES))}."
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
    ) -> "ImageIterator":
        """Feed images from class folders; see Keras for the arguments.

        `workers`, `use_multiprocessing` and `max_queue_size` are accepted too; above one worker
        Keras 3.15 was once seen to wait for ever at the end of an epoch. With
        `validation_split`, images are assigned by content and the validation subset is not
        augmented.

        Raises:
            DataError: there are no images in class folders.
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
                    f"flow_from_directory does not support this value of {name}: images are RGB, "
                    "stretched with an antialiased bilinear filter, as in prediction."
                )
        if not Path(directory).is_dir():
            raise DataError(f"There is no folder {directory}.")
        files = class_files(Path(directory))
        names = list(classes) if classes else list(files)
        samples = _list_samples(Path(directory), names, files)
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
        self, samples: Sequence[dataset.Sample], classes: Sequence[str], **options: Any
    ) -> "ImageIterator":
        """Feed samples that `dataset.read_dataset` has checked.

        Args:
            samples: the images.
            classes: names in the order of `Sample.class_index`.
            options: `image_size`: (height, width) in pixels; `batch_size`: images in a batch, the
                last one may be smaller (32); `shuffle`: whether each epoch has an order of its own
                (True); `seed`: of order and augmentation, None draws one; `class_mode`: `sparse`
                (default), `categorical`, `binary`, `input` or None, as in Keras; `augment`: whether
                the random transformations are applied (True); and Keras's `workers`,
                `use_multiprocessing`, `max_queue_size`.
        """
        return ImageIterator(self, samples, classes, **options)

    def get_random_transform(
        self, img_shape: tuple[int, ...], seed: Any = None
    ) -> dict[str, float | bool | None]:
        """Draw parameters of one transformation of a (height, width, channels) image.

        The same seed, an integer or a sequence of them, gives the same parameters, and no other
        random state is read or changed. None draws afresh.
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
        """Return a transformed (height, width, channels) image, in its own type.

        The parameters are those of `get_random_transform`.
        """
        matrix = warp.matrix(transform_parameters, x.shape[0], x.shape[1])
        if not warp.is_identity(matrix):
            x = warp.warp(
                x,
                matrix,
                interpolation_order=self.interpolation_order,
                fill_mode=self.fill_mode,
                cval=self.cval,
            )
        shift = transform_parameters.get("channel_shift_intensity")
        if shift is not None:
            x = np.clip(x.astype(np.float32) + shift, x.min(), x.max()).astype(x.dtype)
        brightness = transform_parameters.get("brightness")
        if brightness is not None:
            x = np.clip(x.astype(np.float32) * brightness, 0, 255).astype(x.dtype)
        return x


def _list_samples(
    directory: Path, names: Sequence[str], files: Mapping[str, Sequence[Path]]
) -> list[dataset.Sample]:
    listed = [(path, index) for index, name in enumerate(names) for path in files.get(name, ())]
    samples, rejects = dataset.check_files(listed)
    for reject in rejects:
        _log.warning("left out %s: %s", reject.path, reject.reason)
    if not samples:
        raise DataError(f"{directory} holds no images in class folders.")
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
