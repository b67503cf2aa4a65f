"""Images of every format and mode are decoded to the colours a person sees, at any size."""

import concurrent.futures
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hostile import chunk
from image_files import (
    FORMATS,
    IMAGE,
    RED,
    SIZES,
    TURNED,
    difference,
    exif_of,
    oriented,
    photograph,
    scene,
)
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import images


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_image(
    tmp_path: Path, name: str, image_size: tuple[int, int] | None
) -> None:
    path = tmp_path / "image.txt"  # the name must not matter
    path.write_bytes(FORMATS[name])
    image = images.decode(path, image_size=image_size)
    height, width = image_size or (48, 64)
    assert image.pixels.shape == (height, width, 3)
    assert image.pixels.dtype == np.uint8
    assert (image.width, image.height, image.orientation) == (64, 48, 1)
    assert image.format == {"MPO,": "JPEG"}.get(name.split()[0], name.split()[-1])
    assert image.sha256 == hashlib.sha256(FORMATS[name]).hexdigest()
    assert np.abs(mean_colour(image.pixels) - RED).max() < 4


# Name -> encoded image, and its one colour under the contract.
WHITE, HALF, GREY = (255, 255, 255), (127, 127, 127), (90, 90, 90)


def one_colour(mode: str, colour: object, image_format: str = "PNG", **options: object) -> bytes:
    return encode(Image.new(mode, (64, 48), colour), image_format, **options)


def palette(image_format: str = "PNG", **options: int) -> bytes:
    image = Image.new("P", (64, 48), 0)
    image.putpalette([*RED, *COLOURS["blue"]])
    return encode(image, image_format, **options)


def grey16(value: int) -> bytes:
    return encode(Image.fromarray(np.full((48, 64), value, np.uint16)), "PNG")


# Name -> encoded image, and its one colour under the contract.
MODES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "RGBA, transparent red": (one_colour("RGBA", (*RED, 0)), WHITE),
    "RGBA, half transparent black": (one_colour("RGBA", (0, 0, 0, 128)), HALF),
    "RGBA, opaque": (one_colour("RGBA", (*RED, 255)), RED),
    "WEBP, transparent red": (
        one_colour("RGBA", (*RED, 0), "WEBP", lossless=True, exact=True), WHITE),
    "LA, transparent black": (one_colour("LA", (0, 0)), WHITE),
    "palette, transparent": (palette(transparency=0), WHITE),
    "palette, another transparent": (palette(transparency=1), RED),
    "GIF, transparent": (palette("GIF", transparency=0), WHITE),
    "RGB with a transparent colour": (one_colour("RGB", RED, transparency=RED), WHITE),
    "palette": (palette(), RED),
    "palette BMP": (palette("BMP"), RED),
    "16-bit black": (grey16(0), (0, 0, 0)),
    "16-bit dark": (grey16(20 * 257), (20, 20, 20)),
    "16-bit middle": (grey16(128 * 257), (128, 128, 128)),
    "16-bit white": (grey16(65535), WHITE),
    "8-bit grey": (one_colour("L", 90), GREY),
    "grey JPEG": (one_colour("L", 90, "JPEG"), GREY),
    "CMYK JPEG": (one_colour("CMYK", (0, 255, 255, 0), "JPEG", quality=95), (255, 0, 0)),
    "1-bit white": (one_colour("1", 1), WHITE),
    "1-bit black": (one_colour("1", 0), (0, 0, 0)),
    "YCbCr JPEG": (one_colour("YCbCr", (90, 128, 128), "JPEG"), GREY),
}  # fmt: skip


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_colour_a_person_sees(
    name: str, image_size: tuple[int, int] | None
) -> None:
    data, colour = MODES[name]
    pixels = images.decode(data, image_size=image_size).pixels
    assert pixels.shape == (*(image_size or (48, 64)), 3)
    assert np.abs(pixels.astype(int) - colour).max() <= 2


def test_16_bit_grey_keeps_its_order() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    pixels = images.decode(encode(Image.fromarray(ramp), "PNG")).pixels[..., 0]
    assert len(np.unique(pixels)) == 256
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(
    image_format: str, image_size: tuple[int, int] | None
) -> None:
    others = [paint(COLOURS["blue"], seed=seed) for seed in (1, 2)]
    data = encode(IMAGE, image_format, save_all=True, append_images=others, duration=100)
    pixels = images.decode(data, image_size=image_size).pixels
    assert np.abs(mean_colour(pixels) - RED).max() < 4


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("image_size", [(150, 150), (100, 299), (299, 224)])
def test_decoding_small_agrees_with_decoding_whole_and_resizing(
    image_size: tuple[int, int], progressive: bool
) -> None:
    data = encode(photograph(1601, 1203), quality=90, progressive=progressive)
    height, width = image_size
    whole = Image.fromarray(images.decode(data).pixels)
    resized = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR))
    image = images.decode(data, image_size=image_size)
    assert (image.width, image.height) == (1601, 1203)
    assert difference(image.pixels, resized) < 1.0


def test_threads_give_the_same_pixels_as_one_thread() -> None:
    sources = [
        *FORMATS.values(),
        *(data for data, _ in MODES.values()),
        encode(photograph(800, 600)),
        *(oriented(TURNED[value](scene()), value) for value in TURNED),
    ] * 4

    def decoded(data: bytes) -> bytes:
        return images.decode(data, image_size=(40, 60)).pixels.tobytes()

    alone = [decoded(data) for data in sources]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decoded, sources)) == alone


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("image_size", [None, (20, 32), (32, 20)])
@pytest.mark.parametrize("value", TURNED)
def test_every_orientation_shows_the_same_scene(
    value: int, image_size: tuple[int, int] | None, image_format: str
) -> None:
    data = oriented(TURNED[value](scene()), value, image_format)
    image = images.decode(data, image_size=image_size)
    upright = images.decode(encode(scene(), "PNG"), image_size=image_size)
    assert (image.width, image.height, image.orientation) == (256, 160, value)
    assert difference(image.pixels, upright.pixels) < 2


def test_exif_behind_a_pngs_pixels_counts() -> None:
    data = encode(TURNED[6](scene()), "PNG")
    behind = data[:-12] + chunk(b"eXIf", exif_of(6)[6:]) + data[-12:]
    image = images.decode(behind)
    assert (image.width, image.height, image.orientation) == (256, 160, 6)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",  # an offset outside
        b"Exif\0\0" + b"\xff" * 60_000,
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03",  # an endless table
        b"no EXIF at all",
        *(exif_of(value) for value in (0, 9, 99, 65535)),  # no such orientations
    ],
)
def test_bad_exif_is_ignored(exif: bytes) -> None:
    image = images.decode(encode(IMAGE, exif=exif))
    assert image.orientation == 1
    assert image.pixels.shape == (48, 64, 3)


def test_altered_exif_never_loses_an_image() -> None:
    random = np.random.default_rng(5)
    block = exif_of(6, {0x010E: "text", 0x011A: 72.0})
    for _ in range(150):
        altered = bytearray(block)
        for place in random.integers(6, len(block), 4):
            altered[place] = random.integers(256)
        assert images.decode(encode(IMAGE, exif=bytes(altered))).sha256


@pytest.mark.parametrize("image_size", [(75, 200), (200, 75)])
def test_a_turned_large_jpeg_is_decoded_small_along_the_right_sides(
    image_size: tuple[int, int],
) -> None:
    photo = photograph(1600, 600)
    upright = images.decode(encode(photo, quality=95), image_size=image_size).pixels
    turned = images.decode(oriented(TURNED[6](photo), 6), image_size=image_size).pixels
    assert difference(turned, upright) < 1.0
