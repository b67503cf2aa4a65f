import collections
import contextlib
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import fill
from forked import Forked
from tiny_backbone import TINY

from imagesieve.errors import DataError, OutputError, WeightsError
from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features import extraction
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import network as networks
from imagesieve.learning.networks import random_weights
from imagesieve.model import engines

Passes = collections.Counter[bytes]


def images_of(samples: tuple[Sample, ...], seed: int = 5, **changes: Any) -> ImageIterator:
    return ImageIterator(
        ImageDataGenerator(**(FIRST_GENERATION | changes)),
        samples,
        ("blue", "green", "red"),
        image_size=(32, 32),
        batch_size=8,
        shuffle=False,
        seed=seed,
        augment=False,
    )


def build() -> Any:
    return networks.build(TINY, 3, (32, 32), weights_path=None, seed=0)


@pytest.fixture(scope="module")
def network(colours: Dataset) -> Any:
    """Return a network with random weights whose features do not drown."""
    built = build()
    plain = images_of(colours.train)
    batch = np.stack([plain.image(number, 0) for number in range(20)])
    random_weights.prepare(built.base, [batch])
    return built


@pytest.fixture(scope="module")
def converted(network: Any, colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that holds the converted network and nothing else."""
    folder = tmp_path_factory.mktemp("converted")
    with extraction.opened(network, FeatureStore(folder, limit=1e9), images_of(colours.train)):
        pass
    return folder


@pytest.fixture
def store(converted: Path, tmp_path: Path) -> FeatureStore:
    folder = tmp_path / "store"
    subprocess.run(["cp", "-r", converted, folder], check=True)
    return FeatureStore(folder, limit=1e9)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Count, for each image by its pixels, how often it goes through the base."""
    run = engines.OpenVINOEngine.run_all
    seen: collections.Counter[bytes] = collections.Counter()
    lock = threading.Lock()

    def counted(self: engines.OpenVINOEngine, batch: np.ndarray) -> Any:
        with lock:
            seen.update(image.tobytes() for image in batch)
        return run(self, batch)

    monkeypatch.setattr(engines.OpenVINOEngine, "run_all", counted)
    return seen


def pooled(network: Any, store: FeatureStore, images: ImageIterator, views: int = 2) -> np.ndarray:
    with extraction.opened(network, store, images) as extractor:
        return np.asarray(extractor.pooled(images, views).values)


def test_features_are_what_the_model_says_when_it_is_run_directly(
    network: Any, store: FeatureStore, colours: Dataset
) -> None:
    images = images_of(colours.train)
    with extraction.opened(network, store, images) as extractor:
        maps, found = extractor.maps(images, 2)
        everything = np.repeat([0, 1], 30), np.tile(np.arange(30), 2)
        map_rows = maps.take(*everything)
    assert found.values.shape == (2, 30, 24)
    assert map_rows.shape[1:] == network.lower().output_shape[1:]
    pixels = np.stack([images.image(n, view) for view in (0, 1) for n in range(30)])
    direct = np.asarray(network.base(pixels.astype(np.float32), training=False))
    assert noise(np.asarray(found.values).reshape(60, -1), direct) < extraction.MAX_NOISE
    direct = np.asarray(network.lower()(pixels.astype(np.float32), training=False))
    assert noise(map_rows, direct) < extraction.MAX_NOISE
    np.testing.assert_array_equal(found.labels, [sample.class_index for sample in colours.train])


def noise(found: np.ndarray, right: np.ndarray) -> float:
    signal_ = np.sqrt(right.astype(np.float64).var(axis=0).mean())
    return float(np.sqrt(np.square(found.astype(np.float64) - right).mean()) / signal_)


def test_keras_computes_the_features_where_there_is_a_gpu(
    network: Any, store: FeatureStore, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(colours.train)
    expected = pooled(network, store, images)
    monkeypatch.setattr(extraction, "_has_gpu", lambda: True)
    with extraction.opened(network, store, images) as extractor:
        assert extractor.tables["pooled"]["engine"] == "keras-f32"
        found = np.asarray(extractor.pooled(images, 2).values)
        assert extractor.num_computed == 60
    assert noise(found.reshape(60, -1), expected.reshape(60, -1)) < extraction.MAX_NOISE


def test_each_image_and_view_goes_through_the_network_once(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    def numbers(images: ImageIterator, views: int = 2) -> tuple[np.ndarray, int]:
        passes.clear()
        found = pooled(network, store, images, views)
        assert set(passes.values()) <= {1}
        return found, passes.total()

    few = images_of(colours.train[:24] + colours.train[:3])  # three of them twice
    plain, count = numbers(few, views=1)
    assert count == 24
    both, count = numbers(few)
    assert count == 24
    np.testing.assert_array_equal(both[:1], plain)
    np.testing.assert_array_equal(both[:, 24:], both[:, :3])
    assert numbers(few)[1] == 0

    images = images_of(tuple(reversed(colours.train)))
    found, count = numbers(images)
    assert count == 12
    assert set(passes) == {images.image(n, view).tobytes() for n in range(6) for view in (0, 1)}
    np.testing.assert_array_equal(found[:, :5:-1], both[:, :24])
    # The plain view is the same, whatever the augmentation.
    assert numbers(images_of(colours.train, seed=6))[1] == 30
    assert numbers(images_of(colours.train, shear_range=0.3))[1] == 30


def test_what_an_image_gets_does_not_depend_on_its_neighbours(
    network: Any, converted: Path, colours: Dataset, tmp_path: Path
) -> None:
    """Else a training that was interrupted would end otherwise than one that was not."""
    stores = []
    for name in ("one", "other"):
        subprocess.run(["cp", "-r", converted, tmp_path / name], check=True)
        stores.append(FeatureStore(tmp_path / name, limit=1e9))
    whole = pooled(network, stores[0], images_of(colours.train))
    pooled(network, stores[1], images_of(colours.train[3::7]), views=1)
    np.testing.assert_array_equal(pooled(network, stores[1], images_of(colours.train)), whole)


def test_maps_are_pooled_when_only_the_top_is_new(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    images = images_of(colours.train)
    with extraction.opened(network, store, images) as extractor:
        extractor.maps(images, 1)
    tuned = build()
    tuned.model.set_weights(network.model.get_weights())
    last = tuned.model.get_layer("last")
    last.set_weights([1.1 * weight for weight in last.get_weights()])
    with extraction.opened(tuned, store, images) as extractor:
        passes.clear()
        found = np.asarray(extractor.pooled(images, 1, from_maps=True).values)[0]
    assert not passes
    pixels = np.stack([images.image(number, 0) for number in range(30)])
    direct = np.asarray(tuned.base(pixels.astype(np.float32), training=False))
    assert noise(found, direct) < extraction.MAX_NOISE


def test_a_digest_says_whether_networks_give_the_same(tmp_path: Path) -> None:
    import keras

    built = build()
    digest = networks.network_digest(built.base)
    built.base.save(tmp_path / "base.keras")
    assert networks.network_digest(keras.saving.load_model(tmp_path / "base.keras")) == digest
    for layer in built.base.layers:
        layer.trainable = False
    assert networks.network_digest(built.base) == digest
    assert networks.network_digest(built.lower()) != digest
    kernel = built.model.get_layer("last")
    kernel.set_weights([np.nextafter(weight, 2) for weight in kernel.get_weights()])
    assert networks.network_digest(built.base) != digest


def test_progress_counts_every_view_once(
    network: Any, store: FeatureStore, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled(network, store, images_of(colours.train[:10]))
    steps: list[int] = []

    @contextlib.contextmanager
    def progress(what: str, total: int, *, quiet: bool) -> Iterator[Any]:
        assert (what, total, quiet) == ("features of 30 images in 2 views", 60, False)
        yield steps.append

    monkeypatch.setattr(extraction.console, "progress", progress)
    images = images_of(colours.train)
    with extraction.opened(network, store, images, quiet=False) as extractor:
        extractor.pooled(images, 2)
        assert extractor.num_computed == 40
    assert steps[0] == 20
    assert sum(steps) == 60


def test_an_image_that_vanished_is_named(network: Any, store: FeatureStore, tmp_path: Path) -> None:
    dataset = read_dataset(fill(tmp_path / "data", 5))
    dataset.train[7].path.unlink()
    with pytest.raises(DataError, match=rf"{dataset.train[7].path}.*do not change the folder"):
        pooled(network, store, images_of(dataset.train))


@pytest.mark.parametrize("factor", [np.nan, 1e9])  # half precision ends at 65504
def test_weights_that_give_no_numbers_are_refused(
    colours: Dataset, tmp_path: Path, factor: float
) -> None:
    built = build()
    last = built.model.get_layer("last")
    last.set_weights([np.full_like(weight, factor) for weight in last.get_weights()])
    with pytest.raises(WeightsError, match="not finite numbers"):
        pooled(built, FeatureStore(tmp_path, limit=1e9), images_of(colours.train))


def test_a_limit_stops_what_does_not_fit_at_once_and_nothing_else(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    images, small = images_of(colours.train), FeatureStore(store.folder, limit=2_000)
    with pytest.raises(OutputError, match=r"of 30 images in 2 views take .* --cache-limit"):
        pooled(network, small, images)
    assert not passes
    found = pooled(network, store, images)
    np.testing.assert_array_equal(pooled(network, small, images), found)


def test_int8_features_of_another_calibration_are_features_of_another_kind(
    network: Any, store: FeatureStore, colours: Dataset
) -> None:
    def about(images: ImageIterator) -> Any:
        with extraction.opened(network, store, images, "int8") as extractor:
            return extractor.tables["pooled"]

    first = about(images_of(colours.train))
    assert about(images_of(colours.train[:5])) == first  # it was kept
    store.clear()
    assert about(images_of(colours.train[:5])) != first


def extract_and_be_killed(data: Path, store: Path) -> None:
    images = images_of(read_dataset(data).train)
    run, calls = engines.OpenVINOEngine.run_all, itertools.count(1)

    def counted(self: engines.OpenVINOEngine, batch: np.ndarray) -> Any:
        if next(calls) > 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, batch)

    with extraction.opened(build(), FeatureStore(store, limit=1e9), images) as extractor:
        engines.OpenVINOEngine.run_all = counted
        extractor.pooled(images, 2)


def test_an_extraction_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = fill(fill(tmp_path / "data", 8), 1, split="validation")
    images, built = images_of(read_dataset(folder).train), build()
    whole = pooled(built, FeatureStore(tmp_path / "whole", limit=1e9), images)
    store = FeatureStore(tmp_path / "killed", limit=1e9)
    with extraction.opened(built, store, images):
        pass  # the converted network is there
    outputs = tmp_path / "outputs"
    killed = Forked(tmp_path, outputs, extract_and_be_killed, folder, store.folder)
    assert killed.end() == -signal.SIGKILL
    with extraction.opened(built, store, images) as extractor:
        found = extractor.pooled(images, 2).values
        # Those of the last moment may be lost.
        assert 48 - 20 <= extractor.num_computed <= 48 - 17
    np.testing.assert_array_equal(found, whole)
