"""Small painted images for tests."""

import io

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (30, 190, 50), "red": (210, 40, 30)}


def paint(
    colour: tuple[int, int, int], *, size: tuple[int, int] = (64, 48), seed: int = 0
) -> Image.Image:
    """Paint a noisy image of one colour; `size` is (width, height)."""
    noise = np.random.default_rng(seed).integers(-25, 26, (size[1], size[0], 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, image_format: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
