"""Many small images in little time, each unlike all others, in two classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from imagesieve.learning.data.dataset import TRAIN, VALIDATION

CLASSES = ("plain", "striped")

_SIZE = (200, 150)  # (width, height) in pixels
_PATCHES = (10, 8)  # of colour; with so many no two images are near-duplicates


def draw_data_folder(folder: Path, num_train: int, num_validation: int, seed: int) -> None:
    """Write JPEGs into `folder/<split>/<class>/`.

    Args:
        folder: the data folder.
        num_train: images of all classes together.
        num_validation: the same.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    for split, count in ((TRAIN, num_train), (VALIDATION, num_validation)):
        for number in range(count):
            class_index = number % len(CLASSES)
            path = folder / split / CLASSES[class_index] / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(rng, is_striped=class_index == 1).save(path, quality=80)


def _draw(rng: np.random.Generator, *, is_striped: bool) -> Image.Image:
    patches = rng.integers(0, 256, (_PATCHES[1], _PATCHES[0], 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize(_SIZE, Image.Resampling.BICUBIC)
    if not is_striped:
        return image
    pixels = np.array(image)
    start, step = int(rng.integers(0, 8)), int(rng.integers(8, 16))
    pixels[start::step] = 255 - pixels[start::step]
    return Image.fromarray(pixels)
