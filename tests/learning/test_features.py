from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_folders import fill

from imagesieve.errors import DataError
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features.store import Features
from imagesieve.learning.training.fit import FeatureBatches, probabilities


def images_of(dataset: Dataset, batch_size: int = 8) -> ImageIterator:
    return ImageIterator(
        ImageDataGenerator(**FIRST_GENERATION),
        dataset.train,
        dataset.classes,
        image_size=(32, 32),
        batch_size=batch_size,
        shuffle=False,
        seed=5,
        augment=False,
    )


@pytest.fixture(scope="module")
def pixel_means() -> Any:
    """Return a network whose features are plain to check: the mean of each channel."""
    pixels = keras.Input((32, 32, 3))
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_come_in_order_whatever_the_batch_size(
    colours: Dataset, pixel_means: Any, batch_size: int
) -> None:
    images = images_of(colours, batch_size)
    found = probabilities(pixel_means, images)
    assert found.dtype == np.float32
    right = [images.image(number, 0).mean(axis=(0, 1)) for number in range(images.n)]
    np.testing.assert_allclose(found, right, atol=1e-3)


def test_an_image_that_vanished_is_named(tmp_path: Path, pixel_means: Any) -> None:
    dataset = read_dataset(fill(tmp_path, 5))
    dataset.train[7].path.unlink()
    with pytest.raises(DataError, match=rf"{dataset.train[7].path}.*do not change the folder"):
        probabilities(pixel_means, images_of(dataset))


def numbered(num_views: int, num_images: int) -> Features:
    """Return features that say which view of which image they are."""
    view, image = np.mgrid[:num_views, :num_images]
    return Features(np.stack([view, image], axis=-1).astype(np.float16), np.arange(num_images))


def test_an_epoch_has_every_image_once_in_views_drawn_by_chance() -> None:
    batches = FeatureBatches(numbered(3, 50), 8, seed=1)
    assert len(batches) == 7
    epochs = []
    for _ in range(2):
        taken = [batches[index] for index in range(len(batches))]
        values = np.concatenate([values for values, _ in taken])
        labels = np.concatenate([labels for _, labels in taken])
        assert values.dtype == np.float32
        assert sorted(labels) == list(range(50))
        np.testing.assert_array_equal(values[:, 1], labels)
        assert set(values[:, 0]) == {0, 1, 2}
        epochs.append(values)
        batches.on_epoch_end()
    assert not np.array_equal(epochs[0], epochs[1])


def test_weights_go_with_their_images() -> None:
    plain = numbered(2, 20)
    weights = np.arange(20, dtype=np.float32)
    batches = FeatureBatches(Features(plain.values, plain.labels, weights), 8, seed=1)
    for _ in range(2):
        for index in range(3):
            np.testing.assert_array_equal(batches.weights_of(index), batches[index][1])
        batches.on_epoch_end()
    unweighted = FeatureBatches(plain, 8, seed=1).weights_of(2)
    np.testing.assert_array_equal(unweighted, np.ones(4, np.float32))


def test_unshuffled_batches_are_the_plain_images_in_order() -> None:
    batches = FeatureBatches(numbered(3, 10), 4, seed=1, shuffle=False)
    values = np.concatenate([batches[index][0] for index in range(3)])
    np.testing.assert_array_equal(values[:, 0], np.zeros(10))
    np.testing.assert_array_equal(values[:, 1], np.arange(10))
