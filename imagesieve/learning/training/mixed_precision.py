"""Half precision for training from pixels: taken where it is measured to be quicker."""

import logging
import math
import time
from typing import Any

import keras
import numpy as np

from imagesieve.learning.training.optimizer import LayerwiseAdamW
from imagesieve.learning.training.steps import loss_step, training_step

FLOAT32 = "float32"
_WANTED_GAIN = 1.15  # below this, a measurement on a busy machine proves nothing
_TIMED_STEPS = 3
_CLOSE = 0.05  # of the loss, in nats or as a share of it, whichever is more

_log = logging.getLogger(__name__)


def choose(model: Any, images: np.ndarray, labels: np.ndarray) -> str:
    """Time training steps in single and in mixed precision on one batch; give what to train in.

    Args:
        model: a flat model in float32, with `trainable` set on its layers; left as it is.
        images: a batch, (batch, height, width, 3) float32.
        labels: (batch,) class indices.

    Returns:
        `float32`, `mixed_bfloat16` or `mixed_float16`: mixed only if it is clearly quicker and its
        loss a number close to the other.
    """
    mixed = _mixed_policy()
    seconds, loss = _try(model, FLOAT32, images, labels)
    mixed_seconds, mixed_loss = _try(model, mixed, images, labels)
    gain = seconds / mixed_seconds
    is_close = abs(mixed_loss - loss) <= _CLOSE * max(1.0, abs(loss))  # False for NaN
    chosen = mixed if gain >= _WANTED_GAIN and is_close else FLOAT32
    _log.info(
        "A step takes %.2f s in float32 and %.2f s in %s (%.2f times as fast), with a loss of %.4f "
        "and %.4f: training in %s.",
        seconds,
        mixed_seconds,
        mixed,
        gain,
        loss,
        mixed_loss,
        chosen,
    )
    return chosen


def rebuilt(model: Any, policy: str) -> Any:
    """Give a flat model again with the same weights, computing under a Keras dtype policy.

    What scales pixels, what pools and what makes the head stay in float32. So do the weights.
    """

    def again(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.Layer):  # a bare operation computes in what it is given
            return type(layer).from_config(config)
        if not _needs_float32(layer):
            config["dtype"] = policy
        copy = type(layer).from_config(config)
        copy.trainable = layer.trainable
        return copy

    copy = keras.models.clone_model(model, clone_function=again)
    copy.set_weights(model.get_weights())
    return copy


def _needs_float32(layer: Any) -> bool:
    exact = (
        keras.layers.Rescaling,
        keras.layers.Normalization,
        keras.layers.GlobalAveragePooling2D,
    )
    return isinstance(layer, exact) or layer.name.startswith("head_")


def _mixed_policy() -> str:
    """Give the 16-bit format that the processor has: bfloat16 but on GPUs older than Ampere."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability")
        if capability and capability < (8, 0):
            return "mixed_float16"
    return "mixed_bfloat16"


def _try(model: Any, policy: str, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Give the seconds of a training step and the loss of the batch."""
    copy = rebuilt(model, policy)
    optimizer: Any = LayerwiseAdamW(0.0, 0.0, [1.0] * len(copy.trainable_variables))
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    batch = (images, labels.astype(np.int32), np.ones(len(labels), dtype=np.float32))
    loss = float(loss_step(copy)(*batch)[0]) / len(labels)
    step = training_step(copy, optimizer)
    step(*batch)  # the first one compiles
    seconds = []
    for _ in range(_TIMED_STEPS):
        start = time.monotonic()
        trained = float(step(*batch)[0])
        seconds.append(time.monotonic() - start)
    return min(seconds), loss if math.isfinite(trained) else math.nan
