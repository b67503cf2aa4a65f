import concurrent.futures
import hashlib
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from painted import COLOURS, encode, paint
from PIL import Image

from classifier import errors, images
from classifier.errors import ImageError

REPOSITORY = Path(__file__).resolve().parents[1]

RED = COLOURS["red"]
PICTURE = paint(RED)  # 64 wide, 48 high
JPEG = encode(PICTURE)
PNG = encode(PICTURE, "PNG")
GIF = encode(PICTURE, "GIF")

SIZES = [None, (24, 32)]  # (height, width)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, bits: int = 1) -> bytes:
    """Give a grey PNG that announces a size and has nearly no pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int, **options: object) -> bytes:
    """Give a small JPEG whose frame header announces another size."""
    data = encode(PICTURE, **options)
    start = max(data.find(b"\xff\xc0\x00\x11"), data.find(b"\xff\xc2\x00\x11"))
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


def gif_of(width: int, height: int) -> bytes:
    """Give a GIF with a small screen whose first frame announces another size."""
    start = GIF.index(b"\x2c\0\0\0\0")
    return GIF[: start + 5] + struct.pack("<HH", width, height) + GIF[start + 9 :]


def webp_of(width: int, height: int) -> bytes:
    return encode(Image.new("RGB", (width, height)), "WEBP", lossless=True, method=0, quality=0)


def scene() -> Image.Image:
    """Paint four different quarters, so that every turn and flip can be told; 256 × 160."""
    quarters = np.array([[(250, 20, 20), (20, 250, 20)], [(20, 20, 250), (240, 240, 30)]])
    return Image.fromarray(quarters.repeat(80, 0).repeat(128, 1).astype(np.uint8))


# What was done to the scene, so that orientation k undoes it.
TURNED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


def oriented(image: Image.Image, value: object, picture_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"quality": 95, "subsampling": 0} if picture_format == "JPEG" else {"lossless": True}
    return encode(image, picture_format, exif=exif, **options)


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3).mean(axis=0)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Give the mean difference in grey levels of two pictures of one shape."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def animation(picture_format: str) -> bytes:
    others = [paint(COLOURS["blue"], seed=seed) for seed in (1, 2)]
    return encode(PICTURE, picture_format, save_all=True, append_images=others, duration=100)


FORMATS = {
    "JPEG": JPEG,
    "progressive JPEG": encode(PICTURE, progressive=True),
    "PNG": PNG,
    "GIF": GIF,
    "WEBP": encode(PICTURE, "WEBP"),
    "lossless WEBP": encode(PICTURE, "WEBP", lossless=True),
    "BMP": encode(PICTURE, "BMP"),
    "MPO, a phone's JPEG": encode(
        PICTURE, "MPO", save_all=True, append_images=[paint(COLOURS["blue"])]
    ),
}


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_picture(
    tmp_path: Path, name: str, image_size: tuple[int, int] | None
) -> None:
    path = tmp_path / "picture.txt"  # the name must not matter
    path.write_bytes(FORMATS[name])
    image = images.decode(path, image_size=image_size)
    height, width = image_size or (48, 64)
    assert image.pixels.shape == (height, width, 3)
    assert image.pixels.dtype == np.uint8
    assert (image.width, image.height, image.orientation) == (64, 48, 1)
    assert image.format == {"MPO,": "JPEG"}.get(name.split()[0], name.split()[-1])
    assert image.num_bytes == len(FORMATS[name])
    assert np.abs(mean_colour(image.pixels) - RED).max() < 4


def test_a_png_named_jpg_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(PNG)
    assert images.decode(path).format == "PNG"
    assert (images.decode(str(path)).pixels == np.asarray(PICTURE)).all()


def test_the_digest_is_that_of_the_bytes() -> None:
    assert images.decode(PNG).sha256 == hashlib.sha256(PNG).hexdigest()


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("image_size", [None, (20, 32), (32, 20)])
@pytest.mark.parametrize("value", TURNED)
def test_every_orientation_shows_the_same_scene(
    value: int, image_size: tuple[int, int] | None, picture_format: str
) -> None:
    turned = TURNED[value](scene())
    if picture_format == "PNG":
        exif = Image.Exif()
        exif[0x0112] = value
        data = encode(turned, "PNG", exif=exif)
    else:
        data = oriented(turned, value, picture_format)
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
    image = images.decode(encode(PICTURE, exif=exif))
    assert image.orientation == 1
    assert image.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("value", [0, 9, 99, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    assert images.decode(oriented(PICTURE, value)).orientation == 1


def test_altered_exif_never_loses_a_picture() -> None:
    random = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "text", 72.0
    block = exif.tobytes()
    for _ in range(150):
        altered = bytearray(block)
        for place in random.integers(6, len(block), 4):
            altered[place] = random.integers(256)
        assert images.decode(encode(PICTURE, exif=bytes(altered))).num_bytes


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (64, 48), 0)
    image.putpalette([*RED, *COLOURS["blue"]])
    return image


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((48, 64), value, np.uint16))


WHITE = (255, 255, 255)
# Name -> encoded picture, and its one colour under the contract.
MODES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "RGBA, transparent red": (encode(Image.new("RGBA", (64, 48), (*RED, 0)), "PNG"), WHITE),
    "RGBA, half transparent black": (
        encode(Image.new("RGBA", (64, 48), (0, 0, 0, 128)), "PNG"),
        (127, 127, 127),
    ),
    "RGBA, opaque": (encode(Image.new("RGBA", (64, 48), (*RED, 255)), "PNG"), RED),
    "WEBP, transparent red": (
        encode(Image.new("RGBA", (64, 48), (*RED, 0)), "WEBP", lossless=True, exact=True),
        WHITE,
    ),
    "LA, transparent black": (encode(Image.new("LA", (64, 48), (0, 0)), "PNG"), WHITE),
    "palette, transparent": (encode(palette_with_transparency(), "PNG", transparency=0), WHITE),
    "palette, another transparent": (
        encode(palette_with_transparency(), "PNG", transparency=1),
        RED,
    ),
    "GIF, transparent": (encode(palette_with_transparency(), "GIF", transparency=0), WHITE),
    "RGB with a transparent colour": (
        encode(Image.new("RGB", (64, 48), RED), "PNG", transparency=RED),
        WHITE,
    ),
    "palette": (encode(palette_with_transparency(), "PNG"), RED),
    "palette BMP": (encode(palette_with_transparency(), "BMP"), RED),
    "16-bit black": (encode(grey16(0), "PNG"), (0, 0, 0)),
    "16-bit dark": (encode(grey16(20 * 257), "PNG"), (20, 20, 20)),
    "16-bit middle": (encode(grey16(128 * 257), "PNG"), (128, 128, 128)),
    "16-bit white": (encode(grey16(65535), "PNG"), WHITE),
    "8-bit grey": (encode(Image.new("L", (64, 48), 90), "PNG"), (90, 90, 90)),
    "grey JPEG": (encode(Image.new("L", (64, 48), 90)), (90, 90, 90)),
    "CMYK JPEG": (encode(Image.new("CMYK", (64, 48), (0, 255, 255, 0)), quality=95), (255, 0, 0)),
    "1-bit white": (encode(Image.new("1", (64, 48), 1), "PNG"), WHITE),
    "1-bit black": (encode(Image.new("1", (64, 48), 0), "PNG"), (0, 0, 0)),
    "YCbCr JPEG": (encode(Image.new("YCbCr", (64, 48), (90, 128, 128))), (90, 90, 90)),
}


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
@pytest.mark.parametrize("picture_format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(
    picture_format: str, image_size: tuple[int, int] | None
) -> None:
    pixels = images.decode(animation(picture_format), image_size=image_size).pixels
    assert np.abs(mean_colour(pixels) - RED).max() < 4


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
    "TIFF": (encode(PICTURE, "TIFF"), errors.UnsupportedImageFormatError, "a TIFF"),
    "Motorola TIFF": (b"MM\0*" + bytes(99), errors.UnsupportedImageFormatError, "a TIFF"),
    "ZIP": (b"PK\3\4" + bytes(99), errors.UnsupportedImageFormatError, "a ZIP"),
    "ICO": (encode(PICTURE, "ICO"), errors.UnsupportedImageFormatError, "an ICO"),
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
    "1 × 1": (encode(PICTURE.resize((1, 1)), "PNG"), errors.ImageTooSmallError, "1×1 pixels"),
    "one side too short": (
        encode(PICTURE.resize((15, 400))), errors.ImageTooSmallError, "at least 16"),
}  # fmt: skip


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_picture_is_refused_by_name(
    tmp_path: Path, name: str, image_size: tuple[int, int] | None
) -> None:
    data, kind, words = REFUSED[name]
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        images.decode(path, image_size=image_size)
    assert isinstance(caught.value, kind)
    assert words in caught.value.reason
    assert caught.value.source == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_a_picture_cut_anywhere_before_its_last_pixels_is_refused(picture_format: str) -> None:
    data = FORMATS[picture_format]
    for part in range(1, 20):
        with pytest.raises(ImageError):
            images.decode(data[: len(data) * part // 20])


def test_a_name_stands_for_bytes_in_errors() -> None:
    with pytest.raises(errors.EmptyImageError, match=r"^upload 7: the picture is empty"):
        images.decode(b"", name="upload 7")
    with pytest.raises(errors.EmptyImageError, match=r"^the picture is empty"):
        images.decode(b"")


def test_a_format_can_be_left_out() -> None:
    limits = images.Limits(formats=("JPEG", "PNG"))
    assert images.decode(JPEG, limits).format == "JPEG"
    with pytest.raises(errors.UnsupportedImageFormatError) as caught:
        images.decode(GIF, limits)
    assert caught.value.reason == "this is a GIF, which is not accepted: use JPEG, PNG"


TOO_MANY = {
    "1-bit PNG of 169 million pixels": png_of(13_000, 13_000),
    "PNG of a thousand million": png_of(40_000, 40_000),
    "PNG with a side of 2^31": png_of(2**31, 48),
    "PNG of 25 million and a row": png_of(5_000, 5_001, bits=8),
    "long PNG": png_of(30_001, 16),
    "GIF frame larger than its screen": gif_of(60_000, 1_000),
    "WEBP of 80 million": webp_of(16_000, 5_000),
    "JPEG of 81 million": jpeg_of(9_000, 9_000),
    "progressive JPEG of 81 million": jpeg_of(9_000, 9_000, progressive=True),
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
        "import sys; from pathlib import Path; from classifier import errors, images\n"
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
    assert images.decode(encode(PICTURE.resize((16, 16)))).height == 16


def test_too_many_bytes_are_refused_without_reading_them_all(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(JPEG)
    assert images.decode(path, images.Limits(max_bytes=len(JPEG))).num_bytes == len(JPEG)
    for source in (path, JPEG):
        with pytest.raises(errors.ImageTooLargeError, match="more than 1,000 bytes"):
            images.decode(source, images.Limits(max_bytes=1000))
    os.truncate(path, 2**40)  # sparse: reading all of it would end this process
    with pytest.raises(errors.ImageTooLargeError):
        images.decode(path, images.Limits(max_bytes=100_000))


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
        images.decode("picture\0.jpg")


def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
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


def test_want_of_memory_is_not_blamed_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        images.decode(PNG)


def photograph(width: int, height: int) -> Image.Image:
    """Paint soft hills with thin, slightly darker lines upon them, as large as asked."""
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    layers = [np.sin(x * a + y * b) * 100 + 128 for a, b in ((1, 0.5), (0.7, 2), (2, 1))]
    pixels = np.stack(layers, axis=-1).clip(0, 255).astype(np.uint8)
    pixels[::17] -= pixels[::17] // 3
    return Image.fromarray(pixels)


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


@pytest.mark.parametrize("image_size", [(75, 200), (200, 75)])
def test_a_turned_large_jpeg_is_decoded_small_along_the_right_sides(
    image_size: tuple[int, int],
) -> None:
    photo = photograph(1600, 600)
    upright = images.decode(encode(photo, quality=95), image_size=image_size).pixels
    turned = images.decode(oriented(TURNED[6](photo), 6), image_size=image_size).pixels
    assert difference(turned, upright) < 1.0


def test_a_small_picture_is_enlarged() -> None:
    pixels = images.decode(PNG, image_size=(96, 128)).pixels
    expected = PICTURE.resize((128, 96), Image.Resampling.BILINEAR)
    assert (pixels == np.asarray(expected)).all()


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


@pytest.mark.parametrize("seed", range(4))
def test_altered_pictures_raise_nothing_but_image_errors(seed: int) -> None:
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


def test_pillow_is_never_told_to_accept_truncated_files() -> None:
    from PIL import ImageFile

    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    with pytest.raises(errors.TruncatedImageError):
        images.decode(JPEG[:-2], image_size=(8, 8))


def test_a_picture_beyond_pillows_own_limit_is_told_ours() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

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


def test_large_pictures_wait_for_each_other_and_small_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = threading.BoundedSemaphore(1)
    monkeypatch.setattr(images, "_heavy_lane", lane)
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
