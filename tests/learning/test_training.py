import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from imagesieve.errors import DataError, OutputError
from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.data.generator import ImageDataGenerator, ImageIterator
from imagesieve.learning.features.store import Features
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training import fit as fits
from imagesieve.learning.training.fit import FitSettings, in_order, probabilities

Blobs = Callable[..., Features]
MakeNetwork = Callable[..., Network]


def settings(log_folder: Path, epochs: int = 8, rate: float = 1e-3, seed: int = 0) -> FitSettings:
    return FitSettings(epochs, rate, 16, seed, log_folder)


def loss_and_accuracy(head: Any, features: Features) -> tuple[float, float]:
    found = probabilities(head, in_order(features))
    right = found[np.arange(len(found)), features.labels]
    accuracy = float((found.argmax(axis=1) == features.labels).mean())
    return float(-np.log(right).mean()), accuracy


def numbers(weights: Iterable[Any]) -> list[np.ndarray]:
    return [np.copy(weight.numpy()) for weight in weights]


def are_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_head_learns_classes_that_lie_apart(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train, validation = blobs((20, 20, 20), 1, views=2), blobs((10, 10, 10), 2)
    built.standardise(train.values)
    frozen = [*built.base.weights, *built.model.get_layer("head_standardise").weights]
    before, start = numbers(frozen), time.monotonic()
    fit = fine_tuning.train_dense_head(built, train, validation, settings(log_folder))
    took = time.monotonic() - start
    assert are_equal(before, numbers(frozen))
    assert fit.epoch_seconds == sorted(fit.epoch_seconds)
    assert 0 < fit.epoch_seconds[0] < fit.epoch_seconds[-1] <= took
    assert loss_and_accuracy(built.head, validation)[1] == 1
    assert fit.stage == "head"
    assert fit.best_epoch >= 1
    assert set(fit.history) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert list((log_folder / "head").rglob("events.out.tfevents*"))


def test_a_training_that_only_harms_leaves_the_weights_as_they_were(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train, validation = blobs((20, 20, 20), 1), blobs((10, 10, 10), 2)
    built.standardise(train.values)
    fine_tuning.train_dense_head(built, train, validation, settings(log_folder))
    before = built.head.get_weights()
    wrong = Features(train.values, (train.labels + 1) % 3)
    fit = fine_tuning.train_dense_head(built, wrong, validation, settings(log_folder, rate=1e-2))
    assert fit.best_epoch == 0
    assert fit.validation_loss == pytest.approx(
        loss_and_accuracy(built.head, validation)[0], rel=1e-4
    )
    assert are_equal(before, built.head.get_weights())


def test_an_image_that_is_gone_is_named(
    make_network: MakeNetwork, colours: Dataset, log_folder: Path, tmp_path: Path
) -> None:
    gone = dataclasses.replace(colours.train[0], path=tmp_path / "gone.jpg")
    images = ImageIterator(
        ImageDataGenerator(),
        [gone, *colours.train[1:4]],
        colours.classes,
        image_size=(32, 32),
        batch_size=2,
    )
    model = make_network().model
    with pytest.raises(DataError, match=r"gone\.jpg.*do not change the folder while training"):
        fits.fit("network", model, images, images, settings(log_folder, epochs=1))


def maps(built: Network, count: int, seed: int) -> Features:
    """Return maps at the cut in which the classes differ by their level, as a network's would."""
    shape = built.lower().output_shape[1:]
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    levels = np.random.default_rng(77).normal(0, 1, (3, shape[-1]))
    values = levels[labels][:, None, None, :] + random.normal(0, 1, (count, *shape))
    return Features(values[None].astype(np.float16), labels)


def test_fine_tuning_learns_above_the_cut_and_touches_nothing_else(
    make_network: MakeNetwork, log_folder: Path
) -> None:
    built = make_network()
    train, validation = maps(built, 48, 1), maps(built, 24, 2)
    lower = numbers(built.lower().weights)
    norms = [x for x in built.model.layers if isinstance(x, keras.layers.BatchNormalization)]
    statistics = numbers(weight for norm in norms for weight in norm.weights)
    start = loss_and_accuracy(built.upper(), validation)[0]
    fit = fine_tuning.fine_tune(built, train, validation, settings(log_folder, epochs=4))
    assert fit.stage == "fine-tuning"
    assert fit.best_epoch >= 1
    assert fit.validation_loss < start
    assert are_equal(lower, numbers(built.lower().weights))
    assert are_equal(statistics, numbers(weight for norm in norms for weight in norm.weights))

    # And it never leaves a worse loss, whatever it is taught.
    before = loss_and_accuracy(built.upper(), validation)[0]
    wrong = Features(train.values, (train.labels + 1) % 3)
    fine_tuning.fine_tune(built, wrong, validation, settings(log_folder, epochs=1, rate=0.1))
    assert loss_and_accuracy(built.upper(), validation)[0] <= before * 1.0001


def test_a_full_disk_and_too_little_memory_are_told_apart(tmp_path: Path) -> None:
    import tensorflow as tf

    def run_out(message: str) -> None:
        with fits._reporting_failures(tmp_path):
            raise tf.errors.ResourceExhaustedError(None, None, message)

    with pytest.raises(OutputError, match=f"Cannot write {tmp_path}: no space is left"):
        run_out("events.v2; No space left on device")
    with pytest.raises(MemoryError):
        run_out("OOM when allocating tensor")
