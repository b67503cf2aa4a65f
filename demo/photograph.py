"""Turn a painted sheet or scene into something that a camera or a scanner could have taken.

Both classes go through the same functions with the same chances, so that neither the shape of the
image, nor the table under it, nor the light tells the class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lettering import chance, pick
from PIL import Image, ImageDraw, ImageFilter
from surfaces import Size, background, paper, to_image

Painter = Callable[[Size, np.random.Generator], Image.Image]

MIN_SIDE, MAX_SIDE = 350, 900  # pixels
FRAME_RATIOS = (1.0, 0.8, 0.75, 0.75, 2 / 3, 0.6)  # short side to long side
SHEET_RATIOS = (0.62, 0.707, 0.707, 0.75, 0.8, 1.0)


@dataclass(frozen=True)
class Shot:
    """How the camera looks at a sheet."""

    fill: tuple[float, float]  # share of the frame that the sheet takes; above 1 its edges are cut
    max_degrees: float
    max_tilt: float  # 0 straight from above; 0.3 far edge a third shorter


SHOTS = {
    "table": Shot(fill=(0.84, 1.0), max_degrees=9, max_tilt=0.24),
    "close-up": Shot(fill=(1.04, 1.3), max_degrees=5, max_tilt=0.12),
    "scan": Shot(fill=(1.0, 1.0), max_degrees=0, max_tilt=0),
}
SHOT_CHANCES = {"table": 0.55, "close-up": 0.25, "scan": 0.2}


def choose_frame(rng: np.random.Generator) -> Size:
    """Width and height of an image: portrait or landscape alike, 350 to 900 pixels a side."""
    long = int(rng.integers(460, MAX_SIDE + 1))
    short = max(MIN_SIDE, round(long * pick(rng, FRAME_RATIOS)))
    return (short, long) if chance(rng, 0.5) else (long, short)


def photograph_sheet(paint: Painter, rng: np.random.Generator) -> Image.Image:
    """Paint a sheet, lay it on a table or hang it on a wall, and take its image."""
    frame = choose_frame(rng)
    kind = str(rng.choice(list(SHOT_CHANCES), p=list(SHOT_CHANCES.values())))
    if kind == "scan":
        return _scan(paint, frame, rng)
    shot = SHOTS[kind]
    sheet = paint(_choose_sheet_size(frame, shot, rng), rng)
    corners = _tilted_corners(sheet.size, frame, shot, rng)
    ground = background(frame, rng)
    _lay_shadow(ground, corners, rng)
    _lay_sheet(ground, sheet, corners)
    return _expose(ground, rng)


def photograph_scene(paint: Painter, rng: np.random.Generator) -> Image.Image:
    """Take the image of a scene, or of a print of it that lies or hangs somewhere."""
    if chance(rng, 0.3):
        return photograph_sheet(_with_white_border(paint), rng)
    frame = choose_frame(rng)
    scene = paint_smoothly(paint, frame, rng)
    turned = scene.rotate(float(rng.normal(0, 1.2)), Image.Resampling.BICUBIC)
    margin = (round(frame[0] * 0.03), round(frame[1] * 0.03))
    box = (*margin, frame[0] - margin[0], frame[1] - margin[1])
    return _expose(turned.resize(frame, Image.Resampling.BILINEAR, box), rng)


def paint_smoothly(paint: Painter, size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint at twice the size and halve it: Pillow draws shapes with hard edges."""
    return paint((size[0] * 2, size[1] * 2), rng).reduce(2)


def _with_white_border(paint: Painter) -> Painter:
    def print_out(size: Size, rng: np.random.Generator) -> Image.Image:
        border = round(min(size) * rng.uniform(0, 0.06))
        sheet = Image.new("RGB", size, (246, 244, 240))
        inner = (size[0] - 2 * border, size[1] - 2 * border)
        sheet.paste(paint_smoothly(paint, inner, rng), (border, border))
        return sheet

    return print_out


def _scan(paint: Painter, frame: Size, rng: np.random.Generator) -> Image.Image:
    sheet = paint(frame, rng)
    if sheet.size != frame:  # a narrow receipt on the wide glass
        glass = paper(frame, (247, 247, 245), rng)
        glass.paste(sheet, ((frame[0] - sheet.width) // 2, (frame[1] - sheet.height) // 2))
        sheet = glass
    if chance(rng, 0.5):
        return sheet
    return _add_noise(np.array(sheet, np.float32), float(rng.uniform(1, 4)), rng)


def _choose_sheet_size(frame: Size, shot: Shot, rng: np.random.Generator) -> Size:
    """A sheet that fits the frame; mostly, but not always, turned the same way."""
    ratio = pick(rng, SHEET_RATIOS)
    same_way = chance(rng, 0.85)
    if (frame[0] > frame[1]) == same_way:
        ratio = 1 / ratio
    width = min(frame[0], frame[1] * ratio)
    scale = sum(shot.fill) / 2
    return round(width * scale), round(width / ratio * scale)


def _tilted_corners(sheet: Size, frame: Size, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """Where the sheet's corners fall in the frame: top left, then clockwise; shape (4, 2)."""
    half = np.array(sheet) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    angle = math.radians(float(rng.uniform(-1, 1) ** 3 * shot.max_degrees * 1.6))
    cos, sin = math.cos(angle), math.sin(angle)
    corners = corners @ np.array([[cos, sin], [-sin, cos]])
    way = rng.uniform(0, 2 * math.pi)
    steepness = rng.uniform(0, shot.max_tilt) / np.abs(corners).max()
    tilt = np.array([math.cos(way), math.sin(way)]) * steepness
    corners = corners / (1 + corners @ tilt)[:, None]
    extent = np.ptp(corners, axis=0)
    corners *= rng.uniform(*shot.fill) * min(np.array(frame) / extent)
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    room = np.abs(np.array(frame) - np.ptp(corners, axis=0)) / 2
    return corners - centre + np.array(frame) / 2 + room * rng.uniform(-0.7, 0.7, 2)


def _lay_shadow(ground: Image.Image, corners: np.ndarray, rng: np.random.Generator) -> None:
    small = (ground.width // 4 + 1, ground.height // 4 + 1)  # soft anyway, so a quarter will do
    shade = Image.new("L", small)
    shifted = (corners + rng.uniform(-8, 14, 2)) / 4
    ImageDraw.Draw(shade).polygon([tuple(corner) for corner in shifted], fill=140)
    shade = shade.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 3)))).resize(ground.size)
    ground.paste((12, 10, 8), mask=shade)


def _lay_sheet(ground: Image.Image, sheet: Image.Image, corners: np.ndarray) -> None:
    # Only the part of the frame that the sheet covers is warped; warping is the slowest step.
    low = np.floor(corners.min(axis=0)).clip(0)
    high = np.ceil(corners.max(axis=0)).clip(0, ground.size)
    width, height = (int(side) for side in high - low)
    placed = corners - low
    warped = sheet.transform(
        (width, height),
        Image.Transform.PERSPECTIVE,
        _perspective(placed, sheet.size),
        Image.Resampling.BILINEAR,
        fillcolor=sheet.getpixel((1, 1)),  # what shows at the rim must look like the sheet
    )
    mask = Image.new("L", (width * 2, height * 2))  # twice the size, halved: a smooth edge
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in placed * 2], fill=255)
    ground.paste(warped, (int(low[0]), int(low[1])), mask.reduce(2))


def _perspective(corners: np.ndarray, sheet: Size) -> list[float]:
    """Pillow's eight numbers that lead from a point of the frame to a point of the sheet."""
    targets = [(0, 0), (sheet[0], 0), sheet, (0, sheet[1])]
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values, float)).tolist()


def _expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What light, lens and sensor do to an image."""
    image = _develop(_blur(image, rng), rng)
    levels = np.asarray(image, np.float32) * _light(image.size, rng)
    return _add_noise(levels, float(rng.uniform(0.5, 7)), rng)


def _develop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """White balance, contrast and brightness, by one table for each channel."""
    warmth = rng.normal(0, 0.04)  # lamp light is yellow, the shade is blue
    gains = np.array([[1 + warmth], [1 + rng.normal(0, 0.015)], [1 - warmth]])
    contrast, lift = rng.uniform(0.85, 1.1), rng.uniform(-8, 10)
    table = (np.arange(256) * gains - 128) * contrast + 128 + lift
    return image.point(table.round().clip(0, 255).astype(int).ravel().tolist())


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    kind = rng.random()
    if kind < 0.5:
        return image
    if kind < 0.9:
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    return image.filter(ImageFilter.BoxBlur((float(rng.uniform(0.5, 2)), 0)))  # a shaky hand


def _light(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Brightness of the light over the image, shape (height, width, 1), about 0.5 to 1.2."""
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    angle = rng.uniform(0, 2 * math.pi)
    slope = x * math.cos(angle) + y * math.sin(angle)
    light = rng.uniform(0.82, 1.08) + slope * rng.uniform(0, 0.2)
    light -= rng.uniform(0, 0.16) * (x**2 + y**2)
    if chance(rng, 0.3):  # the shadow of a hand, a shelf, the photographer
        edge = (x * math.sin(angle) + y * math.cos(angle) - rng.uniform(-0.3, 0.8)) * 8
        light *= 1 - rng.uniform(0.15, 0.4) / (1 + np.exp(-edge * rng.uniform(0.6, 3)))
    field = Image.fromarray(light.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(field)[:, :, None]


def _add_noise(levels: np.ndarray, strength: float, rng: np.random.Generator) -> Image.Image:
    """Add grain to `levels`, in place, and make an image of them."""
    height, width, _ = levels.shape
    levels += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(strength)
    return to_image(levels)
