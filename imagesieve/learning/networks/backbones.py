"""The table of networks that turn pixels into features.

Nothing here imports Keras before a network is built: `BACKBONES` and `find` are free.
"""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imagesieve.errors import UsageError
from imagesieve.learning.networks.weights import WeightsDownload, load_weights

if TYPE_CHECKING:
    import keras

_KERAS_WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

Scaling = Literal["tf", "torch", "unit", "none"]

_IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))  # mean, deviation of RGB in 0 to 1

# pixels x scale + offset; "none" means that the network scales its pixels itself.
_SCALE_AND_OFFSET: dict[Scaling, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": ([1 / (255 * d) for _, d in _IMAGENET], [-m / d for m, d in _IMAGENET]),
    "unit": (1 / 255, 0.0),
}


@dataclass(frozen=True)
class Backbone:
    """One network without its classes."""

    name: str  # as on the command line
    builder: Callable[[Any], Any]  # tensor of scaled images -> `keras.Model`, without weights
    image_size: tuple[int, int]  # (height, width) in pixels that the weights were trained at
    min_side: int  # the shortest height or width the network can work on, pixels
    # What becomes of RGB 0 to 255: "tf" -1 to 1; "torch" ImageNet mean 0 and deviation 1 per
    # channel; "unit" 0 to 1; "none" left to a layer of the network.
    scaling: Scaling
    # Where fine-tuning starts: what lies behind is trained and depends on this layer's output
    # alone. It is the first such place at the network's last resolution, so the tensors to be
    # stored are small, as `mixed8` is in InceptionV3.
    cut_layer: str
    pretrained: bool = True  # False: meant to be trained from scratch on the user's own images
    download: WeightsDownload | None = None  # Keras's ImageNet weights, where it has any


def _keras(
    name: str,
    side: int,
    min_side: int,
    scaling: Scaling,
    cut_layer: str,
    weights: str,
    checksum: str | None,
) -> Backbone:
    builder = functools.partial(_build_keras, name)
    download = WeightsDownload(f"{_KERAS_WEIGHTS_URL}/{weights}", checksum)
    values = (name, builder, (side, side), min_side, scaling, cut_layer)
    return Backbone(*values, download=download)


def _build_keras(name: str, images: Any) -> Any:
    import keras

    constructor = getattr(keras.applications, name)
    # `pooling` is left to Keras: ConvNeXt normalises what was pooled, not what is to be pooled.
    return constructor(
        include_top=False,
        weights=None,
        input_tensor=images,
        input_shape=tuple(images.shape[1:]),
        pooling="avg",
    )


def _ours(name: str) -> Callable[[Any], Any]:
    def build(images: Any) -> Any:
        from imagesieve.learning.networks import own_architectures  # which imports Keras

        return getattr(own_architectures, name)(images)

    return build


# Of Keras: name, side, least side, scaling, cut layer; file of weights and its checksum.
# fmt: off
_ROWS = (
    _keras("Xception", 299, 71, "tf", "add_11",
           "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "b0042744bf5b25fce3cb969f33bebb97"),
    _keras("InceptionV3", 299, 75, "tf", "mixed8",
           "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "bcbd6486424b2319ff4ef7d526e38f63"),
    Backbone("ResNeXt50", _ours("resnext50"), (224, 224), 32, "torch", "conv5_block1_out"),
    _keras("DenseNet201", 224, 32, "torch", "pool4_pool",
           "densenet/densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "c13680b51ded0fb44dff2d8f86ac8bb1"),
    _keras("DenseNet169", 224, 32, "torch", "pool4_pool",
           "densenet/densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "b8c4d4c20dd625c148057b9ff1c1176b"),
    _keras("ResNet50V2", 224, 32, "tf", "conv4_block6_out",  # V2 shrinks at a stage's end
           "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "fac2f116257151a9d068a22e544a4917"),
    _keras("DenseNet121", 224, 32, "torch", "pool4_pool",
           "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
           "30ee3e1110167f948a6b9946edeeb738"),
    _keras("MobileNetV2", 224, 32, "tf", "block_13_project_BN",
           "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", None),
    _keras("MobileNetV3Large", 224, 32, "none", "expanded_conv_12_project_bn",
           "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
           "07fb09a5933dd0c8eaafa16978110389"),
    _keras("EfficientNetV2B0", 224, 32, "none", "block6a_project_bn",
           "efficientnet_v2/efficientnetv2-b0_notop.h5",
           "893217f2bb855e2983157299931e43ff"),
    _keras("ConvNeXtTiny", 224, 32, "none", "convnext_tiny_downsampling_block_2",
           "convnext/convnext_tiny_notop.h5",
           "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    Backbone("SmallCNN", _ours("small_cnn"), (150, 150), 22, "unit", "pool3", pretrained=False),
)
# fmt: on

BACKBONES = {backbone.name: backbone for backbone in _ROWS}


def find(name: str) -> Backbone:
    """Return the row of that name, or raise a UsageError that names the nearest and all."""
    if name in BACKBONES:
        return BACKBONES[name]
    by_lower_case = {known.lower(): known for known in BACKBONES}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f" Did you mean {by_lower_case[nearest[0]]}?" if nearest else ""
    raise UsageError(f"Unknown backbone {name!r}.{hint} Known are: {', '.join(BACKBONES)}.")


def build(
    backbone: Backbone, image_size: tuple[int, int], *, weights_path: Path | None = None, seed: int
) -> "keras.Model":
    """Build a flat network from pixels to pooled features.

    Keras's, NumPy's and Python's global random state is seeded right before, so the same seed gives
    the same weights; layer names do not depend on what was built earlier in the process, so a saved
    model always has `cut_layer`.

    Its input is float32 (batch, height, width, 3), RGB, 0 to 255, its output float32
    (batch, features). Without `weights_path` the weights are random.

    Raises:
        UsageError: `image_size`, (height, width), is below the network's minimum.
        WeightsError: the file cannot be read or is not for this network.
    """
    import keras

    if min(image_size) < backbone.min_side:
        height, width = image_size
        raise UsageError(
            f"{backbone.name} cannot work on {height}x{width} pixels: "
            f"each side must be at least {backbone.min_side}."
        )
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((*image_size, 3), dtype="float32", name="pixels")
    images = pixels
    if backbone.scaling != "none":
        scale, offset = _SCALE_AND_OFFSET[backbone.scaling]
        images = keras.layers.Rescaling(scale, offset, name="scale_pixels")(pixels)
    model = backbone.builder(images)
    # Keras made [pixels] of the input, and such a model warns whenever it is given a plain array.
    model = keras.Model(pixels, model.output, name=model.name)
    _number_names_afresh(model)
    if weights_path is not None:
        load_weights(model, backbone.name, weights_path)
    return model


def _number_names_afresh(model: Any) -> None:
    """Rename add_23 to add_11 and the like, as if `model` were the first in this process.

    Keras counts automatic names per process. A model saved by a process that had built two would
    otherwise have no layer of the name that `cut_layer` says.
    """
    automatic: dict[str, list[tuple[int, Any]]] = {}
    for operation in model.operations:
        match = re.fullmatch(r"(.*?)(?:_(\d+))?", operation.name)
        stem, number = match.groups() if match else (operation.name, None)
        if stem.replace("_", "") == type(operation).__name__.lower():
            automatic.setdefault(stem, []).append((int(number or 0), operation))
    for stem, numbered in automatic.items():
        numbered.sort(key=lambda pair: pair[0])
        for number, (_, operation) in enumerate(numbered):
            operation.name = f"{stem}_{number}" if number else stem
