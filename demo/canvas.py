"""Plain shapes, and the objects that are made of them."""

import numpy as np
from PIL import Image, ImageDraw
from surfaces import Colour, shade

# An object is a list of parts from back to front: the kind of shape, its coordinates (the object
# stands on (0, 0) and is about 1 high; up is negative), and its colour: a fixed one, or a number
# that makes the object's own colour lighter (above 0) or darker (below 0).
Part = tuple[str, tuple[float, ...], float | Colour]


class Canvas:
    """An image being painted, with its pen and the random numbers that decide what is painted."""

    def __init__(self, image: Image.Image, rng: np.random.Generator) -> None:
        self.image, self.rng = image, rng
        self.pen = ImageDraw.Draw(image)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    def box(self, left: float, top: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.pen.rectangle([left, top, left + max(1, width), top + max(1, height)], fill=colour)

    def blob(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a rounded, uneven patch."""
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        waves = np.sin(np.outer((2, 3), angles) + self.rng.uniform(0, 2 * np.pi, (2, 1)))
        reach = radius * (1 + np.array([0.13, 0.08]) @ waves)
        points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
        self.pen.polygon(points.ravel().tolist(), fill=colour)

    def draw_parts(self, foot, size: float, parts: tuple[Part, ...], own: Colour) -> None:
        """Draw an object `size` pixels high that stands on `foot`; `own` is its colour."""
        for kind, coordinates, look in parts:
            fill = look if isinstance(look, tuple) else shade(own, look)
            corners = (np.array(coordinates).reshape(-1, 2) * size + foot).ravel().tolist()
            if kind == "polygon":
                self.pen.polygon(corners, fill=fill)
            elif kind == "oval":
                self.pen.ellipse(corners, fill=fill)
            else:
                self.pen.rounded_rectangle(corners, size * 0.04 * (kind == "round"), fill=fill)
