"""EXIF: every orientation shows the same scene, and bad blocks lose no image."""

import numpy as np
import pytest
from hostile import chunk
from image_files import IMAGE, TURNED, difference, oriented, photograph, scene
from painted import encode
from PIL import Image

from imagesieve import images


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("image_size", [None, (20, 32), (32, 20)])
@pytest.mark.parametrize("value", TURNED)
def test_every_orientation_shows_the_same_scene(
    value: int, image_size: tuple[int, int] | None, image_format: str
) -> None:
    turned = TURNED[value](scene())
    if image_format == "PNG":
        exif = Image.Exif()
        exif[0x0112] = value
        data = encode(turned, "PNG", exif=exif)
    else:
        data = oriented(turned, value, image_format)
    image = images.decode(data, image_size=image_size)
    upright = images.decode(encode(scene(), "PNG"), image_size=image_size)
    assert (image.width, image.height, image.orientation) == (256, 160, value)
    assert difference(image.pixels, upright.pixels) < 2


def test_exif_behind_a_pngs_pixels_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(TURNED[6](scene()), "PNG")
    behind = data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]
    image = images.decode(behind)
    assert (image.width, image.height, image.orientation) == (256, 160, 6)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 60_000,
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03",
        b"no EXIF at all",
    ],
    ids=["empty", "only its name", "offset outside", "all ones", "endless table", "other text"],
)
def test_bad_exif_is_ignored(exif: bytes) -> None:
    image = images.decode(encode(IMAGE, exif=exif))
    assert image.orientation == 1
    assert image.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("value", [0, 9, 99, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    assert images.decode(oriented(IMAGE, value)).orientation == 1


def test_altered_exif_never_loses_an_image() -> None:
    random = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "text", 72.0
    block = exif.tobytes()
    for _ in range(150):
        altered = bytearray(block)
        for place in random.integers(6, len(block), 4):
            altered[place] = random.integers(256)
        assert images.decode(encode(IMAGE, exif=bytes(altered))).num_bytes


@pytest.mark.parametrize("image_size", [(75, 200), (200, 75)])
def test_a_turned_large_jpeg_is_decoded_small_along_the_right_sides(
    image_size: tuple[int, int],
) -> None:
    photo = photograph(1600, 600)
    upright = images.decode(encode(photo, quality=95), image_size=image_size).pixels
    turned = images.decode(oriented(TURNED[6](photo), 6), image_size=image_size).pixels
    assert difference(turned, upright) < 1.0
