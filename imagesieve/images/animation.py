"""Further frames of an animation, where the first frame may hide what the others show."""

import io
import time

import numpy as np
from PIL import Image

from imagesieve import images
from imagesieve.errors import UndecodableImageError
from imagesieve.images import containers

_FIRST_FRAMES = 64  # later ones are not looked at: a GIF is decoded frame after frame to get there
_MOST_SECONDS = 0.5  # for all further frames; those that were decoded by then are what counts


def further_frames(
    data: bytes,
    first: images.DecodedImage,
    count: int,
    at_once: images.DecodingLimit = images.large_images_take_turns,
) -> list[np.ndarray]:
    """Return frames of an animation besides the first, spread evenly over its first 64.

    At most `count` (at least 1) arrays (height, width, 3) uint8 of the shape of `first`, which
    `images.decode` made; none when the image does not move, fewer when decoding takes long.

    Raises:
        UndecodableImageError: one of them is damaged.
    """
    if first.format == "JPEG":  # a phone's second JPEG frame is a depth map
        return []
    height, width, _ = first.pixels.shape
    end = time.monotonic() + _MOST_SECONDS
    found: list[np.ndarray] = []
    with (
        at_once(first.width * first.height),
        Image.open(io.BytesIO(data), formats=[first.format]) as image,
    ):
        if image.format == "GIF":  # which Pillow would decode to count its frames
            num_frames = containers.num_gif_frames(data, _FIRST_FRAMES)
        else:
            num_frames = min(getattr(image, "n_frames", 1), _FIRST_FRAMES)
        numbers = _spread(num_frames, count)
        for number in range(1, numbers[-1] + 1 if numbers else 0):
            if time.monotonic() > end:
                break
            try:
                # Each frame is drawn upon the one before, so all of them are decoded.
                image.seek(number)
                image.load()
                if number in numbers:
                    seen = images.upright(images.to_rgb(image), first.orientation)
                    pixels = seen.resize((width, height), Image.Resampling.BILINEAR)
                    found.append(np.asarray(pixels, dtype=np.uint8))
            except MemoryError:
                raise
            except EOFError:  # there are fewer than it seemed
                break
            except Exception as error:  # as in `images.decode`: hostile files raise anything
                raise UndecodableImageError(
                    f"frame {number} of the {first.format} is damaged ({type(error).__name__})"
                ) from error
    return found


def _spread(num_frames: int, count: int) -> list[int]:
    """Return up to `count` numbers from 1 to the last frame."""
    last = num_frames - 1
    count = min(count, last)
    return [round(1 + place * (last - 1) / max(1, count - 1)) for place in range(count)]
