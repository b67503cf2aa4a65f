"""Tiny networks and data that the tests of learning share; whatever is trained, is trained once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import fill
from tiny_backbone import TINY

from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy

HOSTILE_CLASS = "<b>x"


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return a read data folder: three colour classes, 10 training and 4 validation images each."""
    folder = fill(tmp_path_factory.mktemp("colours"), 10)
    fill(folder, 4, split="validation")
    (folder / "train/red/broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return read_dataset(folder)


@pytest.fixture(scope="session")
def make_network() -> Callable[[], Any]:
    """Return a function that gives one network of five layers and 3 classes, at its first weights.

    It takes 32×32 pixels and has 24 features and a dense head.
    """
    from imagesieve.learning.networks import network

    built = network.build(TINY, 3, (32, 32), weights_path=None, seed=0)
    weights = built.model.get_weights()

    def make() -> Any:
        built.model.set_weights(weights)
        return built

    return make


@dataclasses.dataclass(frozen=True)
class TinyRun:
    """A tiny training and the version that was saved from it."""

    trained: Any
    dataset: Dataset
    version: versions.ModelVersion
    store: Any


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Train SmallCNN on three colours, one of them in a folder with an ill-meant name."""
    from imagesieve.learning import train_run
    from imagesieve.learning.export import version_writer
    from imagesieve.learning.features.store import FeatureStore
    from imagesieve.learning.networks import backbones

    root = tmp_path_factory.mktemp("tiny")
    folder = fill(root / "data", 8)
    fill(folder, 3, split="validation")
    (folder / "train/red/half.jpg").write_bytes(b"\xff\xd8\xff no image")
    for split in ("train", "validation"):
        (folder / split / "red").rename(folder / split / HOSTILE_CLASS)
    dataset = read_dataset(folder)
    settings = train_run.TrainSettings(epochs=3, batch_size=8)
    store = FeatureStore(root / "store", limit=1e9)
    small = backbones.find("SmallCNN")
    built = train_run.build_network(dataset, small, "imagenet", (48, 48), 0)
    trained = train_run.train(built, dataset, settings, root / "log", store=store, quiet=True)
    version = version_writer.save_version(
        trained,
        dataset,
        DecisionPolicy.default_for(dataset.classes),
        {"epochs": 3, "seed": 0},
        versions.new_version_path(root / "modelFile", "tiny"),
        store=store,
    )
    return TinyRun(trained, dataset, version, store)


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Any]:
    """Return a function that makes features of 24 numbers in which three classes lie apart."""
    from imagesieve.learning.features.store import Features

    def make(counts: tuple[int, ...], seed: int, spread: float = 1.0, views: int = 1) -> Any:
        centres = np.random.default_rng(99).normal(0, 1, (3, 24))
        labels = np.repeat(np.arange(3, dtype=np.int32), counts)
        noise = np.random.default_rng(seed).normal(0, spread, (views, len(labels), 24))
        return Features((centres[labels] + noise).astype(np.float32), labels)

    return make


@pytest.fixture
def log_folder(tmp_path: Path) -> Path:
    """Return a folder for TensorBoard's events."""
    return tmp_path / "log"
