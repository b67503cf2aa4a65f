"""Rotation, shift, shear, zoom and flips of an image as one affine warp."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

RESAMPLING = {
    0: Image.Resampling.NEAREST,
    1: Image.Resampling.BILINEAR,
    3: Image.Resampling.BICUBIC,
}
# Keras's `fill_mode` -> NumPy's way to pad.
PAD_MODES = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap", "constant": "constant"}

_IDENTITY = np.eye(3)
_TOLERANCE = 1e-8 + 1e-5 * _IDENTITY  # as `np.allclose`, which takes longer than a matrix
_REACH = 2  # pixels that bicubic reads beyond the place it is asked for


def matrix(parameters: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """Return the map from output to input pixels, (3, 3) float64, between pixel centres.

    The parameters are those of `ImageDataGenerator.get_random_transform`; any may be missing.
    """
    theta = math.radians(parameters.get("theta", 0))
    shear = math.radians(parameters.get("shear", 0))
    tx, ty = parameters.get("tx", 0), parameters.get("ty", 0)
    cosine, sine = math.cos(theta), math.sin(theta)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    shift = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    shearing = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([parameters.get("zx", 1), parameters.get("zy", 1), 1])
    flip_x = -1 if parameters.get("flip_horizontal") else 1
    flip_y = -1 if parameters.get("flip_vertical") else 1
    to_centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    # Keras flips after the warp, so an output coordinate is flipped before it is mapped.
    linear = rotation @ shift @ shearing @ zoom @ np.diag([flip_x, flip_y, 1])
    return np.asarray(to_centre @ linear @ np.linalg.inv(to_centre))


def is_identity(matrix: np.ndarray) -> bool:
    """Return whether a warp would leave the image as it is."""
    return bool((np.abs(matrix - _IDENTITY) <= _TOLERANCE).all())


def warp(
    x: np.ndarray, matrix: np.ndarray, interpolation_order: int, fill_mode: str, cval: float
) -> np.ndarray:
    """Return an image, (height, width, channels) uint8 or a float type, after a warp by `matrix`.

    `interpolation_order` is a key of `RESAMPLING`, `fill_mode` one of `PAD_MODES`; beyond the edges
    lies `cval` when it is `constant`.
    """
    height, width = x.shape[:2]
    margins = _margins(matrix, height, width)
    padded = _padded(x, margins, fill_mode, cval)
    top, _, left, _ = margins
    coefficients = _pillow_coefficients(matrix, left, top)
    resampling = RESAMPLING[interpolation_order]

    def transform(image: Image.Image) -> np.ndarray:
        return np.asarray(
            image.transform((width, height), Image.Transform.AFFINE, coefficients, resampling)
        )

    if x.dtype == np.uint8 and x.shape[2] == 3:
        return transform(Image.fromarray(padded))
    channels = [
        transform(Image.fromarray(padded[..., channel].astype(np.float32)))
        for channel in range(x.shape[2])
    ]
    return np.stack(channels, axis=-1).astype(x.dtype)


def _margins(matrix: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Return how many pixels beyond each edge the warp reads: top, bottom, left, right."""
    right, bottom = width - 1, height - 1
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    x, y = (matrix @ corners)[:2]
    beyond = (-y.min(), y.max() - bottom, -x.min(), x.max() - right)
    top, below, left, after = (max(0, math.ceil(side)) + _REACH for side in beyond)
    return top, below, left, after


def _padded(
    x: np.ndarray, margins: tuple[int, int, int, int], fill_mode: str, cval: float
) -> np.ndarray:
    top, bottom, left, right = margins
    if fill_mode != "nearest":
        value = {"constant_values": cval} if fill_mode == "constant" else {}
        sides = ((top, bottom), (left, right), (0, 0))
        mode: Any = PAD_MODES[fill_mode]
        return np.asarray(np.pad(x, sides, mode=mode, **value))
    # By hand: `np.pad` takes several times as long over the mode that is used by default.
    height, width, channels = x.shape
    padded = np.empty((top + height + bottom, left + width + right, channels), x.dtype)
    rows = padded[top : top + height]
    rows[:, left : left + width] = x
    rows[:, :left] = x[:, :1]
    rows[:, left + width :] = x[:, -1:]
    padded[:top] = rows[0]
    padded[top + height :] = rows[-1]
    return padded


def _pillow_coefficients(matrix: np.ndarray, left: int, top: int) -> tuple[float, ...]:
    """Turn a map between pixel centres into Pillow's, which runs between pixel corners."""
    (a, b, x), (c, d, y) = matrix[0], matrix[1]
    return (a, b, x + left + 0.5 - 0.5 * (a + b), c, d, y + top + 0.5 - 0.5 * (c + d))
