import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import resumed_fit
from data_folders import fill
from forked import Forked

from imagesieve.learning.data.dataset import Dataset, Sample, read_dataset
from imagesieve.learning.data.generator import ImageDataGenerator, ImageIterator
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training.checkpoints import Checkpoint, FitProgress
from imagesieve.learning.training.fit import FeatureBatches, FitSettings, fit, probabilities


def weights(built: Network) -> list[np.ndarray]:
    return list(built.model.get_weights())


def are_the_same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["fine-tuning", "network"])
def test_a_killed_fit_goes_on_to_the_very_same_end(
    kind: str, colours: Dataset, tmp_path: Path
) -> None:
    data = colours.train[0].path.parents[2]
    whole, built = resumed_fit.run(kind, data, tmp_path / "whole")
    expected = weights(built)
    if kind == "network":  # the best weights are not the last ones then
        assert whole.best_epoch < resumed_fit.KILLED_AFTER
    else:  # else what comes after the killing would not count
        assert whole.best_epoch > resumed_fit.KILLED_AFTER + 1

    killed = Forked(
        *(tmp_path, tmp_path / "outputs", resumed_fit.run),
        *(kind, data, tmp_path / "killed", resumed_fit.Killing),
    )
    assert killed.end() == -signal.SIGKILL
    left = Checkpoint(tmp_path / "killed" / "checkpoint", kind).progress()
    assert left is not None
    assert left.epochs == resumed_fit.KILLED_AFTER

    resumed, built = resumed_fit.run(kind, data, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".partial-*"))
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.validation_loss == whole.validation_loss
    assert are_the_same(weights(built), expected)
    assert resumed.epoch_seconds[: left.epochs] == left.epoch_seconds
    assert resumed.epoch_seconds == sorted(resumed.epoch_seconds)

    if kind == "fine-tuning":
        # A fit that is finished gives its end at once: it trains no more.
        again, built = resumed_fit.run(kind, data, tmp_path / "killed")
        assert again == resumed
        assert are_the_same(weights(built), expected)


class Points(FeatureBatches):
    """Batches of points in two classes, which stop being numbers after some epochs."""

    def __init__(self, sound_epochs: int = 99) -> None:
        self.labels, self.weights = np.array([0, 1]), None
        self._sound_epochs = sound_epochs
        self._epoch = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(5) % 2
        points = np.random.default_rng(index).normal(labels[:, None], 1, (5, 4))
        factor = 1 if self._epoch < self._sound_epochs else np.nan
        return points.astype(np.float32) * factor, labels

    def weights_of(self, index: int) -> np.ndarray:
        return np.ones(5, np.float32)

    def on_epoch_end(self) -> None:
        self._epoch += 1


def line() -> keras.Model:
    keras.utils.set_random_seed(0)
    points = keras.Input((4,))
    return keras.Model(points, keras.layers.Dense(2, activation="softmax")(points))


def test_a_fit_that_runs_off_to_infinity_keeps_its_best_epoch(tmp_path: Path) -> None:
    model = line()
    found = fit("head", model, Points(2), Points(), FitSettings(9, 1e-2, 5, 0, tmp_path))
    assert np.isfinite(found.history["val_loss"][:2]).all()
    assert np.isnan(found.history["val_loss"][2:]).all()
    assert len(found.epoch_seconds) == 2 + 5  # patience
    assert found.best_epoch == 2
    right = probabilities(model, Points())[np.arange(15), np.tile(np.arange(5) % 2, 3)]
    assert found.validation_loss == found.history["val_loss"][1]
    assert -np.log(right).mean() == pytest.approx(found.validation_loss, rel=1e-5)
    assert found.validation_loss < found.history["val_loss"][0]


def test_a_state_of_another_network_is_not_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    other = {"model-0": np.zeros((4, 3), np.float32)}
    checkpoint.save(FitProgress("head", {"val_loss": [0.1]}, 0, 0.1, [1.0]), other.items())
    settings = FitSettings(2, 1e-2, 5, 0, tmp_path, checkpoint=checkpoint)
    found = fit("head", line(), Points(), Points(), settings)
    assert f"{checkpoint.path} is of another network" in caplog.text
    assert len(found.epoch_seconds) == 2
    assert found.epoch_seconds[0] != 1.0


def test_the_rate_is_there_for_tensorboard(tmp_path: Path) -> None:
    from tensorflow.compat.v1.train import summary_iterator

    settings = FitSettings(2, 1e-2, 5, 0, tmp_path)
    fit("full fine-tuning", line(), Points(), Points(), settings)
    noted = {
        f"{file.parent.name}/{value.tag}"
        for file in (tmp_path / "full-fine-tuning").rglob("events.out.tfevents*")
        for event in summary_iterator(str(file))
        for value in event.summary.value
    }
    assert noted >= {
        f"{split}/epoch_{name}"
        for split in ("train", "validation")
        for name in ("loss", "accuracy")
    }
    assert "train/epoch_learning_rate" in noted


class Weighted(Points):
    """Points of which each has a weight, in a training of so many images of each class."""

    def __init__(self, counts: tuple[int, int], weights: np.ndarray) -> None:
        super().__init__()
        self.labels = np.repeat([0, 1], counts)
        self._weights = weights.astype(np.float32)

    def weights_of(self, index: int) -> np.ndarray:
        return self._weights[5 * index : 5 * index + 5]


@pytest.mark.parametrize("counts", [(5, 5), (8, 2)])  # without class weights, and with them
def test_the_loss_of_an_epoch_is_weighted_by_image_and_class(
    counts: tuple[int, int], tmp_path: Path
) -> None:
    weights = np.array([1, 2, 1, 1, 3, 1, 0.5, 1, 1, 2, 1, 1, 4, 1, 1])
    model, of_class = line(), np.array([1.0, 1.0] if counts == (5, 5) else [0.625, 2.5])
    batches = [Points()[index] for index in range(3)]
    plain = [-np.log(np.asarray(model(x))[np.arange(5), y]) for x, y in batches]
    labels = np.concatenate([y for _, y in batches])
    settings = FitSettings(1, 1e-12, 5, 0, tmp_path)
    found = fit("head", model, Weighted(counts, weights), Points(), settings)
    expected = (np.concatenate(plain) * weights * of_class[labels]).mean()
    assert found.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert found.history["val_loss"][0] == pytest.approx(np.concatenate(plain).mean(), rel=1e-5)
    right = [np.asarray(model(x)).argmax(axis=1) == y for x, y in batches]
    assert found.history["accuracy"][0] == pytest.approx(np.mean(right))  # each image once


class Failing(Points):
    """Points of which one batch cannot be made, while others are slow to come."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.02)
        if index == 11:
            raise MemoryError("no memory for batch 11")
        return super().__getitem__(index)


def test_an_error_in_a_batch_ends_the_fit_as_it_was_raised(tmp_path: Path) -> None:
    settings = FitSettings(2, 1e-2, 5, 0, tmp_path)
    with pytest.raises(MemoryError, match="no memory for batch 11"):
        fit("head", line(), Failing(), Points(), settings)


def test_images_from_pixels_bring_their_weights_in_the_order_of_the_epoch(
    tmp_path: Path,
) -> None:
    dataset = read_dataset(fill(fill(tmp_path, 5), 1, split="validation"))
    samples = [
        Sample(sample.path, number % 3, sample.sha256, sample.fingerprint, number % 3 + 1.0)
        for number, sample in enumerate(dataset.train)
    ]
    images = ImageIterator(
        ImageDataGenerator(), samples, dataset.classes, image_size=(16, 16), batch_size=4, seed=1
    )
    orders = []
    for _ in range(2):
        weights = [images.weights_of(index) for index in range(len(images))]
        labels = [images[index][1] for index in range(len(images))]
        np.testing.assert_array_equal(np.concatenate(weights), np.concatenate(labels) + 1)
        assert weights[0].dtype == np.float32
        orders.append(np.concatenate(weights).tolist())
        images.on_epoch_end()
    assert orders[0] != orders[1]
