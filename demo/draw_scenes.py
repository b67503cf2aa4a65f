"""Scenes without a page: laid tables, rooms and streets."""

import numpy as np
from canvas import Canvas, Part
from draw_food import paint_table
from PIL import Image
from surfaces import THINGS, WALLS, Size, colours, gradient, pick, shade, vary, wood

CREAM, BLACK, BROWN, LEAF, GLASS, RED = colours("f2eee4 222226 4a2e1e 5c8e48 465664 c82824")
SKIES = tuple(map(colours, ("6096d6 cee2f0", "96aabe d6dadc", "465082 f4aa78", "2864b4 96c8ec")))
HOUSES = colours("ceaa78 c46e54 e4d6ba 96a0aa d69682 aab496")

OBJECTS: dict[str, tuple[Part, ...]] = {
    "lamp": (
        ("box", (-0.02, -0.6, 0.02, -0.02), -0.5),
        ("oval", (-0.18, -0.06, 0.18, 0.03), -0.4),
        ("polygon", (-0.16, -1, 0.16, -1, 0.3, -0.55, -0.3, -0.55), 0),
        ("polygon", (-0.16, -1, -0.05, -1, -0.14, -0.55, -0.3, -0.55), 0.3),
    ),
    "plant": (
        *(
            ("polygon", (0, -0.3, x / 2 - 0.05, y / 2 - 0.3, x, y, x / 2 + 0.07, y / 2), LEAF)
            for x, y in ((-0.42, -0.55), (0.42, -0.55), (-0.3, -0.8), (0.3, -0.8), (0, -0.95))
        ),
        ("polygon", (-0.2, -0.34, 0.2, -0.34, 0.14, 0, -0.14, 0), 0),
        ("box", (-0.22, -0.38, 0.22, -0.3), -0.15),
    ),
    "car": (
        ("polygon", (-0.3, -0.7, 0.3, -0.7, 0.44, -0.4, -0.44, -0.4), -0.15),
        ("polygon", (-0.26, -0.66, 0.26, -0.66, 0.36, -0.42, -0.36, -0.42), GLASS),
        ("round", (-0.5, -0.44, 0.5, -0.1), 0),
        *(("round", (x, -0.37, x + 0.15, -0.28), RED) for x in (-0.45, 0.3)),
    ),
    "sofa": (
        ("round", (-0.9, -0.7, 0.9, 0), -0.15),
        ("round", (-0.85, -0.35, 0.85, 0), 0.1),
        *(("round", (x, -0.45, x + 0.2, 0.04), -0.28) for x in (-1, 0.8)),
        *(("round", (x, -0.6, x + 0.7, -0.3), 0.25) for x in (-0.75, 0.05)),
    ),
    "table": (
        *(("box", (x, -0.6, x + 0.06, 0), -0.4) for x in (-0.62, 0.56)),
        ("polygon", (-0.6, -0.72, 0.6, -0.72, 0.7, -0.58, -0.7, -0.58), 0),
        ("oval", (-0.06, -0.9, 0.06, -0.64), CREAM),
    ),
    "chair": (
        *(("box", (x, -1, x + 0.06, 0), 0) for x in (-0.2, 0.14)),
        *(("box", (-0.2, y, 0.2, y + 0.08), 0) for y in (-0.95, -0.78, -0.61)),
        ("box", (-0.23, -0.45, 0.23, -0.36), 0.15),
    ),
}  # fmt: skip
FURNITURE = ("sofa", "table", "chair", "lamp", "plant", "table", "chair")


def _line_up(canvas: Canvas, names, level: float, height: float) -> None:
    """Stand objects side by side, up to `height` of the image high."""
    width = canvas.image.width / len(names)
    size = min(width * 0.85, canvas.image.height * height)
    for index, name in enumerate(names):
        foot, scale = (width * (index + 0.5), level), size * canvas.rng.uniform(0.8, 1.05)
        colour = vary(pick(canvas.rng, THINGS), canvas.rng, 20)
        shadow: Part = ("oval", (-0.4, -0.05, 0.44, 0.06), BLACK)
        canvas.draw_parts(foot, scale, (shadow, *OBJECTS[str(name)]), colour)


def paint_room(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a room seen from inside: walls, a wooden floor, a window, furniture."""
    width, height = size
    wall = vary(pick(rng, WALLS), rng)
    canvas = Canvas(gradient(size, shade(wall, 0.2), shade(wall, -0.1)), rng)
    left, right = width * rng.uniform(0.1, 0.25), width * rng.uniform(0.75, 0.9)
    top, floor = height * rng.uniform(0.08, 0.18), round(height * rng.uniform(0.6, 0.74))
    canvas.image.paste(wood((width, height - floor), rng), (0, floor))
    canvas.pen.polygon([(0, 0), (width, 0), (right, top), (left, top)], shade(wall, 0.55))
    for side, edge, light in ((0, left, -0.18), (width, right, -0.08)):
        canvas.pen.polygon(
            [(side, 0), (edge, top), (edge, floor), (side, height)], shade(wall, light)
        )
    x, y = round(left + (right - left) * rng.uniform(0.08, 0.6)), round(floor * 0.35)
    view = gradient((width // 5, height // 4), *pick(rng, SKIES))
    canvas.box(x - 8, y - 8, view.width + 16, view.height + 16, CREAM)
    canvas.image.paste(view, (x, y))
    canvas.box(x + view.width / 2, y, 8, view.height, CREAM)
    for row in range(int(rng.integers(1, 4))):
        names = rng.permutation(FURNITURE)[: int(rng.integers(1, 5))]
        _line_up(canvas, names, floor + (height - floor) * (0.2 + 0.35 * row), 0.3 + 0.1 * row)
    return canvas.image


def paint_street(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint the fronts of one to four houses, a road, and cars."""
    width, height = size
    canvas = Canvas(gradient(size, *pick(rng, SKIES)), rng)
    number, ground = int(rng.integers(1, 5)), height * rng.uniform(0.75, 0.88)
    for left in np.arange(number) * width / number:
        top, house = height * rng.uniform(0, 0.1 * number), vary(pick(rng, HOUSES), rng)
        canvas.box(left, top, width / number, ground - top, house)
        _draw_windows(canvas, left, top, width / number, ground - top)
    canvas.box(0, ground, width, height - ground, vary((110, 110, 112), rng))
    canvas.box(0, ground, width, height * 0.02, CREAM)
    _line_up(canvas, ["car"] * int(rng.integers(1, 4)), height * 0.95, 0.25)
    return canvas.image


def _draw_windows(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
    rows, columns = (int(canvas.rng.integers(2, 6)) for _ in range(2))
    width, height = width / columns, height / rows
    glass, awning = vary(GLASS, canvas.rng, 30), pick(canvas.rng, THINGS)
    frame = pick(canvas.rng, (CREAM, BLACK, BROWN))
    for row in range(rows):
        for column in range(columns):
            x, y = left + (column + 0.28) * width, top + (row + 0.2) * height
            canvas.box(x - width * 0.04, y - width * 0.04, width * 0.52, height * 0.66, frame)
            canvas.box(x, y, width * 0.44, height * 0.6, glass)
            canvas.pen.polygon(
                [(x, y), (x + width * 0.3, y), (x, y + height * 0.3)], shade(glass, 0.3)
            )
            canvas.box(x + width * 0.2, y, width * 0.04, height * 0.6, frame)
            if row == rows - 1:
                canvas.box(x - width * 0.2, y - height * 0.1, width * 0.8, height * 0.15, awning)


def paint_scene(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a scene of any of these kinds."""
    return pick(rng, (paint_table, paint_table, paint_room, paint_street))(size, rng)
