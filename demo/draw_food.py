"""Plates of food seen from above, for images of plates and for menus with images."""

import math

import numpy as np
from lettering import chance, pick
from PIL import Image, ImageDraw
from shapes import Pen, blob, disc
from surfaces import TABLES, mix, vary

FOODS = {
    "leaf": (96, 142, 58),
    "meat": (122, 72, 44),
    "potato": (226, 184, 96),
    "tomato": (200, 52, 36),
    "rice": (240, 234, 214),
    "carrot": (228, 128, 44),
    "fish": (232, 150, 118),
    "egg": (250, 246, 236),
}
DRINKS = ((110, 62, 34), (196, 40, 52), (232, 170, 60), (240, 220, 130), (60, 34, 24))
PLATES = ((250, 249, 246), (236, 232, 224), (70, 78, 88), (196, 212, 218), (228, 214, 190))


def draw_plate(pen: Pen, x: float, y: float, radius: float, rng: np.random.Generator) -> None:
    """A plate with one dish on it, its centre at (x, y)."""
    china = pick(rng, PLATES)
    disc(pen, x + radius * 0.05, y + radius * 0.07, radius * 1.01, (52, 44, 38))
    disc(pen, x, y, radius, china)
    disc(pen, x, y, radius * 0.97, mix(china, (255, 255, 255), 0.35))
    disc(pen, x, y, radius * 0.74, mix(china, (0, 0, 0), 0.1))
    disc(pen, x, y, radius * 0.72, china)
    pick(rng, (_pizza, _pasta, _meal, _meal, _soup, _salad, _cake))(pen, x, y, radius * 0.66, rng)


def _scatter(pen, x, y, radius, colour, rng, number: int, size: float) -> None:
    for angle, way in zip(
        rng.uniform(0, 2 * math.pi, number), np.sqrt(rng.random(number)), strict=True
    ):
        reach = way * (radius - size)
        spot = (x + reach * math.cos(angle), y + reach * math.sin(angle))
        blob(pen, *spot, size * rng.uniform(0.6, 1.1), vary(colour, rng, 16), rng)


def _pizza(pen, x, y, radius, rng) -> None:
    radius *= 1.25
    disc(pen, x, y, radius, vary((196, 142, 78), rng))
    disc(pen, x, y, radius * 0.88, vary((206, 78, 40), rng))
    _scatter(pen, x, y, radius * 0.86, (246, 220, 150), rng, 26, radius * 0.15)
    _scatter(pen, x, y, radius * 0.8, pick(rng, list(FOODS.values())), rng, 9, radius * 0.12)
    _scatter(pen, x, y, radius * 0.8, FOODS["leaf"], rng, 6, radius * 0.08)


def _pasta(pen, x, y, radius, rng) -> None:
    for _ in range(46):
        reach, angle = radius * rng.uniform(0, 0.55), rng.uniform(0, 2 * math.pi)
        bend = radius * rng.uniform(0.25, 0.45)
        cx, cy = x + reach * math.cos(angle), y + reach * math.sin(angle)
        start = int(rng.integers(360))
        box = [cx - bend, cy - bend, cx + bend, cy + bend]
        colour = vary((236, 204, 128), rng, 18)
        pen.arc(box, start, start + 200, fill=colour, width=max(2, round(radius * 0.05)))
    _scatter(
        pen, x, y, radius * 0.5, pick(rng, [FOODS["tomato"], FOODS["meat"]]), rng, 12, radius * 0.16
    )
    _scatter(pen, x, y, radius * 0.5, FOODS["leaf"], rng, 6, radius * 0.08)


def _meal(pen, x, y, radius, rng) -> None:
    turn = rng.uniform(0, 2 * math.pi)
    chosen = rng.permutation(list(FOODS))[:3]
    for number, name in enumerate(chosen):
        angle = turn + number * 2 * math.pi / 3
        spot = (x + radius * 0.48 * math.cos(angle), y + radius * 0.48 * math.sin(angle))
        colour = vary(FOODS[str(name)], rng)
        blob(pen, *spot, radius * 0.48, mix(colour, (0, 0, 0), 0.25), rng)
        _scatter(pen, *spot, radius * 0.46, colour, rng, 18, radius * 0.14)


def _soup(pen, x, y, radius, rng) -> None:
    colour = vary(pick(rng, ((206, 120, 50), (190, 60, 40), (150, 160, 80), (214, 190, 130))), rng)
    disc(pen, x, y, radius, mix(colour, (0, 0, 0), 0.2))
    disc(pen, x + radius * 0.02, y + radius * 0.03, radius * 0.95, colour)
    blob(pen, x, y, radius * 0.22, mix(colour, (255, 255, 255), 0.7), rng)
    _scatter(pen, x, y, radius * 0.7, FOODS["leaf"], rng, 8, radius * 0.07)


def _salad(pen, x, y, radius, rng) -> None:
    _scatter(pen, x, y, radius, FOODS["leaf"], rng, 40, radius * 0.24)
    _scatter(pen, x, y, radius, FOODS["tomato"], rng, 8, radius * 0.13)
    _scatter(pen, x, y, radius, FOODS["rice"], rng, 8, radius * 0.1)


def _cake(pen, x, y, radius, rng) -> None:
    colour = vary(pick(rng, ((92, 54, 36), (244, 226, 176), (200, 90, 110))), rng)
    start = int(rng.integers(360))
    radius *= 1.2
    for shrink, shade in ((1.0, 0.35), (0.94, 0.0), (0.6, 0.12)):
        reach = radius * shrink
        box = [x - reach, y - reach, x + reach, y + reach]
        pen.pieslice(box, start, start + 62, fill=mix(colour, (0, 0, 0), shade))
    _scatter(pen, x, y, radius, FOODS["tomato"], rng, 5, radius * 0.09)


def draw_glass(pen: Pen, x: float, y: float, radius: float, rng) -> None:
    """A cup or a glass from above."""
    disc(pen, x + radius * 0.1, y + radius * 0.12, radius, (40, 32, 28))
    disc(pen, x, y, radius, (244, 242, 238))
    disc(pen, x, y, radius * 0.82, vary(pick(rng, DRINKS), rng))
    disc(pen, x - radius * 0.25, y - radius * 0.25, radius * 0.12, (250, 246, 240))


def _draw_cutlery(pen: Pen, x: float, y: float, length: float, is_fork: bool) -> None:
    steel, width = (188, 190, 194), length * 0.045
    pen.rounded_rectangle([x - width, y, x + width, y + length], width, fill=steel)
    if not is_fork:
        pen.rounded_rectangle([x - width, y - length * 0.6, x + width * 2, y + width], width, steel)
        return
    pen.rectangle([x - width * 2.6, y - length * 0.15, x + width * 2.6, y], fill=steel)
    for tine in (-2.1, -0.7, 0.7, 2.1):
        centre = x + tine * width
        pen.rectangle([centre - width / 3, y - length * 0.5, centre + width / 3, y], fill=steel)


def paint_table(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A laid table from above: one to three plates, cutlery, something to drink."""
    image = pick(rng, TABLES)(size, rng)
    pen = ImageDraw.Draw(image)
    short, is_wide = min(size), size[0] > size[1]
    number = 1 if chance(rng, 0.5) else int(rng.integers(2, 4))
    for index in range(number):
        along = (index + 0.5) / number + rng.uniform(-0.03, 0.03)
        across = 0.5 + rng.uniform(-0.12, 0.12)
        x, y = (along, across) if is_wide else (across, along)
        radius = min(short, max(size) * 1.05 / number) * rng.uniform(0.34, 0.46)
        draw_plate(pen, x * size[0], y * size[1], radius, rng)
        if chance(rng, 0.6):
            _draw_cutlery(pen, x * size[0] + radius * 1.15, y * size[1], radius * 0.8, False)
            _draw_cutlery(pen, x * size[0] - radius * 1.15, y * size[1], radius * 0.8, True)
    for _ in range(int(rng.integers(0, 3))):
        corner = rng.uniform(0.03, 0.16, 2)
        x, y = (1 - corner[0] if chance(rng, 0.5) else corner[0]), corner[1]
        draw_glass(pen, x * size[0], y * size[1], short * rng.uniform(0.07, 0.11), rng)
    return image
