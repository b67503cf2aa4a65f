"""Small data folders of painted images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from painted import COLOURS, paint
from PIL import Image


def fill(
    folder: Path,
    count: int,
    *,
    split: str = "train",
    classes: Iterable[str] = tuple(COLOURS),
    first: int = 0,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Paint `count` images into each class of a split, none of them twice; gives `folder`."""
    for name in classes:
        class_folder = folder / split / name
        class_folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            # Validation images must not be the training images.
            seed = number + 1000 * sorted(COLOURS).index(name) + 100_000 * (split != "train")
            paint(COLOURS[name], size=size, seed=seed).save(class_folder / f"{number:03}.png")
    return folder


def draw_scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Draw soft blobs: like a photo, and unlike noise, it stays itself when it is scaled."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
