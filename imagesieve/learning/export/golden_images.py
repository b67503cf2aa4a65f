"""Validation images -> the golden ones of a version; see `imagesieve.model.golden`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imagesieve.learning.data.dataset import Sample
from imagesieve.learning.openvino import precision_check
from imagesieve.model.golden import MAX_IMAGES, Golden


def take(model: Any, samples: Sequence[Sample], probabilities: np.ndarray) -> Golden:
    """Return golden images with their answers.

    Args:
        model: Keras model from float32 pixels (batch, height, width, 3), 0 to 255.
        samples: for validation.
        probabilities: (samples, classes) of the training, in the order of the samples, to choose
            by. They may come from features in half precision, so the model is asked itself.

    Raises:
        ImageError: an image changed since it was checked.
    """
    chosen = [samples[number] for number in choose(probabilities)]
    pixels = np.stack(precision_check.decode_samples(chosen, model.input_shape[1:3]))
    # Called as it is: a compiled function would take longer to make than it saves. Two at a time,
    # since all that lies between the layers stays in memory until the end of a call.
    answers = [
        np.asarray(model(pixels[start : start + 2].astype(np.float32), training=False))
        for start in range(0, len(pixels), 2)
    ]
    return Golden(pixels, np.concatenate(answers).astype(np.float32))


def choose(probabilities: np.ndarray, count: int = MAX_IMAGES) -> list[int]:
    """Return the numbers of images with clear answers, taking turns between the classes.

    An unclear answer may tip over between two precisions of a sound model; a clear one may not.

    Args:
        probabilities: (images, classes).
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
