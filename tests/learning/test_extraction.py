import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import fill
from tiny_backbone import TINY

from imagesieve.errors import DataError, OutputError, WeightsError
from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features import extraction
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import network as networks
from imagesieve.learning.networks import random_weights
from imagesieve.model import engines

# Keras hands its variables to h5py in a way that NumPy 2 frowns upon, whenever weights are saved.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


Passes = collections.Counter[bytes]


def images_of(samples: tuple[Sample, ...], seed: int = 5, **changes: Any) -> ImageIterator:
    return ImageDataGenerator(**(FIRST_GENERATION | changes)).flow_from_samples(
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


def test_a_second_training_on_the_same_images_extracts_nothing(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    images = images_of(colours.train)
    first = pooled(network, store, images)
    expected = {images.image(number, view).tobytes() for number in range(30) for view in (0, 1)}
    assert set(passes) == expected
    assert set(passes.values()) == {1}
    passes.clear()
    np.testing.assert_array_equal(pooled(network, store, images), first)
    assert not passes


def test_new_images_cost_one_pass_each_and_old_ones_nothing(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    some = pooled(network, store, images_of(colours.train[:24]))
    passes.clear()
    images = images_of(tuple(reversed(colours.train)))
    found = pooled(network, store, images)
    new = {images.image(number, view).tobytes() for number in range(6) for view in (0, 1)}
    assert passes == dict.fromkeys(new, 1)
    np.testing.assert_array_equal(found[:, :5:-1], some)


def test_a_new_view_costs_one_pass_for_each_image(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    pooled(network, store, images_of(colours.train), views=1)
    passes.clear()
    pooled(network, store, images_of(colours.train), views=2)
    assert passes.total() == 30
    passes.clear()
    pooled(network, store, images_of(colours.train, seed=6), views=2)
    pooled(network, store, images_of(colours.train, shear_range=0.3), views=2)
    assert passes.total() == 60  # the plain view is the same, whatever the augmentation


def test_a_copy_of_an_image_costs_nothing(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    found = pooled(network, store, images_of(colours.train[:3] + colours.train[:3]))
    assert passes.total() == 6
    np.testing.assert_array_equal(found[:, :3], found[:, 3:])


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


def test_features_beyond_the_limit_are_refused_at_once(
    network: Any, store: FeatureStore, colours: Dataset, passes: Passes
) -> None:
    small = FeatureStore(store.folder, limit=2_000)
    with pytest.raises(OutputError, match=r"of 30 images in 2 views take .* --cache-limit"):
        pooled(network, small, images_of(colours.train))
    assert not passes


def test_a_limit_that_was_lowered_does_not_stop_what_adds_nothing(
    network: Any, store: FeatureStore, colours: Dataset
) -> None:
    images = images_of(colours.train)
    found = pooled(network, store, images)
    small = FeatureStore(store.folder, limit=2_000)
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
    assert about(images_of(colours.train)) == first  # and can be made again
    store.clear()
    assert about(images_of(colours.train[:5])) != first


KILLED = """
import os, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from imagesieve.model import engines
from imagesieve.learning.data.dataset import read_dataset
from imagesieve.learning.features import extraction
from imagesieve.learning.features.store import FeatureStore
from test_extraction import build, images_of

images = images_of(read_dataset(Path(sys.argv[1])).train)
run, calls = engines.OpenVINOEngine.run_all, 0
def counted(self, batch):
    global calls
    calls += 1
    if calls > 20:
        os.kill(os.getpid(), 9)
    return run(self, batch)
with extraction.opened(build(), FeatureStore(Path(sys.argv[2]), limit=1e9), images) as extractor:
    engines.OpenVINOEngine.run_all = counted
    extractor.pooled(images, 2)
"""


def test_an_extraction_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = fill(fill(tmp_path / "data", 8), 1, split="validation")
    repository = Path(__file__).parents[2]
    paths = [repository, repository / "tests", repository / "tests/learning"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", KILLED, folder, tmp_path / "one", *paths]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    images = images_of(read_dataset(folder).train)
    store = FeatureStore(tmp_path / "one", limit=1e9)
    with extraction.opened(build(), store, images) as extractor:
        found = extractor.pooled(images, 2).values
        # Those of the last moment may be lost.
        assert 48 - 20 <= extractor.num_computed <= 48 - 17
    whole = pooled(build(), FeatureStore(tmp_path / "other", limit=1e9), images)
    np.testing.assert_array_equal(found, whole)
