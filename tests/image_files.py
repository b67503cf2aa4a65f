"""Image files of every format, turned scenes, and photographs, for tests of decoding."""

import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from hostile import chunk
from painted import COLOURS, encode, paint
from PIL import Image

RED = COLOURS["red"]
IMAGE = paint(RED)  # 64 wide, 48 high
JPEG = encode(IMAGE)
PNG = encode(IMAGE, "PNG")
GIF = encode(IMAGE, "GIF")

SIZES = [None, (24, 32)]  # (height, width)


def png_of(width: int, height: int, *, bits: int = 1) -> bytes:
    """Return a grey PNG that announces a size and has nearly no pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def scene() -> Image.Image:
    """Paint four different quarters, so that every turn and flip can be told; 256 × 160."""
    quarters = np.array([[(250, 20, 20), (20, 250, 20)], [(20, 20, 250), (240, 240, 30)]])
    return Image.fromarray(quarters.repeat(80, 0).repeat(128, 1).astype(np.uint8))


# What was done to the scene, so that orientation k undoes it.
TURNED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


def exif_of(orientation: object, others: Mapping[int, object] | None = None) -> bytes:
    exif = Image.Exif()
    exif.update({0x0112: orientation, **(others or {})})
    return exif.tobytes()


def oriented(image: Image.Image, value: object, image_format: str = "JPEG") -> bytes:
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {"lossless": True}
    return encode(image, image_format, exif=exif_of(value), **options)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference in grey levels of two images of one shape."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


FORMATS = {
    "JPEG": JPEG,
    "progressive JPEG": encode(IMAGE, progressive=True),
    "PNG": PNG,
    "GIF": GIF,
    "WEBP": encode(IMAGE, "WEBP"),
    "lossless WEBP": encode(IMAGE, "WEBP", lossless=True),
    "BMP": encode(IMAGE, "BMP"),
    "MPO, a phone's JPEG": encode(
        IMAGE, "MPO", save_all=True, append_images=[paint(COLOURS["blue"])]
    ),
}


def photograph(width: int, height: int) -> Image.Image:
    """Paint soft hills with thin, slightly darker lines upon them, as large as asked."""
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    layers = [np.sin(x * a + y * b) * 100 + 128 for a, b in ((1, 0.5), (0.7, 2), (2, 1))]
    pixels = np.stack(layers, axis=-1).clip(0, 255).astype(np.uint8)
    pixels[::17] -= pixels[::17] // 3
    return Image.fromarray(pixels)
