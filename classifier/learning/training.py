"""Learning proper: the head on features, the top blocks on maps, or a small network on pixels.

Each function takes a network, trains some of its layers, and leaves in it the weights with the
lowest validation loss that it saw.
"""

import contextlib
import dataclasses
import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from classifier.files import output_error
from classifier.learning import evaluation
from classifier.learning.features import FeatureBatches, Features
from classifier.learning.generator import PictureIterator
from classifier.learning.network import Network

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How one fit runs.

    Attributes:
        epochs: at most; early stopping usually ends sooner.
        learning_rate: at its peak, after the warm-up; it then falls to zero along a cosine
            (Loshchilov and Hutter 2017, SGDR without restarts).
        batch_size: pictures in a step.
        seed: of order, views and dropout.
        patience: epochs without a lower validation loss after which the fit ends.
        warm_up: share of the steps, 0 to 1, in which the rate rises from zero.
        weight_decay: of AdamW (Loshchilov and Hutter 2019).
        log_folder: TensorBoard events go here.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    log_folder: Path
    patience: int = 5
    warm_up: float = 0.05
    weight_decay: float = 1e-4


@dataclasses.dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        stage: `head`, `fine-tuning` or `network`.
        history: metric name -> value after each epoch.
        best_epoch: the epoch, from 1, whose weights were kept; 0 when none beat the start.
        validation_loss: of the kept weights.
    """

    stage: str
    history: dict[str, list[float]]
    best_epoch: int
    validation_loss: float


def make_reproducible(seed: int) -> None:
    """Seed every random generator and have TensorFlow add up in a fixed order."""
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_head(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> Fit:
    """Train the head on pooled features of the frozen base."""
    return _fit("head", network.head, *_batches(train, validation, settings), settings)


def fine_tune(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> Fit:
    """Train the blocks above the cut and the head on maps of the frozen blocks below.

    BatchNormalization stays in inference mode: the statistics of small batches ruin a pretrained
    network. If no epoch lowers the validation loss, the weights are left as they were.
    """
    upper = network.upper()
    for layer in upper.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    return _fit("fine-tuning", upper, *_batches(train, validation, settings), settings)


def train_from_scratch(
    network: Network, train: PictureIterator, validation: PictureIterator, settings: FitSettings
) -> Fit:
    """Train every layer on pixels, with a fresh augmentation of each picture in each epoch."""
    return _fit("network", network.model, train, validation, train.classes, settings)


def probabilities(
    part: Any, features: Features, view: int = 0, batch_size: int = 256
) -> np.ndarray:
    """Give (pictures, outputs) float32: what a part of a network makes of one view."""
    numbers = np.arange(len(features))
    batches = [numbers[start : start + batch_size] for start in numbers[::batch_size]]
    return np.concatenate(
        [
            np.asarray(part.predict_on_batch(features.take(np.full(len(batch), view), batch)))
            for batch in batches
        ]
    )


def _batches(
    train: Features, validation: Features, settings: FitSettings
) -> tuple[FeatureBatches, FeatureBatches, np.ndarray]:
    return (
        FeatureBatches(train, settings.batch_size, settings.seed),
        FeatureBatches(validation, settings.batch_size, settings.seed, shuffle=False),
        train.labels,
    )


def _fit(
    stage: str,
    model: Any,
    train: keras.utils.PyDataset,
    validation: keras.utils.PyDataset,
    labels: np.ndarray,
    settings: FitSettings,
) -> Fit:
    _compile(model, len(train), settings)
    start_weights = model.get_weights()
    start_loss = float(model.evaluate(validation, verbose=0, return_dict=True)["loss"])
    weights = evaluation.class_weights(np.bincount(labels).tolist())
    callbacks = [
        keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=settings.patience, restore_best_weights=True
        ),
        keras.callbacks.TensorBoard(str(settings.log_folder / stage), write_graph=False),
        keras.callbacks.LambdaCallback(on_epoch_end=_report(stage, settings.epochs)),
    ]
    # No steps_per_epoch: with it Keras would drop the rest of every other epoch.
    with _naming_what_ran_out(settings.log_folder):
        history = model.fit(
            train,
            validation_data=validation,
            epochs=settings.epochs,
            class_weight=weights,
            callbacks=callbacks,
            verbose=0,
        ).history
    losses = history["val_loss"]
    best = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
    if not losses[best] < start_loss:  # a loss that is not a number is no improvement either
        model.set_weights(start_weights)
        return Fit(stage, history, 0, start_loss)
    return Fit(stage, history, best + 1, losses[best])


@contextlib.contextmanager
def _naming_what_ran_out(log_folder: Path) -> Iterator[None]:
    """Tell a disk too full for TensorBoard's events from too little memory: TensorFlow does not."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        full = os.strerror(errno.ENOSPC)
        if full in str(error):
            raise output_error(log_folder, OSError(errno.ENOSPC, full)) from error
        raise MemoryError(str(error)) from error


def _compile(model: Any, steps_per_epoch: int, settings: FitSettings) -> None:
    steps = steps_per_epoch * settings.epochs
    warm_up = int(steps * settings.warm_up)  # none in a fit of a few steps: its first is at rate 0
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up),
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,  # compiling takes longer than a small training on a CPU
    )


def _report(stage: str, epochs: int) -> Callable[[int, dict[str, float]], None]:
    def report(epoch: int, logs: dict[str, float]) -> None:
        _log.info(
            "%s: epoch %d of %d, loss %.4f, validation loss %.4f, validation accuracy %.2f %%",
            stage,
            epoch + 1,
            epochs,
            logs["loss"],
            logs["val_loss"],
            100 * logs["val_accuracy"],
        )

    return report
