"""One fit: epoch after epoch of one model, kept after each, ending with its best weights.

Keras's `fit` is not used: its early stopping forgets what it knew when a run is interrupted, its
threads were seen to hang, and setting an epoch up took it longer than training a head for one.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagesieve.files import output_error
from imagesieve.learning.training import evaluation
from imagesieve.learning.training.checkpoints import Checkpoint, Progress
from imagesieve.learning.training.optimizer import LayerwiseAdamW, warm_up_and_cosine
from imagesieve.learning.training.steps import Batches, loss_step, run_epoch, training_step

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How one fit runs.

    Attributes:
        epochs: at most; early stopping usually ends sooner.
        learning_rate: at its peak, after the warm-up; it then falls to zero along a cosine
            (Loshchilov and Hutter 2017, SGDR without restarts).
        batch_size: images in a step.
        seed: of order, views and dropout.
        log_folder: TensorBoard events go here.
        patience: epochs without a lower validation loss after which the fit ends.
        warm_up: share of the steps, 0 to 1, in which the rate rises from zero.
        weight_decay: of AdamW (Loshchilov and Hutter 2019).
        checkpoint: where the state after each epoch is kept and gone on from; it is the caller who
            removes it, once the result is safe.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    log_folder: Path
    patience: int = 5
    warm_up: float = 0.05
    weight_decay: float = 1e-4
    checkpoint: Checkpoint | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        stage: `head`, `fine-tuning`, `full fine-tuning` or `network`.
        history: metric name -> value after each epoch.
        best_epoch: the epoch, from 1, whose weights were kept; 0 when none beat the start.
        validation_loss: of the kept weights.
        epoch_seconds: from the start of the fit to the end of each epoch; the time between an
            interruption and the resumption is left out.
        precision: `float32`, or the Keras dtype policy that it ran under.
    """

    stage: str
    history: dict[str, list[float]]
    best_epoch: int
    validation_loss: float
    epoch_seconds: list[float]
    precision: str = "float32"


def fit(
    stage: str,
    model: Any,
    train: Batches,
    validation: Batches,
    labels: np.ndarray,
    settings: FitSettings,
    *,
    weights: np.ndarray | None = None,
    rates: Sequence[float] | None = None,
    precision: str = "float32",
) -> Fit:
    """Train the trainable variables of a model and leave the weights of the lowest loss in it.

    Both feeds must stand at their first epoch.

    Args:
        stage: names the fit.
        model: from inputs (batch, …) to probabilities (batch, classes) float32.
        train: what to learn.
        validation: what decides which epoch was the best.
        labels: (training images,) class indices, for the classes' weights.
        settings: see there.
        weights: (training images,) how many times each counts, for the classes' weights too; all
            once by default.
        rates: what the rate of each trainable variable is multiplied by; 1 by default.
        precision: what the model was built for; float16 has its loss scaled.

    Raises:
        DataError: an image changed since it was checked, or the checkpoint may not be read.
        OutputError: the log or the checkpoint cannot be written.
    """
    start = time.monotonic()
    optimizer = _optimizer(model, len(train) * settings.epochs, settings, rates, precision)
    train_step, judging_step = training_step(model, optimizer), loss_step(model)
    class_weights = _class_weights(labels, weights, model.output_shape[-1])
    with _naming_what_ran_out(settings.log_folder):
        resumed = _resume(stage, model, optimizer, settings.checkpoint)
        if resumed:
            progress, best = resumed
        else:
            progress = Progress(run_epoch(judging_step, validation)[0], precision)
            best = model.get_weights()
        start -= progress.epoch_seconds[-1] if progress.epoch_seconds else 0.0
        for _ in range(progress.epochs):
            train.on_epoch_end()
        with _events(model, optimizer, settings.log_folder / stage.replace(" ", "-")) as note:
            while not progress.is_finished(settings.epochs, settings.patience):
                loss, accuracy = run_epoch(train_step, train, class_weights)
                train.on_epoch_end()
                val_loss, val_accuracy = run_epoch(judging_step, validation)
                metrics = {
                    "loss": loss,
                    "accuracy": accuracy,
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                }
                progress.add(metrics, time.monotonic() - start)
                if progress.best_epoch == progress.epochs:
                    best = model.get_weights()
                if settings.checkpoint:
                    settings.checkpoint.save(progress, _arrays(model, optimizer, progress, best))
                note(progress.epochs - 1, metrics)
                _report(stage, settings.epochs, progress.epochs, metrics)
    model.set_weights(best)
    return Fit(
        stage,
        progress.history,
        progress.best_epoch,
        progress.best_loss,
        progress.epoch_seconds,
        precision,
    )


def _optimizer(
    model: Any,
    steps: int,
    settings: FitSettings,
    rates: Sequence[float] | None,
    precision: str,
) -> Any:
    schedule = warm_up_and_cosine(steps, settings.learning_rate, settings.warm_up)
    rates = [1.0] * len(model.trainable_variables) if rates is None else rates
    optimizer = LayerwiseAdamW(schedule, settings.weight_decay, rates)
    if precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _class_weights(labels: np.ndarray, weights: np.ndarray | None, num_classes: int) -> np.ndarray:
    by_class = evaluation.class_weights(np.bincount(labels, weights).tolist()) or {}
    return np.array([by_class.get(index, 1.0) for index in range(num_classes)], dtype=np.float32)


def _resume(
    stage: str, model: Any, optimizer: Any, checkpoint: Checkpoint | None
) -> tuple[Progress, list[np.ndarray]] | None:
    found = checkpoint.load() if checkpoint else None
    if not checkpoint or not found:
        return None
    progress, arrays = found
    variables = _variables(model, optimizer)
    num_best = len([name for name in arrays if name.startswith("best-")])
    shapes = {name: tuple(variable.shape) for name, variable in variables}
    if shapes != {name: x.shape for name, x in arrays.items() if not name.startswith("best-")}:
        _log.warning("%s is of another network: the fit starts anew.", checkpoint.path)
        return None
    for name, variable in variables:
        variable.assign(arrays.pop(name))
    # Where none are kept apart, the weights of the last epoch are the best.
    best = [arrays[f"best-{index}"] for index in range(num_best)] or model.get_weights()
    _log.info("%s: going on after epoch %d.", stage, progress.epochs)
    return progress, best


def _variables(model: Any, optimizer: Any) -> list[tuple[str, Any]]:
    # `variables` has the state of the dropout's generators too, which `weights` has not.
    return [
        (f"{kind}-{index}", variable)
        for kind, part in (("model", model), ("optimizer", optimizer))
        for index, variable in enumerate(part.variables)
    ]


def _arrays(
    model: Any, optimizer: Any, progress: Progress, best: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, variable in _variables(model, optimizer):
        yield name, variable.numpy()
    if progress.best_epoch != progress.epochs:
        for index, weight in enumerate(best):
            yield f"best-{index}", weight


@contextlib.contextmanager
def _events(model: Any, optimizer: Any, folder: Path) -> Iterator[Any]:
    """Give what writes an epoch's metrics, and the rate, for TensorBoard."""
    model.compile(optimizer, auto_scale_loss=False)  # the callback reads the rate from there
    board = keras.callbacks.TensorBoard(str(folder), write_graph=False)
    board.set_model(model)
    board.on_train_begin()
    try:
        yield board.on_epoch_end
    finally:
        board.on_train_end()


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


def _report(stage: str, epochs: int, epoch: int, metrics: dict[str, float]) -> None:
    _log.info(
        "%s: epoch %d of %d, loss %.4f, validation loss %.4f, validation accuracy %.2f %%",
        stage,
        epoch,
        epochs,
        metrics["loss"],
        metrics["val_loss"],
        100 * metrics["val_accuracy"],
    )
