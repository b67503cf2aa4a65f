"""Files of countless blocks are refused before a decoder goes through them; usual ones are not."""

import contextlib
import random
import time

import pytest
from hostile import chunk, gif, many_scans
from painted import encode, paint
from PIL import Image, ImageCms

from imagesieve import images
from imagesieve.errors import UndecodableImageError
from imagesieve.images import containers

IMAGE = paint((200, 40, 30), size=(90, 70))
JPEG, PNG = encode(IMAGE), encode(IMAGE, "PNG")


def segment(code: int, size: int) -> bytes:
    return bytes([0xFF, code]) + (size + 2).to_bytes(2) + bytes(size)


def with_head(*parts: bytes) -> bytes:
    return JPEG[:2] + b"".join(parts) + JPEG[2:]


def by_colour(count: int) -> bytes:
    """Return a JPEG without refinement, whose one colour of three comes again and again."""
    head, _, scan = encode(IMAGE.convert("L")).rpartition(b"\xff\xda")
    place = head.index(b"\xff\xc0")
    colours = b"\x03\x01\x11\0\x02\x11\0\x03\x11\0"
    frame = b"\xff\xc0\0\x11" + head[place + 4 : place + 9] + colours
    return head[:place] + frame + head[place + 13 :] + (b"\xff\xda" + scan[:-2]) * count + scan[-2:]


NOTE = b"!\xfe\1a\0"

FLOODS: dict[str, tuple[str, bytes, str]] = {
    "chunks": ("PNG", PNG[:33] + chunk(b"teSt", b"") * 20_000 + PNG[33:], "over 20000 chunks"),
    "empty pixels": ("PNG", PNG[:33] + chunk(b"IDAT", b"") * 800_000 + PNG[33:], "20000 chunks"),
    "scans": ("JPEG", many_scans(700_000), "over 64 scans"),
    "scans of a colour each": ("JPEG", by_colour(300), "over 64 scans"),
    "a few scans too many": ("JPEG", many_scans(60), "over 64 scans"),
    "comments": ("JPEG", with_head(segment(0xFE, 0) * 2_000_000), "over 2000 segments"),
    "tables": ("JPEG", with_head(segment(0xDB, 65) * 100_000), "over 2000 segments"),
    "starts": ("JPEG", with_head(b"\xff\xd8" * 4_000_000), "over 2000 segments"),
    "zeros": ("JPEG", with_head(segment(0xFE, 0), bytes(8_000_000)), "too much between"),
    "filling": ("JPEG", with_head(b"\xff" * 8_000_000), "too much between its segments"),
    "escapes": ("JPEG", with_head(b"\xff\x00" * 4_000_000), "too much between its segments"),
    "tables between scans": (
        "JPEG", many_scans(60)[:-2] + segment(0xC4, 0) * 2_000_000 + many_scans(60)[2:],
        "over 64 scans|over 2000 segments"),
    "notes": ("GIF", gif(NOTE * 1_500_000), "over 10000 pieces"),
    "a long note": ("GIF", gif(b"!\xfe" + b"\1a" * 4_000_000 + b"\0"), "over 10000 pieces"),
    "bytes that mean nothing": ("GIF", gif(b"\x07" * 8_000_000), "over 10000 pieces"),
    "tiny pieces": (
        "GIF", gif(b",\0\0\0\0\1\0\1\0\0\2" + b"\1a" * 4_000_000 + b"\0"), "tiny pieces"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_at_little_cost(name: str) -> None:
    image_format, data, words = FLOODS[name]
    start = time.process_time()
    with pytest.raises(UndecodableImageError, match=words):
        images.decode(data)
    assert time.process_time() - start < 1
    with pytest.raises(UndecodableImageError, match=words):
        containers.check(image_format, data)


def preview() -> bytes:
    """Return EXIF with a preview of many scans in it."""
    small = encode(IMAGE.resize((16, 16)), progressive=True)
    inside = (b"Exif\0\0" + small * 60)[:65_000]
    return b"\xff\xe1" + (len(inside) + 2).to_bytes(2) + inside


NOISE = random.Random(1).randbytes(2_250_000)
# Bytes in which a scan seems to begin a thousand times, as in the film of a phone.
FILM = NOISE[:50_000] + b"\xff\xda\x00\x0c" * 1000
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


USUAL: dict[str, tuple[str, bytes]] = {
    "JPEG": ("JPEG", JPEG),
    "progressive": ("JPEG", encode(IMAGE, progressive=True)),
    "progressive, four colours": ("JPEG", encode(IMAGE.convert("CMYK"), progressive=True)),
    "film behind it": ("JPEG", JPEG + FILM),
    "film behind a progressive one": ("JPEG", encode(IMAGE, progressive=True) + FILM),
    "preview in it": ("JPEG", with_head(preview() * 100)),
    "restarts": ("JPEG", encode(IMAGE, restart_marker_blocks=1)),
    "large profile": ("JPEG", encode(IMAGE, icc_profile=NOISE[:2_000_000])),
    "many segments": ("JPEG", with_head(segment(0xEB, 65_533) * 140)),
    "filling": ("JPEG", with_head(b"\xff" * 100)),
    "profile in a PNG": ("PNG", encode(IMAGE, "PNG", icc_profile=PROFILE)),
    "many chunks": ("PNG", PNG[:33] + chunk(b"teSt", bytes(8192)) * 1200 + PNG[33:]),
    "GIF": ("GIF", encode(IMAGE, "GIF")),
    "GIF with notes": ("GIF", gif(b"!\xfe" + (b"\xff" + bytes(255)) * 400 + b"\0", NOTE * 100)),
    "800 frames": ("GIF", encode(IMAGE, "GIF", save_all=True, append_images=[
        Image.new("RGB", (90, 70), (place % 256, 9, 9)) for place in range(799)])),
    "large GIF": ("GIF", encode(Image.frombytes("L", (1500, 1500), NOISE), "GIF")),
    "WebP": ("WEBP", encode(IMAGE, "WEBP")),
    "BMP": ("BMP", encode(IMAGE, "BMP")),
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_what_programs_write_passes(name: str) -> None:
    image_format, data = USUAL[name]
    assert images.sniff(data) == image_format
    assert images.decode(data).format == image_format


def test_broken_files_raise_nothing_else() -> None:
    chance = random.Random(2)
    for _ in range(300):
        image_format, data = USUAL[chance.choice(["JPEG", "GIF with notes", "profile in a PNG"])]
        broken = bytearray(data[: chance.randrange(1, len(data))])
        for place in chance.choices(range(len(broken)), k=5):
            broken[place] = chance.randrange(256)
        with contextlib.suppress(UndecodableImageError):
            containers.check(image_format, bytes(broken))


def test_frames_are_counted_as_pillow_does() -> None:
    frames = [Image.new("RGB", (20, 20), (place, 9, 9)) for place in range(65)]
    for count in (2, 64, 65):
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:count])
        assert containers.num_gif_frames(data, 64) == min(count, 64)
    assert containers.num_gif_frames(gif(NOTE), 64) == 1
    assert containers.num_gif_frames(b"GIF89a", 64) == 0
