"""Networks that `keras.applications` does not have, built on a tensor of scaled images."""

from typing import Any

import keras

_GROUPS = 32
_NUM_BLOCKS = {"conv2": 3, "conv3": 4, "conv4": 6, "conv5": 3}
_EPSILON = 1.001e-5


def resnext50(images: Any) -> Any:
    """Build ResNeXt50 (32x4d) on (batch, height, width, 3) images, normalised as for torchvision.

    Saining Xie and others, "Aggregated Residual Transformations for Deep Neural Networks",
    https://arxiv.org/abs/1611.05431. It ends in pooled features, (batch, 2048). Names, padding and
    epsilon are those of the former `keras_applications` package, so that its weights fit here.
    """
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = keras.layers.Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = _normalise(x, "conv1", relu=True)
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    filters = 128
    for stage, num_blocks in _NUM_BLOCKS.items():
        for block in range(1, num_blocks + 1):
            stride = 2 if block == 1 and stage != "conv2" else 1
            x = _block(x, filters, stride, f"{stage}_block{block}", project=block == 1)
        filters *= 2
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(images), x, name="resnext50")


def _block(x: Any, filters: int, stride: int, name: str, *, project: bool) -> Any:
    """Narrow, convolve in groups, widen to twice `filters`, add the shortcut."""
    shortcut = x
    if project:
        shortcut = keras.layers.Conv2D(
            2 * filters, 1, strides=stride, use_bias=False, name=f"{name}_0_conv"
        )(x)
        shortcut = _normalise(shortcut, f"{name}_0")
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_1_conv")(x)
    x = _normalise(x, f"{name}_1", relu=True)
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = _grouped_convolution(x, filters, stride, f"{name}_2")
    x = _normalise(x, f"{name}_2", relu=True)
    x = keras.layers.Conv2D(2 * filters, 1, use_bias=False, name=f"{name}_3_conv")(x)
    x = _normalise(x, f"{name}_3")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{name}_out")(x)


def _grouped_convolution(x: Any, filters: int, stride: int, name: str) -> Any:
    """Convolve 3x3 within each of 32 groups: per channel first, then summed over the group.

    This equals `Conv2D(groups=32)` weight for weight (9 x filters x filters / 32 of them). That
    layer runs on a CPU too, but its gradient is hopeless there: for 8 maps of 56x56x128 it took
    15.7 s against 0.1 s for this form, for 7x7x1024 1.6 s against 0.25 s (2 cores, TF 2.21).
    """
    per_group = filters // _GROUPS
    x = keras.layers.DepthwiseConv2D(
        3, strides=stride, depth_multiplier=per_group, use_bias=False, name=f"{name}_conv"
    )(x)
    height, width = x.shape[1:3]
    # Axes after the batch: place (2), group, channel the kernel read, channel it writes.
    by_group = (height, width, _GROUPS, per_group, per_group)
    x = keras.layers.Reshape(by_group, name=f"{name}_split")(x)
    x = keras.ops.sum(x, axis=-2)
    return keras.layers.Reshape((height, width, filters), name=f"{name}_join")(x)


def _normalise(x: Any, name: str, *, relu: bool = False) -> Any:
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x) if relu else x


def small_cnn(images: Any) -> Any:
    """Build the small network for few classes on (batch, height, width, 3) images, 0 to 1.

    It is trained from scratch: three convolutions and one dense layer, after François Chollet,
    "Building powerful image classification models using very little data", The Keras Blog, 2016.
    It ends in features (batch, 64) behind the dropout; at 150x150 it has 1.21 million parameters.
    """
    x = images
    for number, filters in enumerate((32, 32, 64), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(64, activation="relu", name="dense")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(keras.utils.get_source_inputs(images), x, name="small_cnn")
