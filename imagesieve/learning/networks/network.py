"""A backbone with a head: one flat Keras model, and the parts of it that are trained alone.

The model is flat (no model within a model), so that layers can be found by name, Grad-CAM works and
exporters see one graph. Pixels 0 to 255 go in, probabilities come out.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagesieve.errors import DataError, ModelDamagedError
from imagesieve.learning.networks import backbones

HIDDEN_UNITS = 512  # of the head, as in the first generation
DROPOUT = 0.5
FEATURE_DEVIATION = 0.1  # of standardised features

_STANDARDISE = "head_standardise"
_HIDDEN = "head_hidden"
_PROBABILITIES = "head_probabilities"


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A classifier and its parts, which share their layers."""

    backbone: backbones.Backbone
    model: Any  # float32 pixels (batch, height, width, 3), 0 to 255, to (batch, classes) float32
    base: Any  # pixels to pooled features
    head: Any  # pooled features to probabilities

    @classmethod
    def of(cls, backbone: backbones.Backbone, model: Any) -> "Network":
        """Find the parts of a model that `build` made; raise a ModelDamagedError for any other."""
        heads = [layer for layer in model.layers if layer.name.startswith("head_")]
        if not heads or heads[-1].name != _PROBABILITIES:
            raise ModelDamagedError(
                "The model has no head made by this program: it cannot be trained further."
            )
        pooled = heads[0].input
        base, head = keras.Model(model.input, pooled), keras.Model(pooled, model.output)
        return cls(backbone, model, base, head)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.model.input_shape[1:3]
        return height, width

    @property
    def is_logistic(self) -> bool:
        """Whether the head is a logistic regression, without hidden units."""
        return all(layer.name != _HIDDEN for layer in self.model.layers)

    def lower(self) -> Any:
        """Return the part below the cut: pixels to maps. It stays frozen in fine-tuning."""
        return keras.Model(self.model.input, self._cut())

    def upper(self) -> Any:
        """Return the part above the cut with the head: maps to probabilities."""
        return keras.Model(self._cut(), self.model.output)

    def upper_base(self) -> Any:
        """Return the part above the cut without the head: maps to pooled features."""
        return keras.Model(self._cut(), self.base.output)

    def _cut(self) -> Any:
        return self.model.get_layer(self.backbone.cut_layer).output

    def standardise(self, features: np.ndarray) -> None:
        """Set the head's standardisation from pooled features, (…, num_features).

        A feature that hardly varies in training must not become huge for an image in which it
        does, so no deviation counts for less than a twentieth of the mean deviation. The result
        deviates by a tenth, not by one: 512 hidden units on thousands of larger inputs overfit a
        few hundred images within an epoch or two.
        """
        flat = features.reshape(-1, features.shape[-1])
        deviation = flat.std(axis=0)
        floor = 0.05 * float(deviation.mean()) + 1e-6
        layer = self.model.get_layer(_STANDARDISE)
        wanted = np.maximum(deviation, floor) / FEATURE_DEVIATION
        layer.set_weights([flat.mean(axis=0), wanted**2])


def build(
    backbone: backbones.Backbone,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    weights_path: Path | None,
    seed: int,
) -> Network:
    """Build a backbone with an untrained head; see `backbones.build`."""
    base = backbones.build(backbone, image_size, weights_path=weights_path, seed=seed)
    keras.utils.set_random_seed(seed)
    return Network.of(backbone, keras.Model(base.input, _head(backbone, base.output, num_classes)))


def with_classes(network: Network, old: Sequence[str], new: Sequence[str], seed: int) -> Network:
    """Return a network for `new` classes; the weights of the `old` ones, by name, stay.

    A DataError is raised if an old class is missing. The seed is that of the new classes' weights.
    """
    missing = sorted(set(old) - set(new))
    if missing:
        raise DataError(
            f"The model knows the classes {', '.join(missing)}, which the data folder lacks: add "
            "their images, or train a new model."
        )
    if list(old) == list(new):
        return network
    keras.utils.set_random_seed(seed)
    last = network.model.get_layer(_PROBABILITIES)
    grown = _ending(network, last.input, len(new))
    layer = grown.model.get_layer(_PROBABILITIES)
    kernel, bias = layer.get_weights()
    columns = [new.index(name) for name in old]
    kernel[:, columns], bias[columns] = last.get_weights()
    layer.set_weights([kernel, bias])
    return grown


def with_logistic_head(network: Network, kernel: np.ndarray, bias: np.ndarray) -> Network:
    """Return a network whose head is a logistic regression on standardised features.

    Base and standardisation are those of the network given, whose backbone is pretrained. The
    kernel is (num_features, classes), the bias (classes,).
    """
    regressed = _ending(network, network.model.get_layer(_STANDARDISE).output, len(bias))
    regressed.model.get_layer(_PROBABILITIES).set_weights([kernel, bias])
    return regressed


def _ending(network: Network, tensor: Any, num_classes: int) -> Network:
    """Return the network up to a tensor, with new probabilities of that."""
    layer = keras.layers.Dense(num_classes, activation="softmax", name=_PROBABILITIES)
    return Network.of(network.backbone, keras.Model(network.model.input, layer(tensor)))


def _head(backbone: backbones.Backbone, pooled: Any, num_classes: int) -> Any:
    tensor = pooled
    if backbone.pretrained:
        # BatchNormalization that never learns: a standardisation with weights that are saved.
        tensor = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-9, trainable=False, name=_STANDARDISE
        )(tensor)
        tensor = keras.layers.Dense(HIDDEN_UNITS, activation="relu", name=_HIDDEN)(tensor)
        tensor = keras.layers.Dropout(DROPOUT, name="head_dropout")(tensor)
    return keras.layers.Dense(num_classes, activation="softmax", name=_PROBABILITIES)(tensor)


def network_digest(model: Any) -> str:
    """Return a SHA-256 over layers and weights: networks of one digest give the same features."""
    digest = hashlib.sha256()
    for layer in model.layers:
        config = {
            name: value
            for name, value in layer.get_config().items()
            if name not in ("trainable", "dtype")  # neither changes what a frozen network gives
        }
        text = json.dumps([type(layer).__name__, config], sort_keys=True, default=str)
        digest.update(text.encode())
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
