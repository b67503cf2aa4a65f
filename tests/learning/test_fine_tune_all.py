from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.data.generator import ImageDataGenerator, ImageIterator
from imagesieve.learning.networks import backbones
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training.fit import FitSettings


@pytest.fixture(scope="module")
def tiny() -> Callable[[], Network]:
    """Return a function that builds a network of a few layers that has all a large one has."""

    def make() -> Network:
        keras.utils.set_random_seed(0)
        pixels = keras.Input((24, 24, 3), name="pixels")
        tensor = keras.layers.Rescaling(1 / 127.5, -1.0, name="scale_pixels")(pixels)
        for filters in (8, 16):
            tensor = keras.layers.Conv2D(filters, 3, strides=2)(tensor)
            tensor = keras.layers.BatchNormalization()(tensor)
            tensor = keras.ops.relu(tensor)  # an operation that is no layer, as in MobileNetV3
        tensor = keras.layers.GlobalAveragePooling2D()(tensor)
        tensor = keras.layers.Dropout(0.2, name="head_dropout")(tensor)
        tensor = keras.layers.Dense(3, activation="softmax", name="head_probabilities")(tensor)
        return Network.of(backbones.find("MobileNetV2"), keras.Model(pixels, tensor))

    return make


def images(colours: Dataset, *, is_training: bool) -> ImageIterator:
    return ImageIterator(
        ImageDataGenerator(horizontal_flip=True),
        colours.train if is_training else colours.validation,
        colours.classes,
        image_size=(24, 24),
        batch_size=8,
        shuffle=is_training,
        seed=0,
        augment=is_training,
    )


def settings(folder: Path, **changes: Any) -> FitSettings:
    return FitSettings(
        **({"epochs": 3, "learning_rate": 0.05, "batch_size": 8, "seed": 0} | changes),
        log_folder=folder / "log",
    )


def test_all_layers_are_trained_on_pixels(
    tiny: Callable[[], Network], colours: Dataset, tmp_path: Path
) -> None:
    built = tiny()
    train, validation = (images(colours, is_training=x) for x in (True, False))
    norms = [x for x in built.model.layers if isinstance(x, keras.layers.BatchNormalization)]
    statistics = [weight for norm in norms for weight in norm.get_weights()]
    start = built.model.get_weights()
    fit = fine_tuning.fine_tune_all(built, train, validation, settings(tmp_path))
    assert fit.stage == "full fine-tuning"
    assert fit.best_epoch >= 1
    found = np.asarray(built.model(np.stack([validation.image(n, 0) for n in range(12)])))
    right = found[np.arange(12), validation.classes]
    assert fit.validation_loss == pytest.approx(float(-np.log(right).mean()), rel=1e-3)
    after = [weight for norm in norms for weight in norm.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(statistics, after, strict=True))
    kernels = [x for x in built.model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(kernels) == 2
    changed = [
        not np.array_equal(a, b) for a, b in zip(start, built.model.get_weights(), strict=True)
    ]
    assert sum(changed) == 6  # kernel and bias of two convolutions and of the head


def test_training_that_only_harms_is_undone(
    tiny: Callable[[], Network], colours: Dataset, tmp_path: Path
) -> None:
    built = tiny()
    train, validation = (images(colours, is_training=x) for x in (True, False))
    before = built.model.get_weights()
    train.classes[:] = (train.classes + 1) % 3
    fit = fine_tuning.fine_tune_all(built, train, validation, settings(tmp_path, epochs=1))
    assert fit.best_epoch == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, built.model.get_weights(), strict=True))
