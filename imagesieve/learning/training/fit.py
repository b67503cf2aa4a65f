"""One fit of a model: Keras's `fit`, resumable after each epoch, ending with its best weights."""

import contextlib
import dataclasses
import errno
import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from imagesieve.errors import ImageError
from imagesieve.files import output_error
from imagesieve.learning.data.dataset import changed_since
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.store import Features
from imagesieve.learning.training import evaluation
from imagesieve.learning.training.checkpoints import Checkpoint, FitProgress
from imagesieve.learning.training.optimizer import LayerwiseAdamW, warm_up_and_cosine

_PATIENCE = 5  # epochs without a lower validation loss after which a fit ends
_WARM_UP = 0.05  # share of the steps in which the rate rises from zero
_WEIGHT_DECAY = 1e-4  # of AdamW (Loshchilov and Hutter 2019)
_EVALUATED_AT_ONCE = 256  # features: batches as small as a training step's cost time
_FEEDERS = 2  # batches that are made at once, by threads that may use more of their own
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
_BEST = "best-"  # of the names of arrays in a checkpoint

_log = logging.getLogger(__name__)


class FeatureBatches:
    """Batches of features: each image once an epoch, in one of its views drawn by chance.

    Any thread may take a batch, but for `on_epoch_end`, which is the caller's alone.
    """

    def __init__(
        self, features: Features, batch_size: int, seed: int, *, shuffle: bool = True
    ) -> None:
        self.labels, self.weights = features.labels, features.weights
        self._features = features
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._features) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 features (batch, …) and their labels (batch,)."""
        chosen = self._chosen(index)
        return self._features.take(self._views[chosen], chosen), self.labels[chosen]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def weights_of(self, index: int) -> np.ndarray:
        """Return how many times each image of a batch counts, (batch,) float32."""
        chosen = self._chosen(index)
        return np.ones(len(chosen), np.float32) if self.weights is None else self.weights[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch: draw its order and views."""
        self._epoch += 1
        count = len(self._features)
        self._order, self._views = np.arange(count), np.zeros(count, dtype=np.int64)
        if self._shuffle:
            random = np.random.default_rng((self._seed, self._epoch))
            self._order = random.permutation(count)
            self._views = random.integers(self._features.values.shape[0], size=count)

    def _chosen(self, index: int) -> np.ndarray:
        return self._order[index * self._batch_size : (index + 1) * self._batch_size]


Batches = FeatureBatches | ImageIterator


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Settings of one fit."""

    epochs: int  # at most; early stopping usually ends sooner
    # At its peak, after the warm-up; it then falls to zero along a cosine (Loshchilov and Hutter
    # 2017, SGDR without restarts).
    learning_rate: float
    batch_size: int  # images in a step
    seed: int  # of order, views and dropout
    log_folder: Path  # TensorBoard events go here
    # Where the state after each epoch is saved and resumed from; the caller removes it once the
    # result is safe.
    checkpoint: Checkpoint | None = None


def fit(
    stage: str,
    model: Any,
    train: Batches,
    validation: Batches,
    settings: FitSettings,
    *,
    rates: Sequence[float] | None = None,
) -> FitProgress:
    """Train the trainable variables of a model; end with the weights of the lowest loss.

    Classes weigh the same in the loss, whatever the number of their images. `rates` are factors of
    the learning rate, one for each trainable variable; 1 by default.

    Raises:
        DataError: an image changed since it was checked, or the checkpoint cannot be read.
        OutputError: the log or the checkpoint cannot be written.
    """
    start = time.monotonic()
    schedule = warm_up_and_cosine(len(train) * settings.epochs, settings.learning_rate, _WARM_UP)
    _compile(model, schedule, rates)
    class_weights = evaluation.class_weights(train.labels, train.weights, model.output_shape[-1])
    with _reporting_failures(settings.log_folder) as failures:
        validation_batches = _dataset(validation, model, failures)
        resumed = _resume(stage, model, settings.checkpoint)
        if resumed is None:
            loss = model.evaluate(validation_batches, verbose=0, return_dict=True)["loss"]
            resumed = FitProgress(stage, {}, 0, loss, []), model.get_weights()
        end = _EpochEnd(*resumed, settings, train, start)
        for _ in range(end.fit.epochs):
            train.on_epoch_end()
        if not end.fit.is_finished(settings.epochs, _PATIENCE):
            folder = settings.log_folder / stage.replace(" ", "-")
            model.fit(
                _dataset(train, model, failures, class_weights.astype(np.float32)),
                validation_data=validation_batches,
                initial_epoch=end.fit.epochs,
                epochs=settings.epochs,
                callbacks=[keras.callbacks.TensorBoard(str(folder), write_graph=False), end],
                shuffle=False,  # the batches are in order
                verbose=0,
            )
    model.set_weights(end.best)
    return end.fit


def _compile(model: Any, learning_rate: Any, rates: Sequence[float] | None) -> None:
    """Compile a classifier with a new optimizer, whose variables are built."""
    rates = [1.0] * len(model.trainable_variables) if rates is None else rates
    optimizer = LayerwiseAdamW(learning_rate, _WEIGHT_DECAY, rates)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,  # compiling with XLA takes longer than a small training on a CPU
        auto_scale_loss=False,
    )


def in_order(features: Features, batch_size: int = _EVALUATED_AT_ONCE) -> FeatureBatches:
    """Return batches of the images as they are, in order."""
    return FeatureBatches(features, batch_size, 0, shuffle=False)


def probabilities(model: Any, batches: Batches) -> npt.NDArray[np.float32]:
    """Return (images, classes): what a model gives for the images of an epoch, in order.

    A DataError is raised if an image changed since it was checked.
    """
    model.jit_compile = False
    try:
        found = [model.predict_on_batch(x) for x, _ in itertools.islice(batches, len(batches))]
    except ImageError as error:
        raise changed_since(error) from error
    return np.concatenate(found)


class _EpochEnd(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Save the state after each epoch, and stop early by all epochs, those before a resume too.

    Keras's own `EarlyStopping` forgets its best epoch when a fit is resumed.
    """

    def __init__(
        self,
        fit: FitProgress,
        best: list[np.ndarray],
        settings: FitSettings,
        train: Batches,
        start: float,
    ) -> None:
        super().__init__()
        self.fit, self.best = fit, best
        self._settings, self._train = settings, train
        self._start = start - (fit.epoch_seconds[-1] if fit.epoch_seconds else 0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._train.on_epoch_end()
        fit, settings = self.fit, self._settings
        fit.add({name: logs[name] for name in _METRICS}, time.monotonic() - self._start)
        if fit.best_epoch == fit.epochs:
            self.best = self.model.get_weights()
        if settings.checkpoint:
            settings.checkpoint.save(fit, _arrays(self.model, fit, self.best))
        _log.info(
            "%s: epoch %d of %d, loss %.4f, validation loss %.4f, validation accuracy %.2f %%",
            *(fit.stage, fit.epochs, settings.epochs, logs["loss"], logs["val_loss"]),
            100 * logs["val_accuracy"],
        )
        self.model.stop_training = fit.is_finished(settings.epochs, _PATIENCE)


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
        except Exception as error:
            failures.append(error)
            raise
        labels = labels.astype(np.int32)
        return inputs, labels, weights if class_weights is None else weights * class_weights[labels]

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


def _resume(
    stage: str, model: Any, checkpoint: Checkpoint | None
) -> tuple[FitProgress, list[np.ndarray]] | None:
    """Set all variables of a model to the saved state; return it and the best weights, if any."""
    found = checkpoint.load() if checkpoint else None
    if not checkpoint or not found:
        return None
    fit, arrays = found
    # Where none are saved apart, the weights of the last epoch are the best.
    best = [arrays.pop(name) for name in list(arrays) if name.startswith(_BEST)]
    variables = _variables(model)
    shapes = {name: tuple(variable.shape) for name, variable in variables}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        _log.warning("%s is of another network: the fit starts anew.", checkpoint.path)
        return None
    for name, variable in variables:
        variable.assign(arrays.pop(name))
    _log.info("%s: going on after epoch %d.", stage, fit.epochs)
    return fit, best or model.get_weights()


def _variables(model: Any) -> list[tuple[str, Any]]:
    # `variables` has the state of the dropout's generators too, which `weights` has not.
    return [
        (f"{kind}-{index}", variable)
        for kind, part in (("model", model), ("optimizer", model.optimizer))
        for index, variable in enumerate(part.variables)
    ]


def _arrays(
    model: Any, fit: FitProgress, best: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, variable in _variables(model):
        yield name, variable.numpy()
    if fit.best_epoch != fit.epochs:
        for index, weight in enumerate(best):
            yield f"{_BEST}{index}", weight


@contextlib.contextmanager
def _reporting_failures(log_folder: Path) -> Iterator[list[Exception]]:
    """Raise what made TensorFlow fail: a batch's error, a full disk, or too little memory.

    Errors of batches are noted in the list that is yielded.
    """
    import tensorflow as tf

    failures: list[Exception] = []
    try:
        yield failures
    except tf.errors.OpError as error:
        if failures:
            cause = failures[0]
            raise (changed_since(cause) if isinstance(cause, ImageError) else cause) from error
        if not isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        full = os.strerror(errno.ENOSPC)
        if full in str(error):  # of TensorBoard's events
            raise output_error(log_folder, OSError(errno.ENOSPC, full)) from error
        raise MemoryError(str(error)) from error
