"""A backbone of five layers, for tests that need the whole way and no particular network."""

from typing import Any

from imagesieve.learning.networks.backbones import Backbone


def _build(images: Any) -> Any:
    import keras

    x = keras.layers.Conv2D(8, 3, strides=2, name="stem")(images)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.ReLU(name="cut")(x)
    x = keras.layers.Conv2D(24, 3, strides=2, name="last")(x)
    x = keras.layers.BatchNormalization(name="last_norm")(x)
    x = keras.layers.ReLU(name="last_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(keras.utils.get_source_inputs(images), x, name="tiny")


NUM_FEATURES = 24
TINY = Backbone(
    name="Tiny",
    builder=_build,
    image_size=(32, 32),
    min_side=16,
    scaling="tf",
    cut_layer="cut",
)
