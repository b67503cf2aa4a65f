"""Objects before a plain ground, as in a shop's catalogue."""

import numpy as np
from lettering import pick
from PIL import Image, ImageDraw
from shapes import Part, box, darker, draw_parts, lighter
from surfaces import THINGS, Size, gradient, vary

GROUNDS = ((238, 238, 236), (220, 214, 204), (204, 214, 220), (236, 214, 204), (70, 74, 80))
CREAM, BLACK, COFFEE, GREEN = (242, 238, 228), (34, 34, 38), (74, 46, 30), (92, 142, 72)

OBJECTS: dict[str, tuple[Part, ...]] = {
    "bottle": (
        ("round", (-0.15, -0.62, 0.15, 0), 0),
        ("oval", (-0.15, -0.76, 0.15, -0.48), 0),
        ("box", (-0.055, -1, 0.055, -0.66), 0),
        ("box", (-0.062, -1, 0.062, -0.93), -0.5),
        ("box", (-0.15, -0.45, 0.15, -0.19), CREAM),
        ("box", (-0.12, -0.62, -0.09, -0.06), 0.45),
    ),
    "mug": (
        ("oval", (0.14, -0.46, 0.42, -0.1), -0.15),
        ("oval", (0.2, -0.38, 0.35, -0.18), CREAM),
        ("round", (-0.26, -0.55, 0.26, 0), 0),
        ("oval", (-0.26, -0.62, 0.26, -0.48), 0.3),
        ("oval", (-0.23, -0.6, 0.23, -0.5), COFFEE),
        ("box", (-0.2, -0.44, -0.16, -0.1), 0.4),
    ),
    "lamp": (
        ("box", (-0.02, -0.6, 0.02, -0.02), -0.5),
        ("oval", (-0.18, -0.06, 0.18, 0.03), -0.4),
        ("polygon", (-0.16, -1, 0.16, -1, 0.3, -0.55, -0.3, -0.55), 0),
        ("polygon", (-0.16, -1, -0.05, -1, -0.14, -0.55, -0.3, -0.55), 0.3),
    ),
    "parcel": (
        ("polygon", (-0.32, -0.42, 0.32, -0.42, 0.48, -0.58, -0.16, -0.58), 0.3),
        ("polygon", (0.32, 0, 0.32, -0.42, 0.48, -0.58, 0.48, -0.16), -0.35),
        ("box", (-0.32, -0.42, 0.32, 0), 0),
        ("box", (-0.05, -0.42, 0.05, 0), 0.55),
        ("polygon", (-0.05, -0.42, 0.05, -0.42, 0.21, -0.58, 0.11, -0.58), 0.65),
    ),
    "stool": (
        ("polygon", (-0.21, -0.6, -0.16, -0.6, -0.27, 0, -0.32, 0), -0.35),
        ("polygon", (0.21, -0.6, 0.16, -0.6, 0.27, 0, 0.32, 0), -0.35),
        ("polygon", (-0.07, -0.6, -0.02, -0.6, -0.08, -0.06, -0.13, -0.06), -0.45),
        ("polygon", (0.07, -0.6, 0.02, -0.6, 0.08, -0.06, 0.13, -0.06), -0.45),
        ("box", (-0.26, -0.25, 0.26, -0.21), -0.4),
        ("oval", (-0.3, -0.68, 0.3, -0.5), -0.2),
        ("oval", (-0.3, -0.71, 0.3, -0.54), 0),
    ),
    "phone": (
        ("round", (-0.22, -0.9, 0.22, 0), BLACK),
        ("round", (-0.2, -0.88, 0.2, -0.02), 0.2),
        *(
            ("round", (x, y, x + 0.08, y + 0.08), THINGS[index % 7])
            for index, (x, y) in enumerate(
                (x, y) for y in (-0.8, -0.67, -0.54, -0.41) for x in (-0.15, -0.04, 0.07)
            )
        ),
    ),
    "shoe": (
        ("oval", (0.2, -0.18, 0.46, 0), 0),
        ("polygon", (-0.4, -0.42, -0.12, -0.38, 0.08, -0.22, 0.36, -0.16, 0.4, 0, -0.4, 0), 0),
        ("polygon", (-0.4, -0.42, -0.3, -0.4, -0.28, -0.04, -0.4, -0.04), -0.25),
        ("round", (-0.42, -0.07, 0.46, 0), CREAM),
        *(
            ("polygon", (x, y, x + 0.03, y + 0.02, x - 0.04, y + 0.13, x - 0.07, y + 0.11), CREAM)
            for x, y in ((-0.1, -0.37), (-0.03, -0.31), (0.04, -0.25))
        ),
    ),
    "plant": (
        *(
            ("polygon", (0, -0.3, x / 2 - 0.05, y / 2 - 0.3, x, y, x / 2 + 0.07, y / 2), GREEN)
            for x, y in ((-0.42, -0.55), (0.42, -0.55), (-0.3, -0.8), (0.3, -0.8), (0, -0.95))
        ),
        ("polygon", (0, -0.3, -0.12, -0.55, -0.16, -0.9, -0.04, -0.6), (130, 176, 96)),
        ("polygon", (0, -0.3, 0.12, -0.55, 0.16, -0.86, 0.04, -0.6), (70, 120, 60)),
        ("polygon", (-0.2, -0.34, 0.2, -0.34, 0.14, 0, -0.14, 0), 0),
        ("box", (-0.22, -0.38, 0.22, -0.3), -0.15),
    ),
    "clock": (
        ("oval", (-0.36, -0.76, 0.36, -0.04), 0),
        ("oval", (-0.3, -0.7, 0.3, -0.1), CREAM),
        ("polygon", (-0.015, -0.4, 0.015, -0.4, 0.015, -0.64, -0.015, -0.64), BLACK),
        ("polygon", (0, -0.42, 0.18, -0.34, 0.17, -0.31, -0.01, -0.38), BLACK),
        ("oval", (-0.03, -0.43, 0.03, -0.37), BLACK),
        ("polygon", (-0.26, -0.14, -0.2, -0.1, -0.26, 0, -0.32, 0), -0.3),
        ("polygon", (0.26, -0.14, 0.2, -0.1, 0.26, 0, 0.32, 0), -0.3),
    ),
}  # fmt: skip


def paint_product(size: Size, rng: np.random.Generator) -> Image.Image:
    """One to three objects that stand before a plain ground."""
    ground = vary(pick(rng, GROUNDS), rng)
    image = gradient(size, lighter(ground, 0.25), ground)
    pen = ImageDraw.Draw(image)
    level = size[1] * rng.uniform(0.76, 0.86)
    box(pen, 0, level - size[1] * 0.1, size[0], size[1], darker(ground, 0.1))
    number = int(rng.integers(1, 4))
    unit = min(size[0] / number * 0.85, size[1] * 0.72)
    for index, name in enumerate(rng.permutation(list(OBJECTS))[:number]):
        x = size[0] * (index + 0.5) / number
        shadow = [x - unit * 0.4, level - unit * 0.05, x + unit * 0.44, level + unit * 0.06]
        pen.ellipse(shadow, fill=darker(ground, 0.3))
        colour = vary(pick(rng, THINGS), rng, 20)
        draw_parts(pen, x, level, unit * rng.uniform(0.8, 1.05), OBJECTS[str(name)], colour)
    return image
