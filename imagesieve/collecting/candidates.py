"""Downloaded bytes -> an image worth keeping, or the reason why not."""

import dataclasses
import hashlib
import io

from imagesieve import images
from imagesieve.errors import (
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    TooManyPixelsError,
    TruncatedImageError,
    UndecodableImageError,
    UnsupportedImageFormatError,
)
from imagesieve.images import fingerprints

KEEP, JPEG = "keep", "jpg"
FILE_FORMATS = (KEEP, JPEG)

TOO_SMALL = "too small"

_REASONS: dict[type[ImageError], str] = {
    EmptyImageError: "empty",
    ImageTooLargeError: "too many bytes",
    UnsupportedImageFormatError: "not an image",
    TooManyPixelsError: "too many pixels",
    ImageTooSmallError: TOO_SMALL,
    TruncatedImageError: "truncated",
    UndecodableImageError: "damaged",
}
_JPEG_QUALITY = 92  # hardly to be distinguished from the original, at a third of its size


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that decodes and is large enough."""

    data: bytes = dataclasses.field(repr=False)  # to write
    sha256: str  # of `data`, 64 hexadecimal digits
    format: str  # one of `images.FORMATS`
    width: int  # pixels of `data`, as seen
    height: int
    fingerprint: bytes = dataclasses.field(repr=False)  # for near-duplicates
    source_sha256: str = ""  # of the downloaded bytes, where `data` is not them

    @property
    def file_name(self) -> str:
        """A name that only the content decides, with the extension of its format."""
        return f"{self.sha256[:16]}{images.EXTENSIONS[self.format]}"

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def validate(
    data: bytes, limits: images.Limits, *, max_side: int | None = None, file_format: str = KEEP
) -> Candidate:
    """Decode a downloaded image and return what shall be written.

    An image with a side over `max_side` pixels is scaled down to it; the file format `jpg` writes
    every image as an RGB JPEG.

    Raises:
        ImageError: it is not usable, or would not be after scaling.
    """
    decoded = images.decode(data, limits, image_size=fingerprints.CHECK_SIZE)
    fingerprint = fingerprints.fingerprint(decoded.pixels)
    size = _scaled_down((decoded.width, decoded.height), max_side)
    is_large = size != (decoded.width, decoded.height)
    if not is_large and (file_format == KEEP or _is_plain_jpeg(decoded)):
        return Candidate(data, decoded.sha256, decoded.format, *size, fingerprint)
    if min(size) < limits.min_side:  # the next run would not count it
        raise ImageTooSmallError(
            f"{size[0]}×{size[1]} pixels when scaled down: "
            f"both sides must have at least {limits.min_side}"
        )
    # Scaled while it is decoded, a large JPEG takes a fraction of its memory.
    written = _encode(images.decode(data, limits, image_size=size[::-1] if is_large else None))
    digest = hashlib.sha256(written).hexdigest()
    return Candidate(written, digest, "JPEG", *size, fingerprint, decoded.sha256)


def reason_of(error: ImageError) -> str:
    """Return a few words that are the same for all errors of this kind."""
    return _REASONS.get(type(error), "damaged")


def _is_plain_jpeg(decoded: images.DecodedImage) -> bool:
    return (decoded.format, decoded.mode, decoded.orientation) == ("JPEG", "RGB", 1)


def _scaled_down(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longest)) for side in size)
    return width, height


def _encode(decoded: images.DecodedImage) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(decoded.pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
