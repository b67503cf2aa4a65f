"""One fit of a model: Keras's `fit`, resumable after each epoch, ending with its best weights."""

import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from imagesieve.errors import ImageError
from imagesieve.files import output_error
from imagesieve.learning.data.dataset import changed_since
from imagesieve.learning.training import evaluation
from imagesieve.learning.training.checkpoints import Checkpoint, Progress
from imagesieve.learning.training.optimizer import LayerwiseAdamW, warm_up_and_cosine

_FEEDERS = 2  # batches that are made at once, by threads that may use more of their own
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")

_log = logging.getLogger(__name__)


class Batches(Protocol):
    """The batches of an epoch, which depend on the epoch and their number alone."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (batch, …) float32 and class indices (batch,).

        It is called from several threads at once.
        """

    def weights_of(self, index: int, /) -> np.ndarray:
        """Return how many times each image of a batch counts, (batch,) float32."""

    def on_epoch_end(self) -> None:
        """Go on to the next epoch."""


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Settings of one fit.

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
        checkpoint: where the state after each epoch is saved and resumed from; the caller removes
            it once the result is safe.
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
    """The outcome of a fit.

    Attributes:
        stage: `head`, `fine-tuning`, `full fine-tuning` or `network`.
        history: metric name -> value after each epoch.
        best_epoch: the epoch, from 1, whose weights are used; 0 when none was better than the
            start.
        validation_loss: of these weights.
        epoch_seconds: from the start of the fit to the end of each epoch, without the time between
            an interruption and the resumption.
        precision: `float32`, or the Keras dtype policy of the fit.
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
    """Train the trainable variables of a model; end with the weights of the lowest loss.

    Args:
        stage: name of the fit.
        model: from inputs (batch, …) to probabilities (batch, classes) float32.
        train: what to learn, at its first epoch.
        validation: decides which epoch is the best.
        labels: (training images,) class indices, for the classes' weights.
        settings: see there.
        weights: (training images,) how many times each counts, for the classes' weights too; all
            once by default.
        rates: factors of the learning rate, one for each trainable variable; 1 by default.
        precision: the dtype policy that the model was built for; float16 has its loss scaled.

    Raises:
        DataError: an image changed since it was checked, or the checkpoint cannot be read.
        OutputError: the log or the checkpoint cannot be written.
    """
    start = time.monotonic()
    schedule = warm_up_and_cosine(
        len(train) * settings.epochs, settings.learning_rate, settings.warm_up
    )
    compile_model(model, schedule, settings.weight_decay, rates, precision)
    class_weights = _class_weights(labels, weights, model.output_shape[-1])
    failures: list[Exception] = []
    with _reporting_failures(settings.log_folder, failures):
        validation_batches = _dataset(validation, model, failures)
        resumed = _resume(stage, model, settings.checkpoint)
        if resumed:
            progress, best = resumed
        else:
            progress = Progress(
                model.evaluate(validation_batches, verbose=0, return_dict=True)["loss"]
            )
            progress.precision, best = precision, model.get_weights()
        for _ in range(progress.epochs):
            train.on_epoch_end()
        keeper = _EpochEnd(stage, settings, train, progress, best, start)
        if not progress.is_finished(settings.epochs, settings.patience):
            folder = settings.log_folder / stage.replace(" ", "-")
            model.fit(
                _dataset(train, model, failures, class_weights),
                validation_data=validation_batches,
                initial_epoch=progress.epochs,
                epochs=settings.epochs,
                callbacks=[keras.callbacks.TensorBoard(str(folder), write_graph=False), keeper],
                shuffle=False,  # the batches are in order
                verbose=0,
            )
    model.set_weights(keeper.best)
    return Fit(
        stage,
        progress.history,
        progress.best_epoch,
        progress.best_loss,
        progress.epoch_seconds,
        precision,
    )


def compile_model(
    model: Any,
    learning_rate: Any,
    weight_decay: float = 0.0,
    rates: Sequence[float] | None = None,
    precision: str = "float32",
) -> None:
    """Compile a classifier with a new optimizer, whose variables are built."""
    rates = [1.0] * len(model.trainable_variables) if rates is None else rates
    optimizer: Any = LayerwiseAdamW(learning_rate, weight_decay, rates)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,  # compiling with XLA takes longer than a small training on a CPU
        auto_scale_loss=False,
    )


def evaluate_loss(model: Any, batches: Batches) -> float:
    """Return the mean log loss of a model over batches, in nats.

    Raises:
        DataError: an image changed since it was checked.
    """
    compile_model(model, 0.0)
    failures: list[Exception] = []
    with _reporting_failures(None, failures):
        found = model.evaluate(_dataset(batches, model, failures), verbose=0, return_dict=True)
    return float(found["loss"])


class _EpochEnd(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Save the state after each epoch, and stop early by all epochs, those before a resume too.

    Keras's own `EarlyStopping` forgets its best epoch when a fit is resumed.
    """

    def __init__(
        self,
        stage: str,
        settings: FitSettings,
        train: Batches,
        progress: Progress,
        best: list[np.ndarray],
        start: float,
    ) -> None:
        super().__init__()
        self.best = best
        self._stage = stage
        self._settings = settings
        self._train = train
        self._progress = progress
        self._start = start - (progress.epoch_seconds[-1] if progress.epoch_seconds else 0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See the class."""
        self._train.on_epoch_end()
        metrics = {name: float((logs or {})[name]) for name in _METRICS}
        progress, settings = self._progress, self._settings
        progress.add(metrics, time.monotonic() - self._start)
        if progress.best_epoch == progress.epochs:
            self.best = self.model.get_weights()
        if settings.checkpoint:
            settings.checkpoint.save(progress, _arrays(self.model, progress, self.best))
        _log.info(
            "%s: epoch %d of %d, loss %.4f, validation loss %.4f, validation accuracy %.2f %%",
            self._stage,
            progress.epochs,
            settings.epochs,
            metrics["loss"],
            metrics["val_loss"],
            100 * metrics["val_accuracy"],
        )
        self.model.stop_training = progress.is_finished(settings.epochs, settings.patience)


def _dataset(
    batches: Batches,
    model: Any,
    failures: list[Exception],
    class_weights: np.ndarray | None = None,
) -> Any:
    """Return a `tf.data.Dataset` of one epoch: inputs, labels, weights.

    Keras's own feeding of a `PyDataset` has one thread, or threads that were seen to hang. An error
    in a batch is appended to `failures`, for TensorFlow only keeps its text.
    """
    import tensorflow as tf

    def load(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            inputs, labels = batches[int(index)]
            weights = batches.weights_of(int(index))
            labels = labels.astype(np.int32)
            if class_weights is not None:
                weights = weights * class_weights[labels]
        except Exception as error:
            failures.append(error)
            raise
        return inputs, labels, weights

    def tensors(index: Any) -> tuple[Any, Any, Any]:
        # "Stateless" lets calls overlap although operations are deterministic.
        inputs, labels, weights = tf.numpy_function(
            load, [index], (tf.float32, tf.int32, tf.float32), stateful=False
        )
        inputs.set_shape((None, *model.input_shape[1:]))
        labels.set_shape((None,))
        weights.set_shape((None,))
        return inputs, labels, weights

    numbers = tf.data.Dataset.range(len(batches))
    return numbers.map(tensors, num_parallel_calls=_FEEDERS, deterministic=True)


def _class_weights(labels: np.ndarray, weights: np.ndarray | None, num_classes: int) -> np.ndarray:
    by_class = evaluation.class_weights(np.bincount(labels, weights).tolist()) or {}
    return np.array([by_class.get(index, 1.0) for index in range(num_classes)], dtype=np.float32)


def _resume(
    stage: str, model: Any, checkpoint: Checkpoint | None
) -> tuple[Progress, list[np.ndarray]] | None:
    found = checkpoint.load() if checkpoint else None
    if not checkpoint or not found:
        return None
    progress, arrays = found
    variables = _variables(model)
    num_best = len([name for name in arrays if name.startswith("best-")])
    shapes = {name: tuple(variable.shape) for name, variable in variables}
    if shapes != {name: x.shape for name, x in arrays.items() if not name.startswith("best-")}:
        _log.warning("%s is of another network: the fit starts anew.", checkpoint.path)
        return None
    for name, variable in variables:
        variable.assign(arrays.pop(name))
    # Where none are saved apart, the weights of the last epoch are the best.
    best = [arrays[f"best-{index}"] for index in range(num_best)] or model.get_weights()
    _log.info("%s: going on after epoch %d.", stage, progress.epochs)
    return progress, best


def _variables(model: Any) -> list[tuple[str, Any]]:
    # `variables` has the state of the dropout's generators too, which `weights` has not.
    return [
        (f"{kind}-{index}", variable)
        for kind, part in (("model", model), ("optimizer", model.optimizer))
        for index, variable in enumerate(part.variables)
    ]


def _arrays(
    model: Any, progress: Progress, best: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, variable in _variables(model):
        yield name, variable.numpy()
    if progress.best_epoch != progress.epochs:
        for index, weight in enumerate(best):
            yield f"best-{index}", weight


@contextlib.contextmanager
def _reporting_failures(log_folder: Path | None, failures: list[Exception]) -> Iterator[None]:
    """Raise what made TensorFlow fail: the error of a batch, a full disk, or too little memory."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if failures:
            cause = failures[0]
            raise (changed_since(cause) if isinstance(cause, ImageError) else cause) from error
        if not isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        full = os.strerror(errno.ENOSPC)
        if log_folder and full in str(error):  # of TensorBoard's events
            raise output_error(log_folder, OSError(errno.ENOSPC, full)) from error
        raise MemoryError(str(error)) from error
