"""Further training of a pretrained network: its head on features, its top blocks on maps, or all.

Each function takes a network, trains some of its layers, and leaves in it the weights with the
lowest validation loss that it saw.
"""

from typing import Any

import keras

from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.store import Features
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training.checkpoints import FitProgress
from imagesieve.learning.training.fit import FeatureBatches, FitSettings, fit, in_order
from imagesieve.learning.training.optimizer import rates_by_depth

# Shares of the head's rate: of the block next to the head, and of the block behind the cut. A third
# of them left menus and non-menus less well told apart in all of three seeds, and less steadily.
_TOP_RATES = (0.3, 0.1)
# The same for the whole network: next to the head, and next to the pixels.
_ALL_RATES = (0.1, 0.003)


def make_reproducible(seed: int) -> None:
    """Seed every random generator and have TensorFlow add up in a fixed order."""
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_dense_head(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> FitProgress:
    """Train the head on pooled features of the frozen base."""
    batches = FeatureBatches(train, settings.batch_size, settings.seed)
    return fit("head", network.head, batches, in_order(validation), settings)


def fine_tune(
    network: Network, train: Features, validation: Features, settings: FitSettings
) -> FitProgress:
    """Train the blocks above the cut and the head on maps of the frozen blocks below.

    The head learns at the full rate, the blocks before it at a third of it and less, the least
    behind the cut. BatchNormalization stays in inference mode: the statistics of small batches ruin
    a pretrained network. If no epoch lowers the validation loss, the weights are left as they were.
    """
    upper = network.upper()
    _thaw(upper)
    batches = FeatureBatches(train, settings.batch_size, settings.seed)
    rates = rates_by_depth(upper, *_TOP_RATES)
    plain = in_order(validation, settings.batch_size)
    return fit("fine-tuning", upper, batches, plain, settings, rates=rates)


def fine_tune_all(
    network: Network, train: ImageIterator, validation: ImageIterator, settings: FitSettings
) -> FitProgress:
    """Train every layer of a pretrained network on pixels, the deeper the slower.

    BatchNormalization stays in inference mode. If the validation loss is not lowered, the weights
    are left as they were.
    """
    _thaw(network.model)
    train.reset()
    rates = rates_by_depth(network.model, *_ALL_RATES)
    return fit("full fine-tuning", network.model, train, validation, settings, rates=rates)


def _thaw(part: Any) -> None:
    for layer in part.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
