"""Multinomial logistic regression on standardised features: a head whose training converges.

The objective is convex: for each strength of the L2 penalty there is one best head, and learning
rate and number of epochs do not matter. Cross-validation chooses the strength.
"""

import concurrent.futures
import dataclasses
import logging
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from imagesieve.errors import DataError
from imagesieve.learning.features.store import Features
from imagesieve.learning.networks import network as networks
from imagesieve.learning.training import evaluation
from imagesieve.threads import cpu_count

# Strengths of the penalty, strong to weak, as multiples of the features' mean square: thus the
# deviation to which they were standardised makes no difference.
L2_SWEEP = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
NUM_FOLDS = 5

_PATIENCE = 2  # strengths without a lower log loss after which weaker ones are not tried
_TOLERANCE = 1e-4  # of the gradient's largest entry; a tenth of it brought the same strength
_FINAL_TOLERANCE = 1e-6
_MAX_ITERATIONS = 1000  # a few dozen are usual

_log = logging.getLogger(__name__)

_Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class LogisticHead:
    """A fitted logistic regression: softmax(features @ kernel + bias)."""

    kernel: _Floats  # (num_features, classes)
    bias: _Floats  # (classes,)
    # The chosen strength; minimised is the mean log loss, weighted by class and image, plus l2 / 2
    # times the sum of the kernel's squares.
    l2: float
    # Strength -> out-of-fold log loss in nats, weighted likewise, in the order tried.
    log_losses: dict[float, float]
    # (images, classes): probabilities for view 0 of each image, from regressions of strength `l2`
    # that have not seen the image or a near-duplicate of it. NaN for the only image of a class,
    # which no regression can do without.
    out_of_fold: _Floats
    seconds: float  # time of the whole fit


def train_head(
    network: networks.Network, train: Features, *, seed: int, groups: np.ndarray | None = None
) -> tuple[networks.Network, LogisticHead]:
    """Return a network with a logistic head for the pooled features of its frozen base.

    The standardisation stays as it is (`Network.standardise` sets it). For `train`, pooled features
    in memory, `seed` and `groups` see `fit`, which raises a DataError too.
    """
    standardise = network.head.layers[1]  # after the input
    values = np.empty(train.values.shape, dtype=np.float32)
    for view, rows in enumerate(np.asarray(train.values)):
        values[view] = standardise(rows.astype(np.float32))
    num_classes = network.model.output_shape[-1]
    head = fit(values, train.labels, num_classes, seed=seed, weights=train.weights, groups=groups)
    return networks.with_logistic_head(network, head.kernel, head.bias), head


def fit(
    values: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> LogisticHead:
    """Fit a logistic regression with the L2 strength that is best on images that were left out.

    A weaker penalty must lower the out-of-fold log loss by more than the standard error of the
    difference, image by image (the one-standard-error rule; Hastie, Tibshirani and Friedman 2009,
    section 7.10). Where classes lie apart, the loss goes on falling by next to nothing while the
    probabilities become extreme and the mistakes on other images expensive.

    Args:
        values: (views, images, num_features) floating: standardised features; view 0 is the
            image as it is.
        labels: (images,) class indices; every class has an image.
        seed: decides which images are left out together.
        weights: (images,) above 0: how many times each counts; all once by default.
        groups: (images,) integers; near-duplicates share one. Each image is alone by default.
    """
    start = time.monotonic()
    if np.bincount(labels).max() < 2:
        raise DataError(
            "Every class has only one training image, so nothing can be tried on images that "
            "were left out: add images."
        )
    groups = np.arange(len(labels)) if groups is None else groups
    weights = np.ones(len(labels)) if weights is None else weights
    weights = weights * evaluation.class_weights(labels, weights, num_classes)[labels]
    folds = assign_folds(labels, groups, seed)
    # Products with a few classes are too thin for the linear algebra library's own threads, which
    # wait for each other in busy loops, so each fold has one thread instead.
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        warnings.catch_warnings(record=True) as caught,
        concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool,
    ):
        warnings.simplefilter("always")
        # At a mean square of 1 neither strengths nor tolerance depend on the features' scale.
        scale = float(np.sqrt(np.square(values, dtype=np.float64).mean())) or 1.0
        scaled = values.astype(np.float32)
        scaled /= scale
        sweep = _Sweep(scaled, labels, weights, folds)
        log_losses, l2, out_of_fold = sweep.choose(pool)
        kernel, bias = sweep.fit_all(l2)
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        _log.warning("The logistic regression is used as it is: %s", text.partition("\n")[0])
    return LogisticHead(
        kernel / np.float32(scale),
        bias,
        l2 * scale**2,
        {strength * scale**2: loss for strength, loss in log_losses.items()},
        out_of_fold,
        time.monotonic() - start,
    )


def assign_folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> npt.NDArray[np.int64]:
    """Return (images,): the fold in which each image is left out, or -1 for never.

    A class's groups are dealt out whole, the largest first, each to the fold that has the fewest
    images of the class. Only where a class is a single group its images are parted. The only image
    of a class is never left out. scikit-learn's `StratifiedGroupKFold` may leave out a whole class.
    """
    random = np.random.default_rng(seed)
    folds = np.full(len(labels), -1)
    totals = np.zeros(NUM_FOLDS, dtype=np.int64)
    for index in np.unique(labels):
        members = np.flatnonzero(labels == index)
        _, group_of, sizes = np.unique(groups[members], return_inverse=True, return_counts=True)
        if len(sizes) == 1:
            group_of, sizes = np.arange(len(members)), np.ones(len(members), dtype=np.int64)
        if len(sizes) == 1:
            continue
        order = random.permutation(len(sizes))
        of_class = np.zeros(NUM_FOLDS, dtype=np.int64)
        fold_of = np.empty(len(sizes), dtype=np.int64)
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            fold = np.lexsort((totals, of_class))[0]
            fold_of[group] = fold
            of_class[fold] += sizes[group]
            totals[fold] += sizes[group]
        folds[members] = fold_of[group_of]
    return folds


class _Sweep:
    """The regressions of all folds along the strengths of L2, each begun where the last ended."""

    def __init__(
        self, values: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        num_views, self._num_images, num_features = values.shape
        self._rows = values.reshape(-1, num_features)
        self._basis = None
        if len(self._rows) < num_features:
            # The kernel lies in what the rows span, which has fewer dimensions; in orthonormal
            # coordinates of it the penalty is the same.
            self._basis, triangle = np.linalg.qr(self._rows.T)
            self._rows = np.ascontiguousarray(triangle.T)
        self._labels, self._weights, self._folds = (
            np.tile(of_image, num_views) for of_image in (labels, weights, folds)
        )
        self._is_binary = labels.max() == 1
        self._models = [
            LogisticRegression(
                solver="lbfgs", tol=_TOLERANCE, max_iter=_MAX_ITERATIONS, warm_start=True
            )
            for _ in range(NUM_FOLDS)
        ]

    def choose(
        self, pool: concurrent.futures.Executor
    ) -> tuple[dict[float, float], float, _Floats]:
        """Return strength -> log loss, the strength chosen, and its out-of-fold probabilities."""
        log_losses: dict[float, float] = {}
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        since_best = 0
        for l2 in L2_SWEEP:
            out_of_fold = self._out_of_fold(l2, pool)
            losses = self._losses(out_of_fold)
            log_losses[l2] = float(losses.mean())
            since_best += 1
            if best is None or _is_better(losses, best[2]):
                best, since_best = (l2, out_of_fold, losses), 0
            if since_best == _PATIENCE:
                break
        assert best is not None  # noqa: S101 - the sweep is not empty
        return log_losses, best[0], best[1]

    def fit_all(self, l2: float) -> tuple[_Floats, _Floats]:
        """Return kernel and bias of the regression on all images."""
        self._models[0].set_params(tol=_FINAL_TOLERANCE)
        model = self._fit(self._models[0], l2, np.ones(len(self._labels), dtype=bool))
        kernel, bias = model.coef_.T, model.intercept_
        if self._is_binary:  # scikit-learn gives the logit of the second class against the first
            kernel, bias = np.hstack([-kernel, kernel]) / 2, np.array([-bias[0], bias[0]]) / 2
        if self._basis is not None:
            kernel = self._basis @ kernel
        return kernel.astype(np.float32), bias.astype(np.float32)

    def _fit(self, model: Any, l2: float, chosen: np.ndarray) -> Any:
        # With weights that add up to 1, C is the inverse of the strength. Two classes share one
        # vector, whose square is twice the sum of the squares of two opposite halves of it.
        model.set_params(C=(2 if self._is_binary else 1) / l2)
        weights = self._weights[chosen]
        return model.fit(self._rows[chosen], self._labels[chosen], weights / weights.sum())

    def _out_of_fold(self, l2: float, pool: concurrent.futures.Executor) -> _Floats:
        num_classes = int(self._labels.max()) + 1
        found = np.full((self._num_images, num_classes), np.nan, dtype=np.float32)

        def predict(fold: int) -> None:
            model = self._fit(self._models[fold], l2, self._folds != fold)
            left_out = np.flatnonzero(self._folds[: self._num_images] == fold)
            if len(left_out):
                found[left_out] = model.predict_proba(self._rows[left_out])  # view 0 comes first

        list(pool.map(predict, range(NUM_FOLDS)))
        return found

    def _losses(self, out_of_fold: _Floats) -> npt.NDArray[np.float64]:
        """Return the log losses of the images that were left out, weighted by class and image."""
        labels, weights = self._labels[: self._num_images], self._weights[: self._num_images]
        left_out = self._folds[: self._num_images] >= 0
        right = out_of_fold[np.arange(self._num_images), labels][left_out].astype(np.float64)
        weights = weights[left_out] / weights[left_out].mean()
        losses: npt.NDArray[np.float64] = -np.log(np.maximum(right, evaluation.TINY)) * weights
        return losses


def _is_better(new: npt.NDArray[np.float64], old: npt.NDArray[np.float64]) -> bool:
    gains = old - new
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))
