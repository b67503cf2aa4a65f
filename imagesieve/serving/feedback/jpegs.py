"""An encoded image as it came -> a JPEG of our own that carries nothing but its pixels."""

import io

from PIL import Image

from imagesieve.images import DecodingLimit, Limits, decode, large_images_take_turns

MAX_SIDE = 1024  # pixels; several times what any of the networks looks at
QUALITY = 95


def to_jpeg(data: bytes, limits: Limits, at_once: DecodingLimit = large_images_take_turns) -> bytes:
    """Encode an image anew: turned upright, RGB, at most `MAX_SIDE` wide and high, no metadata.

    Proportions are kept, except that no side falls below `limits.min_side`: what is stored must be
    fit to be decoded again, and the network sees a square anyway.

    Raises:
        ImageError: it cannot be decoded under `limits`.
        ClassifierError: what `at_once` raises; see `images.decode`.
    """
    # A huge image is decoded to twice the size wanted: that bounds what a JPEG takes of memory.
    image = decode(
        data,
        limits,
        image_size=lambda width, height: _decoding_size(width, height, limits),
        at_once=at_once,
    )
    upright_image = Image.fromarray(image.pixels)
    if max(upright_image.size) > MAX_SIDE:
        height, width = _reduced(image.width, image.height, MAX_SIDE, limits)
        # Smooths less than the bilinear filter: the network's own resizing comes on top.
        upright_image = upright_image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright_image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _decoding_size(width: int, height: int, limits: Limits) -> tuple[int, int] | None:
    if max(width, height) <= 2 * MAX_SIDE:
        return None
    return _reduced(width, height, 2 * MAX_SIDE, limits)


def _reduced(width: int, height: int, longest: int, limits: Limits) -> tuple[int, int]:
    """Return (height, width) in pixels with the longer side as asked."""
    scale = longest / max(width, height)
    return max(limits.min_side, round(height * scale)), max(limits.min_side, round(width * scale))
