"""Further training of a pretrained network: its head on features, its top blocks on maps, or all.

Each function takes a network, trains some of its layers, and leaves in it the weights with the
lowest validation loss that it saw.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.batches import FeatureBatches, Features
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import evaluation
from imagesieve.learning.training.checkpoints import Fit
from imagesieve.learning.training.fit import (
    FLOAT32,
    FitSettings,
    compile_model,
    fit,
    probabilities,
)
from imagesieve.learning.training.optimizer import rates_by_depth

# Shares of the head's rate: of the block next to the head, and of the block behind the cut. A third
# of them left menus and non-menus less well told apart in all of three seeds, and less steadily.
_TOP_RATES = (0.3, 0.1)
# The same for the whole network: next to the head, and next to the pixels.
_ALL_RATES = (0.1, 0.003)

_LEAST_GAIN = 1.15  # in speed; on a busy machine a smaller one may be chance
_TIMED_STEPS = 3
_CLOSE = 0.05  # of the loss, in nats or as a share of it, whichever is more

_log = logging.getLogger(__name__)


def make_reproducible(seed: int) -> None:
    """Seed every random generator and have TensorFlow add up in a fixed order."""
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_head(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> Fit:
    """Train the head on pooled features of the frozen base."""
    batches = FeatureBatches(train, settings.batch_size, settings.seed)
    return fit("head", network.head, batches, validation.plain(), settings)


def fine_tune(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> Fit:
    """Train the blocks above the cut and the head on maps of the frozen blocks below.

    The head learns at the full rate, the blocks before it at a third of it and less, the least
    behind the cut. BatchNormalization stays in inference mode: the statistics of small batches ruin
    a pretrained network. If no epoch lowers the validation loss, the weights are left as they were.
    """
    upper = network.upper()
    _thaw(upper)
    batches = FeatureBatches(train, settings.batch_size, settings.seed)
    rates = rates_by_depth(upper, *_TOP_RATES)
    plain = validation.plain(settings.batch_size)
    return fit("fine-tuning", upper, batches, plain, settings, rates=rates)


def fine_tune_all(
    network: Network, train: ImageIterator, validation: ImageIterator, settings: FitSettings
) -> Fit:
    """Train every layer of a pretrained network on pixels, the deeper the slower.

    It runs in mixed precision where that is measured to be quicker; the network stays in float32,
    and it is in float32 that the outcome is compared with the start. BatchNormalization stays in
    inference mode. If the validation loss is not lowered, the weights are left as they were.
    """
    model = network.model
    _thaw(model)
    train.reset()
    begun = settings.checkpoint.progress() if settings.checkpoint else None
    # Measured again it might come out otherwise, halfway.
    precision = begun.precision if begun else choose_precision(model, *train[0])
    start = None
    if precision != FLOAT32:
        start = model.get_weights(), _loss(model, validation)
    with _computing_in(model, precision):
        found = fit(
            "full fine-tuning",
            model,
            train,
            validation,
            settings,
            rates=rates_by_depth(model, *_ALL_RATES),
            precision=precision,
        )
    if start is None:
        return found
    start_weights, start_loss = start
    loss = _loss(model, validation)
    if found.best_epoch and loss < start_loss:
        return dataclasses.replace(found, validation_loss=loss)
    model.set_weights(start_weights)
    return dataclasses.replace(found, best_epoch=0, validation_loss=start_loss)


def choose_precision(model: Any, images: np.ndarray, labels: np.ndarray) -> str:
    """Return the precision to train in: `float32`, `mixed_bfloat16` or `mixed_float16`.

    Both are timed on one batch: mixed only if it is clearly quicker and its loss a number close to
    the other. The model, in float32 with `trainable` set on its layers, is not changed.
    """
    mixed = _mixed_policy()
    seconds, loss = _try(model, FLOAT32, images, labels)
    mixed_seconds, mixed_loss = _try(model, mixed, images, labels)
    gain = seconds / mixed_seconds
    is_close = abs(mixed_loss - loss) <= _CLOSE * max(1.0, abs(loss))  # False for NaN
    chosen = mixed if gain >= _LEAST_GAIN and is_close else FLOAT32
    _log.info(
        "A step takes %.2f s in float32 and %.2f s in %s (%.2f times as fast), with a loss of %.4f "
        "and %.4f: training in %s.",
        *(seconds, mixed_seconds, mixed, gain, loss, mixed_loss, chosen),
    )
    return chosen


def _loss(model: Any, images: ImageIterator) -> float:
    return evaluation.log_loss(images.labels, probabilities(model, images))


def _thaw(part: Any) -> None:
    for layer in part.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


@contextlib.contextmanager
def _computing_in(model: Any, policy: str) -> Iterator[None]:
    """Have a model compute in a Keras dtype policy; compile it inside the block, and again after.

    Scaling of pixels, pooling and head stay in float32, and so do the weights.
    """
    exact = (
        keras.layers.Rescaling,
        keras.layers.Normalization,
        keras.layers.GlobalAveragePooling2D,
    )
    inexact = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.Layer)  # a bare operation computes in what it is given
        and not isinstance(layer, exact)
        and not layer.name.startswith("head_")
    ]
    policies = [layer.dtype_policy for layer in inexact]
    try:
        for layer in inexact:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, before in zip(inexact, policies, strict=True):
            layer.dtype_policy = before


def _mixed_policy() -> str:
    """Return the 16-bit policy for this machine: bfloat16, or float16 on GPUs before Ampere."""
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    is_old = any((x.get("compute_capability") or (8, 0)) < (8, 0) for x in details)
    return "mixed_float16" if is_old else "mixed_bfloat16"


def _try(model: Any, policy: str, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the seconds of a training step and the loss of the batch; change nothing."""
    before = [(variable, variable.numpy()) for variable in model.variables]
    with _computing_in(model, policy):
        compile_model(model, 0.0, precision=policy)
        loss = model.test_on_batch(images, labels, return_dict=True)["loss"]
        trained = model.train_on_batch(images, labels, return_dict=True)["loss"]  # and compile it
        seconds = []
        for _ in range(_TIMED_STEPS):
            start = time.monotonic()
            trained = model.train_on_batch(images, labels, return_dict=True)["loss"]
            seconds.append(time.monotonic() - start)
    for variable, value in before:  # a rate of 0 leaves them, unless a gradient is no number
        variable.assign(value)
    return min(seconds), float(loss) if math.isfinite(trained) else math.nan
