"""Labels and probabilities -> metrics. Arithmetic only: NumPy in, plain numbers out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagesieve.intervals import wilson_interval

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
    """How well probabilities match labels.

    Attributes:
        num_images: number of images.
        accuracy: share of right labels, 0 to 1.
        accuracy_interval: 95 % Wilson score interval of it.
        log_loss: mean negative logarithm of the right class's probability, in nats.
        macro_f1: mean F1 of the classes, each counting the same.
        classes: one entry for each class, in order.
        confusion: confusion[i][j] images of class i that were predicted as j.
    """

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    log_loss: float
    macro_f1: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON values."""
        return dataclasses.asdict(self)


def evaluate(class_names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Compute the metrics.

    Args:
        class_names: in the order of the columns.
        labels: (images,) integer class index.
        probabilities: (images, classes), each row summing to 1.

    Raises:
        ValueError: there are no images, or the shapes do not fit.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if len(labels) == 0 or probabilities.shape != (len(labels), len(class_names)):
        raise ValueError(
            f"{len(labels)} labels and probabilities of shape {probabilities.shape} for "
            f"{len(class_names)} classes do not fit together"
        )
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = int(np.trace(confusion))
    right_probability = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    classes = tuple(
        _class_metrics(name, confusion, index) for index, name in enumerate(class_names)
    )
    return Metrics(
        num_images=len(labels),
        accuracy=right / len(labels),
        accuracy_interval=wilson_interval(right, len(labels)),
        log_loss=float(-np.log(np.clip(right_probability, TINY, 1)).mean()),
        macro_f1=sum(metrics.f1 for metrics in classes) / len(classes),
        classes=classes,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def class_weights(
    counts: Sequence[float], *, tolerated_ratio: float = 1.5
) -> dict[int, float] | None:
    """Return a weight for each class that makes all weigh the same, or None if they nearly do.

    Args:
        counts: training images of each class, each as often as it counts.
        tolerated_ratio: largest over smallest class up to which nothing is done.
    """
    if max(counts) <= tolerated_ratio * min(counts):
        return None
    return {index: sum(counts) / (len(counts) * count) for index, count in enumerate(counts)}


def _class_metrics(name: str, confusion: np.ndarray, index: int) -> ClassMetrics:
    hits = int(confusion[index, index])
    called = int(confusion[:, index].sum())
    support = int(confusion[index].sum())
    precision = hits / called if called else 0.0
    recall = hits / support if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassMetrics(name, precision, recall, f1, support)
