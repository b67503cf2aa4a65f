"""Facades, streets and landscapes."""

import math
from itertools import pairwise

import numpy as np
from lettering import Colour, chance, pick
from PIL import Image, ImageDraw
from shapes import Part, Pen, Point, box, darker, disc, draw_parts, lighter
from surfaces import SKIES, THINGS, Size, gradient, mix, textured, vary

HOUSE_COLOURS = (
    (206, 170, 120),
    (196, 110, 84),
    (228, 214, 186),
    (150, 160, 170),
    (214, 150, 130),
    (170, 180, 150),
)
CAR: tuple[Part, ...] = (  # seen from behind, 1 wide
    ("oval", (-0.54, -0.14, 0.54, 0.06), (50, 50, 52)),
    ("round", (-0.44, -0.21, -0.26, 0), (24, 24, 26)),
    ("round", (0.26, -0.21, 0.44, 0), (24, 24, 26)),
    ("polygon", (-0.3, -0.7, 0.3, -0.7, 0.44, -0.4, -0.44, -0.4), -0.15),
    ("polygon", (-0.26, -0.66, 0.26, -0.66, 0.36, -0.42, -0.36, -0.42), (70, 86, 100)),
    ("round", (-0.5, -0.44, 0.5, -0.1), 0),
    ("round", (-0.45, -0.37, -0.3, -0.28), (200, 40, 36)),
    ("round", (0.3, -0.37, 0.45, -0.28), (200, 40, 36)),
    ("box", (-0.14, -0.27, 0.14, -0.2), (240, 238, 230)),
)


def paint_facade(size: Size, rng: np.random.Generator) -> Image.Image:
    """One building's front with rows of windows, a door, an awning."""
    width, height = size
    wall = vary(pick(rng, HOUSE_COLOURS), rng, 18)
    image = textured(size, wall, 9, (60, 60), rng)
    pen = ImageDraw.Draw(image)
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(3, 7))
    ground = height * rng.uniform(0.68, 0.78)
    cell = (width / columns, ground / rows)
    frame = pick(rng, ((244, 242, 236), darker(wall, 0.6), lighter(wall, 0.6)))
    has_shutters, has_balconies = chance(rng, 0.4), chance(rng, 0.3)
    for row in range(rows):
        box(
            pen, 0, (row + 1) * cell[1] - height * 0.008, width, height * 0.008, lighter(wall, 0.35)
        )
        for column in range(columns):
            x, y = (column + 0.28) * cell[0], (row + 0.2) * cell[1]
            _draw_house_window(pen, x, y, cell[0] * 0.44, cell[1] * 0.6, frame, has_shutters, rng)
            if has_balconies:
                _draw_balcony(pen, x, y + cell[1] * 0.45, cell[0] * 0.44, cell[1] * 0.2)
    _draw_shop_front(pen, size, ground, wall, rng)
    return image


def _draw_house_window(
    pen: Pen,
    x: float,
    y: float,
    width: float,
    height: float,
    frame: Colour,
    has_shutters: bool,
    rng,
) -> None:
    edge = width * 0.08
    glass = vary(pick(rng, ((60, 74, 88), (90, 112, 130), (44, 50, 60), (240, 214, 150))), rng)
    if has_shutters:
        for side in (x - width * 0.4, x + width * 1.08):
            box(pen, side, y, width * 0.32, height, darker(frame, 0.45))
    box(pen, x - edge, y - edge, width + 2 * edge, height + 2 * edge, frame)
    box(pen, x, y, width, height, glass)
    pen.polygon([(x, y), (x + width * 0.6, y), (x, y + height * 0.5)], fill=lighter(glass, 0.2))
    box(pen, x + width / 2 - edge / 2, y, edge, height, frame)
    box(pen, x - edge * 2, y + height, width + 4 * edge, edge * 1.4, lighter(frame, 0.2))


def _draw_balcony(pen: Pen, x: float, y: float, width: float, height: float) -> None:
    left, right = x - width * 0.3, x + width * 1.3
    for bar in np.linspace(left, right, 12):
        pen.line([(bar, y), (bar, y + height)], (40, 40, 44), 3)
    for rail in (y, y + height):
        pen.line([(left, rail), (right, rail)], (40, 40, 44), 6)


def _draw_shop_front(pen: Pen, size: Size, ground: float, wall: Colour, rng) -> None:
    width, height = size
    box(pen, 0, ground, width, height - ground, darker(wall, 0.35))
    box(pen, 0, height * 0.95, width, height * 0.05, (140, 138, 134))
    door = width * rng.uniform(0.1, 0.8)
    for x in np.arange(0.03, 0.95, 0.24) * width:
        box(pen, x, ground + height * 0.06, width * 0.19, height * 0.15, (70, 84, 96))
        pen.polygon(
            [
                (x, ground + height * 0.06),
                (x + width * 0.1, ground + height * 0.06),
                (x, ground + height * 0.16),
            ],
            fill=(104, 120, 132),
        )
    box(
        pen,
        door,
        ground + height * 0.05,
        width * 0.1,
        height * 0.9 - ground,
        vary(pick(rng, THINGS), rng),
    )
    disc(pen, door + width * 0.085, ground + height * 0.14, width * 0.006, (220, 190, 110))
    if chance(rng, 0.6):
        _draw_awning(pen, width, ground, height * 0.06, pick(rng, THINGS))


def _draw_awning(pen: Pen, width: float, y: float, depth: float, colour: Colour) -> None:
    stripe = width / 24
    for index in range(24):
        shade = colour if index % 2 else (244, 240, 232)
        box(pen, index * stripe, y, stripe, depth, shade)
        disc(pen, (index + 0.5) * stripe, y + depth, stripe / 2, shade)


def paint_street(size: Size, rng: np.random.Generator) -> Image.Image:
    """A street that runs to a vanishing point between rows of houses."""
    width, height = size
    image = gradient(size, *pick(rng, SKIES))
    pen = ImageDraw.Draw(image)
    far = (width * rng.uniform(0.38, 0.62), height * rng.uniform(0.45, 0.58))
    pen.polygon([(0, height), far, (width, height)], fill=vary((96, 96, 98), rng))
    for side in (0, width):
        _draw_house_row(pen, side, far, size, rng)
        kerb = side + (width * 0.16 if side == 0 else -width * 0.16)
        pen.polygon([(side, height), far, (kerb, height)], fill=(168, 164, 158))
    for step in range(1, 9):
        _draw_road_mark(pen, far, size, 0.62**step)
    spot = (width * rng.uniform(0.32, 0.7), height * rng.uniform(0.84, 0.95))
    colour = vary(pick(rng, THINGS), rng, 20)
    draw_parts(pen, *spot, width * rng.uniform(0.14, 0.24), CAR, colour)
    return image


def _draw_house_row(pen: Pen, side: float, far: Point, size: Size, rng) -> None:
    edges = [1.0, 0.66, 0.44, 0.28, 0.17, 0.1]  # nearness of the houses' corners
    for near, next_edge in pairwise(edges):
        colour = vary(pick(rng, HOUSE_COLOURS), rng, 24)
        if side:
            colour = darker(colour, 0.25)
        roof = size[1] * rng.uniform(0.35, 0.75)
        corners = [
            _towards(far, (side, y), share)
            for y, share in (
                (size[1], near),
                (size[1] - roof * 1.6, near),
                (size[1] - roof * 1.6, next_edge),
                (size[1], next_edge),
            )
        ]
        pen.polygon(corners, fill=colour)
        for row in np.arange(0.2, 0.9, 0.2):
            for column in (0.25, 0.6):
                _draw_slanted_window(pen, corners, row, column, darker(colour, 0.6))


def _towards(far: Point, near: Point, share: float) -> Point:
    return far[0] + (near[0] - far[0]) * share, far[1] + (near[1] - far[1]) * share


def _draw_slanted_window(pen: Pen, corners, row: float, column: float, colour: Colour) -> None:
    def spot(across: float, up: float) -> Point:
        low = _towards(corners[0], corners[3], across)
        high = _towards(corners[1], corners[2], across)
        return _towards(low, high, up)

    frame = [
        spot(column, row),
        spot(column + 0.16, row),
        spot(column + 0.16, row + 0.11),
        spot(column, row + 0.11),
    ]
    pen.polygon(frame, fill=colour)


def _draw_road_mark(pen: Pen, far: Point, size: Size, share: float) -> None:
    middle = size[0] / 2
    near, end = share, share * 0.8
    half = size[0] * 0.012
    corners = [
        _towards(far, (middle + offset, size[1] * 1.2), way)
        for offset, way in ((-half, near), (half, near), (half, end), (-half, end))
    ]
    pen.polygon(corners, fill=(232, 230, 222))


def paint_landscape(size: Size, rng: np.random.Generator) -> Image.Image:
    """Hills under a sky, with trees, and sometimes a lake."""
    width, height = size
    sky, haze = pick(rng, SKIES)
    image = gradient(size, sky, haze)
    pen = ImageDraw.Draw(image)
    _draw_sky(pen, size, haze, rng)
    land = vary(pick(rng, ((70, 110, 60), (150, 130, 70), (90, 100, 110), (60, 90, 80))), rng)
    for layer in range(4):
        base = height * (0.42 + layer * 0.13)
        _draw_hills(
            pen,
            size,
            base,
            height * (0.16 - layer * 0.03),
            mix(haze, land, (layer + 1.5) / 5.5),
            rng,
        )
    if chance(rng, 0.4):
        _draw_lake(pen, size, haze, rng)
    for _ in range(int(rng.integers(3, 18))):
        depth = rng.uniform(0.72, 0.98)
        _draw_tree(
            pen,
            width * rng.random(),
            height * depth,
            height * 0.3 * (depth - 0.45),
            darker(vary(land, rng, 18), 0.3),
            rng,
        )
    return image


def _draw_sky(pen: Pen, size: Size, haze: Colour, rng) -> None:
    width, height = size
    disc(
        pen,
        width * rng.uniform(0.1, 0.9),
        height * rng.uniform(0.08, 0.3),
        min(size) * rng.uniform(0.03, 0.06),
        (255, 246, 214),
    )
    for _ in range(int(rng.integers(0, 4))):
        _draw_cloud(
            pen,
            width * rng.uniform(0, 1),
            height * rng.uniform(0.05, 0.3),
            min(size) * rng.uniform(0.04, 0.09),
            lighter(haze, 0.6),
        )


def _draw_cloud(pen: Pen, x: float, y: float, radius: float, colour: Colour) -> None:
    for step, grow in ((-1.4, 0.6), (-0.6, 0.9), (0.3, 1.0), (1.2, 0.65)):
        pen.ellipse(
            [
                x + (step - grow) * radius,
                y - grow * radius * 0.6,
                x + (step + grow) * radius,
                y + grow * radius * 0.6,
            ],
            fill=colour,
        )


def _draw_hills(pen: Pen, size: Size, base: float, reach: float, colour: Colour, rng) -> None:
    x = np.linspace(0, 1, 60)
    line = sum(
        np.sin(x * rng.uniform(2, 6) * step + rng.uniform(0, 6)) / step for step in (1, 2, 4, 9)
    )
    points = [
        (float(across * size[0]), float(base + rise * reach * 0.5))
        for across, rise in zip(x, line, strict=True)
    ]
    pen.polygon([(0, size[1]), *points, (size[0], size[1])], fill=colour)


def _draw_lake(pen: Pen, size: Size, colour: Colour, rng) -> None:
    x, y = size[0] * rng.uniform(0.3, 0.7), size[1] * 0.86
    water = mix(colour, (70, 120, 160), 0.5)
    reach = (size[0] * rng.uniform(0.25, 0.5), size[1] * 0.07)
    pen.ellipse([x - reach[0], y - reach[1], x + reach[0], y + reach[1]], fill=water)
    for step in np.linspace(-0.6, 0.6, 7):
        half = reach[0] * math.sqrt(1 - step**2) * 0.7
        pen.line(
            [(x - half, y + step * reach[1]), (x + half * 0.6, y + step * reach[1])],
            lighter(water, 0.25),
            3,
        )


def _draw_tree(pen: Pen, x: float, y: float, height: float, colour: Colour, rng) -> None:
    box(pen, x - height * 0.04, y - height * 0.4, height * 0.08, height * 0.4, (74, 54, 40))
    if chance(rng, 0.5):
        for tier in range(3):
            top, half = y - height * (1 - tier * 0.22), height * (0.16 + tier * 0.06)
            pen.polygon(
                [(x, top), (x - half, top + height * 0.38), (x + half, top + height * 0.38)],
                fill=lighter(colour, 0.08 * tier),
            )
        return
    for _ in range(9):
        spot = rng.uniform(-0.2, 0.2, 2) * height
        disc(pen, x + spot[0], y - height * 0.68 + spot[1], height * 0.2, vary(colour, rng, 12))
