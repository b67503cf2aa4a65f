"""Images that must be refused, and odd ones that must not; each small, all made by hand."""

import io
import struct
import zipfile
import zlib

from painted import COLOURS, encode, paint
from PIL import Image

RED = paint(COLOURS["red"])
RED_JPEG = encode(RED)
RED_PNG = encode(RED, "PNG")


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """Return a PNG with these chunks between its header and too little pixel data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def announcing(jpeg: bytes, width: int, height: int) -> bytes:
    """Return the JPEG with other sides in its frame header."""
    start = max(jpeg.find(b"\xff\xc0\x00\x11"), jpeg.find(b"\xff\xc2\x00\x11"))
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.jpg", RED_JPEG)
    return buffer.getvalue()


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encode(RED, exif=exif)


def gif(*blocks: bytes) -> bytes:
    """Return a GIF with these blocks before its one frame."""
    data = encode(RED, "GIF")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + b"".join(blocks) + data[start:]


def many_scans(count: int) -> bytes:
    """Return a JPEG of a megapixel whose last scan repeats, twelve bytes each time."""
    data = encode(Image.new("RGB", (1000, 1000)), progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def huge_webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8000, 4000)).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def clear_red() -> bytes:
    image = Image.new("RGBA", (64, 48), (*COLOURS["red"], 0))
    return encode(image, "PNG")


UNSUPPORTED = "unsupported-image-format"
UNDECODABLE = "undecodable-image"
TRUNCATED = "truncated-image"
TOO_MANY = "too-many-pixels"
TOO_SMALL = "image-too-small"
BOMB = zlib.compress(bytes(30_000_000))

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "text": (b"hello", 415, UNSUPPORTED),
    "HTML": (b"<html><script>alert(1)</script>", 415, UNSUPPORTED),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, UNSUPPORTED),
    "PDF": (b"%PDF-1.7 ...", 415, UNSUPPORTED),
    "ZIP": (zipped(), 415, UNSUPPORTED),
    "TIFF": (encode(RED, "TIFF"), 415, UNSUPPORTED),
    "PSD": (b"8BPS" + bytes(100), 415, UNSUPPORTED),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0", 415, UNSUPPORTED),
    "FITS": (b"SIMPLE  =                    T", 415, UNSUPPORTED),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), 415, UNSUPPORTED),
    "ICO": (encode(RED, "ICO"), 415, UNSUPPORTED),
    "DDS": (b"DDS |\0\0\0" + bytes(200), 415, UNSUPPORTED),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(100), 415, UNSUPPORTED),
    "base64 of base64": (b"/9j/4AAQSkZJRg==", 415, UNSUPPORTED),
    "JPEG header only": (RED_JPEG[:200], 422, TRUNCATED),
    "JPEG without its end": (RED_JPEG[:-2], 422, TRUNCATED),
    "JPEG short of 100 bytes": (RED_JPEG[:-100], 422, TRUNCATED),
    "half a JPEG": (RED_JPEG[: len(RED_JPEG) // 2], 422, TRUNCATED),
    "half a PNG": (RED_PNG[: len(RED_PNG) // 2], 422, TRUNCATED),
    "1-bit PNG of 169 MP": (png(13_000, 13_000, bits=1, colour=0), 422, TOO_MANY),
    "PNG of 81 MP": (png(9_000, 9_000), 422, TOO_MANY),
    "PNG of a gigapixel": (png(40_000, 40_000), 422, TOO_MANY),
    "WebP of 32 MP": (huge_webp(), 422, TOO_MANY),
    "JPEG of 81 MP": (announcing(RED_JPEG, 9_000, 9_000), 422, TOO_MANY),
    "progressive JPEG of 81 MP": (
        announcing(encode(RED, progressive=True), 9_000, 9_000), 422, TOO_MANY),
    "zTXt bomb": (png(64, 48, chunk(b"zTXt", b"note\0\0" + BOMB)), 422, UNDECODABLE),
    "iCCP bomb": (png(64, 48, chunk(b"iCCP", b"profile\0\0" + BOMB)), 422, UNDECODABLE),
    "100,000 chunks": (
        RED_PNG[:33] + chunk(b"teSt", b"") * 100_000 + RED_PNG[33:], 422, UNDECODABLE),
    "a million comments": (
        RED_JPEG[:2] + b"\xff\xfe\0\2" * 1_000_000 + RED_JPEG[2:], 422, UNDECODABLE),
    "GIF of a million comments": (gif(b"!\xfe\1a\0" * 1_000_000), 422, UNDECODABLE),
    "700,000 scans": (many_scans(700_000), 422, UNDECODABLE),
    "wrong checksum": (png(64, 48, chunk(b"gAMA", bytes(4), crc=1)), 422, UNDECODABLE),
    "no width": (png(0, 48), 422, UNDECODABLE),
    "width 2^31": (png(2**31, 48), 422, TOO_MANY),
    "1 × 1": (encode(RED.resize((1, 1)), "PNG"), 422, TOO_SMALL),
    "1 × 30,000": (encode(RED.resize((1, 30_000)), "PNG"), 422, TOO_SMALL),
    "65,000 × 10": (encode(RED.resize((65_000, 10))), 422, TOO_SMALL),
}  # fmt: skip

ACCEPTED: dict[str, bytes] = {
    "JPEG": RED_JPEG,
    "progressive JPEG": encode(RED, progressive=True),
    "PNG": RED_PNG,
    "GIF": encode(RED, "GIF"),
    "WebP": encode(RED, "WEBP"),
    "BMP": encode(RED, "BMP"),
    "MPO of a phone": encode(RED, "MPO", save_all=True, append_images=[paint(COLOURS["blue"])]),
    "JPEG and PHP behind it": RED_JPEG + b"<?php system($_GET['c']); ?>",
    "GIF and script behind it": encode(RED, "GIF") + b"/*<script>alert(1)</script>",
    "CMYK": encode(RED.convert("CMYK")),
    "palette with transparency": encode(RED.quantize(16), "PNG", transparency=15),
    "RGBA": encode(RED.convert("RGBA"), "PNG"),
    "animation": encode(RED, "GIF", save_all=True, append_images=[paint(COLOURS["blue"])] * 3),
    "EXIF that is none": encode(RED, exif=b"Exif\0\0" + b"\xff" * 60_000),
    **{f"orientation {value}": with_orientation(value) for value in (*range(1, 9), 0, 99)},
}

COLOURLESS: dict[str, bytes] = {
    "16-bit grey": encode(RED.convert("I;16"), "PNG"),
    "grey": encode(RED.convert("L")),
    "grey with alpha": encode(RED.convert("LA"), "PNG"),
    "1-bit": encode(RED.convert("1"), "PNG"),
    "red under full transparency": clear_red(),
}
