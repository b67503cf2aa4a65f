"""What is no whole image, or cannot be read, is refused by name and with nothing else."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import chunk
from image_files import FORMATS, GIF, IMAGE, JPEG, PNG, RED, SIZES, png_of
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import errors, images
from imagesieve.errors import ImageError

REFUSED: dict[str, tuple[bytes, type[ImageError], str]] = {
    "nothing": (b"", errors.EmptyImageError, "empty (0 bytes)"),
    "text": (b"hello", errors.UnsupportedImageFormatError, "b'hello'"),
    "HTML": (b"<!DOCTYPE html>", errors.UnsupportedImageFormatError, "text such as HTML"),
    "HTML after a blank line": (
        b"\r\n\n <html>", errors.UnsupportedImageFormatError, "text such as HTML"),
    "HTML after a byte order mark": (
        b"\xef\xbb\xbf<html>", errors.UnsupportedImageFormatError, "text such as HTML"),
    "SVG": (b"<svg/>", errors.UnsupportedImageFormatError, "text such as HTML or SVG"),
    "JSON": (b'{"error": 1}', errors.UnsupportedImageFormatError, "text such as JSON"),
    "PDF": (b"%PDF-1.7", errors.UnsupportedImageFormatError, "a PDF"),
    "TIFF": (encode(IMAGE, "TIFF"), errors.UnsupportedImageFormatError, "a TIFF"),
    "Motorola TIFF": (b"MM\0*" + bytes(99), errors.UnsupportedImageFormatError, "a TIFF"),
    "ZIP": (b"PK\3\4" + bytes(99), errors.UnsupportedImageFormatError, "a ZIP"),
    "ICO": (encode(IMAGE, "ICO"), errors.UnsupportedImageFormatError, "an ICO"),
    "PSD": (b"8BPS" + bytes(99), errors.UnsupportedImageFormatError, "a PSD"),
    "AVIF": (b"\0\0\0\x1cftypavif", errors.UnsupportedImageFormatError, "an AVIF, HEIC or video"),
    "RIFF, but sound": (b"RIFF\0\0\0\0WAVE", errors.UnsupportedImageFormatError, "b'RIFF"),
    "JPEG header": (JPEG[:200], errors.TruncatedImageError, "the JPEG ends early"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], errors.TruncatedImageError, "the JPEG ends early"),
    "JPEG without its end mark": (JPEG[:-2], errors.TruncatedImageError, "the JPEG ends early"),
    "progressive JPEG without its end mark": (
        FORMATS["progressive JPEG"][:-2], errors.TruncatedImageError, "the JPEG ends early"),
    "half a PNG": (PNG[: len(PNG) // 2], errors.TruncatedImageError, "the PNG ends early"),
    "half a GIF": (GIF[: len(GIF) // 2], errors.TruncatedImageError, "the GIF ends early"),
    "half a BMP": (FORMATS["BMP"][:5000], errors.TruncatedImageError, "the BMP ends early"),
    "half a WEBP": (FORMATS["WEBP"][:500], ImageError, "the WEBP "),
    "JPEG magic only": (b"\xff\xd8\xff", ImageError, "the JPEG "),
    "PNG magic only": (b"\x89PNG\r\n\x1a\n", ImageError, "the PNG "),
    "GIF magic only": (b"GIF89a", ImageError, "the GIF "),
    "BMP magic only": (b"BM", ImageError, "the BMP "),
    "WEBP magic only": (b"RIFF\0\0\0\0WEBP", ImageError, "the WEBP "),
    "PNG with text bomb": (
        PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000))) + PNG[33:],
        errors.UndecodableImageError, "the PNG is damaged"),
    "PNG with a wrong checksum": (
        PNG[:29] + b"\0\0\0\0" + PNG[33:], errors.UndecodableImageError, "the PNG "),
    "PNG without width": (png_of(0, 48), ImageError, "the PNG "),
    "1 × 1": (encode(IMAGE.resize((1, 1)), "PNG"), errors.ImageTooSmallError, "1×1 pixels"),
    "one side too short": (
        encode(IMAGE.resize((15, 400))), errors.ImageTooSmallError, "at least 16"),
}  # fmt: skip


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
    for turn in range(200):
        start = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBP", b"BM"]
        with pytest.raises(ImageError):
            images.decode(start[turn % 6] + random.bytes(int(random.integers(1, 400))))
