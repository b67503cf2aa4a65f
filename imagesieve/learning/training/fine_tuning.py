"""Learning proper: the head on features, the top blocks on maps, or a whole network on pixels.

Each function takes a network, trains some of its layers, and leaves in it the weights with the
lowest validation loss that it saw.
"""

import dataclasses
import logging
import math
import time
from typing import Any

import keras
import numpy as np

from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.batches import FeatureBatches, Features
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training.fit import Fit, FitSettings, compile_model, evaluate_loss, fit
from imagesieve.learning.training.optimizer import rates_by_depth

# Shares of the head's rate: of the block next to the head, and of the block behind the cut. A third
# of them left menus and non-menus less well told apart in all of three seeds, and less steadily.
_TOP_RATES = (0.3, 0.1)
# The same for the whole network: next to the head, and next to the pixels.
_ALL_RATES = (0.1, 0.003)
_EVALUATED_AT_ONCE = 256  # pooled features; batches as small as a training step's cost time

_FLOAT32 = "float32"
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
    return fit(
        "head",
        network.head,
        FeatureBatches(train, settings.batch_size, settings.seed),
        FeatureBatches(validation, _EVALUATED_AT_ONCE, settings.seed, shuffle=False),
        train.labels,
        settings,
        weights=train.weights,
    )


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
    return fit(
        "fine-tuning",
        upper,
        FeatureBatches(train, settings.batch_size, settings.seed),
        FeatureBatches(validation, settings.batch_size, settings.seed, shuffle=False),
        train.labels,
        settings,
        weights=train.weights,
        rates=rates_by_depth(upper, *_TOP_RATES),
    )


def fine_tune_all(
    network: Network, train: ImageIterator, validation: ImageIterator, settings: FitSettings
) -> Fit:
    """Train every layer of a pretrained network on pixels, the deeper the slower.

    It runs in mixed precision where that is measured to be quicker; the network stays in float32,
    and it is in float32 that the outcome is compared with the start. BatchNormalization stays in
    inference mode. If the validation loss is not lowered, the weights are left as they were.
    """
    _thaw(network.model)
    chosen = _precision(network, train, settings)
    if chosen == _FLOAT32:
        return _fit_all(network.model, train, validation, settings, chosen)
    mixed = rebuild(network.model, chosen)
    found = _fit_all(mixed, train, validation, settings, chosen)
    start_weights = network.model.get_weights()
    start_loss = evaluate_loss(network.model, validation)
    network.model.set_weights(mixed.get_weights())
    loss = evaluate_loss(network.model, validation)
    if found.best_epoch and loss < start_loss:
        return dataclasses.replace(found, validation_loss=loss)
    network.model.set_weights(start_weights)
    return dataclasses.replace(found, best_epoch=0, validation_loss=start_loss)


def train_from_scratch(
    network: Network, train: ImageIterator, validation: ImageIterator, settings: FitSettings
) -> Fit:
    """Train every layer on pixels, with a fresh augmentation of each image in each epoch."""
    train.reset()
    return fit(
        "network",
        network.model,
        train,
        validation,
        train.classes,
        settings,
        weights=train.weights,
    )


def probabilities(
    part: Any, features: Features, view: int = 0, batch_size: int = 256
) -> np.ndarray:
    """Return (images, outputs) float32: the outputs of a part of a network for one view."""
    numbers = np.arange(len(features))
    batches = [numbers[start : start + batch_size] for start in numbers[::batch_size]]
    return np.concatenate(
        [
            np.asarray(part.predict_on_batch(features.take(np.full(len(batch), view), batch)))
            for batch in batches
        ]
    )


def choose_precision(model: Any, images: np.ndarray, labels: np.ndarray) -> str:
    """Return the precision to train in, timed on one batch in single and in mixed precision.

    Args:
        model: a flat model in float32, with `trainable` set on its layers; not changed.
        images: a batch, (batch, height, width, 3) float32.
        labels: (batch,) class indices.

    Returns:
        `float32`, `mixed_bfloat16` or `mixed_float16`: mixed only if it is clearly quicker and its
        loss a number close to the other.
    """
    mixed = _mixed_policy()
    seconds, loss = _try(model, _FLOAT32, images, labels)
    mixed_seconds, mixed_loss = _try(model, mixed, images, labels)
    gain = seconds / mixed_seconds
    is_close = abs(mixed_loss - loss) <= _CLOSE * max(1.0, abs(loss))  # False for NaN
    chosen = mixed if gain >= _LEAST_GAIN and is_close else _FLOAT32
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


def rebuild(model: Any, policy: str) -> Any:
    """Return a copy of a flat model with the same weights and a Keras dtype policy.

    Scaling of pixels, pooling and head stay in float32, and so do the weights.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.Layer):  # a bare operation computes in what it is given
            return type(layer).from_config(config)
        if not _needs_float32(layer):
            config["dtype"] = policy
        copy = type(layer).from_config(config)
        copy.trainable = layer.trainable
        return copy

    uncompiled = keras.Model(model.input, model.output)  # a compiled one has its optimizer copied
    copy = keras.models.clone_model(uncompiled, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _thaw(part: Any) -> None:
    for layer in part.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def _precision(network: Network, train: ImageIterator, settings: FitSettings) -> str:
    begun = settings.checkpoint.progress() if settings.checkpoint else None
    if begun:
        return begun.precision  # measured again it might come out otherwise, halfway
    train.reset()
    return choose_precision(network.model, *train[0])


def _fit_all(
    model: Any,
    train: ImageIterator,
    validation: ImageIterator,
    settings: FitSettings,
    chosen: str,
) -> Fit:
    train.reset()
    return fit(
        "full fine-tuning",
        model,
        train,
        validation,
        train.classes,
        settings,
        weights=train.weights,
        rates=rates_by_depth(model, *_ALL_RATES),
        precision=chosen,
    )


def _needs_float32(layer: Any) -> bool:
    exact = (
        keras.layers.Rescaling,
        keras.layers.Normalization,
        keras.layers.GlobalAveragePooling2D,
    )
    return isinstance(layer, exact) or layer.name.startswith("head_")


def _mixed_policy() -> str:
    """Return the 16-bit policy for this machine: bfloat16, or float16 on GPUs before Ampere."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability")
        if capability and capability < (8, 0):
            return "mixed_float16"
    return "mixed_bfloat16"


def _try(model: Any, policy: str, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the seconds of a training step and the loss of the batch."""
    copy = rebuild(model, policy)
    compile_model(copy, 0.0, precision=policy)
    loss = copy.test_on_batch(images, labels, return_dict=True)["loss"]
    trained = copy.train_on_batch(images, labels, return_dict=True)["loss"]  # and compile it
    seconds = []
    for _ in range(_TIMED_STEPS):
        start = time.monotonic()
        trained = copy.train_on_batch(images, labels, return_dict=True)["loss"]
        seconds.append(time.monotonic() - start)
    return min(seconds), float(loss) if math.isfinite(trained) else math.nan
