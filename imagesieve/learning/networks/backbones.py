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
from imagesieve.learning.networks.resnext import resnext50
from imagesieve.learning.networks.small_cnn import small_cnn
from imagesieve.learning.networks.weights import WeightsDownload, load_weights

if TYPE_CHECKING:
    import keras

_KERAS_WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

Scaling = Literal["tf", "torch", "unit", "none"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0 to 1
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

# pixels x scale + offset; "none" means that the network scales its pixels itself.
_SCALE_AND_OFFSET: dict[Scaling, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": (
        [1 / (255 * deviation) for deviation in _IMAGENET_DEVIATION],
        [-m / d for m, d in zip(_IMAGENET_MEAN, _IMAGENET_DEVIATION, strict=True)],
    ),
    "unit": (1 / 255, 0.0),
}


@dataclass(frozen=True)
class Backbone:
    """One network without its classes.

    Attributes:
        name: as on the command line.
        builder: (tensor of scaled images, include_top) -> `keras.Model`, without weights.
        image_size: (height, width) in pixels that the weights were trained at.
        min_side: the shortest height or width the network can work on, pixels.
        scaling: what becomes of RGB 0 to 255: "tf" -1 to 1; "torch" ImageNet mean 0 and
            deviation 1 per channel; "unit" 0 to 1; "none" left to a layer of the network.
        cut_layer: the layer where fine-tuning starts: what lies behind is trained and depends
            on this layer's output alone. It is the first such place at the network's last
            resolution, so the tensors to be cached are small, as `mixed8` is in InceptionV3.
        num_features: length of the pooled output.
        num_parameters_with_top: with 1000 classes at `image_size`.
        pretrained: False: meant to be trained from scratch on the user's own images.
        download: Keras's ImageNet weights, or None where Keras has none.
    """

    name: str
    builder: Callable[[Any, bool], Any]
    image_size: tuple[int, int]
    min_side: int
    scaling: Scaling
    cut_layer: str
    num_features: int
    num_parameters_with_top: int
    pretrained: bool = True
    download: WeightsDownload | None = None


def _keras_network(name: str) -> Callable[[Any, bool], Any]:
    return functools.partial(_build_keras_network, name)


def _build_keras_network(name: str, images: Any, include_top: bool) -> Any:
    import keras

    constructor = getattr(keras.applications, name)
    # `pooling` is left to Keras: ConvNeXt normalises what was pooled, not what is to be pooled.
    return constructor(
        include_top=include_top,
        weights=None,
        input_tensor=images,
        input_shape=tuple(images.shape[1:]),
        pooling=None if include_top else "avg",
    )


def _download(path: str, checksum: str | None) -> WeightsDownload:
    return WeightsDownload(f"{_KERAS_WEIGHTS_URL}/{path}", checksum)


_ROWS = (
    Backbone(
        name="Xception",
        builder=_keras_network("Xception"),
        image_size=(299, 299),
        min_side=71,
        scaling="tf",
        cut_layer="add_11",
        num_features=2048,
        num_parameters_with_top=22_910_480,
        download=_download(
            "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "b0042744bf5b25fce3cb969f33bebb97",
        ),
    ),
    Backbone(
        name="InceptionV3",
        builder=_keras_network("InceptionV3"),
        image_size=(299, 299),
        min_side=75,
        scaling="tf",
        cut_layer="mixed8",
        num_features=2048,
        num_parameters_with_top=23_851_784,
        download=_download(
            "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "bcbd6486424b2319ff4ef7d526e38f63",
        ),
    ),
    Backbone(
        name="ResNeXt50",
        builder=resnext50,
        image_size=(224, 224),
        min_side=32,
        scaling="torch",
        cut_layer="conv5_block1_out",
        num_features=2048,
        num_parameters_with_top=25_097_128,
    ),
    Backbone(
        name="DenseNet201",
        builder=_keras_network("DenseNet201"),
        image_size=(224, 224),
        min_side=32,
        scaling="torch",
        cut_layer="pool4_pool",
        num_features=1920,
        num_parameters_with_top=20_242_984,
        download=_download(
            "densenet/densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "c13680b51ded0fb44dff2d8f86ac8bb1",
        ),
    ),
    Backbone(
        name="DenseNet169",
        builder=_keras_network("DenseNet169"),
        image_size=(224, 224),
        min_side=32,
        scaling="torch",
        cut_layer="pool4_pool",
        num_features=1664,
        num_parameters_with_top=14_307_880,
        download=_download(
            "densenet/densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "b8c4d4c20dd625c148057b9ff1c1176b",
        ),
    ),
    Backbone(
        name="ResNet50V2",
        builder=_keras_network("ResNet50V2"),
        image_size=(224, 224),
        min_side=32,
        scaling="tf",
        cut_layer="conv4_block6_out",  # V2 shrinks at the end of a stage
        num_features=2048,
        num_parameters_with_top=25_613_800,
        download=_download(
            "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "fac2f116257151a9d068a22e544a4917",
        ),
    ),
    Backbone(
        name="DenseNet121",
        builder=_keras_network("DenseNet121"),
        image_size=(224, 224),
        min_side=32,
        scaling="torch",
        cut_layer="pool4_pool",
        num_features=1024,
        num_parameters_with_top=8_062_504,
        download=_download(
            "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "30ee3e1110167f948a6b9946edeeb738",
        ),
    ),
    Backbone(
        name="MobileNetV2",
        builder=_keras_network("MobileNetV2"),
        image_size=(224, 224),
        min_side=32,
        scaling="tf",
        cut_layer="block_13_project_BN",
        num_features=1280,
        num_parameters_with_top=3_538_984,
        download=_download(
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            None,
        ),
    ),
    Backbone(
        name="MobileNetV3Large",
        builder=_keras_network("MobileNetV3Large"),
        image_size=(224, 224),
        min_side=32,
        scaling="none",
        cut_layer="expanded_conv_12_project_bn",
        num_features=960,
        num_parameters_with_top=5_507_432,
        download=_download(
            "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            "07fb09a5933dd0c8eaafa16978110389",
        ),
    ),
    Backbone(
        name="EfficientNetV2B0",
        builder=_keras_network("EfficientNetV2B0"),
        image_size=(224, 224),
        min_side=32,
        scaling="none",
        cut_layer="block6a_project_bn",
        num_features=1280,
        num_parameters_with_top=7_200_312,
        download=_download(
            "efficientnet_v2/efficientnetv2-b0_notop.h5",
            "893217f2bb855e2983157299931e43ff",
        ),
    ),
    Backbone(
        name="ConvNeXtTiny",
        builder=_keras_network("ConvNeXtTiny"),
        image_size=(224, 224),
        min_side=32,
        scaling="none",
        cut_layer="convnext_tiny_downsampling_block_2",
        num_features=768,
        num_parameters_with_top=28_589_128,
        download=_download(
            "convnext/convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
    ),
    Backbone(
        name="SmallCNN",
        builder=small_cnn,
        image_size=(150, 150),
        min_side=22,
        scaling="unit",
        cut_layer="pool3",
        num_features=64,
        num_parameters_with_top=1_277_448,
        pretrained=False,
    ),
)

BACKBONES = {backbone.name: backbone for backbone in _ROWS}
DEFAULT_BACKBONE = "InceptionV3"


def find(name: str) -> Backbone:
    """Return the row of that name; letter case counts.

    Raises:
        UsageError: there is no such row; the message names the nearest and all.
    """
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

    Nothing is downloaded. Keras's, NumPy's and Python's global random state is seeded right
    before, so the same seed gives the same weights; layer names do not depend on what was built
    earlier in the process, so a saved model always has `cut_layer`.

    Args:
        backbone: a row of the table.
        image_size: (height, width) in pixels.
        weights_path: a file of weights without top: Keras 3's `.weights.h5` or the legacy `.h5`
            of `keras.applications`; told apart by content. None: random weights.
        seed: 0 to 2**32 - 1.

    Returns:
        A model from float32 (batch, height, width, 3), RGB, 0 to 255, to float32
        (batch, backbone.num_features).

    Raises:
        UsageError: `image_size` is below the network's minimum.
        WeightsError: the file cannot be read or is not for this network.
    """
    import keras

    _check_image_size(backbone, image_size)
    keras.utils.set_random_seed(seed)
    model = _construct(backbone, image_size, include_top=False)
    if weights_path is not None:
        load_weights(model, backbone.name, weights_path)
    return model


def with_top(backbone: Backbone) -> "keras.Model":
    """Build the network with random weights from pixels to float32 (batch, 1000) probabilities."""
    return _construct(backbone, backbone.image_size, include_top=True)


def _check_image_size(backbone: Backbone, image_size: tuple[int, int]) -> None:
    if min(image_size) < backbone.min_side:
        height, width = image_size
        raise UsageError(
            f"{backbone.name} cannot work on {height}x{width} pixels: "
            f"each side must be at least {backbone.min_side}."
        )


def _construct(backbone: Backbone, image_size: tuple[int, int], *, include_top: bool) -> Any:
    import keras

    pixels = keras.Input((*image_size, 3), dtype="float32", name="pixels")
    images = pixels
    if backbone.scaling != "none":
        scale, offset = _SCALE_AND_OFFSET[backbone.scaling]
        images = keras.layers.Rescaling(scale, offset, name="scale_pixels")(pixels)
    model = backbone.builder(images, include_top)
    # Keras made [pixels] of the input, and such a model warns whenever it is given a plain array.
    model = keras.Model(pixels, model.output, name=model.name)
    _number_names_afresh(model)
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
