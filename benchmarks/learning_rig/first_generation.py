"""The recipe of the first generation, re-written for Keras 3.

The frozen backbone stands in the graph and sees every image again in every epoch; on top of it
global average pooling, Dense 512 with ReLU, and a softmax. RMSprop at 0.001, categorical
cross-entropy, 20 epochs of Keras's own `ImageDataGenerator` (shear, zoom, flip) in batches of 32,
fed by one worker, with Keras's own defaults for everything else (nearest-neighbour resizing among
them).

What differs, all of it to its advantage: it gets our backbone with the same weights, which for
random ones are fitted to the images; all validation images are predicted, in a fixed order; no
`steps_per_epoch`, with which Keras 3 loses every second epoch; a frozen batch normalisation uses
its own statistics; no compilation by XLA, which costs more than it saves on a CPU; images that
Keras would overlook by their ending are there, and what cannot be read was left out.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.class_folders import TRAIN, VALIDATION
from imagesieve.learning.data.dataset import Dataset
from learning_rig.problem import Problem, link_as_folders, prepare

EPOCHS = 20

_BATCH_SIZE = 32
_HIDDEN_UNITS = 512
_LEARNING_RATE = 1e-3  # RMSprop's default in Keras, then and now


def first_generation(problem: Problem, num_epochs: int, right_scaling: bool) -> dict[str, Any]:
    """Train as the first generation did; times are in seconds from the call of `fit` on.

    Args:
        num_epochs: of the `EPOCHS`; with fewer, the time of all is projected.
        right_scaling: feed the backbone the pixels that its weights were made for. The first
            generation divided them by 255 whatever the backbone. With random weights, which are
            fitted to rightly scaled pixels, it is right in any case.
    """
    import keras
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    prepared = prepare(problem)
    is_right = right_scaling or problem.weights == "random"
    keras.utils.set_random_seed(problem.seed)
    model = _model(prepared.network.base, len(prepared.dataset.classes), is_right)
    names = link_as_folders(prepared.dataset, folder := Path("images"))
    how = {"target_size": problem.image_size, "classes": names, "batch_size": _BATCH_SIZE}
    augmented = {"shear_range": 0.2, "zoom_range": 0.2, "horizontal_flip": True}
    generator = ImageDataGenerator(rescale=1 / 255, **augmented)
    train = generator.flow_from_directory(str(folder / TRAIN), seed=problem.seed, **how)
    plain = ImageDataGenerator(rescale=1 / 255)
    validation = plain.flow_from_directory(str(folder / VALIDATION), shuffle=False, **how)
    _check_complete(prepared.dataset, train, validation)
    model.compile(
        optimizer=keras.optimizers.RMSprop(_LEARNING_RATE),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    start, ends = time.perf_counter(), []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _epoch, _logs: ends.append(time.perf_counter() - start)
    )
    fitting = {"epochs": num_epochs, "callbacks": [clock], "verbose": 2}
    history = model.fit(train, validation_data=validation, **fitting).history
    return {
        **summarise(history, ends),
        "num_validation": len(prepared.dataset.validation),
        "right_scaling": is_right,
        "check_seconds": prepared.check_seconds,
        "build_seconds": prepared.build_seconds,
    }


def summarise(history: dict[str, list[float]], ends: list[float]) -> dict[str, Any]:
    """Return what came of a `fit`, of Keras's history and the ends of its epochs in seconds."""
    accuracies, losses = history["val_accuracy"], history["val_loss"]
    best = int(np.argmax(accuracies))
    is_whole = len(ends) == EPOCHS
    return {
        "epochs": len(ends),
        "best_epoch": best + 1,
        "accuracy": accuracies[best],
        "log_loss": losses[best],
        "accuracy_by_loss": accuracies[int(np.argmin(losses))],
        "accuracy_left": accuracies[-1],
        "last_log_loss": losses[-1],
        # With too few epochs it is open when the best one would have come.
        "seconds_to_best": ends[best] if is_whole else None,
        "seconds_in_all": ends[-1] if is_whole else projected_seconds(ends, EPOCHS),
        "is_projected": not is_whole,
        "epoch_ends": ends,
        "accuracies": accuracies,
        "log_losses": losses,
    }


def projected_seconds(ends: list[float], num_epochs: int) -> float:
    """Return how long `num_epochs` take, from the ends of the first ones.

    The first epoch, in which TensorFlow builds its graphs, is counted once, unless there is no
    other.
    """
    if len(ends) == 1:
        return num_epochs * ends[0]
    later = (ends[-1] - ends[0]) / (len(ends) - 1)
    return ends[0] + (num_epochs - 1) * later


def _model(base: Any, num_classes: int, right_scaling: bool) -> Any:
    """Return the network: pixels from 0 to 1 -> probabilities."""
    import keras

    base.trainable = False
    pixels = keras.Input(base.input_shape[1:])
    tensor = base(_unscaled(base, right_scaling)(pixels))  # pooled: our base ends with that
    tensor = keras.layers.Dense(_HIDDEN_UNITS, activation="relu")(tensor)
    return keras.Model(pixels, keras.layers.Dense(num_classes, activation="softmax")(tensor))


def _unscaled(base: Any, right_scaling: bool) -> Any:
    """Return the layer between pixels from 0 to 1 and our base, which takes 0 to 255.

    Right scaling is undone division; otherwise the network behind our scaling gets 0 to 1.
    """
    import keras

    scaling = [layer for layer in base.layers if layer.name == "scale_pixels"]
    if right_scaling or not scaling:
        return keras.layers.Rescaling(255.0 if right_scaling else 1.0)
    scale, offset = np.asarray(scaling[0].scale), np.asarray(scaling[0].offset)
    return keras.layers.Rescaling((1 / scale).tolist(), (-offset / scale).tolist())


def _check_complete(dataset: Dataset, train: Any, validation: Any) -> None:
    if (train.n, validation.n) != (len(dataset.train), len(dataset.validation)):
        raise RuntimeError(f"Keras found {train.n} and {validation.n} images: some are missing.")
