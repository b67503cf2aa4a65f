"""Colours and textures: paper, wood, cloth, plaster, brick, gradients."""

import numpy as np
from lettering import Colour, chance, pick
from PIL import Image, ImageDraw

Size = tuple[int, int]  # (width, height) in pixels, Pillow's order

WOODS = ((150, 105, 66), (112, 74, 45), (189, 146, 98), (84, 58, 42), (205, 172, 130))
CLOTHS = (
    (178, 44, 44),
    (48, 86, 140),
    (60, 110, 72),
    (90, 90, 96),
    (190, 160, 60),
    (225, 222, 214),
)
WALLS = (
    (214, 206, 190),
    (186, 196, 200),
    (226, 222, 214),
    (160, 150, 140),
    (196, 178, 150),
    (122, 132, 128),
)

SKIES = (
    ((96, 150, 214), (206, 226, 240)),
    ((150, 170, 190), (214, 218, 220)),
    ((70, 80, 130), (244, 170, 120)),
    ((40, 100, 180), (150, 200, 236)),
    ((24, 30, 60), (90, 90, 130)),
)
THINGS = (
    (190, 60, 50),
    (50, 96, 150),
    (70, 130, 90),
    (230, 180, 60),
    (110, 80, 60),
    (60, 62, 70),
    (210, 130, 150),
)


def vary(colour: Colour, rng: np.random.Generator, spread: int = 12) -> Colour:
    """The colour, each channel moved by up to `spread`."""
    moved = np.array(colour) + rng.integers(-spread, spread + 1, 3)
    return tuple(int(channel) for channel in moved.clip(0, 255))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` (0 to 1) of the second colour in the first."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def brightness(colour: Colour) -> float:
    """Perceived brightness, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def textured(size: Size, colour: Colour, strength: float, cells: Size, rng) -> Image.Image:
    """A plain colour made uneven by `strength` grey levels, in `cells` bumps across and down."""
    bumps = rng.normal(0, strength / 2, (cells[1], cells[0], 1)) + np.array(colour)
    return to_image(bumps).resize(size, Image.Resampling.BILINEAR)


def to_image(levels: np.ndarray) -> Image.Image:
    """Grey levels of any range -> an RGB image, values cut to 0 to 255."""
    return Image.fromarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))


def gradient(size: Size, top: Colour, bottom: Colour) -> Image.Image:
    """A vertical gradient."""
    column = np.linspace(top, bottom, 64).round().astype(np.uint8)[:, None, :]
    return Image.fromarray(column).resize(size, Image.Resampling.BILINEAR)


def paper(size: Size, colour: Colour, rng: np.random.Generator) -> Image.Image:
    """A sheet, faintly uneven."""
    cells = (int(rng.integers(3, 40)), int(rng.integers(3, 40)))
    return textured(size, colour, float(rng.uniform(1, 6)), cells, rng)


def wood(size: Size, rng: np.random.Generator) -> Image.Image:
    """A wooden table of a few planks."""
    colour = vary(pick(rng, WOODS), rng)
    image = textured(size, colour, 26, (4, max(40, size[1] // 5)), rng)
    pen = ImageDraw.Draw(image)
    plank = int(rng.uniform(0.14, 0.5) * size[1])
    for y in range(int(rng.integers(plank)), size[1], plank):
        pen.line([(0, y), (size[0], y)], mix(colour, (0, 0, 0), 0.55), max(2, size[1] // 250))
    return image if chance(rng, 0.5) else image.transpose(Image.Transpose.TRANSPOSE).resize(size)


def checked_cloth(size: Size, rng: np.random.Generator) -> Image.Image:
    """A chequered tablecloth."""
    colour = vary(pick(rng, CLOTHS), rng)
    step = int(rng.uniform(0.04, 0.1) * max(size))
    across = (np.arange(size[0]) // step % 2)[None, :]
    down = (np.arange(size[1]) // step % 2)[:, None]
    threads = [mix((238, 238, 238), colour, share) for share in (0, 0.5, 1)]
    return Image.fromarray(np.array(threads, np.uint8)[across + down])


def plain_cloth(size: Size, rng: np.random.Generator) -> Image.Image:
    """A tablecloth of one colour with soft folds."""
    return textured(size, vary(pick(rng, CLOTHS), rng), 12, (6, 5), rng)


def plaster(size: Size, rng: np.random.Generator) -> Image.Image:
    """A painted wall."""
    return textured(size, vary(pick(rng, WALLS), rng), 7, (60, 60), rng)


def stone(size: Size, rng: np.random.Generator) -> Image.Image:
    """A stone or marble top."""
    grey = int(rng.integers(60, 225))
    colour = vary((grey, grey, grey), rng, 6)
    veins = textured(size, colour, 30, (int(rng.integers(6, 14)), int(rng.integers(6, 14))), rng)
    return Image.blend(veins, textured(size, colour, 30, (55, 55), rng), 0.45)


def brick(size: Size, rng: np.random.Generator) -> Image.Image:
    """A brick wall."""
    mortar, colour = (190, 182, 172), vary((150, 98, 80), rng, 14)
    image = textured(size, mortar, 10, (50, 50), rng)
    pen = ImageDraw.Draw(image)
    height = max(12, int(rng.uniform(0.03, 0.06) * max(size)))
    width, joint = int(height * 2.6), max(2, height // 9)
    for row, y in enumerate(range(0, size[1], height)):
        for x in range(-width // 2 * (row % 2), size[0], width):
            pen.rectangle([x, y, x + width - joint, y + height - joint], vary(colour, rng, 9))
    return image


TABLES = (wood, wood, plain_cloth, checked_cloth, stone)
BACKGROUNDS = (*TABLES, wood, plain_cloth, plaster, brick)


def background(size: Size, rng: np.random.Generator) -> Image.Image:
    """A table or a wall to lie or hang on."""
    return pick(rng, BACKGROUNDS)(size, rng)
