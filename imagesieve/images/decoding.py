"""Any bytes or path -> a checked RGB array: the one road for pixels.

Training, features, evaluation, quantisation, prediction, downloads and the API all call `decode`;
two decoders with the same settings do not give the same pixels.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from imagesieve.errors import (
    ClassifierError,
    EmptyImageError,
    ImageError,
    ImageTooSmallError,
    TooManyBytesError,
    TooManyPixelsError,
    TruncatedImageError,
    UndecodableImageError,
    UnreadableImageError,
    UnsupportedImageFormatError,
)
from imagesieve.images import containers
from imagesieve.threads import cpu_count

_log = logging.getLogger(__name__)

# `decode` raises what is wrong with an image; Pillow's warnings about odd files would only clutter
# the terminal. (`warnings.catch_warnings` around each call is not safe with threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Every format costs attack surface: most flaws found in image parsers sit in rare ones. These
# five are what phones, browsers and crawlers produce.
EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp"}
FORMATS = tuple(EXTENSIONS)

# Of an animation, whose first frame may hide what the others show.
_FIRST_FRAMES = 64  # later ones are not looked at: a GIF is decoded frame after frame to get there
_MOST_SECONDS = 0.5  # for all further frames; those that were decoded by then are what counts

# For the message only: none of these is ever opened.
_REFUSED = (
    (b"%PDF", "a PDF"),
    (b"<", "text such as HTML or SVG"),
    (b"{", "text such as JSON"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\0\0\1\0", "an ICO"),
    (b"\0\0\0\x0cjP", "a JPEG 2000"),
    (b"8BPS", "a PSD"),
)

# A large image may take some hundred megabytes while it is decoded, and more of them at once than
# there are cores are no faster.
_LARGE_PIXELS = 4_000_000
_large_images = threading.BoundedSemaphore(cpu_count())

_JPEG_FORMATS = ("JPEG", "MPO")
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})

# How the resizing is done is part of a model: its name goes into the manifest and a model that was
# trained with another one is refused.
PIXEL_CONTRACT = "rgb-uint8 exif-oriented white-matte frame-0 pillow-bilinear-antialias draft-2x v1"

ImageSize = tuple[int, int]  # (height, width) in pixels
# From the original's width and height, after orientation, to the size wanted; None keeps it.
ChooseSize = Callable[[int, int], ImageSize | None]
# From the number of pixels to what is held while they are decoded.
DecodingLimit = Callable[[int], contextlib.AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an image may cost before it is decoded. Sizes are checked on the header."""

    max_bytes: int = 100 * 2**20
    max_pixels: int = 64_000_000  # JPEG: decoded at a fraction of its size, up to 3 bytes a pixel
    max_pixels_lossless: int = 25_000_000  # the others: up to 16 bytes a pixel while decoding
    max_side: int = 30_000  # pixels
    min_side: int = 16  # pixels; below, nothing can be recognised


DEFAULT_LIMITS = Limits()


@dataclasses.dataclass(frozen=True, eq=False)
class DecodedImage:
    pixels: np.ndarray  # (height, width, 3) uint8, RGB, 0 to 255
    format: str  # one of `FORMATS`
    width: int  # pixels of the original, after orientation
    height: int
    orientation: int  # EXIF orientation that was applied, 1 to 8
    mode: str  # Pillow's name of the original's kind of pixels, such as `RGB`, `CMYK` or `I;16`
    sha256: str  # of the encoded bytes, 64 hexadecimal digits


def large_images_take_turns(num_pixels: int) -> contextlib.AbstractContextManager[object]:
    """Return what is held while an image is decoded: as many large ones at once as CPU cores."""
    return _large_images if num_pixels > _LARGE_PIXELS else contextlib.nullcontext()


def decode(
    source: bytes | str | os.PathLike[str],
    limits: Limits = DEFAULT_LIMITS,
    *,
    image_size: ImageSize | ChooseSize | None = None,
    sha256: str | None = None,
    at_once: DecodingLimit = large_images_take_turns,
) -> DecodedImage:
    """Return an encoded image, or the file at a path, as RGB pixels.

    The format is sniffed from the first bytes and only that decoder is opened; size is capped from
    the header before any pixel is decoded; EXIF orientation is applied; transparency lies on white;
    16-bit grey is scaled; of an animation the first frame counts; a truncated file is refused.

    Args:
        image_size: (height, width) in pixels to stretch to with an antialiased bilinear filter; a
            JPEG is then decoded at no more than needed for twice that. None keeps the size. A
            function chooses it from the original's width and height.
        sha256: of the encoded bytes, where the caller has computed it already.
        at_once: limits how many images are decoded at once; called when the header has been read
            and checked.

    Raises:
        ImageError: the subclass for what is wrong, with the path if there is one.
        ClassifierError: what `at_once` raises.
    """
    path = None if isinstance(source, bytes) else Path(source)
    try:
        data = source if isinstance(source, bytes) else _read(Path(source), limits)
        image_format = _format_of(data, limits)
        with _named_failures(image_format, limits):
            containers.check(image_format, data)
            # A phone's JPEG with a second frame opens as MPO; it is opened by the same plugin.
            with Image.open(io.BytesIO(data), formats=[image_format]) as image:
                width, height = image.size
                mode = image.mode
                _check_size(image_format, width, height, limits)
                with at_once(width * height):
                    pixels, orientation = _pixels(image, image_size)
    except ImageError as error:
        raise type(error)(error.reason, None if path is None else str(path)) from error.__cause__
    swaps = orientation in _SWAPS_SIDES
    return DecodedImage(
        pixels=np.asarray(pixels, dtype=np.uint8),
        format=image_format,
        width=height if swaps else width,
        height=width if swaps else height,
        orientation=orientation,
        mode=mode,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
    )


def further_frames(
    data: bytes,
    first: DecodedImage,
    count: int,
    at_once: DecodingLimit = large_images_take_turns,
) -> list[np.ndarray]:
    """Return frames of an animation besides the first, spread evenly over its first 64.

    At most `count` (at least 1) arrays (height, width, 3) uint8 of the shape of `first`, which
    `decode` made; none when the image does not move, fewer when decoding takes long.

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
                    seen = _upright(_to_rgb(image), first.orientation)
                    pixels = seen.resize((width, height), Image.Resampling.BILINEAR)
                    found.append(np.asarray(pixels, dtype=np.uint8))
            except MemoryError:
                raise
            except EOFError:  # there are fewer than it seemed
                break
            except Exception as error:  # as in `decode`: hostile files raise anything
                raise UndecodableImageError(
                    f"frame {number} of the {first.format} is damaged ({type(error).__name__})"
                ) from error
    return found


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes announce, or None when it is not one of `FORMATS`."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM":
        return "BMP"
    return None


def _describe(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "this is an AVIF, HEIC or video file"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")  # pages often begin with a mark or blank lines
    for magic, what in _REFUSED:
        if start.startswith(magic):
            return f"this is {what}"
    return f"this is not a known image format (it starts with {data[:8]!r})"


def _read(path: Path, limits: Limits) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"the file cannot be read ({reason})") from error


def _format_of(data: bytes, limits: Limits) -> str:
    if not data:
        raise EmptyImageError("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(f"the image has more than {limits.max_bytes:,} bytes")
    if (image_format := sniff(data)) is None:
        raise UnsupportedImageFormatError(
            f"{_describe(data)}, which is not accepted: use {', '.join(FORMATS)}"
        )
    return image_format


@contextlib.contextmanager
def _named_failures(image_format: str, limits: Limits) -> Iterator[None]:
    try:
        yield
    # Those of this program are named already; memory is the machine's trouble, not the image's.
    except (ClassifierError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own words name a limit that is not ours.
        most = f"{_max_pixels(image_format, limits):,}"
        raise TooManyPixelsError(
            f"far too many pixels: a {image_format} may have at most {most}"
        ) from error
    except UnidentifiedImageError as error:
        raise UndecodableImageError(f"the {image_format} has a damaged header") from error
    except Exception as error:
        # Hostile files make decoders raise nearly anything: OSError, SyntaxError, ValueError,
        # struct.error, IndexError, EOFError and more. All of them mean the same to the caller.
        text = str(error).lower()
        if isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text:
            raise TruncatedImageError(f"the {image_format} ends early ({error})") from error
        raise UndecodableImageError(
            f"the {image_format} is damaged ({type(error).__name__}: {error})"
        ) from error


def _pixels(
    image: Image.Image, image_size: ImageSize | ChooseSize | None
) -> tuple[Image.Image, int]:
    """Return the RGB image as it is meant to be seen, and the orientation that was applied."""
    original_size = image.size  # a draft changes it
    is_jpeg = image.format in _JPEG_FORMATS
    if not is_jpeg:  # a PNG may carry its EXIF block behind the pixels
        image.load()
    orientation = _orientation(image)
    swaps = orientation in _SWAPS_SIDES
    if callable(image_size):
        image_size = image_size(*(original_size[::-1] if swaps else original_size))
    size = box = None
    if image_size is not None:
        height, width = image_size
        size = (height, width) if swaps else (width, height)
        # A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but never below twice the target:
        # scaling straight to it alters fine lines such as small print.
        if is_jpeg and (drafted := image.draft(None, (2 * size[0], 2 * size[1]))):
            box = drafted[1]
    image.load()
    pixels = _to_rgb(image)
    if size is not None:
        pixels = pixels.resize(size, Image.Resampling.BILINEAR, box=box)
    return _upright(pixels, orientation), orientation


def _check_size(image_format: str, width: int, height: int, limits: Limits) -> None:
    if min(width, height) < limits.min_side:
        raise ImageTooSmallError(
            f"{width}×{height} pixels: both sides must have at least {limits.min_side}"
        )
    max_pixels = _max_pixels(image_format, limits)
    if width * height > max_pixels or max(width, height) > limits.max_side:
        raise TooManyPixelsError(
            f"{width}×{height} pixels: a {image_format} may have at most {max_pixels:,} "
            f"and no side over {limits.max_side:,}"
        )


def _max_pixels(image_format: str, limits: Limits) -> int:
    return limits.max_pixels if image_format == "JPEG" else limits.max_pixels_lossless


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, IndexError, struct.error):
        # EXIF is untrusted and does not matter enough to lose a good image over it.
        _log.debug("unreadable EXIF block ignored", exc_info=True)
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image as its EXIF orientation, 1 to 8, has it seen."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as RGB: transparency on white, 16-bit grey scaled."""
    if image.mode.startswith("I"):
        # 16-bit grey: `convert` would clip nearly every value to white.
        grey = (np.asarray(image).astype(np.uint32) // 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _spread(num_frames: int, count: int) -> list[int]:
    """Return up to `count` numbers from 1 to the last frame."""
    last = num_frames - 1
    count = min(count, last)
    return [round(1 + place * (last - 1) / max(1, count - 1)) for place in range(count)]
