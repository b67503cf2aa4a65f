"""Copies are recognised, images that only resemble each other are not."""

import tracemalloc

import numpy as np
import pytest
from data_folders import draw_scene
from painted import encode
from PIL import Image, ImageDraw

from imagesieve import images
from imagesieve.images.fingerprints import (
    CHECK_SIZE,
    NUM_BYTES,
    FingerprintIndex,
    fingerprint,
    near_pairs,
)


def print_of(image: Image.Image, image_format: str = "PNG", **options: int) -> bytes:
    data = encode(image, image_format, **options)
    return fingerprint(images.decode(data, image_size=CHECK_SIZE).pixels)


@pytest.mark.parametrize(
    ("scale", "image_format", "options"),
    [
        (1.0, "JPEG", {"quality": 30}),
        (0.5, "JPEG", {"quality": 85}),
        (0.33, "JPEG", {"quality": 60}),
        (2.0, "PNG", {}),
        (0.7, "WEBP", {"quality": 50}),
        (1.0, "GIF", {}),
    ],
)
def test_a_copy_is_near(scale: float, image_format: str, options: dict[str, int]) -> None:
    for seed in range(3):
        original = draw_scene(seed, (400, 300))
        size = (round(original.width * scale), round(original.height * scale))
        copy = print_of(original.resize(size), image_format, **options)
        assert len(copy) == NUM_BYTES
        assert near_pairs([print_of(original), copy]) == [(0, 1)]


def test_flat_images_are_near_only_when_equal() -> None:
    colours = [(200, 30, 30), (203, 30, 30), (255, 255, 255)]
    prints = [print_of(Image.new("RGB", (90, 90), colour)) for colour in [*colours, colours[2]]]
    assert near_pairs(prints) == [(2, 3)]
    assert near_pairs([]) == []


def test_different_images_are_not_near() -> None:
    logos = [Image.new("RGB", (300, 300), "white") for _ in range(2)]
    ImageDraw.Draw(logos[0]).ellipse((120, 120, 180, 180), fill="red")
    ImageDraw.Draw(logos[1]).rectangle((120, 120, 180, 180), fill="blue")
    scenes = [draw_scene(seed, (120, 90)) for seed in range(200)]
    red, green, blue = scenes[1].split()
    other_colours = Image.merge("RGB", (blue, green, red))
    assert near_pairs([print_of(image) for image in (*logos, *scenes, other_colours)]) == []


def test_pairs_are_found_across_blocks() -> None:
    dice = np.random.default_rng(0)
    rows = dice.integers(0, 256, (600, NUM_BYTES), np.uint8)
    rows[599] = rows[3]
    rows[500] = rows[10]
    rows[500, 0] ^= 0b111
    rows[:, -1] = 200
    assert near_pairs([row.tobytes() for row in rows]) == [(3, 599), (10, 500)]


def test_pairs_of_many_images_take_little_memory() -> None:
    dice = np.random.default_rng(0)
    prints = [row.tobytes() for row in dice.integers(0, 256, (4000, NUM_BYTES), np.uint8)]
    prints[3999] = prints[0]
    tracemalloc.start()
    try:
        assert near_pairs(prints) == [(0, 3999)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_an_index_finds_every_copy_in_order() -> None:
    index = FingerprintIndex()
    assert index.find(print_of(draw_scene(0))) == []
    for number in range(50):
        index.add(str(number), print_of(draw_scene(number, (60, 60))))
    index.add("again", print_of(draw_scene(7, (60, 60)), "JPEG", quality=80))
    assert index.find(print_of(draw_scene(7, (90, 80)))) == ["7", "again"]
    assert index.find(print_of(draw_scene(1000))) == []
    assert len(index) == 51
