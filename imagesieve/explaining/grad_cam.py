"""Which places of an image speak for a class: Grad-CAM, and an image that shows it.

Ramprasaath R. Selvaraju and others, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391.

The method asks how much the score of a class would grow with each map of the last convolution, and
adds up the maps with these weights. The score is not the probability: that of a sure answer lies so
close to 1 that it hardly moves with anything, and its gradient drowns in rounding. It is the
logarithm of the class's odds against all others, taken in front of the softmax. Unlike the bare
logit it does not change when one number is added to all logits, which a softmax would not notice.
"""

import io
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from imagesieve.errors import EngineError, UsageError
from imagesieve.model import engines, versions

# From cold to hot. Lightness rises all the way, so the order survives any kind of colour blindness
# and a printer without colours.
_RAMP = np.array(
    [(24, 10, 70), (106, 20, 112), (184, 48, 88), (236, 112, 40), (252, 190, 60), (255, 250, 190)]
)
# How much of a place is colour, where it is coldest and hottest: cold places grow darker, which
# lets hot ones stand out even in an image of the ramp's own colours.
_ALPHA = (0.35, 0.7)


class GradCam:
    """Explains one network; its layers are used as they are, nothing is copied."""

    def __init__(self, model: Any) -> None:
        """Divide the network: pixels to the last maps, and maps to what the last layer reads.

        Only the second part is differentiated, so the first may forget its activations. The model
        is a flat one from float32 (batch, height, width, 3), 0 to 255, to a softmax over classes;
        a UsageError says that it is not, or has no maps of more than one place.
        """
        last = model.layers[-1]
        is_softmax = (
            isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax
        )
        if isinstance(model, keras.Sequential) or not is_softmax:
            raise UsageError(
                "Only models that were trained by this program can be explained: this network does "
                "not end in a softmax over classes."
            )
        maps = _last_maps(model, last.input)
        self._lower = keras.Model(model.input, maps)
        self._upper = keras.Model(maps, last.input)
        self._last = last

    def explain(self, pixels: np.ndarray, class_index: int, size: tuple[int, int]) -> bytes:
        """Return a PNG of pixels under their heat map, of a size (width, height)."""
        buffer = io.BytesIO()
        overlay(pixels, self.heat_map(pixels, class_index), size).save(buffer, "PNG")
        return buffer.getvalue()

    def heat_map(self, pixels: np.ndarray, class_index: int) -> npt.NDArray[np.float32]:
        """Return how strongly each place of (height, width, 3) uint8 RGB pixels speaks for a class.

        The map has the rows and columns of the last maps, far fewer than pixels. The strongest
        place has 1; if nothing in the image speaks for the class, all are 0.
        """
        try:
            maps, gradient = self._differentiate(pixels, class_index)
        except (tf.errors.OpError, ValueError) as error:
            raise EngineError(f"The gradient cannot be taken: {error}") from error
        # Scaled first: the maps of a network that is very sure may be huge.
        weights = _to_unit(gradient.mean(axis=(0, 1)))
        heat = np.maximum((_to_unit(maps) * weights).sum(axis=-1), 0)
        if not np.isfinite(heat).all():
            raise EngineError("The network gives numbers that are not finite: it is damaged.")
        return _to_unit(heat)

    def _differentiate(self, pixels: np.ndarray, class_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the last maps and the gradient of the class's odds, both (rows, columns, maps)."""
        maps = self._lower(tf.constant(pixels[np.newaxis], tf.float32), training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            features = self._upper(maps, training=False)
            logits = tf.matmul(features, self._last.kernel)[0] + self._last.bias
            others = tf.concat([logits[:class_index], logits[class_index + 1 :]], axis=0)
            log_odds = logits[class_index] - tf.reduce_logsumexp(others)
        return maps[0].numpy(), tape.gradient(log_odds, maps)[0].numpy()


def load(version: versions.ModelVersion) -> GradCam:
    """Return the explainer of a checked version's Keras model; no code in the file is run."""
    path = version.file(versions.KERAS_MODEL)
    if path is None:
        raise UsageError(f"The model version {version.name} has no {versions.KERAS_MODEL}.")
    return GradCam(engines.load_keras_model(path))


def overlay(
    pixels: np.ndarray, heat: npt.NDArray[np.float32], size: tuple[int, int]
) -> Image.Image:
    """Lay a heat map, (rows, columns) from 0 to 1, over its (height, width, 3) uint8 pixels.

    Both are stretched to `size`, (width, height) in pixels.
    """
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    shades = np.asarray(smooth)[..., np.newaxis]
    colours = _ramp()[(shades[..., 0] * 255).round().astype(np.uint8)]
    alpha = _ALPHA[0] + (_ALPHA[1] - _ALPHA[0]) * shades
    blended = (1 - alpha) * np.asarray(image, np.float32) + alpha * colours
    return Image.fromarray(blended.round().astype(np.uint8))


def _ramp() -> npt.NDArray[np.float32]:
    """Return 256 colours from cold to hot, (256, 3) RGB, 0 to 255."""
    steps = np.linspace(0, len(_RAMP) - 1, 256)
    channels = [np.interp(steps, range(len(_RAMP)), channel) for channel in _RAMP.T]
    return np.stack(channels, axis=-1).astype(np.float32)


def _last_maps(model: Any, features: Any) -> Any:
    """Return the last tensor with places on the way to the features; these depend on it alone."""
    graph = keras.Model(model.input, features)
    # Walked from the end: some tensors are no layer's (ConvNeXt adds with a plus sign), and a list
    # of layers does not tell a branch from the trunk.
    makers = {id(operation.output): operation for operation in graph.operations}
    tensor = features
    while len(tensor.shape) != 4:
        tensor = makers[id(tensor)].input
    if tensor.shape[1:3] == (1, 1):
        raise UsageError(
            "The network sees each image as a single place, so it cannot tell places apart: "
            "train it on larger images (--image-size)."
        )
    return tensor


def _to_unit(values: np.ndarray) -> npt.NDArray[np.float32]:
    """Scale by the largest magnitude; zeros stay zeros."""
    largest = float(np.abs(values).max())
    return (values / largest if largest > 0 else values).astype(np.float32)
