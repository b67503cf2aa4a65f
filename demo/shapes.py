"""Plain shapes to draw things with."""

from collections.abc import Iterable

import numpy as np
from lettering import Colour
from PIL import ImageDraw
from surfaces import mix

Pen = ImageDraw.ImageDraw
Point = tuple[float, float]

# An object is a list of parts from back to front: the kind of shape, its coordinates (the object
# stands on (0, 0) and is about 1 high; up is negative), and its colour: a fixed one, or a number
# that makes the object's own colour lighter (above 0) or darker (below 0).
Part = tuple[str, tuple[float, ...], float | Colour]


def disc(pen: Pen, x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled circle."""
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def blob(pen: Pen, x: float, y: float, radius: float, colour: Colour, rng) -> None:
    """A rounded, uneven patch."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    first, second = rng.uniform(0, 2 * np.pi, 2)
    reach = radius * (1 + 0.13 * np.sin(2 * angles + first) + 0.08 * np.sin(3 * angles + second))
    points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
    pen.polygon(points.ravel().tolist(), fill=colour)


def box(pen: Pen, left: float, top: float, width: float, height: float, colour: Colour) -> None:
    """A filled rectangle by its corner and its size."""
    pen.rectangle([left, top, left + max(1, width), top + max(1, height)], fill=colour)


def shape(pen: Pen, origin: Point, scale: float, points: Iterable[Point], colour: Colour) -> None:
    """A filled polygon, its points given in units of `scale` from the origin."""
    pen.polygon([(origin[0] + x * scale, origin[1] + y * scale) for x, y in points], fill=colour)


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """The colour in the shade."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """The colour in the light."""
    return mix(colour, (255, 255, 255), share)


def draw_parts(
    pen: Pen, x: float, y: float, size: float, parts: tuple[Part, ...], colour: Colour
) -> None:
    """Draw an object `size` pixels high that stands on (x, y)."""
    for kind, coordinates, shade in parts:
        points = np.array(coordinates).reshape(-1, 2)
        corners = (points * size + (x, y)).ravel().tolist()
        fill = shade if isinstance(shade, tuple) else _shaded(colour, shade)
        if kind == "polygon":
            shape(pen, (x, y), size, points.tolist(), fill)
        elif kind == "oval":
            pen.ellipse(corners, fill=fill)
        else:
            pen.rounded_rectangle(corners, size * 0.04 if kind == "round" else 0, fill=fill)


def _shaded(colour: Colour, shade: float) -> Colour:
    return lighter(colour, shade) if shade > 0 else darker(colour, -shade)
