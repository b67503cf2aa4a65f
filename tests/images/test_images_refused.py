"""What is no whole image, or one over the limits, is refused by name and with nothing else."""

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import announcing, chunk
from image_files import FORMATS, GIF, IMAGE, JPEG, PNG, RED, SIZES, png_of
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import errors, images
from imagesieve.errors import ImageError
from imagesieve.images import decoding

UNSUPPORTED, UNDECODABLE = errors.UnsupportedImageFormatError, errors.UndecodableImageError
CUT, TOO_SMALL = errors.TruncatedImageError, errors.ImageTooSmallError
PROGRESSIVE, BMP, WEBP = (FORMATS[name] for name in ("progressive JPEG", "BMP", "WEBP"))
TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000)))

REFUSED: dict[str, tuple[bytes, type[ImageError], str]] = {
    "nothing": (b"", errors.EmptyImageError, "empty (0 bytes)"),
    "text": (b"hello", UNSUPPORTED, "b'hello'"),
    "HTML": (b"<!DOCTYPE html>", UNSUPPORTED, "text such as HTML"),
    "HTML after a blank line": (b"\r\n\n <html>", UNSUPPORTED, "text such as HTML"),
    "HTML after a byte order mark": (b"\xef\xbb\xbf<html>", UNSUPPORTED, "text such as HTML"),
    "SVG": (b"<svg/>", UNSUPPORTED, "text such as HTML or SVG"),
    "JSON": (b'{"error": 1}', UNSUPPORTED, "text such as JSON"),
    "PDF": (b"%PDF-1.7", UNSUPPORTED, "a PDF"),
    "TIFF": (encode(IMAGE, "TIFF"), UNSUPPORTED, "a TIFF"),
    "Motorola TIFF": (b"MM\0*" + bytes(99), UNSUPPORTED, "a TIFF"),
    "ZIP": (b"PK\3\4" + bytes(99), UNSUPPORTED, "a ZIP"),
    "ICO": (encode(IMAGE, "ICO"), UNSUPPORTED, "an ICO"),
    "PSD": (b"8BPS" + bytes(99), UNSUPPORTED, "a PSD"),
    "AVIF": (b"\0\0\0\x1cftypavif", UNSUPPORTED, "an AVIF, HEIC or video"),
    "RIFF, but sound": (b"RIFF\0\0\0\0WAVE", UNSUPPORTED, "b'RIFF"),
    "JPEG header": (JPEG[:200], CUT, "the JPEG ends early"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], CUT, "the JPEG ends early"),
    "JPEG without its end mark": (JPEG[:-2], CUT, "the JPEG ends early"),
    "progressive JPEG without its end mark": (PROGRESSIVE[:-2], CUT, "the JPEG ends early"),
    "half a PNG": (PNG[: len(PNG) // 2], CUT, "the PNG ends early"),
    "half a GIF": (GIF[: len(GIF) // 2], CUT, "the GIF ends early"),
    "half a BMP": (BMP[:5000], CUT, "the BMP ends early"),
    "half a WEBP": (WEBP[:500], ImageError, "the WEBP "),
    "JPEG magic only": (b"\xff\xd8\xff", ImageError, "the JPEG "),
    "PNG magic only": (b"\x89PNG\r\n\x1a\n", ImageError, "the PNG "),
    "GIF magic only": (b"GIF89a", ImageError, "the GIF "),
    "BMP magic only": (b"BM", ImageError, "the BMP "),
    "WEBP magic only": (b"RIFF\0\0\0\0WEBP", ImageError, "the WEBP "),
    "PNG with text bomb": (PNG[:33] + TEXT_BOMB + PNG[33:], UNDECODABLE, "the PNG is damaged"),
    "PNG with a wrong checksum": (PNG[:29] + b"\0\0\0\0" + PNG[33:], UNDECODABLE, "the PNG "),
    "PNG without width": (png_of(0, 48), ImageError, "the PNG "),
    "1 × 1": (encode(IMAGE.resize((1, 1)), "PNG"), TOO_SMALL, "1×1 pixels"),
    "one side too short": (encode(IMAGE.resize((15, 400))), TOO_SMALL, "at least 16"),
}


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_image_is_refused_by_name(
    tmp_path: Path, name: str, image_size: tuple[int, int] | None
) -> None:
    data, kind, words = REFUSED[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        images.decode(path, image_size=image_size)
    assert isinstance(caught.value, kind)
    assert words in caught.value.reason
    assert caught.value.source == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_an_image_cut_anywhere_before_its_last_pixels_is_refused(image_format: str) -> None:
    data = FORMATS[image_format]
    for part in range(1, 20):
        with pytest.raises(ImageError):
            images.decode(data[: len(data) * part // 20])


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "missing.jpg", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            images.decode(path)
        assert caught.value.source == str(path)
    with pytest.raises(ImageError, match="null byte"):
        images.decode("image\0.jpg")


def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(JPEG)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read anything
        os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match="Permission denied"):
            images.decode(path)
    finally:
        os.seteuid(user)


def test_want_of_memory_is_not_blamed_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        images.decode(PNG)


@pytest.mark.parametrize("seed", range(4))
def test_altered_images_raise_nothing_but_image_errors(seed: int) -> None:
    random = np.random.default_rng(seed)
    small = paint(RED, size=(40, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    originals = [
        encode(small, exif=exif),
        encode(small, progressive=True),
        encode(small, "PNG", exif=exif),
        encode(small, "GIF", save_all=True, append_images=[paint(COLOURS["blue"], size=(40, 32))]),
        encode(small, "WEBP", exif=exif),
        encode(small, "BMP"),
        encode(small.quantize(8), "BMP"),
        encode(small.convert("I;16"), "PNG"),
        encode(small, "MPO", save_all=True, append_images=[small]),
    ]
    refused = 0
    for turn in range(20 * len(originals)):
        altered = bytearray(originals[turn % len(originals)])
        # Headers are where decoders stumble, so every other change falls into the first bytes.
        span = len(altered) if turn % 2 else 100
        for place in random.integers(0, span, random.integers(1, 8)):
            altered[place] = random.integers(256)
        if turn % 5 == 0:
            del altered[random.integers(len(altered)) :]
        try:
            image = images.decode(bytes(altered), image_size=SIZES[turn % 2])
        except ImageError:
            refused += 1
        else:
            assert image.pixels.dtype == np.uint8
            assert image.pixels.shape[2] == 3
    assert refused > 20


def test_random_bytes_behind_any_magic_raise_nothing_but_image_errors() -> None:
    random = np.random.default_rng(9)
    starts = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBP", b"BM"]
    for start in starts * 33:
        with pytest.raises(ImageError):
            images.decode(start + random.bytes(int(random.integers(1, 400))))


# Limits: pixels, sides, bytes and blocks, and how many large images are decoded at once

REPOSITORY = Path(__file__).resolve().parents[2]


def gif_of(width: int, height: int) -> bytes:
    """Return a GIF with a small screen whose first frame announces another size."""
    start = GIF.index(b"\x2c\0\0\0\0")
    return GIF[: start + 5] + struct.pack("<HH", width, height) + GIF[start + 9 :]


def webp_of(width: int, height: int) -> bytes:
    return encode(Image.new("RGB", (width, height)), "WEBP", lossless=True, method=0, quality=0)


TOO_MANY = {
    "1-bit PNG of 169 million pixels": png_of(13_000, 13_000),
    "PNG of 200 million, over Pillow's own limit": png_of(20_000, 10_000, bits=8),
    "PNG of a thousand million": png_of(40_000, 40_000),
    "PNG with a side of 2^31": png_of(2**31, 48),
    "PNG of 25 million and a row": png_of(5_000, 5_001, bits=8),
    "long PNG": png_of(30_001, 16),
    "GIF frame larger than its screen": gif_of(60_000, 1_000),
    "WEBP of 80 million": webp_of(16_000, 5_000),
    "JPEG of 81 million": announcing(JPEG, 9_000, 9_000),
    "progressive JPEG of 81 million": announcing(FORMATS["progressive JPEG"], 9_000, 9_000),
}


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", TOO_MANY)
def test_too_many_pixels_are_refused_by_name(name: str, image_size: tuple[int, int] | None) -> None:
    with pytest.raises(errors.TooManyPixelsError, match=r"may have at most [0-9,]+"):
        images.decode(TOO_MANY[name], image_size=image_size)


def test_pixel_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for number, data in enumerate(TOO_MANY.values()):
        (tmp_path / str(number)).write_bytes(data)
    # The peak of a process cannot be reset, so a fresh one is measured.
    code = (
        "import sys; from pathlib import Path; from imagesieve import errors, images\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return int(next(line for line in lines if 'VmHWM' in line).split()[1])\n"
        "before = peak()\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: images.decode(path, image_size=(32, 32))\n"
        "    except errors.TooManyPixelsError: pass\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 20_000  # kB; the smallest of them would take 25,000


def test_as_many_pixels_as_allowed_are_accepted() -> None:
    limits = images.Limits(max_pixels=64 * 48, max_pixels_lossless=64 * 48, max_side=64)
    for data in (JPEG, PNG):
        assert images.decode(data, limits).width == 64
        with pytest.raises(errors.TooManyPixelsError, match="no side over 63"):
            images.decode(data, images.Limits(max_side=63))
    assert images.decode(encode(IMAGE.resize((16, 16)))).height == 16
    limits = images.Limits(max_pixels_lossless=64 * 48 - 1)
    assert images.decode(JPEG, limits).width == 64
    with pytest.raises(errors.TooManyPixelsError, match="a PNG may have at most 3,071"):
        images.decode(PNG, limits)


def test_too_many_bytes_are_refused_without_reading_them_all(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(JPEG)
    assert images.decode(path, images.Limits(max_bytes=len(JPEG))).format == "JPEG"
    for source in (path, JPEG):
        with pytest.raises(errors.TooManyBytesError, match="more than 1,000 bytes"):
            images.decode(source, images.Limits(max_bytes=1000))
    os.truncate(path, 2**40)  # sparse: reading all of it would end this process
    with pytest.raises(errors.TooManyBytesError):
        images.decode(path, images.Limits(max_bytes=100_000))


@pytest.mark.parametrize(
    ("kind", "extra", "most"),
    [
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000)), 1),
        (b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000)), 32),
        (b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(1_000_000)), 32),
    ],
)
def test_a_png_with_countless_compressed_extras_is_refused_at_once(
    kind: bytes, extra: bytes, most: int
) -> None:
    flood = PNG[:33] + chunk(kind, extra) * 2000 + PNG[33:]
    with pytest.raises(errors.UndecodableImageError, match=rf"over {most} blocks {kind.decode()}"):
        images.decode(flood)


def test_large_images_wait_for_each_other_and_small_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = threading.BoundedSemaphore(1)
    monkeypatch.setattr(decoding, "_large_images", lane)
    large = encode(Image.new("RGB", (2100, 2000)), "PNG")
    done: list[str] = []
    with lane:
        waiting = threading.Thread(target=lambda: done.append(images.decode(large).format))
        waiting.start()
        assert images.decode(PNG).format == "PNG"
        waiting.join(0.3)
        assert done == []
    waiting.join(20)
    assert done == ["PNG"]
