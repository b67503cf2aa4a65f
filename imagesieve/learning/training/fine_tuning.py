"""Learning proper: the head on features, the top blocks on maps, or a whole network on pixels.

Each function takes a network, trains some of its layers, and leaves in it the weights with the
lowest validation loss that it saw.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.batches import FeatureBatches, Features
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fitting, mixed_precision
from imagesieve.learning.training.fitting import Fit, FitSettings
from imagesieve.learning.training.optimizer import rates_by_depth
from imagesieve.learning.training.steps import loss_step, run_epoch

__all__ = [
    "Fit",
    "FitSettings",
    "fine_tune",
    "fine_tune_all",
    "make_reproducible",
    "probabilities",
    "train_from_scratch",
    "train_head",
]

# Shares of the head's rate: of the block next to the head, and of the block behind the cut. A third
# of them left menus and non-menus less well told apart in all of three seeds, and less steadily.
_TOP_RATES = (0.3, 0.1)
# The same for the whole network: next to the head, and next to the pixels.
_ALL_RATES = (0.1, 0.003)
_JUDGED_AT_ONCE = 256  # pooled features; a batch as small as a training step's would only cost time


def make_reproducible(seed: int) -> None:
    """Seed every random generator and have TensorFlow add up in a fixed order."""
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_head(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> Fit:
    """Train the head on pooled features of the frozen base."""
    return fitting.fit(
        "head",
        network.head,
        FeatureBatches(train, settings.batch_size, settings.seed),
        FeatureBatches(validation, _JUDGED_AT_ONCE, settings.seed, shuffle=False),
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
    return fitting.fit(
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
    if chosen == mixed_precision.FLOAT32:
        return _fit_all(network.model, train, validation, settings, chosen)
    mixed = mixed_precision.rebuilt(network.model, chosen)
    fit = _fit_all(mixed, train, validation, settings, chosen)
    start_weights, start_loss = network.model.get_weights(), _loss(network.model, validation)
    network.model.set_weights(mixed.get_weights())
    loss = _loss(network.model, validation)
    if fit.best_epoch and loss < start_loss:
        return dataclasses.replace(fit, validation_loss=loss)
    network.model.set_weights(start_weights)
    return dataclasses.replace(fit, best_epoch=0, validation_loss=start_loss)


def train_from_scratch(
    network: Network, train: ImageIterator, validation: ImageIterator, settings: FitSettings
) -> Fit:
    """Train every layer on pixels, with a fresh augmentation of each image in each epoch."""
    train.reset()
    return fitting.fit(
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
    """Give (images, outputs) float32: what a part of a network makes of one view."""
    numbers = np.arange(len(features))
    batches = [numbers[start : start + batch_size] for start in numbers[::batch_size]]
    return np.concatenate(
        [
            np.asarray(part.predict_on_batch(features.take(np.full(len(batch), view), batch)))
            for batch in batches
        ]
    )


def _thaw(part: Any) -> None:
    for layer in part.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def _precision(network: Network, train: ImageIterator, settings: FitSettings) -> str:
    begun = settings.checkpoint.progress() if settings.checkpoint else None
    if begun:
        return begun.precision  # measured again it might come out otherwise, halfway
    train.reset()
    return mixed_precision.choose(network.model, *train[0])


def _fit_all(
    model: Any,
    train: ImageIterator,
    validation: ImageIterator,
    settings: FitSettings,
    chosen: str,
) -> Fit:
    train.reset()
    return fitting.fit(
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


def _loss(model: Any, images: ImageIterator) -> float:
    return run_epoch(loss_step(model), images)[0]
