"""Colours, random choices, and textures: paper, wood, cloth, plaster, stone."""

import numpy as np
from PIL import Image, ImageColor, ImageDraw

Colour = tuple[int, int, int]
Size = tuple[int, int]  # (width, height) in pixels, Pillow's order


def colours(codes: str) -> tuple[Colour, ...]:
    """Return the colours of hexadecimal codes with spaces between them."""
    return tuple(ImageColor.getrgb(f"#{code}") for code in codes.split())


WOODS = colours("966942 704a2d bd9262 543a2a cdac82")
CLOTHS = colours("b22c2c 30568c 3c6e48 5a5a60 bea03c e1ded6")
WALLS = colours("d6cebe bac4c8 e2ded6 a0968c c4b296 7a8480")
STONES = colours("3c3c3c 6e6a68 969694 c8c8c4 dedcd8")
PLAIN = ((CLOTHS, 12, (6, 5)), (STONES, 24, (40, 40)), (WALLS, 7, (60, 60)))
THINGS = colours("be3c32 326096 46825a e6b43c 6e503c 3c3e46 d28296")


def pick(rng: np.random.Generator, choices):
    """Return one of the choices, which may be of any type."""
    return choices[int(rng.integers(len(choices)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return True with this probability."""
    return bool(rng.random() < probability)


def vary(colour: Colour, rng: np.random.Generator, spread: int = 12) -> Colour:
    """Return the colour, each channel moved by up to `spread`."""
    moved = np.array(colour) + rng.integers(-spread, spread + 1, 3)
    return tuple(int(channel) for channel in moved.clip(0, 255))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour with `share` (0 to 1) of the second in it."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def shade(colour: Colour, light: float) -> Colour:
    """Return the colour lighter (`light` above 0, white at 1) or darker (black at -1)."""
    return mix(colour, (255,) * 3 if light > 0 else (0,) * 3, abs(light))


def to_image(levels: np.ndarray) -> Image.Image:
    """Return an RGB image of grey levels of any range, cut to 0 to 255 in place."""
    return Image.fromarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))


def textured(size: Size, colour: Colour, strength: float, cells: Size, rng) -> Image.Image:
    """Return a colour made uneven by `strength` grey levels, in `cells` bumps across and down."""
    bumps = rng.normal(0, strength / 2, (cells[1], cells[0], 1)) + np.array(colour)
    return to_image(bumps).resize(size, Image.Resampling.BILINEAR)


def gradient(size: Size, top: Colour, bottom: Colour) -> Image.Image:
    """Return a vertical gradient."""
    column = np.linspace(top, bottom, 64).round().astype(np.uint8)[:, None, :]
    return Image.fromarray(column).resize(size, Image.Resampling.BILINEAR)


def paper(size: Size, colour: Colour, rng: np.random.Generator) -> Image.Image:
    """Return a sheet, faintly uneven."""
    cells = (int(rng.integers(3, 40)), int(rng.integers(3, 40)))
    return textured(size, colour, float(rng.uniform(1, 6)), cells, rng)


def wood(size: Size, rng: np.random.Generator) -> Image.Image:
    """Return a wooden table of a few planks."""
    is_upright = chance(rng, 0.5)
    size = size[::-1] if is_upright else size
    colour = vary(pick(rng, WOODS), rng)
    image = textured(size, colour, 26, (4, max(40, size[1] // 5)), rng)
    pen = ImageDraw.Draw(image)
    plank = int(rng.uniform(0.14, 0.5) * size[1])
    for y in range(int(rng.integers(plank)), size[1], plank):
        pen.line([(0, y), (size[0], y)], shade(colour, -0.55), max(2, size[1] // 250))
    return image.transpose(Image.Transpose.TRANSPOSE) if is_upright else image


def checked_cloth(size: Size, rng: np.random.Generator) -> Image.Image:
    """Return a chequered tablecloth."""
    colour = vary(pick(rng, CLOTHS), rng)
    step = int(rng.uniform(0.04, 0.1) * max(size))
    across = (np.arange(size[0]) // step % 2)[None, :]
    down = (np.arange(size[1]) // step % 2)[:, None]
    threads = [mix((238,) * 3, colour, share) for share in (0, 0.5, 1)]
    return Image.fromarray(np.array(threads, np.uint8)[across + down])


def plain(size: Size, rng: np.random.Generator) -> Image.Image:
    """Return a tablecloth of one colour with soft folds, a stone top, or a painted wall."""
    tints, strength, cells = pick(rng, PLAIN)
    return textured(size, vary(pick(rng, tints), rng), strength, cells, rng)


BACKGROUNDS = (wood, wood, checked_cloth, plain, plain)
