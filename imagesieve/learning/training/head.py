"""Multinomial logistic regression on standardised features: a head whose training converges.

The objective is convex: for each strength of the L2 penalty there is one best head, and neither
learning rate, number of epochs nor chance have a say in it. Cross-validation chooses the strength.
"""

import concurrent.futures
import dataclasses
import logging
import time

import keras
import numpy as np
import numpy.typing as npt
import threadpoolctl

from imagesieve.cores import cpu_count
from imagesieve.errors import DataError
from imagesieve.learning.features.batches import Features
from imagesieve.learning.networks import network as networks
from imagesieve.learning.training import evaluation

# Strengths of the penalty, strong to weak, as multiples of the features' mean variance: thus the
# deviation to which they were standardised makes no difference.
L2_SWEEP = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
NUM_FOLDS = 5

_PATIENCE = 2  # strengths without a lower log loss after which weaker ones are not tried
_GRADIENT_TOLERANCE = 1e-5  # largest entry, where the curvature is about one in every direction
_MAX_ITERATIONS = 1000  # a few dozen are usual
_CHUNK = 256  # rows: as many as stay in the processor's cache in double precision
_LEAST_CURVATURE = 1e-3  # of softmax, in the estimate that scales the coordinates
_FLAT = 1e-10  # of the largest variance: what varies less is rounding

_log = logging.getLogger(__name__)

_Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted logistic regression: softmax(features @ kernel + bias).

    Attributes:
        kernel: (num_features, classes) float32.
        bias: (classes,) float32.
        l2: the chosen strength, weaker than which none is clearly better; minimised is the mean log
            loss, weighted by class and image, plus l2 / 2 times the sum of the kernel's squares.
        log_losses: strength -> out-of-fold log loss in nats, weighted likewise, in the order tried.
        out_of_fold: (images, classes) float32: what regressions of strength `l2` that have not
            seen an image make of its view 0. NaN for the only image of a class: no regression
            can do without it.
        iterations: of the optimiser, over all strengths.
        converged: whether the optimiser reached the minimum for every strength.
        seconds: that the whole took.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    l2: float
    log_losses: dict[float, float]
    out_of_fold: npt.NDArray[np.float32]
    iterations: int
    converged: bool
    seconds: float

    def probabilities(self, values: np.ndarray) -> npt.NDArray[np.float32]:
        """Give (…, classes) float32 for standardised features (…, num_features)."""
        logits = values.astype(np.float32) @ self.kernel + self.bias
        found: npt.NDArray[np.float32] = np.exp(_log_softmax(logits)).astype(np.float32)
        return found


def train_head(
    network: networks.Network, train: Features, *, seed: int
) -> tuple[networks.Network, Logistic]:
    """Give a network with a logistic head for the pooled features of its frozen base.

    The standardisation stays as it is (`Network.standardise` sets it).

    Raises:
        DataError: no class has two images.
    """
    standardise = network.head.layers[1]  # after the input
    values = np.empty((train.num_views, len(train), *train.shape), dtype=np.float32)
    for view in range(train.num_views):
        for start in range(0, len(train), _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, len(train)))
            chunk = train.take(np.full(len(numbers), view), numbers)
            values[view, numbers] = keras.ops.convert_to_numpy(standardise(chunk))
    num_classes = network.model.output_shape[-1]
    found = fit(values, train.labels, num_classes, seed=seed, weights=train.weights)
    return networks.with_logistic_head(network, found.kernel, found.bias), found


def fit(
    values: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    num_folds: int = NUM_FOLDS,
    weights: np.ndarray | None = None,
) -> Logistic:
    """Fit a logistic regression with the strength of L2 that judges unseen images best.

    Args:
        values: (views, images, num_features) floating: standardised features; view 0 is the
            image as it is.
        labels: (images,) integer class index.
        num_classes: every class has an image.
        seed: decides which images are left out together.
        num_folds: parts into which the images are divided; each is left out once.
        weights: (images,) above 0: how many times each counts; all once by default.

    Raises:
        DataError: no class has two images.
        ValueError: a class has no image, or the shapes do not fit.
    """
    start = time.monotonic()
    counts = np.bincount(labels, minlength=num_classes)
    if values.shape[1:2] != labels.shape or len(counts) != num_classes or not counts.all():
        raise ValueError(
            f"features {values.shape} and labels {labels.shape} do not fit {num_classes} classes"
        )
    if counts.max() < 2:
        raise DataError(
            "Every class has only one training image, so nothing can be tried on images that "
            "were left out: add images."
        )
    weights = np.ones(len(labels)) if weights is None else weights
    folds = assign_folds(labels, num_folds, seed)
    # The products are too thin for the linear algebra library's own threads, which wait for each
    # other in busy loops: where cores are shared, or a container has fewer than its host, that
    # takes ten times as long. So the rows are divided among threads here.
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool,
    ):
        sweep = _Sweep(values, labels, weights, num_classes, folds, num_folds, pool)
        solutions, best = _solutions(sweep)
        kernel, bias = sweep.weights(best.parameters)
    return Logistic(
        kernel,
        bias,
        best.l2,
        {solution.l2: solution.log_loss for solution in solutions},
        best.out_of_fold.astype(np.float32),
        sum(solution.iterations for solution in solutions),
        all(solution.converged for solution in solutions),
        time.monotonic() - start,
    )


def assign_folds(labels: np.ndarray, num_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Give (images,): the fold in which each image is left out, or -1 for never.

    The folds have as equal shares of each class as can be. However few images a class has, all
    folds are used: those beyond its count leave none of it out. Its only image stays in always.
    """
    random = np.random.default_rng(seed)
    folds = np.full(len(labels), -1)
    dealt = 0  # the next class goes on where the last one stopped, so that the folds stay equal
    for index in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == index))
        if len(members) > 1:
            folds[members] = (dealt + np.arange(len(members))) % num_folds
            dealt += len(members)
    return folds


@dataclasses.dataclass(frozen=True, eq=False)
class _Solution:
    """What is best at one strength; `parameters` are those of `_Sweep`."""

    l2: float
    parameters: _Doubles
    out_of_fold: _Doubles
    losses: _Doubles  # (images left out,)
    iterations: int
    converged: bool

    @property
    def log_loss(self) -> float:
        """Out of fold, weighted by class and image."""
        return float(self.losses.mean())


def _solutions(sweep: "_Sweep") -> tuple[list[_Solution], _Solution]:
    """Give the solutions from strong to weak, up to where weaker ones bring nothing, and the best.

    A weaker penalty must lower the log loss by more than the standard error of the difference,
    image by image. Where classes lie apart, the loss goes on falling by next to nothing while
    the probabilities become extreme and the mistakes on other images expensive.
    """
    solutions = [sweep.go_on_to(L2_SWEEP[0] * sweep.mean_variance)]
    best, waited = solutions[0], 0
    for multiple in L2_SWEEP[1:]:
        solution = sweep.go_on_to(multiple * sweep.mean_variance)
        solutions.append(solution)
        if _is_better(solution.losses, best.losses):
            best, waited = solution, 0
        else:
            waited += 1
        if waited == _PATIENCE:
            break
    return solutions, best


def _is_better(new: _Doubles, old: _Doubles) -> bool:
    gains = old - new
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


class _Sweep:
    """The regressions of all folds, and the one on all images, along the strengths of L2.

    They are solved as one problem, for reading the features is what takes the time. Coordinates are
    the features' principal axes: there the objective's curvature is nearly diagonal and known
    beforehand, so that L-BFGS needs dozens of iterations, not thousands.

    Parameters are (axes + 1, folds + 1, classes), the bias last in the first place, the regression
    on all images last in the second.
    """

    def __init__(
        self,
        values: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        num_classes: int,
        folds: npt.NDArray[np.int64],
        num_folds: int,
        pool: concurrent.futures.Executor,
    ) -> None:
        num_views, _, num_features = values.shape
        rows = values.reshape(-1, num_features).astype(np.float32, copy=False)
        self._pool = pool
        self._axes, self._variances = _principal_axes(rows, pool)
        self._coordinates = np.ones((len(rows), len(self._variances) + 1), dtype=np.float32)

        def turn(chunk: slice) -> None:
            self._coordinates[chunk, :-1] = rows[chunk].astype(np.float64) @ self._axes

        list(pool.map(turn, _chunks(len(rows))))
        self.mean_variance = float(self._variances.sum()) / num_features
        self._labels = np.tile(labels, num_views)
        self._folds = folds
        by_class = evaluation.class_weights(np.bincount(labels, weights).tolist())
        of_class = np.array([by_class[int(i)] if by_class else 1.0 for i in labels])
        self._image_weights = of_class * weights
        seen = folds[:, None] != np.arange(num_folds + 1)  # no image is in the last fold
        self._row_weights = np.tile(self._image_weights[:, None] * seen, (num_views, 1))
        self._row_weights /= self._row_weights.sum(axis=0)
        self._curvature = (num_classes - 1) / num_classes**2  # p (1 - p) of one that knows nothing
        self._parameters = np.zeros((len(self._variances) + 1, num_folds + 1, num_classes))

    def go_on_to(self, l2: float) -> _Solution:
        """Solve for a strength, from the solution for the one before."""
        import scipy.optimize

        shape = self._parameters.shape
        curvature = np.append(self._curvature * self._variances + l2, self._curvature)
        scale = (1 / np.sqrt(curvature))[:, None, None]
        penalty = np.append(np.full(len(self._variances), l2), 0.0)[:, None, None]

        def objective(scaled: _Doubles) -> tuple[float, _Doubles]:
            parameters = scaled.reshape(shape) * scale
            loss, gradient = self._log_loss(parameters)
            loss += 0.5 * float((penalty * parameters**2).sum())
            gradient += penalty * parameters
            return loss, (gradient * scale).ravel()

        found = scipy.optimize.minimize(
            objective,
            (self._parameters / scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": _GRADIENT_TOLERANCE, "ftol": 0.0, "maxiter": _MAX_ITERATIONS},
        )
        converged = bool(np.abs(found.jac).max() <= _GRADIENT_TOLERANCE)
        if not converged:
            _log.warning(
                "The logistic regression with L2 %.2g did not converge (%s): it is used as it is.",
                l2,
                found.message,
            )
        self._parameters = found.x.reshape(shape) * scale
        out_of_fold, losses = self._judge()
        _log.debug("L2 %.2g: out-of-fold log loss %.4f", l2, losses.mean())
        self._curvature = float(np.nanmean(out_of_fold * (1 - out_of_fold))) + _LEAST_CURVATURE
        return _Solution(l2, self._parameters, out_of_fold, losses, int(found.nit), converged)

    def weights(self, parameters: _Doubles) -> tuple[np.ndarray, np.ndarray]:
        """Give the float32 kernel and bias of the regression on all images."""
        kernel = self._axes @ parameters[:-1, -1]
        return kernel.astype(np.float32), parameters[-1, -1].astype(np.float32)

    def _log_loss(self, parameters: _Doubles) -> tuple[float, _Doubles]:
        # The classes' parameters and their gradients add up to zero, so the last need no product.
        free = np.ascontiguousarray(parameters[:, :, :-1])

        def part(chunk: slice) -> tuple[float, _Doubles]:
            coordinates = self._coordinates[chunk].astype(np.float64)
            labels, weights = self._labels[chunk], self._row_weights[chunk]
            logarithms = _log_softmax(_with_last(np.tensordot(coordinates, free, 1)))
            numbers = np.arange(len(labels))
            loss = -float((weights * logarithms[numbers, :, labels]).sum())
            errors = np.exp(logarithms)
            errors[numbers, :, labels] -= 1
            errors *= weights[:, :, None]
            return loss, np.tensordot(coordinates, errors[:, :, :-1], ((0,), (0,)))

        loss, gradient = 0.0, np.zeros_like(free)
        for part_loss, part_gradient in self._pool.map(part, _chunks(len(self._coordinates))):
            loss += part_loss
            gradient += part_gradient
        return loss, _with_last(gradient)

    def _judge(self) -> tuple[_Doubles, _Doubles]:
        num_images = len(self._folds)
        logarithms = np.empty((num_images, self._parameters.shape[-1]))
        for chunk in _chunks(num_images):  # view 0 comes first
            coordinates = self._coordinates[chunk].astype(np.float64)
            found = _log_softmax(np.tensordot(coordinates, self._parameters, 1))
            logarithms[chunk] = found[np.arange(len(found)), self._folds[chunk]]
        logarithms[self._folds < 0] = np.nan
        right = -logarithms[np.arange(num_images), self._labels[:num_images]]
        left_out = self._folds >= 0
        weights = self._image_weights[left_out]
        return np.exp(logarithms), right[left_out] * weights / weights.mean()


def _principal_axes(
    rows: npt.NDArray[np.float32], pool: concurrent.futures.Executor
) -> tuple[_Doubles, _Doubles]:
    """Give axes (num_features, axes), orthonormal, and the rows' mean square along each.

    With fewer rows than features they come from the rows' inner products, which are fewer, and span
    what the rows span; otherwise they span everything.
    """
    num_rows, num_features = rows.shape
    if num_rows < num_features:
        doubles = rows.astype(np.float64)
        squares, vectors = np.linalg.eigh(doubles @ doubles.T)
        kept = squares > _FLAT * squares[-1]
        axes = doubles.T @ (vectors[:, kept] / np.sqrt(squares[kept]))
        return axes, squares[kept] / num_rows
    # Rounding turns these axes a little, which is harmless: any orthonormal ones would do.
    products = np.concatenate(
        list(pool.map(lambda block: rows[:, block].T @ rows, _chunks(num_features)))
    )
    squares, vectors = np.linalg.eigh(products.astype(np.float64))
    return vectors, np.maximum(squares, 0) / num_rows


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _with_last(free: _Doubles) -> _Doubles:
    """Append, on the last axis, what makes the sum zero."""
    return np.concatenate([free, -free.sum(axis=-1, keepdims=True)], axis=-1)


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK)]
