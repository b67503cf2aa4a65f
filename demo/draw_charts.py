"""Bar, line and pie charts."""

from itertools import pairwise

import numpy as np
import words
from lettering import READING, Colour, chance, letters, pick
from PIL import Image, ImageDraw
from shapes import Pen, box, disc
from surfaces import Size, mix

DARK_INK, LIGHT_INK = (50, 52, 58), (226, 228, 232)
GROUNDS = {DARK_INK: (252, 252, 250), LIGHT_INK: (34, 38, 48)}
SERIES = (
    (54, 112, 178),
    (226, 120, 46),
    (70, 150, 90),
    (190, 60, 62),
    (130, 100, 170),
    (240, 190, 60),
    (90, 90, 96),
)


def paint_chart(size: Size, rng: np.random.Generator) -> Image.Image:
    """A bar, line or pie chart with a title and labels."""
    ink = pick(rng, (DARK_INK, DARK_INK, DARK_INK, LIGHT_INK))
    image = Image.new("RGB", size, GROUNDS[ink])
    pen = ImageDraw.Draw(image)
    typeface = pick(rng, READING)
    body = letters(typeface, min(size) * 0.032)
    title = letters(typeface, min(size) * 0.055, "bold")
    title.write(pen, (size[0] / 2, size[1] * 0.1), pick(rng, words.CHART_TITLES), ink, "ms")
    area = (size[0] * 0.12, size[1] * 0.17, size[0] * 0.93, size[1] * 0.85)
    pick(rng, (_draw_bars, _draw_lines, _draw_pie))(pen, area, body, ink, rng)
    return image


def _draw_axes(pen: Pen, area, body, ink: Colour, rng) -> None:
    left, top, right, bottom = area
    step = pick(rng, (5, 10, 20, 50, 100))
    for mark in range(6):
        y = bottom - (bottom - top) * mark / 5
        pen.line([(left, y), (right, y)], mix(ink, (160, 160, 160), 0.8), 2)
        body.write(pen, (left - body.size * 0.5, y), str(mark * step), ink, "rm")
    pen.line([(left, top), (left, bottom), (right, bottom)], ink, 4)


def _draw_bars(pen: Pen, area, body, ink: Colour, rng) -> None:
    _draw_axes(pen, area, body, ink, rng)
    left, top, right, bottom = area
    groups, series = int(rng.integers(4, 11)), int(rng.integers(1, 4))
    step = (right - left) / groups
    first = int(rng.integers(7))
    for group in range(groups):
        for index in range(series):
            height = (bottom - top) * rng.uniform(0.1, 0.95)
            x = left + step * (group + 0.15 + 0.7 * index / series)
            box(pen, x, bottom - height, step * 0.66 / series, height, SERIES[(first + index) % 7])
        body.write(
            pen,
            (left + step * (group + 0.5), bottom + body.size * 1.3),
            "JFMAMJJASOND"[group],
            ink,
            "ms",
        )


def _draw_lines(pen: Pen, area, body, ink: Colour, rng) -> None:
    _draw_axes(pen, area, body, ink, rng)
    left, top, right, bottom = area
    number = int(rng.integers(8, 40))
    x = np.linspace(left, right, number)
    for index in range(int(rng.integers(1, 5))):
        walk = np.cumsum(rng.normal(0, 1, number))
        share = (walk - walk.min()) / (np.ptp(walk) + 0.01) * rng.uniform(0.4, 0.8) + rng.uniform(
            0.05, 0.15
        )
        points = [
            (float(a), float(bottom - (bottom - top) * b)) for a, b in zip(x, share, strict=True)
        ]
        pen.line(points, SERIES[index], max(4, round(body.size * 0.2)), joint="curve")
        if number < 16:
            for point in points:
                disc(pen, *point, body.size * 0.28, SERIES[index])
    for year in range(5):
        body.write(
            pen,
            (left + (right - left) * (year + 0.5) / 5, bottom + body.size * 1.4),
            str(2019 + year),
            ink,
            "ms",
        )


def _draw_pie(pen: Pen, area, body, ink: Colour, rng) -> None:
    left, top, right, bottom = area
    is_wide = right - left > (bottom - top) * 1.4
    radius = min(right - left, bottom - top) * (0.46 if is_wide else 0.38)
    x, y = (left + radius, (top + bottom) / 2) if is_wide else ((left + right) / 2, bottom - radius)
    shares = np.sort(rng.dirichlet(np.full(int(rng.integers(3, 7)), 3.0)))[::-1]
    circle = [x - radius, y - radius, x + radius, y + radius]
    angles = np.concatenate([[0], np.cumsum(shares)]) * 360 - 90
    for index, (start, end) in enumerate(pairwise(angles)):
        pen.pieslice(circle, start, end, SERIES[index], outline=(250, 250, 250), width=4)
        across, down = (0, index) if is_wide else (index % 2, index // 2)
        start_x = right - body.size * 8 if is_wide else left + across * (right - left) / 2
        corner = (start_x, top + body.size * 1.8 * down)
        label = f"{words.TOWNS[index]} {shares[index]:.0%}"
        _draw_key(pen, corner, body, label, ink, SERIES[index])
    if chance(rng, 0.4):
        disc(pen, x, y, radius * 0.5, GROUNDS[ink])


def _draw_key(
    pen: Pen, corner: tuple[float, float], body, label: str, ink: Colour, colour: Colour
) -> None:
    x, y = corner
    box(pen, x, y, body.size * 0.8, body.size * 0.8, colour)
    body.write(pen, (x + body.size * 1.2, y + body.size * 0.8), label, ink)
