"""Steps over batches: what weights do to a loss and to what is learned."""

from pathlib import Path

import keras
import numpy as np
import pytest
from data_folders import fill
from tiny_backbone import TINY

from imagesieve.learning.data.dataset import Sample, read_dataset
from imagesieve.learning.data.generator import ImageDataGenerator
from imagesieve.learning.features.batches import Features
from imagesieve.learning.networks import network
from imagesieve.learning.training import fine_tuning, fitting
from imagesieve.learning.training.optimizer import LayerwiseAdamW
from imagesieve.learning.training.steps import loss_step, run_epoch, training_step


class Points:
    """Two batches of points in two classes, each point with a weight."""

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights.astype(np.float32)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(4) % 2
        points = np.random.default_rng(index).normal(labels[:, None], 1, (4, 3))
        return points.astype(np.float32), labels

    def weights_of(self, index: int) -> np.ndarray:
        return self._weights[4 * index : 4 * index + 4]

    def on_epoch_end(self) -> None:
        pass


WEIGHTS = np.array([1, 2, 1, 1, 3, 1, 0.5, 1])


def line() -> keras.Model:
    keras.utils.set_random_seed(0)
    points = keras.Input((3,))
    return keras.Model(points, keras.layers.Dense(2, activation="softmax")(points))


def losses(model: keras.Model) -> np.ndarray:
    """Give each point's log loss."""
    pairs = [Points(WEIGHTS)[index] for index in range(2)]
    return np.concatenate(
        [-np.log(np.asarray(model(points))[np.arange(4), labels]) for points, labels in pairs]
    )


def test_the_loss_of_an_epoch_is_weighted_by_image_and_class() -> None:
    model = line()
    step, plain = loss_step(model), losses(model)
    by_class = np.array([1.0, 4.0], np.float32)
    found = [
        run_epoch(step, Points(weights), class_weights)
        for weights, class_weights in (
            (np.ones(8), None),
            (WEIGHTS, None),
            (np.ones(8), by_class),
            (WEIGHTS, by_class),
        )
    ]
    of_class = np.tile([1.0, 4.0], 4)
    for (loss, _), weights in zip(
        found, (np.ones(8), WEIGHTS, of_class, of_class * WEIGHTS), strict=True
    ):
        assert loss == pytest.approx((plain * weights).mean(), rel=1e-5)
    assert len({accuracy for _, accuracy in found}) == 1  # which counts every image once


def test_a_step_learns_the_more_from_a_image_the_more_it_weighs() -> None:
    gains = []
    for weight in (1.0, 4.0):
        model = line()
        before = losses(model)[1]
        step = training_step(model, LayerwiseAdamW(1e-2, 0.0, [1.0, 1.0]))
        weights = np.ones(8)
        weights[1] = weight
        for _ in range(20):
            run_epoch(step, Points(weights))
        gains.append(before - losses(model)[1])
    assert gains[1] > gains[0]


def test_the_weights_of_classes_follow_what_their_images_weigh(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [30, 10])
    weights = np.where(labels == 1, 3.0, 1.0)  # both classes weigh 30: nothing to make up for
    found = fitting._class_weights(labels, weights, 2)
    np.testing.assert_array_equal(found, [1.0, 1.0])
    np.testing.assert_allclose(fitting._class_weights(labels, None, 2), [2 / 3, 2])


def test_fine_tuning_weighs_images_and_makes_up_only_for_what_that_leaves(
    tmp_path: Path,
) -> None:
    kernel = np.random.default_rng(1).normal(0, 1, (24, 2))
    built = network.build(TINY, 2, (32, 32), weights_path=None, seed=0)
    built = network.with_logistic_head(built, kernel, np.zeros(2))  # without dropout
    shape = built.lower().output_shape[1:]
    labels = np.repeat(np.array([0, 1], np.int32), [18, 6])
    maps = np.random.default_rng(0).normal(0, 1, (1, 24, *shape)).astype(np.float32)
    weights = np.where(labels == 1, 3, 1).astype(np.float32)
    features = Features(maps, labels, weights)
    before = fine_tuning.probabilities(built.upper(), features)
    settings = fine_tuning.FitSettings(1, 1e-12, 24, 0, tmp_path)
    fit = fine_tuning.fine_tune(built, features, features, settings)
    weighted = -np.log(before[np.arange(24), labels]) * weights
    assert fit.history["loss"][0] == pytest.approx(weighted.mean(), rel=1e-4)


def test_images_from_pixels_bring_their_weights_in_the_order_of_the_epoch(
    tmp_path: Path,
) -> None:
    dataset = read_dataset(fill(fill(tmp_path, 5), 1, split="validation"))
    samples = [
        Sample(sample.path, number % 3, sample.sha256, sample.fingerprint, number % 3 + 1.0)
        for number, sample in enumerate(dataset.train)
    ]
    images = ImageDataGenerator().flow_from_samples(
        samples, dataset.classes, image_size=(16, 16), batch_size=4, seed=1
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


def test_a_dense_head_fits_the_images_that_weigh_more(tmp_path: Path) -> None:
    """Where two images that look the same have two labels, the heavier one is believed."""
    values = np.random.default_rng(0).normal(0, 1, (1, 20, 24)).astype(np.float32)
    labels = np.repeat(np.array([0, 1], np.int32), 10)
    both = Features(
        np.concatenate([values, values], axis=1),
        np.concatenate([labels, 1 - labels]),
        np.repeat(np.array([1, 9], np.float32), 20),
    )
    heavier = Features(values, 1 - labels)
    built = network.build(TINY, 2, (32, 32), weights_path=None, seed=0)
    settings = fine_tuning.FitSettings(30, 1e-2, 8, 0, tmp_path)
    fit = fine_tuning.train_head(built, both, heavier, settings)
    assert fit.best_epoch > 0
    found = fine_tuning.probabilities(built.head, heavier).argmax(axis=1)
    assert (found == heavier.labels).mean() > 0.9
