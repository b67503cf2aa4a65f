"""Labels and probabilities -> metrics. Arithmetic only: NumPy in, plain numbers out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesieve.intervals import wilson_interval

TINY = 1e-7  # float32 probabilities saturate; below this the logarithm would only measure rounding
_TOLERATED_RATIO = 1.5  # of the largest class to the smallest, up to which they count as equal


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

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON values."""
        return dataclasses.asdict(self)


def evaluate(class_names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Compute the metrics of (images, classes) probabilities for (images,) class indices.

    Raises:
        ValueError: there are no images, or the shapes do not fit.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if len(labels) == 0 or probabilities.shape != (len(labels), len(class_names)):
        raise ValueError(
            f"{len(labels)} labels and probabilities of shape {probabilities.shape} for "
            f"{len(class_names)} classes do not fit together"
        )
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    right = int(np.trace(confusion))
    classes = tuple(_of_class(name, confusion, index) for index, name in enumerate(class_names))
    return Metrics(
        num_images=len(labels),
        accuracy=right / len(labels),
        accuracy_interval=wilson_interval(right, len(labels)),
        log_loss=log_loss(labels, probabilities),
        macro_f1=sum(metrics.f1 for metrics in classes) / len(classes),
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
    if totals.max() <= _TOLERATED_RATIO * totals.min():
        return np.ones(num_classes)
    return np.asarray(totals.sum() / (num_classes * totals))


def _of_class(name: str, confusion: np.ndarray, index: int) -> ClassMetrics:
    hits = int(confusion[index, index])
    called = int(confusion[:, index].sum())
    support = int(confusion[index].sum())
    precision = hits / called if called else 0.0
    recall = hits / support if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassMetrics(name, precision, recall, f1, support)
