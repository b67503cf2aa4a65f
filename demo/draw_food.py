"""Plates of food and drinks seen from above, for laid tables and for menus with photographs."""

import math

import numpy as np
from canvas import Canvas
from PIL import Image
from surfaces import BACKGROUNDS, Colour, Size, chance, colours, pick, shade, vary

LEAF, TOMATO, MEAT = colours("608e3a c83424 7a482c")
FOODS = (LEAF, TOMATO, MEAT, *colours("e2b860 f0ead6 e4802c e89676 faf6ec"))
SOUPS = colours("ce7832 be3c28 96a050 d6be82")
DRINKS = colours("6e3e22 c42834 e8aa3c f0dc82 3c2218")
PLATES = colours("faf9f6 ece8e0 464e58 c4d4da e4d6be")
CRUST, SAUCE, CHEESE, PASTA, STEEL, SHADOW = colours("c48e4e ce4e28 f6dc96 eccc80 bcbec2 342c26")


def draw_plate(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """Draw a plate with one dish on it, its centre at (x, y)."""
    china = pick(canvas.rng, PLATES)
    canvas.disc(x + radius * 0.05, y + radius * 0.07, radius * 1.01, SHADOW)
    for share, light in ((1, 0), (0.97, 0.35), (0.74, -0.1), (0.72, 0)):
        canvas.disc(x, y, radius * share, shade(china, light))
    dish = pick(canvas.rng, (_pizza, _pasta, _meal, _meal, _soup, _salad))
    dish(canvas, x, y, radius * 0.66)


def draw_glass(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """Draw a cup or a glass from above."""
    canvas.disc(x + radius * 0.1, y + radius * 0.12, radius, SHADOW)
    canvas.disc(x, y, radius, PLATES[0])
    canvas.disc(x, y, radius * 0.82, vary(pick(canvas.rng, DRINKS), canvas.rng))
    canvas.disc(x - radius * 0.25, y - radius * 0.25, radius * 0.12, PLATES[0])


def _scatter(canvas, x, y, radius, colour: Colour, number: int, size: float) -> None:
    """Strew `number` pieces, `size` of the radius large, over a disc."""
    for _ in range(number):
        angle = canvas.rng.uniform(0, 2 * math.pi)
        reach = math.sqrt(canvas.rng.random()) * radius * (1 - size)
        piece = radius * size * canvas.rng.uniform(0.6, 1.1)
        spot = (x + reach * math.cos(angle), y + reach * math.sin(angle))
        canvas.blob(*spot, piece, vary(colour, canvas.rng, 16))


def _pizza(canvas, x, y, radius) -> None:
    canvas.disc(x, y, radius * 1.25, vary(CRUST, canvas.rng))
    canvas.disc(x, y, radius * 1.1, vary(SAUCE, canvas.rng))
    _scatter(canvas, x, y, radius * 1.08, CHEESE, 26, 0.17)
    _scatter(canvas, x, y, radius, pick(canvas.rng, FOODS), 9, 0.15)
    _scatter(canvas, x, y, radius, LEAF, 6, 0.1)


def _pasta(canvas, x, y, radius) -> None:
    for bend in radius * canvas.rng.uniform(0.25, 0.45, 46):
        left, top = (x, y) + canvas.rng.uniform(-0.4, 0.4, 2) * radius - bend
        start, colour = int(canvas.rng.integers(360)), vary(PASTA, canvas.rng, 18)
        box = [left, top, left + bend * 2, top + bend * 2]
        canvas.pen.arc(box, start, start + 200, colour, max(2, round(radius * 0.05)))
    _scatter(canvas, x, y, radius * 0.5, pick(canvas.rng, (TOMATO, MEAT)), 12, 0.32)
    _scatter(canvas, x, y, radius * 0.5, LEAF, 6, 0.16)


def _meal(canvas, x, y, radius) -> None:
    start = canvas.rng.uniform(0, 2 * math.pi)
    for angle in start + np.arange(3) * 2 * math.pi / 3:
        spot = (x + radius * 0.48 * math.cos(angle), y + radius * 0.48 * math.sin(angle))
        colour = vary(pick(canvas.rng, FOODS), canvas.rng)
        canvas.blob(*spot, radius * 0.48, shade(colour, -0.25))
        _scatter(canvas, *spot, radius * 0.46, colour, 18, 0.3)


def _soup(canvas, x, y, radius) -> None:
    colour = vary(pick(canvas.rng, SOUPS), canvas.rng)
    canvas.disc(x, y, radius, shade(colour, -0.2))
    canvas.disc(x + radius * 0.02, y + radius * 0.03, radius * 0.95, colour)
    canvas.blob(x, y, radius * 0.22, shade(colour, 0.7))
    _scatter(canvas, x, y, radius * 0.7, LEAF, 8, 0.1)


def _salad(canvas, x, y, radius) -> None:
    for colour, number, size in ((LEAF, 40, 0.24), (TOMATO, 8, 0.13), (CHEESE, 8, 0.1)):
        _scatter(canvas, x, y, radius, colour, number, size)


def paint_table(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a laid table from above: one to three plates, cutlery, something to drink."""
    canvas = Canvas(pick(rng, BACKGROUNDS)(size, rng), rng)
    number = 1 if chance(rng, 0.5) else int(rng.integers(2, 4))
    for index in range(number):
        along = (index + 0.5) / number + rng.uniform(-0.03, 0.03)
        across = 0.5 + rng.uniform(-0.12, 0.12)
        x, y = np.array(size) * ((along, across) if size[0] > size[1] else (across, along))
        radius = min(*size, max(size) * 1.05 / number) * rng.uniform(0.34, 0.46)
        draw_plate(canvas, x, y, radius)
        if chance(rng, 0.6):
            for side, width in ((-1.15, 0.05), (1.15, 0.03)):
                canvas.box(x + radius * side, y - radius * 0.4, radius * 0.05, radius * 1.2, STEEL)
                head = (x + radius * (side - width), y - radius * 0.4)
                canvas.box(*head, radius * width * 3, radius * 0.4, STEEL)
    for _ in range(int(rng.integers(0, 3))):
        x, y = np.array(size) * (pick(rng, (0.1, 0.9)), rng.uniform(0.03, 0.16))
        draw_glass(canvas, x, y, min(size) * rng.uniform(0.07, 0.11))
    return canvas.image
