import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from imagesieve.errors import DataError
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import head
from imagesieve.learning.training.evaluation import class_weights
from imagesieve.learning.training.head import LogisticHead, assign_folds, fit


def clouds(
    counts: tuple[int, ...], num_features: int, *, views: int = 1, apart: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features (views, images, num_features) of classes that overlap, and labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = random.normal(0, apart, (len(counts), num_features))
    images = centres[labels] + random.normal(0, 1, (len(labels), num_features))
    values = images + random.normal(0, 0.3, (views, *images.shape))
    return (0.1 * values).astype(np.float32), labels


def objective(
    flat: np.ndarray,
    values: np.ndarray,
    labels: np.ndarray,
    l2: float,
    weights: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Return what a logistic regression minimises and its gradient, written plainly."""
    rows = np.concatenate(list(values)).astype(np.float64)
    num_classes = labels.max() + 1
    weights = np.ones(len(labels)) if weights is None else weights
    weights = weights * class_weights(labels, weights, num_classes)[labels]
    weights, labels = (np.tile(x, len(values)) for x in (weights / weights.sum(), labels))
    weights = weights / len(values)
    parameters = flat.reshape(-1, num_classes)
    kernel, bias = parameters[:-1], parameters[-1]
    probabilities = scipy.special.softmax(rows @ kernel + bias, axis=1)
    right = probabilities[np.arange(len(rows)), labels]
    errors = weights[:, None] * (probabilities - np.eye(num_classes)[labels])
    gradient = np.concatenate([rows.T @ errors + l2 * kernel, [errors.sum(axis=0)]])
    return float(-weights @ np.log(right) + l2 / 2 * (kernel**2).sum()), gradient.ravel()


def probabilities(found: LogisticHead, values: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.special.softmax(values @ found.kernel + found.bias, axis=-1))


def parameters(found: LogisticHead) -> np.ndarray:
    return np.concatenate([found.kernel, [found.bias]]).astype(np.float64).ravel()


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize(
    ("counts", "num_features", "views"),
    [
        ((40, 50), 10, 2),  # more rows than features
        ((20, 25), 120, 2),  # fewer rows than features, and classes that lie apart
        ((60, 20, 10), 30, 1),  # class weights
    ],
)
def test_the_gradient_at_the_solution_is_zero(
    counts: tuple[int, ...], num_features: int, views: int, is_weighted: bool
) -> None:
    values, labels = clouds(counts, num_features, views=views)
    weights = np.random.default_rng(1).integers(1, 4, len(labels)) if is_weighted else None
    found = fit(values, labels, len(counts), seed=0, weights=weights)
    _, at_solution = objective(parameters(found), values, labels, found.l2, weights)
    _, at_start = objective(np.zeros_like(parameters(found)), values, labels, found.l2, weights)
    assert np.linalg.norm(at_solution) < 1e-4 * np.linalg.norm(at_start)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_out_of_fold_probabilities_come_from_regressions_that_have_not_seen_the_image(
    is_weighted: bool,
) -> None:
    values, labels = clouds((30, 24), 12, views=2)
    weights = np.ones(54)
    if is_weighted:
        weights = np.random.default_rng(1).uniform(0.5, 3, 54)
        weights[labels == 1] *= weights[labels == 0].sum() / weights[labels == 1].sum()
    found = fit(values, labels, 2, seed=3, weights=weights)
    folds = assign_folds(labels, np.arange(len(labels)), 3)
    for fold in range(head.NUM_FOLDS):
        seen = folds != fold
        reference = scipy.optimize.minimize(
            objective,
            np.zeros(26),
            args=(values[:, seen], labels[seen], found.l2, weights[seen]),
            jac=True,
            method="CG",
            options={"gtol": 1e-7},
        )
        kernel_and_bias = reference.x.reshape(13, 2)
        logits = values[0, ~seen] @ kernel_and_bias[:-1] + kernel_and_bias[-1]
        expected = scipy.special.softmax(logits, axis=-1)
        np.testing.assert_allclose(found.out_of_fold[~seen], expected, atol=5e-4)
    losses = -np.log(found.out_of_fold[np.arange(len(labels)), labels])
    assert found.log_losses[found.l2] == pytest.approx(
        np.average(losses, weights=weights), abs=1e-5
    )


def test_a_weaker_penalty_must_bring_more_than_chance() -> None:
    values, labels = clouds((30, 30), 30, apart=0.7, seed=1)
    found = fit(values, labels, 2, seed=0)
    lowest = min(found.log_losses, key=lambda l2: found.log_losses[l2])
    assert lowest < found.l2  # its lower loss is not beyond chance
    assert found.log_losses[found.l2] < found.log_losses[lowest] + 0.01


def test_the_penalty_follows_the_data() -> None:
    noise, labels = clouds((40, 40), 100, apart=0.0)
    weak = fit(noise, labels, 2, seed=0)
    assert weak.l2 == max(weak.log_losses)
    assert len(weak.log_losses) < len(head.L2_SWEEP)  # and what can only be worse is not tried
    signal, labels = clouds((40, 40), 100, apart=1.0)
    strong = fit(signal, labels, 2, seed=0)
    assert strong.l2 < max(strong.log_losses)


def test_the_scale_of_features_does_not_matter() -> None:
    values, labels = clouds((30, 40), 20)
    small, large = (fit(scale * values, labels, 2, seed=0) for scale in (1, 8))
    np.testing.assert_allclose(small.out_of_fold, large.out_of_fold, atol=1e-4)
    assert large.l2 == pytest.approx(64 * small.l2, rel=1e-4)


def test_of_two_images_of_a_class_one_is_left_out_and_the_only_one_never() -> None:
    values, labels = clouds((20, 20, 2, 1), 10, apart=2)
    found = fit(values, labels, 4, seed=0)
    assert np.isnan(found.out_of_fold[-1]).all()
    np.testing.assert_allclose(found.out_of_fold[:-1].sum(axis=1), 1, rtol=1e-5)
    assert probabilities(found, values[0])[-1].argmax() == 3


def test_one_image_of_each_class_is_refused() -> None:
    values, labels = clouds((1, 1), 10)
    with pytest.raises(DataError, match="only one training image"):
        fit(values, labels, 2, seed=0)


def test_folds_share_each_class_evenly() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [53, 21, 2, 1]))
    folds = assign_folds(labels, np.arange(77), seed=0)
    for index, count in enumerate([53, 21, 2]):
        shares = np.bincount(folds[labels == index], minlength=5)
        assert shares.sum() == count
        assert np.ptp(shares) <= 1
    assert np.ptp(np.bincount(folds[folds >= 0])) <= 1
    assert (folds[labels == 3] == -1).all()


def test_near_duplicates_are_left_out_together() -> None:
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1, 2], [60, 30, 3]))
    groups = random.integers(0, 25, 93)
    groups[labels == 2] = 100  # a class that is a single group: only there images are parted
    folds = assign_folds(labels, groups, seed=0)
    for index in (0, 1):
        for group in set(groups[labels == index]):
            assert len(set(folds[(labels == index) & (groups == group)])) == 1
        shares = np.bincount(folds[labels == index], minlength=5)
        assert np.ptp(shares) <= np.bincount(groups[labels == index]).max()
    assert len(set(folds[labels == 2])) == 3


def test_grouping_ends_the_leak_of_near_duplicates_across_folds() -> None:
    # Random labels, each image twice: only a regression that has seen the copy could predict them.
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1], 20))
    images = random.normal(0, 0.1, (1, 40, 200)).astype(np.float32)
    values, twice = np.concatenate([images, images], axis=1), np.concatenate([labels, labels])
    losses = []
    for groups in (None, np.tile(np.arange(40), 2)):
        found = fit(values, twice, 2, seed=0, groups=groups)
        losses.append(-np.log(found.out_of_fold[np.arange(80), twice]).mean())
    assert losses[0] < 0.3
    assert losses[1] > 0.6  # a coin has 0.69


def test_the_seed_decides_the_folds_and_nothing_else() -> None:
    values, labels = clouds((30, 40), 20, views=2)
    first, again, other = (fit(values, labels, 2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.kernel, again.kernel)
    np.testing.assert_array_equal(first.out_of_fold, again.out_of_fold)
    assert first.log_losses == again.log_losses
    assert first.log_losses != other.log_losses
    assert first.l2 == other.l2
    np.testing.assert_allclose(
        probabilities(first, values), probabilities(other, values), atol=5e-4
    )


def test_a_fit_that_is_stopped_early_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(head, "_MAX_ITERATIONS", 2)
    values, labels = clouds((30, 40), 20)
    found = fit(values, labels, 2, seed=0)
    assert "failed to converge" in caplog.text
    assert np.isfinite(found.kernel).all()


@pytest.fixture(scope="module")
def trained(
    make_network: Callable[..., Any], blobs: Callable[..., Any]
) -> tuple[Network, LogisticHead, Any]:
    built = make_network()
    features = blobs((20, 30, 8), seed=0, spread=2.0, views=2)
    weights = np.linspace(0.5, 3, 58, dtype=np.float32)
    features = dataclasses.replace(features, weights=weights)
    built.standardise(features.values)
    network, found = head.train_head(built, features, seed=0)
    return network, found, features


def test_keras_gives_the_same_probabilities(trained: tuple[Network, LogisticHead, Any]) -> None:
    network, found, features = trained
    flat = features.values.reshape(-1, 24)
    deviation = 10 * np.maximum(flat.std(axis=0), 0.05 * flat.std(axis=0).mean())
    standardised = (features.values - flat.mean(axis=0)) / deviation
    by_hand = probabilities(found, standardised[1])
    assert by_hand.max() - by_hand.min() > 0.3
    np.testing.assert_allclose(network.head(features.values[1]), by_hand, atol=1e-4)
    expected = fit(standardised, features.labels, 3, seed=0, weights=features.weights)
    np.testing.assert_allclose(found.kernel, expected.kernel, atol=1e-3)
