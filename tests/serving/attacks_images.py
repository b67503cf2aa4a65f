"""Attacks of rows 1 to 20: no image, several, and images of every bad kind."""

import concurrent.futures
import json
import struct
import time
import urllib.parse
import zlib
from pathlib import Path

import pytest
from attacking import (
    FORM,
    JSON,
    TEXT,
    Target,
    assert_old_failure,
    assert_refused,
    attack,
)
from hostile import (
    ACCEPTED,
    COLOURLESS,
    RED,
    RED_JPEG,
    RED_PNG,
    REFUSED,
    TOO_MANY,
    UNDECODABLE,
    chunk,
    png,
    with_orientation,
)
from painted import COLOURS, encode
from PIL import Image


@attack(1)
def no_image(target: Target) -> None:
    assert_refused(target.predict(b""), 400, "missing-image")
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        refused = target.ask(method, "/v1/predict")
        assert_refused(refused, 405, "method-not-allowed")
        assert "POST" in refused.headers["Allow"]
    assert_old_failure(target.ask("POST", "/image/detection"))


@attack(2)
def empty_image(target: Target) -> None:
    assert_refused(target.predict({"image": ""}, kind=FORM), 400, "empty-image")
    assert_refused(target.predict(json.dumps({"image": ""}), kind=JSON), 400, "empty-image")
    assert_refused(target.upload(("image", ("a.jpg", b""))), 400, "empty-image")
    assert_old_failure(target.predict_old(b""))


@attack(3)
def two_images(target: Target) -> None:
    file = ("image", ("a.jpg", RED_JPEG))
    assert_refused(target.upload(file, file), 400, "several-images")
    assert_refused(target.upload(file, ("image", (None, TEXT))), 400, "several-images")
    twice = urllib.parse.urlencode({"image": TEXT, "imageBase64String": TEXT})
    assert_refused(target.predict(twice, kind=FORM), 400, "several-images")


# Images: rows 4 to 20.


def refuse(target: Target, *names: str) -> None:
    """Send images of `hostile.REFUSED` in the new way and in the old one."""
    for name in names:
        data, status, problem = REFUSED[name]
        assert_refused(target.predict(data), status, problem)
        assert_old_failure(target.predict_old(data))


def accept(target: Target, *names: str) -> None:
    for name in names:
        answer = target.predict(ACCEPTED[name])
        assert (answer.status_code, answer.json()["label"]) == (200, "red"), name


@attack(4)
def no_images_named_jpg(target: Target) -> None:
    for name in ("text", "HTML", "SVG", "PDF", "ZIP"):
        data, status, problem = REFUSED[name]
        named = target.upload(("image", ("image.jpg", data, "image/jpeg")))
        assert_refused(named, status, problem)
        refuse(target, name)
    refuse(target, "base64 of base64")


RARE = ("TIFF", "PSD", "EPS", "FITS", "JPEG 2000", "ICO", "DDS", "AVIF")


@attack(5)
def rare_formats(target: Target) -> None:
    refuse(target, *RARE)
    assert "_avif" not in Path(f"/proc/{target.server.process.pid}/maps").read_text()


@attack(6)
def png_named_jpg(target: Target) -> None:
    answer = target.upload(("image", ("image.jpg", RED_PNG, "image/jpeg"))).json()
    assert (answer["label"], answer["image"]["format"]) == ("red", "PNG")


@attack(7)
def image_of_a_phone(target: Target) -> None:
    assert target.predict(ACCEPTED["MPO of a phone"]).json()["image"]["format"] == "JPEG"


@attack(8)
def header_alone(target: Target) -> None:
    refuse(target, "JPEG header only")


@attack(9)
def cut_off(target: Target) -> None:
    refuse(target, "JPEG without its end", "JPEG short of 100 bytes", "half a JPEG", "half a PNG")


@attack(10)
def script_behind_it(target: Target) -> None:
    for name in ("JPEG and PHP behind it", "GIF and script behind it"):
        answer = target.predict(ACCEPTED[name])
        assert answer.json()["label"] == "red"
        for word in ("php", "script", "alert"):
            assert word not in answer.text
            assert word not in target.server.log()


def one_bit_png(side: int) -> bytes:
    """Return a whole image, which is small only as long as nobody unpacks it."""
    rows = zlib.compress(bytes(((side + 7) // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return RED_PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def lossless_webp(width: int, height: int) -> bytes:
    """Return a small image that announces other sides."""
    data = bytearray(encode(RED, "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits & ~0xFFFFFFF | height - 1 << 14 | width - 1)
    return bytes(data)


@attack(11)
def bombs_of_pixels(target: Target) -> None:
    bombs = (one_bit_png(13_000), png(9_000, 9_000), lossless_webp(16_000, 5_000))
    with target.costing() as cost:
        for bomb in bombs:
            assert len(bomb) < 30_000
            for number in range(5):
                assert_refused(target.predict(bomb + bytes([number])), 422, TOO_MANY)
    assert cost.seconds < 15 * 0.05
    assert cost.memory < 20
    for bomb in bombs:
        assert_old_failure(target.predict_old(bomb))
    refuse(target, "1-bit PNG of 169 MP", "PNG of 81 MP", "PNG of a gigapixel")


@attack(12)
def jpegs_beyond_the_limit(target: Target) -> None:
    with target.costing() as cost:
        refuse(target, "JPEG of 81 MP", "progressive JPEG of 81 MP", "WebP of 32 MP")
    assert cost.memory < 20


@attack(13)
def eight_large_photos_at_once(target: Target) -> None:
    photo = encode(Image.new("RGB", (7746, 7746), COLOURS["red"]), progressive=True, quality=30)
    statuses = set()

    def send(number: int) -> str:
        while (answer := target.predict(photo + bytes([number]))).status_code == 503:
            time.sleep(int(answer.headers["Retry-After"]))  # as a slow machine may ask for
        assert answer.status_code == 200, answer.text
        return answer.json()["label"]

    with target.costing() as cost, concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(send, number) for number in range(8)]
        while not all(answer.done() for answer in answers):
            statuses.add(target.ask("GET", "/healthz").status_code)
            time.sleep(0.05)
        assert [answer.result() for answer in answers] == ["red"] * 8
    assert statuses == {200}
    assert cost.memory < 450  # one takes 200 MB or more while it is decoded


@attack(14)
def bombs_of_text(target: Target) -> None:
    bomb = zlib.compress(bytes(200_000_000))
    with target.costing() as cost:
        for kind, start in ((b"zTXt", b"note\0\0"), (b"iCCP", b"profile\0\0")):
            data = png(64, 48, chunk(kind, start + bomb))
            assert_refused(target.predict(data), 422, UNDECODABLE)
            assert_old_failure(target.predict_old(data))
        refuse(target, "zTXt bomb", "iCCP bomb")
    assert cost.seconds < 1
    assert cost.memory < 20


@attack(15)
def broken_and_countless_blocks(target: Target) -> None:
    with target.costing() as cost:
        refuse(target, "100,000 chunks", "wrong checksum", "no width", "width 2^31")
        refuse(target, "a million comments", "GIF of a million comments", "700,000 scans")
    assert cost.seconds < 3
    sizes = [(-1, 48), (2**31 - 1, 2**31 - 1), (0, 0), (64, 2**31)]
    for width, height in sizes:
        refused = target.predict(png(width % 2**32, height % 2**32))
        assert refused.status_code == 422, (width, height)


def moving(*frames: Image.Image) -> bytes:
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)


def repeated(image: Image.Image, count: int) -> bytes:
    """Return a GIF that shows one frame again and again, each time drawn anew."""
    data = encode(image, "GIF")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:-1] + data[start:-1] * (count - 1) + data[-1:]


@attack(16)
def hundreds_of_frames(target: Target) -> None:
    large = Image.new("P", (4900, 4900))
    large.putpalette(COLOURS["red"])
    with target.costing() as cost:
        for image, count in ((RED, 800), (large, 100)):
            answer = target.predict(repeated(image, count), "?frames=5").json()
            assert answer["label"] == "red"
            assert 1 <= answer["image"]["frames"] <= 5
    assert cost.seconds < 4
    assert cost.memory < 450


@attack(17)
def bad_image_behind_a_clean_one(target: Target) -> None:
    # The surest frame counts, and painted noise makes the model less sure.
    hidden = moving(*[RED.quantize(16)] * 5, Image.new("RGB", (64, 48), (0, 0, 255)).quantize(2))
    assert target.predict(hidden).json()["label"] == "red"
    assert target.predict(hidden, "?frames=8").json()["label"] == "blue"


@attack(18)
def kinds_of_pixels(target: Target) -> None:
    accept(target, *ACCEPTED)
    for name, data in COLOURLESS.items():
        answer = target.predict(data).json()
        assert answer["probability"] == pytest.approx(1 / 3, abs=0.02), name


@attack(19)
def orientations(target: Target) -> None:
    for value in range(1, 9):
        image = target.predict(with_orientation(value)).json()["image"]
        turned = (48, 64) if value > 4 else (64, 48)
        assert (image["width"], image["height"], image["orientation"]) == (*turned, value)
    piece = b"\xff\xe1\xff\xff" + b"Exif\0\0II*\0\x08\0\0\0\xff\xff".ljust(65_533, b"\1")
    with target.costing() as cost:
        assert target.predict(RED_JPEG[:20] + piece * 155 + RED_JPEG[20:]).json()["label"] == "red"
        large = chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff".ljust(10_000_000, b"\1"))
        assert target.predict(RED_PNG[:33] + large + RED_PNG[33:]).json()["label"] == "red"
    assert cost.seconds < 3


@attack(20)
def tiny_and_thin(target: Target) -> None:
    refuse(target, "1 × 1", "1 × 30,000", "65,000 × 10")
