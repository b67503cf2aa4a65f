from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_folders import fill

from classifier.errors import DataError
from classifier.learning.dataset import Dataset, read_dataset
from classifier.learning.features import FeatureBatches, Features, extract
from classifier.learning.generator import FIRST_GENERATION, ImageDataGenerator, PictureIterator


def pictures_of(dataset: Dataset, batch_size: int = 8) -> PictureIterator:
    return ImageDataGenerator(**FIRST_GENERATION).flow_from_samples(
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
    """Give a network whose features are plain to check: the mean of each channel."""
    pixels = keras.Input((32, 32, 3))
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_come_in_order_whatever_the_batch_size(
    colours: Dataset, pixel_means: Any, batch_size: int
) -> None:
    pictures = pictures_of(colours, batch_size)
    found = extract(pixel_means, pictures)
    assert found.dtype == np.float32
    right = [pictures.picture(number, 0).mean(axis=(0, 1)) for number in range(pictures.n)]
    np.testing.assert_allclose(found, right, atol=1e-3)


def test_a_picture_that_vanished_is_named(tmp_path: Path, pixel_means: Any) -> None:
    dataset = read_dataset(fill(tmp_path, 5))
    dataset.train[7].path.unlink()
    with pytest.raises(DataError, match=rf"{dataset.train[7].path}.*do not change the folder"):
        extract(pixel_means, pictures_of(dataset))


def numbered(num_views: int, num_pictures: int) -> Features:
    """Give features that say which view of which picture they are."""
    view, picture = np.mgrid[:num_views, :num_pictures]
    return Features(np.stack([view, picture], axis=-1).astype(np.float16), np.arange(num_pictures))


def test_an_epoch_has_every_picture_once_in_views_drawn_by_chance() -> None:
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


def test_weights_go_with_their_pictures() -> None:
    plain = numbered(2, 20)
    weights = np.arange(20, dtype=np.float32)
    batches = FeatureBatches(Features(plain.values, plain.labels, weights), 8, seed=1)
    for _ in range(2):
        for index in range(3):
            np.testing.assert_array_equal(batches.weights_of(index), batches[index][1])
        batches.on_epoch_end()
    unweighted = FeatureBatches(plain, 8, seed=1).weights_of(2)
    np.testing.assert_array_equal(unweighted, np.ones(4, np.float32))


def test_unshuffled_batches_are_the_plain_pictures_in_order() -> None:
    batches = FeatureBatches(numbered(3, 10), 4, seed=1, shuffle=False)
    values = np.concatenate([batches[index][0] for index in range(3)])
    np.testing.assert_array_equal(values[:, 0], np.zeros(10))
    np.testing.assert_array_equal(values[:, 1], np.arange(10))
