"""Labels and probabilities -> metrics. Arithmetic only: NumPy in, plain numbers out."""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imagesieve.intervals import wilson_interval
from imagesieve.learning.data.audit import TOLERATED_RATIO

TINY = 1e-7  # float32 probabilities saturate; below this the logarithm would only measure rounding


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, each 0 to 1; NaN-free: an empty denominator gives 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # images that are of this class


@dataclasses.dataclass(frozen=True)
class Metrics:
    """How well probabilities match labels."""

    num_images: int
    accuracy: float  # share of right labels, 0 to 1
    accuracy_interval: tuple[float, float]  # 95 % Wilson score interval of it
    log_loss: float  # mean negative logarithm of the right class's probability, in nats
    macro_f1: float  # mean F1 of the classes, each counting the same
    classes: tuple[ClassMetrics, ...]  # in order
    confusion: tuple[tuple[int, ...], ...]  # [i][j] images of class i were predicted as j


def evaluate(class_names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Compute the metrics of (images, classes) probabilities for (images,) class indices."""
    from sklearn import metrics

    called, numbers = probabilities.argmax(axis=1), range(len(class_names))
    confusion = metrics.confusion_matrix(labels, called, labels=numbers)
    of_classes = metrics.precision_recall_fscore_support(
        labels, called, labels=numbers, zero_division=0
    )
    columns = (column.tolist() for column in of_classes)
    classes = tuple(itertools.starmap(ClassMetrics, zip(class_names, *columns, strict=True)))
    right = int(confusion.trace())
    return Metrics(
        num_images=len(labels),
        accuracy=right / len(labels),
        accuracy_interval=wilson_interval(right, len(labels)),
        log_loss=log_loss(labels, probabilities),
        macro_f1=statistics.mean(x.f1 for x in classes),
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative logarithm of the right class's probability, in nats."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(right, TINY, 1)).mean())


def class_weights(
    labels: np.ndarray, weights: np.ndarray | None, num_classes: int
) -> npt.NDArray[np.float64]:
    """Return (classes,): factors that make all classes weigh the same; 1 if they nearly do.

    Labels are the class indices of (training images,), which count once each or as `weights` say.
    """
    totals = np.bincount(labels, weights, minlength=num_classes)
    totals = np.where(totals, totals, totals.max())  # a class without images needs no factor
    if totals.max() <= TOLERATED_RATIO * totals.min():
        return np.ones(num_classes)
    return np.asarray(totals.sum() / (num_classes * totals))
