"""Limits: pixels, sides, bytes and blocks, and how many large images are decoded at once."""

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hostile import announcing, chunk
from image_files import FORMATS, GIF, IMAGE, JPEG, PNG, SIZES, png_of
from painted import encode
from PIL import Image

from imagesieve import errors, images
from imagesieve.images import decoding

REPOSITORY = Path(__file__).resolve().parents[2]


def gif_of(width: int, height: int) -> bytes:
    """Return a GIF with a small screen whose first frame announces another size."""
    start = GIF.index(b"\x2c\0\0\0\0")
    return GIF[: start + 5] + struct.pack("<HH", width, height) + GIF[start + 9 :]


def webp_of(width: int, height: int) -> bytes:
    return encode(Image.new("RGB", (width, height)), "WEBP", lossless=True, method=0, quality=0)


TOO_MANY = {
    "1-bit PNG of 169 million pixels": png_of(13_000, 13_000),
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
    with pytest.raises(errors.TooManyPixelsError, match="pixels"):
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
    assert images.decode(JPEG, limits).width == 64
    assert images.decode(PNG, limits).width == 64
    for data in (JPEG, PNG):
        with pytest.raises(errors.TooManyPixelsError, match="no side over 63"):
            images.decode(data, images.Limits(max_side=63))


def test_a_jpegs_cap_is_another_than_that_of_lossless_formats() -> None:
    limits = images.Limits(max_pixels_lossless=64 * 48 - 1)
    assert images.decode(JPEG, limits).width == 64
    with pytest.raises(errors.TooManyPixelsError, match="a PNG may have at most 3,071"):
        images.decode(PNG, limits)


def test_the_shortest_side_allowed_is_accepted() -> None:
    assert images.decode(encode(IMAGE.resize((16, 16)))).height == 16


def test_too_many_bytes_are_refused_without_reading_them_all(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(JPEG)
    assert images.decode(path, images.Limits(max_bytes=len(JPEG))).num_bytes == len(JPEG)
    for source in (path, JPEG):
        with pytest.raises(errors.ImageTooLargeError, match="more than 1,000 bytes"):
            images.decode(source, images.Limits(max_bytes=1000))
    os.truncate(path, 2**40)  # sparse: reading all of it would end this process
    with pytest.raises(errors.ImageTooLargeError):
        images.decode(path, images.Limits(max_bytes=100_000))


def test_an_image_beyond_pillows_own_limit_names_ours() -> None:
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(errors.TooManyPixelsError, match="a PNG may have at most 25,000,000"):
        images.decode(data)


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
