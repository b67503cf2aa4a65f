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
from imagesieve.learning.data.generator import ImageDataGenerator
from imagesieve.learning.features.batches import Features, extract
from imagesieve.learning.networks import backbones, network, random_weights
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training import fit as fits
from imagesieve.learning.training.fine_tuning import FitSettings

Blobs = Callable[..., Features]
MakeNetwork = Callable[..., Network]


def settings(log_folder: Path, **changes: Any) -> FitSettings:
    return dataclasses.replace(
        FitSettings(
            epochs=8, learning_rate=1e-3, batch_size=16, seed=0, log_folder=log_folder, patience=3
        ),
        **changes,
    )


def loss_and_accuracy(head: Any, features: Features) -> tuple[float, float]:
    found = fine_tuning.probabilities(head, features)
    right = found[np.arange(len(found)), features.labels]
    accuracy = float((found.argmax(axis=1) == features.labels).mean())
    return float(-np.log(right).mean()), accuracy


def numbers(weights: Iterable[Any]) -> list[np.ndarray]:
    return [np.copy(weight.numpy()) for weight in weights]


def recall(head: Any, features: Features, class_index: int) -> float:
    found = fine_tuning.probabilities(head, features).argmax(axis=1)
    return float((found[features.labels == class_index] == class_index).mean())


def test_the_head_learns_classes_that_lie_apart(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train, validation = blobs((20, 20, 20), 1, views=2), blobs((10, 10, 10), 2)
    built.standardise(train.values)
    fit = fine_tuning.train_head(built, train, validation, settings(log_folder))
    assert loss_and_accuracy(built.head, validation)[1] == 1
    assert fit.stage == "head"
    assert fit.best_epoch >= 1
    assert set(fit.history) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert list((log_folder / "head").rglob("events.out.tfevents*"))


def test_training_the_head_leaves_the_base_and_the_standardisation_alone(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train = blobs((8, 8, 8), 1)
    built.standardise(train.values)
    frozen = [*built.base.weights, *built.model.get_layer("head_standardise").weights]
    before = numbers(frozen)
    fine_tuning.train_head(built, train, blobs((4, 4, 4), 2), settings(log_folder, epochs=2))
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(frozen), strict=True))


def test_the_best_weights_are_kept_not_the_last(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train, validation = blobs((20, 20, 20), 1, spread=20), blobs((15, 15, 15), 2, spread=20)
    built.standardise(train.values)
    fit = fine_tuning.train_head(
        built, train, validation, settings(log_folder, epochs=20, learning_rate=3e-3)
    )
    losses = fit.history["val_loss"]
    assert min(losses) < losses[-1]  # else this test could not fail
    assert len(losses) < 20
    assert fit.best_epoch == 1 + int(np.argmin(losses))
    assert fit.validation_loss == min(losses)
    assert loss_and_accuracy(built.head, validation)[0] == pytest.approx(min(losses), rel=1e-4)


def test_a_training_that_only_harms_leaves_the_weights_as_they_were(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    built = make_network()
    train, validation = blobs((20, 20, 20), 1), blobs((10, 10, 10), 2)
    built.standardise(train.values)
    fine_tuning.train_head(built, train, validation, settings(log_folder))
    before = built.head.get_weights()
    wrong = Features(train.values, (train.labels + 1) % 3)
    fit = fine_tuning.train_head(built, wrong, validation, settings(log_folder, learning_rate=1e-2))
    assert fit.best_epoch == 0
    assert fit.validation_loss == pytest.approx(
        loss_and_accuracy(built.head, validation)[0], rel=1e-4
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, built.head.get_weights(), strict=True))


def test_seconds_are_counted_from_the_start_to_the_end_of_each_epoch(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    start = time.monotonic()
    fit = fine_tuning.train_head(
        make_network(), blobs((8, 8, 8), 1), blobs((4, 4, 4), 2), settings(log_folder, epochs=3)
    )
    took = time.monotonic() - start
    assert len(fit.epoch_seconds) == 3
    assert 0 < fit.epoch_seconds[0] < fit.epoch_seconds[1] < fit.epoch_seconds[2] <= took


def test_an_image_that_is_gone_is_named(
    make_network: MakeNetwork, colours: Dataset, log_folder: Path, tmp_path: Path
) -> None:
    gone = dataclasses.replace(colours.train[0], path=tmp_path / "gone.jpg")
    images = ImageDataGenerator().flow_from_samples(
        [gone, *colours.train[1:4]], colours.classes, image_size=(48, 48), batch_size=2
    )
    with pytest.raises(DataError, match=r"gone\.jpg.*do not change the folder while training"):
        fine_tuning.train_from_scratch(
            make_network(backbone="SmallCNN"), images, images, settings(log_folder, epochs=1)
        )


def test_a_rare_class_is_weighed_up(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = blobs((90, 90, 6), 1, spread=9), blobs((30, 30, 30), 2, spread=9)

    def recall_of_the_rare() -> float:
        built = make_network()
        built.standardise(train.values)
        fine_tuning.train_head(built, train, validation, settings(log_folder, epochs=3))
        return recall(built.head, validation, 2)

    weighed = recall_of_the_rare()
    monkeypatch.setattr(fits.evaluation, "class_weights", lambda counts: None)
    assert weighed > recall_of_the_rare() + 0.1


def test_the_same_seed_gives_the_same_weights(
    make_network: MakeNetwork, blobs: Blobs, log_folder: Path
) -> None:
    train, validation = blobs((10, 10, 10), 1, views=2), blobs((5, 5, 5), 2)

    def trained() -> list[np.ndarray]:
        built = make_network(seed=1, fresh=True)  # dropout's own state counts too
        fine_tuning.train_head(built, train, validation, settings(log_folder, epochs=1, seed=1))
        return list(built.head.get_weights())

    first, again = trained(), trained()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


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
    built = make_network(fresh=True)
    train, validation = maps(built, 48, 1), maps(built, 24, 2)
    lower = numbers(built.lower().weights)
    norms = [x for x in built.model.layers if isinstance(x, keras.layers.BatchNormalization)]
    statistics = numbers(weight for norm in norms for weight in norm.weights)
    upper = numbers(built.upper().trainable_weights)
    start = loss_and_accuracy(built.upper(), validation)[0]
    fit = fine_tuning.fine_tune(built, train, validation, settings(log_folder, epochs=2))
    assert fit.stage == "fine-tuning"
    assert fit.best_epoch >= 1
    assert fit.validation_loss < start
    assert all(
        np.array_equal(a, b) for a, b in zip(lower, numbers(built.lower().weights), strict=True)
    )
    after = numbers(weight for norm in norms for weight in norm.weights)
    assert all(np.array_equal(a, b) for a, b in zip(statistics, after, strict=True))
    changed = numbers(built.upper().trainable_weights)
    assert any(not np.array_equal(a, b) for a, b in zip(upper, changed, strict=False))

    # And it never leaves a worse loss, whatever it is taught.
    before = loss_and_accuracy(built.upper(), validation)[0]
    wrong = Features(train.values, (train.labels + 1) % 3)
    fine_tuning.fine_tune(
        built, wrong, validation, settings(log_folder, epochs=1, learning_rate=0.1)
    )
    assert loss_and_accuracy(built.upper(), validation)[0] <= before * 1.0001


def test_probabilities_come_in_order_whatever_the_batch_size(
    make_network: MakeNetwork, blobs: Blobs
) -> None:
    head = make_network().head
    features = blobs((5, 5, 5), 1, views=2)
    whole = fine_tuning.probabilities(head, features)
    assert whole.shape == (15, 3)
    np.testing.assert_allclose(head(features.values[0]), whole, atol=1e-5)
    np.testing.assert_allclose(
        fine_tuning.probabilities(head, features, batch_size=4), whole, atol=1e-5
    )
    other = fine_tuning.probabilities(head, features, view=1)
    np.testing.assert_allclose(head(features.values[1]), other, atol=1e-5)


def test_a_full_disk_and_too_little_memory_are_told_apart(tmp_path: Path) -> None:
    import tensorflow as tf

    def run_out(message: str) -> None:
        with fits._reporting_failures(tmp_path, []):
            raise tf.errors.ResourceExhaustedError(None, None, message)

    with pytest.raises(OutputError, match=f"Cannot write {tmp_path}: no space is left"):
        run_out("events.v2; No space left on device")
    with pytest.raises(MemoryError):
        run_out("OOM when allocating tensor")


# SmallCNN and the light networks are trained in the other tests.
@pytest.mark.parametrize("name", ["InceptionV3", "ResNet50V2", "DenseNet121", "ResNeXt50"])
def test_a_head_can_be_trained_on_the_first_generations_backbones(
    name: str, colours: Dataset, log_folder: Path
) -> None:
    backbone = backbones.find(name)
    side = max(backbone.min_side, 64)
    built = network.build(backbone, 3, (side, side), weights_path=None, seed=1)
    chosen = [*colours.train[:2], *colours.train[10:12], *colours.train[20:22]]
    images = ImageDataGenerator().flow_from_samples(
        chosen, colours.classes, image_size=(side, side), batch_size=6, shuffle=False
    )
    batch = np.stack([images.image(number, 0) for number in range(6)])
    random_weights.prepare(built.base, [batch], log_folder)
    found = Features(extract(built.base, images)[np.newaxis], images.classes)
    assert found.values.shape == (1, 6, backbone.num_features)
    built.standardise(found.values)
    before = numbers(built.base.weights)
    fit = fine_tuning.train_head(built, found, found, settings(log_folder, epochs=1))
    assert fit.history["loss"]
    assert fit.best_epoch == 1
    for old, new in zip(before, numbers(built.base.weights), strict=True):
        np.testing.assert_array_equal(old, new)
