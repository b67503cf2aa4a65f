"""Validation pictures -> the golden ones of a version; see `classifier.golden`."""

from collections.abc import Sequence

import numpy as np

from classifier.golden import MAX_PICTURES, Golden
from classifier.learning import gates
from classifier.learning.dataset import Sample


def take(
    samples: Sequence[Sample], probabilities: np.ndarray, image_size: tuple[int, int]
) -> Golden:
    """Give golden pictures with their answers.

    Args:
        samples: for validation.
        probabilities: (samples, classes), of Keras, in the order of the samples.
        image_size: (height, width) in pixels, of the network.

    Raises:
        ImageError: a picture changed since it was checked.
    """
    chosen = choose(probabilities)
    pixels = np.stack(gates.decode([samples[number] for number in chosen], image_size))
    return Golden(pixels, probabilities[chosen].astype(np.float32))


def choose(probabilities: np.ndarray, count: int = MAX_PICTURES) -> list[int]:
    """Give the numbers of pictures with clear answers, taking turns between the classes.

    An unclear answer may tip over between two precisions of a sound model; a clear one may not.

    Args:
        probabilities: (pictures, classes).
        count: how many, if there are as many.
    """
    called = probabilities.argmax(axis=1)
    clearest_first = np.argsort(-probabilities.max(axis=1), kind="stable")
    turns = [
        (turn, class_index, int(number))
        for class_index in range(probabilities.shape[1])
        for turn, number in enumerate(clearest_first[called[clearest_first] == class_index])
    ]
    return [number for _, _, number in sorted(turns)[:count]]
