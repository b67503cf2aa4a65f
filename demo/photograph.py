"""Turn a painted sheet or scene into something that a camera or a scanner could have taken.

Both classes go through the same functions with the same chances, so that neither the shape of the
image, nor the table under it, nor the light tells the class.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from surfaces import BACKGROUNDS, Size, chance, paper, pick, to_image

Painter = Callable[[Size, np.random.Generator], Image.Image]

MIN_SIDE, MAX_SIDE = 350, 900  # pixels
FRAME_RATIOS = (1.0, 0.8, 0.75, 0.75, 2 / 3, 0.6)  # short side to long side
SHEET_RATIOS = (0.62, 0.707, 0.707, 0.75, 0.8, 1.0)
# Least and most of the frame that a sheet takes (above 1 its edges are cut), its greatest rotation
# in degrees, and its greatest tilt (0 straight from above; 0.3 the far edge a third shorter).
ON_A_TABLE, CLOSE_UP = ((0.84, 1.0), 14, 0.24), ((1.04, 1.3), 8, 0.12)
SHOTS = (ON_A_TABLE, ON_A_TABLE, CLOSE_UP)


def choose_frame(rng: np.random.Generator) -> Size:
    """Return an image's width and height: portrait or landscape, 350 to 900 pixels a side."""
    long = int(rng.integers(460, MAX_SIDE + 1))
    short = max(MIN_SIDE, round(long * pick(rng, FRAME_RATIOS)))
    return (short, long) if chance(rng, 0.5) else (long, short)


def photograph_sheet(paint: Painter, rng: np.random.Generator) -> Image.Image:
    """Paint a sheet, lay it on a table or hang it on a wall, and photograph it; or scan it."""
    frame = choose_frame(rng)
    if chance(rng, 0.2):
        return _scan(paint, frame, rng)
    fill, max_degrees, max_tilt = pick(rng, SHOTS)
    ratio = pick(rng, SHEET_RATIOS)
    if (frame[0] > frame[1]) == chance(rng, 0.85):  # mostly, not always, the frame's orientation
        ratio = 1 / ratio
    width = min(frame[0], frame[1] * ratio) * sum(fill) / 2
    sheet = paint((round(width), round(width / ratio)), rng)
    corners = _tilted_corners(sheet.size, max_degrees, max_tilt, rng)
    extent = np.ptp(corners, axis=0)
    scale = rng.uniform(*fill) * min(np.array(frame) / extent)
    margin = np.abs(frame - extent * scale) / 2
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    corners = (corners - middle) * scale + np.array(frame) / 2 + margin * rng.uniform(-0.7, 0.7, 2)
    ground = pick(rng, BACKGROUNDS)(frame, rng)
    _lay_sheet(ground, sheet, corners, rng)
    return _expose(ground, rng)


def photograph_scene(paint: Painter, rng: np.random.Generator) -> Image.Image:
    """Photograph a scene, or a print of it that lies or hangs somewhere."""

    def paint_print(size: Size, rng: np.random.Generator) -> Image.Image:
        border = round(min(size) * rng.uniform(0, 0.06))
        inner = (size[0] - 2 * border, size[1] - 2 * border)
        return ImageOps.expand(_paint_smoothly(paint, inner, rng), border, (246, 244, 240))

    if chance(rng, 0.3):
        return photograph_sheet(paint_print, rng)
    frame = choose_frame(rng)
    scene = _paint_smoothly(paint, frame, rng)
    rotated = scene.rotate(float(rng.normal(0, 1.2)), Image.Resampling.BICUBIC)
    inner = ImageOps.crop(rotated, round(min(frame) * 0.03))
    return _expose(inner.resize(frame, Image.Resampling.BILINEAR), rng)


def _paint_smoothly(paint: Painter, size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint at twice the size and halve it: Pillow draws shapes with hard edges."""
    return paint((size[0] * 2, size[1] * 2), rng).reduce(2)


def _scan(paint: Painter, frame: Size, rng: np.random.Generator) -> Image.Image:
    sheet = paint(frame, rng)
    glass = paper(frame, (247, 247, 245), rng)  # seen beside a narrow receipt
    glass.paste(sheet, ((frame[0] - sheet.width) // 2, (frame[1] - sheet.height) // 2))
    return _add_noise(np.array(glass, np.float32), float(rng.choice((0, 0, 1.5, 3))), rng)


def _tilted_corners(sheet: Size, max_degrees: float, max_tilt: float, rng) -> np.ndarray:
    """Return a sheet's corners, top left, then clockwise, around (0, 0): shape (4, 2), pixels."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sheet / 2
    angle = math.radians(float(rng.uniform(-1, 1) ** 3 * max_degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    corners = corners @ np.array([[cos, sin], [-sin, cos]])
    way = rng.uniform(0, 2 * math.pi)
    tilt = np.array([math.cos(way), math.sin(way)]) * rng.uniform(0, max_tilt)
    return corners / (1 + corners @ tilt / np.abs(corners).max())[:, None]


def _lay_sheet(ground: Image.Image, sheet: Image.Image, corners: np.ndarray, rng) -> None:
    shade = Image.new("L", (ground.width // 4 + 1, ground.height // 4 + 1))  # soft anyway
    ImageDraw.Draw(shade).polygon(((corners + rng.uniform(-8, 14, 2)) / 4).ravel().tolist(), 140)
    shade = shade.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 3))))
    ground.paste((12, 10, 8), mask=shade.resize(ground.size, Image.Resampling.BILINEAR))
    # Only the part of the frame that the sheet covers is warped; warping is the slowest step.
    low = np.floor(corners.min(axis=0)).clip(0)
    high = np.ceil(corners.max(axis=0)).clip(0, ground.size)
    width, height = (int(side) for side in high - low)
    warped = sheet.transform(
        (width, height),
        Image.Transform.PERSPECTIVE,
        _perspective(corners - low, sheet.size),
        Image.Resampling.BILINEAR,
        fillcolor=sheet.getpixel((1, 1)),  # what shows at the rim must look like the sheet
    )
    mask = Image.new("L", (width * 2, height * 2))  # twice the size, halved: a smooth edge
    ImageDraw.Draw(mask).polygon(((corners - low) * 2).ravel().tolist(), fill=255)
    ground.paste(warped, (int(low[0]), int(low[1])), mask.reduce(2))


def _perspective(corners: np.ndarray, sheet: Size) -> list[float]:
    """Return Pillow's eight numbers that lead from a point of the frame to one of the sheet."""
    targets = [(0, 0), (sheet[0], 0), sheet, (0, sheet[1])]
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values, float)).tolist()


def _expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image with what light, lens and sensor do to it."""
    gains = 1 + rng.normal(0, 0.04) * np.array([[1], [0], [-1]])  # yellow lamp light or blue shade
    table = (np.arange(256) * gains - 128) * rng.uniform(0.85, 1.1) + 128 + rng.uniform(-8, 10)
    image = image.point(table.round().clip(0, 255).astype(int).ravel().tolist())
    kind = rng.random()
    if kind < 0.1:  # a shaky hand
        image = image.filter(ImageFilter.BoxBlur((float(rng.uniform(0.5, 2)), 0)))
    elif kind < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    levels = np.asarray(image, np.float32) * _light(image.size, rng)
    return _add_noise(levels, float(rng.uniform(0.5, 7)), rng)


def _light(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Return the brightness of the light, shape (height, width, 1), about 0.5 to 1.2."""
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    angle = rng.uniform(0, 2 * math.pi)
    slope = x * math.cos(angle) + y * math.sin(angle)
    light = rng.uniform(0.82, 1.08) + slope * rng.uniform(0, 0.2)
    light -= rng.uniform(0, 0.16) * (x**2 + y**2)
    if chance(rng, 0.3):  # the shadow of a hand, a lamp, the photographer
        edge = (x * math.sin(angle) + y * math.cos(angle) - rng.uniform(-0.3, 0.8)) * 8
        light *= 1 - rng.uniform(0.15, 0.4) / (1 + np.exp(-edge * rng.uniform(0.6, 3)))
    field = Image.fromarray(light.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(field)[:, :, None]


def _add_noise(levels: np.ndarray, strength: float, rng: np.random.Generator) -> Image.Image:
    """Return an image of `levels` with grain, which is added in place."""
    grain = rng.standard_normal((*levels.shape[:2], 1), dtype=np.float32)
    levels += grain * np.float32(strength)
    return to_image(levels)
