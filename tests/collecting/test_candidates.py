"""Every kind of image and of rubbish: kept under its right name, or refused for its reason."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from fake_bing import draw
from hostile import announcing, chunk
from painted import encode, paint
from PIL import Image

from imagesieve import images
from imagesieve.collecting.class_folder import Candidate, validate
from imagesieve.collecting.run import unusable_reason
from imagesieve.collecting.targets import JPEG, KEEP
from imagesieve.errors import ImageError

REPOSITORY = Path(__file__).resolve().parents[2]
LIMITS = images.Limits(min_side=32, max_bytes=2**20)


def reason_for(data: bytes, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        validate(data, LIMITS, **options)
    return unusable_reason(caught.value)


def opened(candidate: Candidate) -> Image.Image:
    image = Image.open(io.BytesIO(candidate.data))
    image.load()
    return image


def png(width: int, height: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a black PNG of one bit a pixel, with other chunks before or behind the pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + -(-width // 8)) * height), 9)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bombs() -> Iterable[tuple[str, bytes, str]]:
    """Yield files of at most a megabyte that would take 32 MB to 16 GB, and their reasons."""
    hundred = zlib.compress(bytes(100 * 2**20), 9)
    gif = bytearray(draw(0, "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    text = chunk(b"zTXt", b"k\0\0" + hundred)
    yield "256 megapixel PNG", png(16384, 16384), "too many pixels"
    yield "long PNG", png(200_000, 100), "too many pixels"
    yield "JPEG header", announcing(draw(0), 65500, 65500), "too many pixels"
    yield "GIF header", bytes(gif), "too many pixels"
    yield "iCCP", png(99, 99, chunk(b"iCCP", b"x\0\0" + hundred)), "damaged"
    yield "zTXt", png(99, 99, text), "damaged"
    yield "zTXt behind", png(99, 99, b"", text), "damaged"
    yield "iTXt", png(99, 99, chunk(b"iTXt", b"k\0\1\0\0\0" + hundred)), "damaged"


BOMBS = {name: (data, reason) for name, data, reason in bombs()}


@pytest.mark.parametrize("image_format", images.FORMATS)
def test_extension_is_that_of_the_content(image_format: str) -> None:
    data = draw(3, image_format)
    candidate = validate(data, LIMITS)
    assert candidate.format == image_format
    assert candidate.file_name == candidate.sha256[:16] + images.EXTENSIONS[image_format]
    assert candidate.sha256 == hashlib.sha256(data).hexdigest()
    assert (candidate.data, candidate.source_sha256) == (data, "")
    assert (candidate.width, candidate.height) == (96, 80)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "not an image"),
        (b'  \n{"error": 1}', "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='99' height='99'/>", "not an image"),
        (b"\0\0\0 ftypavif" + bytes(200), "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(200), "not an image"),
        (encode(paint((9, 9, 9), size=(64, 64)), "ICO"), "not an image"),
        (encode(paint((9, 9, 9)), "TIFF"), "not an image"),
        (b"%PDF-1.7", "not an image"),
        (bytes(1000), "not an image"),
        (draw(0, size=(1, 1)), "too small"),
        (draw(0, "GIF", (1, 1)), "too small"),
        (draw(0, size=(400, 31)), "too small"),
        (draw(0, "PNG", (31, 400)), "too small"),
        (draw(0) + bytes(2**20), "too many bytes"),
        (draw(0)[:-1], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged"),
        (b"GIF89a", "damaged"),
        (b"BM" + bytes(100), "damaged"),
    ],
)
def test_rubbish_is_refused_for_its_reason(data: bytes, reason: str) -> None:
    assert reason_for(data) == reason


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_for_its_reason(name: str) -> None:
    data, reason = BOMBS[name]
    assert len(data) < 2**20
    assert reason_for(data) == reason
    assert reason_for(data, max_side=64, file_format=JPEG) == reason


def test_bombs_and_large_photos_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "0-small.bin").write_bytes(draw(0))
    for number, (data, _) in enumerate(BOMBS.values(), 1):
        (tmp_path / f"{number}.bin").write_bytes(data)
    photo = paint((90, 120, 40), size=(500, 400)).resize((7900, 8000))
    photo.save(tmp_path / "photo.bin", "JPEG", quality=50)
    code = """
import resource, sys
from pathlib import Path
from imagesieve import images
from imagesieve.collecting.class_folder import validate
from imagesieve.errors import ImageError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        found = validate(path.read_bytes(), images.DEFAULT_LIMITS, max_side=512)
        print(path.name, found.width, found.height)
    except ImageError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    before = peak if path.name == "0-small.bin" else before
print(peak - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    small, large, megabytes = done.stdout.splitlines()
    assert (small, large) == ("0-small.bin 96 80", "photo.bin 506 512")
    assert int(megabytes) < 64


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.new("I;16", (90, 70), 40_000), "PNG"),
        encode(paint((10, 200, 30), size=(90, 70)).convert("CMYK")),
        encode(paint((10, 200, 30), size=(90, 70)).quantize(16), "PNG", transparency=0),
        encode(Image.new("RGBA", (90, 70), (255, 0, 0, 128)), "WEBP"),
    ],
)
@pytest.mark.parametrize("max_side", [None, 45])
def test_every_kind_of_pixels_is_kept_and_can_become_a_jpeg(
    data: bytes, max_side: int | None
) -> None:
    assert validate(data, LIMITS).data == data
    candidate = validate(data, LIMITS, file_format=JPEG, max_side=max_side)
    image = opened(candidate)
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert image.size == (candidate.width, candidate.height)
    assert image.size == ((90, 70) if max_side is None else (45, 35))
    assert candidate.source_sha256 == hashlib.sha256(data).hexdigest()
    assert candidate.file_name == f"{hashlib.sha256(candidate.data).hexdigest()[:16]}.jpg"
    # The road is the same as for training: the pixels are those that training would see.
    source = images.decode(data, image_size=(35, 45)).pixels.astype(int)
    copy = images.decode(candidate.data, image_size=(35, 45)).pixels.astype(int)
    assert np.abs(source - copy).mean() < 10  # of 255; noise is what a JPEG keeps least


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_photo_has_the_size_that_is_seen(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (120, 60), "blue")
    image.paste("red", (0, 0, 60, 30))  # what is stored at the top left
    data = encode(image, exif=exif)
    size = (120, 60) if orientation < 5 else (60, 120)
    kept = validate(data, LIMITS)
    assert (kept.data, (kept.width, kept.height)) == (data, size)
    for max_side, expected in ((None, size), (80, tuple(side * 2 // 3 for side in size))):
        written = validate(data, LIMITS, file_format=JPEG, max_side=max_side)
        image = opened(written)
        assert (written.width, written.height) == image.size == expected
        assert image.getexif().get(0x0112, 1) == 1
        seen = images.decode(data, image_size=(40, 40)).pixels.astype(int)
        again = images.decode(written.data, image_size=(40, 40)).pixels.astype(int)
        assert np.abs(seen - again).mean() < 8


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_that_scaling_makes_too_small_is_refused(image_format: str) -> None:
    data = draw(2, image_format, (640, 100))
    assert reason_for(data, max_side=128) == "too small"
    assert validate(data, LIMITS, max_side=320).height == 50


def test_the_same_bytes_give_the_same_file() -> None:
    data = draw(4, "PNG", (300, 200))
    one, other = (validate(data, LIMITS, max_side=128, file_format=JPEG) for _ in range(2))
    assert one == other
    # The format is not what makes the name: both are JPEGs once they are scaled.
    assert validate(data, LIMITS, max_side=128, file_format=KEEP) == one
    assert one.fingerprint == validate(data, LIMITS).fingerprint, "that of what came"
    assert one.fingerprint != validate(draw(5), LIMITS).fingerprint
    for options in ({"file_format": JPEG}, {"file_format": JPEG, "max_side": 96}):
        plain = validate(draw(0), LIMITS, **options)
        assert (plain.data, plain.source_sha256) == (draw(0), ""), "a JPEG is not encoded again"


def test_every_error_of_decoding_has_a_reason_of_its_own() -> None:
    kinds = {kind.slug: kind("") for kind in ImageError.__subclasses__()}
    reasons = {slug: unusable_reason(error) for slug, error in kinds.items()}
    assert len(set(reasons.values())) == len(reasons) > 6
    assert reasons["too-many-pixels"] == "too many pixels"
