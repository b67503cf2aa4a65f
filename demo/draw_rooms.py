"""Rooms seen from inside, with their furniture."""

import numpy as np
from lettering import Colour, chance, pick
from PIL import Image, ImageDraw
from shapes import Pen, box, darker, disc, lighter, shape
from surfaces import SKIES, THINGS, Size, gradient, mix, vary, wood

WALL_COLOURS = (
    (222, 214, 200),
    (186, 200, 196),
    (214, 190, 160),
    (150, 168, 184),
    (232, 228, 220),
    (120, 130, 120),
)


def paint_room(size: Size, rng: np.random.Generator) -> Image.Image:
    """A room seen from inside: back wall, side walls, floor, window, furniture."""
    width, height = size
    wall = vary(pick(rng, WALL_COLOURS), rng)
    image = gradient(size, lighter(wall, 0.2), darker(wall, 0.1))
    pen = ImageDraw.Draw(image)
    left, right = width * rng.uniform(0.1, 0.25), width * rng.uniform(0.75, 0.9)
    top, floor = height * rng.uniform(0.08, 0.18), height * rng.uniform(0.62, 0.74)
    pen.polygon([(0, 0), (width, 0), (right, top), (left, top)], fill=lighter(wall, 0.55))
    pen.polygon([(0, 0), (left, top), (left, floor), (0, height)], fill=darker(wall, 0.18))
    pen.polygon(
        [(width, 0), (right, top), (right, floor), (width, height)], fill=darker(wall, 0.08)
    )
    _lay_floor(image, [(0, height), (left, floor), (right, floor), (width, height)], rng)
    _draw_window(
        pen,
        left + (right - left) * rng.uniform(0.08, 0.5),
        top + (floor - top) * 0.15,
        width * 0.22,
        height * 0.28,
        rng,
    )
    if chance(rng, 0.6):
        _draw_wall_image(
            pen, left + (right - left) * 0.76, top + (floor - top) * 0.3, min(size) * 0.12, rng
        )
    pick(rng, (_draw_sofa, _draw_dining_table, _draw_shelf, _draw_bed))(pen, size, floor, rng)
    _draw_floor_lamp(pen, size, floor, rng)
    return image


def _lay_floor(image: Image.Image, corners: list[tuple[float, float]], rng) -> None:
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    small = (image.width // 2, image.height // 2)
    image.paste(wood(small, rng).resize(image.size), mask=mask)


def _draw_window(pen: Pen, x: float, y: float, width: float, height: float, rng) -> None:
    sky, ground = pick(rng, SKIES)
    edge = width * 0.05
    box(pen, x - edge, y - edge, width + 2 * edge, height + 2 * edge, (240, 238, 232))
    for step in range(20):
        box(pen, x, y + height * step / 20, width, height / 20, mix(sky, ground, step / 20))
    box(pen, x, y + height * 0.8, width, height * 0.2, vary((96, 130, 80), rng))
    box(pen, x + width / 2 - edge / 2, y, edge, height, (240, 238, 232))
    box(pen, x, y + height * 0.45, width, edge, (240, 238, 232))


def _draw_wall_image(pen: Pen, x: float, y: float, side: float, rng) -> None:
    box(pen, x, y, side, side * 1.2, (60, 46, 36))
    box(pen, x + side * 0.08, y + side * 0.08, side * 0.84, side * 1.04, (240, 236, 226))
    for _ in range(4):
        spot = rng.uniform(0.3, 0.7, 2) * side
        disc(
            pen,
            x + spot[0],
            y + spot[1] * 1.2,
            side * rng.uniform(0.08, 0.18),
            vary(pick(rng, THINGS), rng),
        )


def _draw_sofa(pen: Pen, size: Size, floor: float, rng) -> None:
    colour = vary(pick(rng, THINGS), rng)
    width, height = size[0] * rng.uniform(0.4, 0.55), size[1] * 0.2
    x, y, round_by = size[0] * rng.uniform(0.12, 0.4), floor - height * 0.45, height * 0.18
    pen.ellipse([x, y + height * 1.25, x + width, y + height * 1.55], fill=(50, 40, 34))
    pen.rounded_rectangle([x, y, x + width, y + height], round_by, fill=darker(colour, 0.15))
    pen.rounded_rectangle(
        [x, y + height * 0.6, x + width, y + height * 1.35], round_by, fill=colour
    )
    for side in (x - width * 0.05, x + width * 0.93):
        pen.rounded_rectangle(
            [side, y + height * 0.3, side + width * 0.12, y + height * 1.4],
            round_by,
            fill=darker(colour, 0.28),
        )
    for seat in range(2):
        cushion = x + width * (0.1 + seat * 0.42)
        pen.rounded_rectangle(
            [cushion, y + height * 0.1, cushion + width * 0.36, y + height * 0.7],
            round_by,
            fill=lighter(colour, 0.18),
        )


def _draw_dining_table(pen: Pen, size: Size, floor: float, rng) -> None:
    colour = vary((126, 86, 54), rng, 20)
    x, y, width = size[0] * 0.28, floor + size[1] * 0.04, size[0] * 0.44
    leg = size[0] * 0.014
    for side in (0.08, 0.9):
        box(pen, x + width * side, y, leg, size[1] * 0.2, darker(colour, 0.4))
    for side in (-0.16, 1.02):
        _draw_chair(pen, x + width * side, y - size[1] * 0.08, size[1] * 0.26, darker(colour, 0.2))
    top = [
        (x, y),
        (x + width, y),
        (x + width * 1.06, y + size[1] * 0.06),
        (x - width * 0.06, y + size[1] * 0.06),
    ]
    pen.polygon(top, fill=colour)
    box(pen, x - width * 0.06, y + size[1] * 0.06, width * 1.12, size[1] * 0.015, darker(colour))
    vase = x + width * rng.uniform(0.3, 0.7)
    pen.ellipse(
        [vase, y - size[1] * 0.06, vase + size[0] * 0.04, y + size[1] * 0.03],
        fill=pick(rng, THINGS),
    )
    for _ in range(5):
        disc(
            pen,
            vase + size[0] * rng.uniform(-0.02, 0.06),
            y - size[1] * rng.uniform(0.06, 0.12),
            size[0] * 0.014,
            pick(rng, THINGS),
        )


def _draw_chair(pen: Pen, x: float, y: float, height: float, colour: Colour) -> None:
    width = height * 0.36
    for side in (0, width * 0.88):
        box(pen, x + side, y, width * 0.12, height, colour)
    for rung in (0.05, 0.2, 0.35):
        box(pen, x, y + height * rung, width, height * 0.07, colour)
    box(pen, x - width * 0.05, y + height * 0.55, width * 1.1, height * 0.08, lighter(colour, 0.1))


def _draw_shelf(pen: Pen, size: Size, floor: float, rng) -> None:
    width, height = size[0] * 0.3, floor * 0.7
    x, y = size[0] * 0.5, floor - height
    colour = vary((112, 78, 52), rng, 16)
    box(pen, x, y, width, height * 1.04, darker(colour, 0.45))
    for board in range(5):
        shelf = y + height * (board + 1) / 5
        book = x + width * 0.05
        while board and book < x + width * 0.85:
            thickness, length = width * rng.uniform(0.03, 0.08), height * rng.uniform(0.1, 0.15)
            box(pen, book, shelf - length, thickness, length, vary(pick(rng, THINGS), rng, 20))
            book += thickness * rng.uniform(1.05, 1.4)
        box(pen, x, shelf, width, height * 0.025, colour)
    for side in (x, x + width * 0.97):
        box(pen, side, y, width * 0.03, height * 1.04, colour)


def _draw_bed(pen: Pen, size: Size, floor: float, rng) -> None:
    colour = vary(pick(rng, THINGS), rng)
    x, width, y = size[0] * 0.3, size[0] * 0.4, floor - size[1] * 0.16
    pen.rounded_rectangle([x, y, x + width, y + size[1] * 0.2], size[1] * 0.02, fill=(110, 78, 54))
    for pillow in (0.08, 0.54):
        left = x + width * pillow
        pen.rounded_rectangle(
            [left, y + size[1] * 0.07, left + width * 0.38, y + size[1] * 0.15],
            size[1] * 0.03,
            fill=(244, 242, 236),
        )
    foot = y + size[1] * 0.34
    pen.polygon(
        [
            (x, y + size[1] * 0.13),
            (x + width, y + size[1] * 0.13),
            (x + width * 1.15, foot),
            (x - width * 0.15, foot),
        ],
        fill=colour,
    )
    box(pen, x - width * 0.15, foot, width * 1.3, size[1] * 0.07, darker(colour))


def _draw_floor_lamp(pen: Pen, size: Size, floor: float, rng) -> None:
    x, top = size[0] * pick(rng, (0.08, 0.92)), floor * rng.uniform(0.3, 0.45)
    shade = size[0] * 0.06
    box(pen, x - 3, top, 6, floor * 1.1 - top, (60, 56, 52))
    cone = ((-0.6, -1), (0.6, -1), (1, 0.5), (-1, 0.5))
    shape(pen, (x, top), shade, cone, (250, 226, 170))
    pen.ellipse([x - shade, floor * 1.08, x + shade, floor * 1.12], fill=(50, 46, 44))
