"""Steps over batches: one that trains, one that only judges, and a whole epoch of either."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np

from imagesieve.errors import ImageError
from imagesieve.learning.data.dataset import changed_since
from imagesieve.prediction.ahead import map_ahead

_FEEDERS = 2  # threads, which may use more of their own; each holds a batch in memory

Step = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


class Batches(Protocol):
    """What feeds an epoch: batches that depend on the epoch and their number alone."""

    def __len__(self) -> int:
        """Give the number of batches in an epoch."""

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        """Give what goes into the model, (batch, …) float32, and class indices (batch,).

        It is called from several threads at once.
        """

    def weights_of(self, index: int, /) -> np.ndarray:
        """Give how many times each image of a batch counts, (batch,) float32."""

    def on_epoch_end(self) -> None:
        """Go on to the next epoch."""


def training_step(model: Any, optimizer: Any) -> Step:
    """Give a step that trains what is trainable in a model.

    Args:
        model: from inputs (batch, …) to probabilities (batch, classes) float32.
        optimizer: built here.

    Returns:
        A function of inputs (batch, …) float32, class indices (batch,) int32 and weights (batch,)
        float32. It gives the sum of the weighted losses and the number of right answers, (2,)
        float32. It is compiled once, for batches of any size.
    """
    import tensorflow as tf

    optimizer.build(model.trainable_variables)

    def train(inputs: Any, labels: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = tf.reduce_mean(_losses(labels, outputs) * weights)
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return _sums(loss, labels, outputs)

    return _compiled(train, model)


def loss_step(model: Any) -> Step:
    """Give a step as `training_step` does, but one that changes nothing."""
    import tensorflow as tf

    def judge(inputs: Any, labels: Any, weights: Any) -> Any:
        outputs = model(inputs, training=False)
        return _sums(tf.reduce_mean(_losses(labels, outputs) * weights), labels, outputs)

    return _compiled(judge, model)


def run_epoch(
    step: Step, batches: Batches, class_weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Take a step with each batch of an epoch, which is not ended here.

    Args:
        step: of `training_step` or `loss_step`.
        batches: what to run over.
        class_weights: (classes,) float32, by which the images' own weights are multiplied; all 1
            by default.

    Returns:
        The mean loss, as weighted, and the accuracy.

    Raises:
        DataError: an image changed since it was checked.
    """
    sums = []
    count = 0
    for index, (inputs, given) in enumerate(_fed(batches)):
        labels = given.astype(np.int32)
        weights = batches.weights_of(index)
        if class_weights is not None:
            weights = weights * class_weights[labels]
        sums.append(step(inputs, labels, weights))
        count += len(labels)
    loss, right = np.sum([np.asarray(pair, dtype=np.float64) for pair in sums], axis=0).tolist()
    return loss / count, right / count


def _compiled(function: Step, model: Any) -> Step:
    import tensorflow as tf

    signature = (
        tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None,), tf.float32),
    )
    # Compiling with XLA takes longer than a small training on a CPU.
    compiled: Step = tf.function(
        function, input_signature=signature, autograph=False, jit_compile=False
    )
    return compiled


def _losses(labels: Any, outputs: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(labels, outputs)


def _sums(mean_loss: Any, labels: Any, outputs: Any) -> Any:
    import tensorflow as tf

    right = tf.equal(tf.argmax(outputs, axis=1, output_type=labels.dtype), labels)
    count = tf.cast(tf.size(labels), tf.float32)
    return tf.stack([mean_loss * count, tf.reduce_sum(tf.cast(right, tf.float32))])


def _fed(batches: Batches) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches in order, while threads prepare the next ones."""
    numbers = range(len(batches))
    try:
        yield from map_ahead(batches.__getitem__, numbers, threads=_FEEDERS, ahead=_FEEDERS)
    except ImageError as error:
        raise changed_since(error) from error
