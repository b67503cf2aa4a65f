"""The small network for two or few classes and no pretrained weights, trained from scratch.

Three convolutions and one dense layer, after François Chollet, "Building powerful image
classification models using very little data", The Keras Blog, 2016.
"""

from typing import Any

NUM_FEATURES = 64


def small_cnn(images: Any, include_top: bool) -> Any:
    """Build the network on top of a tensor; at 150x150 it has 1.21 million parameters.

    Args:
        images: Keras tensor (batch, height, width, 3), float32, 0 to 1, of fixed size.
        include_top: end in 1000 class probabilities instead of 64 features behind the dropout.

    Returns:
        A `keras.Model` from the source of `images` to float32 (batch, 1000) or (batch, 64).
    """
    import keras

    x = images
    for number, filters in enumerate((32, 32, 64), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(NUM_FEATURES, activation="relu", name="dense")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    if include_top:
        x = keras.layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(keras.utils.get_source_inputs(images), x, name="small_cnn")
