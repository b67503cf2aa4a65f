import collections
import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_folders import fill

from classifier import engines
from classifier.errors import DataError, OutputError, WeightsError
from classifier.learning import random_weights
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


def test_features_are_what_the_model_says_when_it_is_run_directly(
    colours: Dataset, make_network: Callable[..., Any]
) -> None:
    base = make_network().base
    pictures = pictures_of(colours)
    # Without statistics of its own, a random network's features drown.
    plain = np.stack([pictures.picture(number, 0) for number in range(16)])
    random_weights.set_batch_norm_statistics(base, [plain])
    found = extract(base, pictures, 2)
    assert found.values.shape == (2, 30, 1280)
    assert found.values.dtype == np.float32
    for view in (0, 1):
        pixels = np.stack([pictures.picture(number, view) for number in range(pictures.n)])
        direct = np.asarray(base(pixels.astype(np.float32), training=False))
        np.testing.assert_allclose(found.values[view], direct, atol=1e-3)
    assert np.abs(found.values[0] - found.values[1]).max() > 0.1
    np.testing.assert_array_equal(found.labels, [sample.class_index for sample in colours.train])


def test_each_view_of_each_picture_is_run_exactly_once(
    colours: Dataset, pixel_means: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = engines.KerasEngine.run
    seen: collections.Counter[bytes] = collections.Counter()

    def counted(self: engines.KerasEngine, batch: np.ndarray) -> np.ndarray:
        seen.update(picture.tobytes() for picture in batch)
        return run(self, batch)

    monkeypatch.setattr(engines.KerasEngine, "run", counted)
    steps: list[int] = []
    pictures = pictures_of(colours)
    extract(pixel_means, pictures, 3, advance=steps.append)
    expected = {
        pictures.picture(number, view).tobytes() for number in range(30) for view in range(3)
    }
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    assert steps == [8, 8, 8, 6] * 3


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_nothing(
    colours: Dataset, pixel_means: Any, batch_size: int
) -> None:
    found = extract(pixel_means, pictures_of(colours, batch_size), 1).values
    expected = extract(pixel_means, pictures_of(colours), 1).values
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_picture_that_vanished_is_named(tmp_path: Path, pixel_means: Any) -> None:
    dataset = read_dataset(fill(tmp_path, 5))
    dataset.train[7].path.unlink()
    with pytest.raises(DataError, match=rf"{dataset.train[7].path}.*do not change the folder"):
        extract(pixel_means, pictures_of(dataset), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_give_no_numbers_are_refused(colours: Dataset, value: float) -> None:
    pixels = keras.Input((32, 32, 3))
    layer = keras.layers.Dense(4)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(layer(pixels)))
    layer.set_weights([np.full((3, 4), value), np.zeros(4)])
    with pytest.raises(WeightsError, match="not finite numbers"):
        extract(model, pictures_of(colours), 1)


def test_maps_too_large_for_the_scratch_file_are_refused(tmp_path: Path, colours: Dataset) -> None:
    pixels = keras.Input((32, 32, 3))
    model = keras.Model(pixels, keras.layers.Rescaling(1e4)(pixels))
    with pytest.raises(WeightsError, match="not finite numbers"):
        extract(model, pictures_of(colours), 1, scratch=tmp_path)


def open_scratch_files(folder: Path) -> list[os.stat_result]:
    """Files without a name that this process holds open on a folder's disk."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = descriptor.readlink()
            if target.is_relative_to(folder) and "(deleted)" in target.name:
                found.append(descriptor.stat())
    return found


def test_scratch_keeps_half_precision_in_a_file_without_a_name(
    tmp_path: Path, colours: Dataset, pixel_means: Any
) -> None:
    expected = extract(pixel_means, pictures_of(colours), 2).values
    found = extract(pixel_means, pictures_of(colours), 2, scratch=tmp_path / "log")
    assert found.values.dtype == np.float16
    assert [file.st_size for file in open_scratch_files(tmp_path)] == [2 * 30 * 3 * 2]
    np.testing.assert_allclose(found.values, expected, rtol=1e-3)
    assert list((tmp_path / "log").iterdir()) == []
    del found
    gc.collect()  # a cycle may hold the array a little longer
    assert open_scratch_files(tmp_path) == []


def test_scratch_has_its_room_before_it_is_filled(tmp_path: Path, colours: Dataset) -> None:
    """Running out of space inside a memory map is no error but the end of the process."""
    pixels = keras.Input((32, 32, 3))
    model = keras.Model(pixels, keras.layers.ReLU()(pixels))
    pictures = pictures_of(colours)
    room: list[int] = []

    def look(_: int) -> None:
        room.append(open_scratch_files(tmp_path)[0].st_blocks * 512)

    values = extract(model, pictures, 4, advance=look, scratch=tmp_path).values
    assert room[0] >= values.nbytes


def test_a_scratch_folder_that_cannot_be_made_is_an_output_error(
    tmp_path: Path, colours: Dataset, pixel_means: Any
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"a part of the path is a file|already there"):
        extract(pixel_means, pictures_of(colours), 1, scratch=tmp_path / "file/log")


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


def test_unshuffled_batches_are_the_plain_pictures_in_order() -> None:
    batches = FeatureBatches(numbered(3, 10), 4, seed=1, shuffle=False)
    values = np.concatenate([batches[index][0] for index in range(3)])
    np.testing.assert_array_equal(values[:, 0], np.zeros(10))
    np.testing.assert_array_equal(values[:, 1], np.arange(10))
