"""The bodies that the fake hosts serve: ordinary images, odd ones, and traps."""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

SIZE = (256, 256)  # (width, height) in pixels; as a JPEG some 20 kB

_MIB = 2**20


def noise(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Draw coarse coloured noise under fine grain: no two seeds look alike, even when shrunk."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = dice.integers(-20, 21, (size[1], size[0], 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(seed: int) -> bytes:
    """Return an ordinary JPEG of some 20 kB."""
    return encode(noise(seed), quality=80)


def rotated_jpeg(seed: int) -> bytes:
    """Return a JPEG that lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to show it
    return encode(noise(seed, (320, 240)), exif=exif)


def cmyk_jpeg(seed: int) -> bytes:
    """Return a JPEG for printers: four inks, and Adobe's marker where JFIF's stands otherwise."""
    return encode(noise(seed).convert("CMYK"), quality=80)


def deep_png(seed: int) -> bytes:
    """Return a PNG of 16 bits a pixel, grey."""
    grey = np.asarray(noise(seed).convert("L"), dtype=np.uint16)
    return encode(Image.fromarray(grey * 257), "PNG")


def smaller(image: Image.Image) -> Image.Image:
    """Shrink an image as a thumbnailer would."""
    return image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)


def png(size: tuple[int, int], depth: int, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG that announces this size, depth and kind of colours, of (name, data) chunks."""
    header = (b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))
    whole = b"\x89PNG\r\n\x1a\n"
    for name, data in (header, *chunks, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        whole += struct.pack(">I", len(data)) + name + data + checksum
    return whole


def png_bomb(side: int = 16_000) -> bytes:
    """Return a PNG of `side` x `side` black pixels, 256 million of them in 32 kB."""
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return png((side, side), 1, 0, (b"IDAT", rows))  # one bit a pixel


def padded(start: bytes, num_mib: int) -> Iterator[bytes]:
    """Yield, piece by piece, `start` followed by zeros up to a size in MiB."""
    yield start + bytes(_MIB - len(start))
    for _ in range(num_mib - 1):
        yield bytes(_MIB)


def gzip_bomb(start: bytes, num_mib: int) -> bytes:
    """Return the gzip form, some 100 kB, of `padded(start, num_mib)`."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        for piece in padded(start, num_mib):
            file.write(piece)
    return buffer.getvalue()
