"""Scenes without a page: laid tables, rooms, streets, landscapes, objects on a plain ground."""

import numpy as np
from canvas import Canvas, Part
from draw_food import paint_table
from PIL import Image
from surfaces import THINGS, WALLS, Size, chance, colours, gradient, mix, pick, shade, vary, wood

CREAM, BLACK, BROWN, LEAF, GLASS, RED = colours("f2eee4 222226 4a2e1e 5c8e48 465664 c82824")
SKIES = tuple(map(colours, ("6096d6 cee2f0", "96aabe d6dadc", "465082 f4aa78", "2864b4 96c8ec")))
LANDS = colours("466e3c 968246 5a646e 3c5a50")
HOUSES = colours("ceaa78 c46e54 e4d6ba 96a0aa d69682 aab496")

OBJECTS: dict[str, tuple[Part, ...]] = {
    "lamp": (
        ("box", (-0.02, -0.6, 0.02, -0.02), -0.5), ("oval", (-0.18, -0.06, 0.18, 0.03), -0.4),
        ("polygon", (-0.16, -1, 0.16, -1, 0.3, -0.55, -0.3, -0.55), 0)),
    "plant": (
        *(("polygon", (0, -0.3, x / 2 - 0.05, y / 2 - 0.3, x, y, x / 2 + 0.07, y / 2), LEAF)
          for x, y in ((-0.42, -0.55), (0.42, -0.55), (-0.3, -0.8), (0.3, -0.8), (0, -0.95))),
        ("polygon", (-0.2, -0.34, 0.2, -0.34, 0.14, 0, -0.14, 0), 0),
        ("box", (-0.22, -0.38, 0.22, -0.3), -0.15)),
    "car": (
        ("polygon", (-0.3, -0.7, 0.3, -0.7, 0.44, -0.4, -0.44, -0.4), -0.15),
        ("polygon", (-0.26, -0.66, 0.26, -0.66, 0.36, -0.42, -0.36, -0.42), GLASS),
        ("round", (-0.5, -0.44, 0.5, -0.1), 0),
        *(("round", (x, -0.37, x + 0.15, -0.28), RED) for x in (-0.45, 0.3))),
    "sofa": (
        ("round", (-0.9, -0.7, 0.9, 0), -0.15), ("round", (-0.85, -0.35, 0.85, 0), 0.1),
        *(("round", (x, -0.45, x + 0.2, 0.04), -0.28) for x in (-1, 0.8)),
        *(("round", (x, -0.6, x + 0.7, -0.3), 0.25) for x in (-0.75, 0.05))),
    "table": (
        *(("box", (x, -0.6, x + 0.06, 0), -0.4) for x in (-0.62, 0.56)),
        ("polygon", (-0.6, -0.72, 0.6, -0.72, 0.7, -0.58, -0.7, -0.58), 0),
        ("oval", (-0.06, -0.9, 0.06, -0.64), CREAM)),
    "chair": (
        *(("box", (x, -1, x + 0.06, 0), 0) for x in (-0.2, 0.14)),
        *(("box", (-0.2, y, 0.2, y + 0.08), 0) for y in (-0.95, -0.78, -0.61)),
        ("box", (-0.23, -0.45, 0.23, -0.36), 0.15)),
    "bottle": (
        ("round", (-0.15, -0.62, 0.15, 0), 0), ("oval", (-0.15, -0.76, 0.15, -0.48), 0),
        ("box", (-0.055, -1, 0.055, -0.66), 0), ("box", (-0.062, -1, 0.062, -0.93), -0.5),
        ("box", (-0.15, -0.45, 0.15, -0.19), CREAM), ("box", (-0.12, -0.62, -0.09, -0.06), 0.45)),
    "mug": (
        ("oval", (0.14, -0.46, 0.42, -0.1), -0.15), ("oval", (0.2, -0.38, 0.35, -0.18), CREAM),
        ("round", (-0.26, -0.55, 0.26, 0), 0), ("oval", (-0.26, -0.62, 0.26, -0.48), 0.3),
        ("oval", (-0.23, -0.6, 0.23, -0.5), BROWN), ("box", (-0.2, -0.44, -0.16, -0.1), 0.4)),
    "parcel": (
        ("polygon", (-0.32, -0.42, 0.32, -0.42, 0.48, -0.58, -0.16, -0.58), 0.3),
        ("polygon", (0.32, 0, 0.32, -0.42, 0.48, -0.58, 0.48, -0.16), -0.35),
        ("box", (-0.32, -0.42, 0.32, 0), 0), ("box", (-0.05, -0.42, 0.05, 0), 0.55)),
    "shoe": (
        ("oval", (0.2, -0.18, 0.46, 0), 0), ("round", (-0.42, -0.07, 0.46, 0), CREAM),
        ("polygon", (-0.4, -0.42, -0.12, -0.38, 0.08, -0.22, 0.36, -0.16, 0.4, -0.06, -0.4, 0), 0),
        ("polygon", (-0.4, -0.42, -0.3, -0.4, -0.28, -0.06, -0.4, -0.06), -0.25)),
    "cloud": tuple(
        ("oval", (x - size, -size * 0.6, x + size, size * 0.6), 0)
        for x, size in ((-1.4, 0.6), (-0.6, 0.9), (0.3, 1), (1.2, 0.65))),
    "tree": (
        ("box", (-0.04, -0.4, 0.04, 0), BROWN),
        *(("oval", (x - 0.2, y - 0.2, x + 0.2, y + 0.2), -y - 0.65)
          for x, y in ((0.14, -0.5), (-0.14, -0.52), (0, -0.6), (-0.06, -0.72), (0.1, -0.76)))),
    "fir": (
        ("box", (-0.04, -0.4, 0.04, 0), BROWN),
        *(("polygon", (0, y, -side, y + 0.38, side, y + 0.38), -y - 0.65)
          for y, side in ((-0.56, 0.28), (-0.78, 0.22), (-1, 0.16)))),
}  # fmt: skip
FURNITURE = ("sofa", "table", "chair", "lamp", "plant", "table", "chair")
PRODUCTS = ("bottle", "mug", "parcel", "shoe", "lamp", "plant", "chair")


def _line_up(canvas: Canvas, names, level: float, height: float, shadow=BLACK) -> None:
    """Stand objects side by side, up to `height` of the image high."""
    width = canvas.image.width / len(names)
    size = min(width * 0.85, canvas.image.height * height)
    for index, name in enumerate(names):
        foot, scale = (width * (index + 0.5), level), size * canvas.rng.uniform(0.8, 1.05)
        colour = vary(pick(canvas.rng, THINGS), canvas.rng, 20)
        below: Part = ("oval", (-0.4, -0.05, 0.44, 0.06), shadow)
        canvas.draw_parts(foot, scale, (below, *OBJECTS[str(name)]), colour)


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
        corners = [(side, 0), (edge, top), (edge, floor), (side, height)]
        canvas.pen.polygon(corners, shade(wall, light))
    x, y = round(left + (right - left) * rng.uniform(0.08, 0.6)), round(floor * 0.35)
    view = gradient((width // 5, height // 4), *pick(rng, SKIES))
    canvas.box(x - 8, y - 8, view.width + 16, view.height + 16, CREAM)
    canvas.image.paste(view, (x, y))
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
            glint = [(x, y), (x + width * 0.3, y), (x, y + height * 0.3)]
            canvas.pen.polygon(glint, shade(glass, 0.3))
            canvas.box(x + width * 0.2, y, width * 0.04, height * 0.6, frame)
            if row == rows - 1:
                canvas.box(x - width * 0.2, y - height * 0.1, width * 0.8, height * 0.15, awning)


def paint_landscape(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint hills under the sun or the moon, with clouds, trees, sometimes a lake."""
    sky, haze = pick(rng, SKIES)
    canvas, land = Canvas(gradient(size, sky, haze), rng), vary(pick(rng, LANDS), rng)
    canvas.disc(*rng.uniform((0.1, 0.06), (0.9, 0.3)) * size, min(size) * 0.05, CREAM)
    for spot in rng.uniform((0, 0.05), (1, 0.3), (int(rng.integers(4)), 2)) * size:
        canvas.draw_parts(spot, min(size) * 0.07, OBJECTS["cloud"], shade(haze, 0.6))
    across = np.linspace(0, 1, 60)
    for level in np.linspace(0.42, 0.8, int(rng.integers(2, 5))):
        waves = np.sin(np.outer(across, rng.uniform(2, 20, 3)) + rng.uniform(0, 6, 3))
        ridge = np.stack([across, level + waves @ (0.06, 0.03, 0.01)], axis=1)
        outline = np.concatenate([ridge, [(1, 1), (0, 1)]]) * size
        canvas.pen.polygon(outline.ravel().tolist(), mix(haze, land, level**0.5))
    if chance(rng, 0.4):
        shore = np.array((rng.uniform(0, 0.4), 0.84, rng.uniform(0.6, 1), 0.94)) * (*size, *size)
        canvas.pen.ellipse(shore.tolist(), mix(haze, sky, 0.5))
    for depth in np.sort(rng.uniform(0.74, 1, int(rng.integers(2, 16)))):
        foot, colour = np.array((rng.random(), depth)) * size, vary(shade(land, -0.2), rng, 18)
        kind = pick(rng, ("tree", "fir"))
        canvas.draw_parts(foot, size[1] * 0.6 * (depth - 0.5), OBJECTS[kind], colour)
    return canvas.image


def paint_products(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint one to three objects on a plain ground, as a catalogue shows them."""
    ground = vary(pick(rng, (CREAM, CREAM, *WALLS, *THINGS)), rng)
    canvas, level = Canvas(gradient(size, shade(ground, 0.4), ground), rng), rng.uniform(0.76, 0.9)
    canvas.box(0, size[1] * (level - 0.1), *size, shade(ground, pick(rng, (0, -0.15, 0.2))))
    names = rng.permutation(PRODUCTS)[: int(rng.integers(1, 4))]
    _line_up(canvas, names, size[1] * level, 0.72, shade(ground, -0.3))
    return canvas.image


SCENES = (paint_table, paint_table, paint_room, paint_street, paint_landscape, paint_products)


def paint_scene(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a scene of any of these kinds."""
    return pick(rng, SCENES)(size, rng)
