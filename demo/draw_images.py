"""Draw the demo's sample images: photographs of menus, and of everything else.

    python demo/draw_images.py data-demo --train 120 --validation 40 --seed 0

Every image is painted here, so the demo downloads no photographs.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from draw_menus import paint_menu
from draw_scenes import paint_scene
from draw_text_pages import paint_text_page
from photograph import photograph_scene, photograph_sheet
from PIL import Image
from surfaces import chance

SPLITS = ("train", "validation")  # the order counts: it is part of every image's seed
TEXT_SHARE = 0.25  # of the other images; without pages of text the task would be too easy
STAMP_NAME = ".images.json"  # hidden, so that it is no part of the data
DRAWING_VERSION = 4  # raise it when the images change, and old folders are drawn again


def draw_menu(rng: np.random.Generator) -> Image.Image:
    """Return a photograph or a scan of a menu: RGB, 350 to 900 pixels a side."""
    return photograph_sheet(paint_menu, rng)


def draw_other(rng: np.random.Generator) -> Image.Image:
    """Return a photograph of anything but a menu: RGB, 350 to 900 pixels a side."""
    if chance(rng, TEXT_SHARE):
        return photograph_sheet(paint_text_page, rng)
    return photograph_scene(paint_scene, rng)


PAINTERS = {"menu": draw_menu, "not-menu": draw_other}


def draw_data_folder(folder: Path, *, num_train: int, num_validation: int, seed: int) -> None:
    """Write `folder/train/<class>/NNN.jpg` and `folder/validation/<class>/NNN.jpg`.

    The numbers are images per class. An image depends on the seed, its split, its class and
    its number alone, so a larger set begins with the images of a smaller one. A folder that
    holds this set already is left as it is; one with files from elsewhere raises FileExistsError.
    """
    counts = {"train": num_train, "validation": num_validation}
    stamp = {"drawing": DRAWING_VERSION, "seed": seed, **counts}
    if _read_stamp(folder) == stamp:
        return
    _refuse_foreign_files(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for path, key in _images(stamp):
        rng = np.random.default_rng((seed, *key))
        image = list(PAINTERS.values())[key[1]](rng)
        (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(unfinished / path, "JPEG", quality=int(rng.integers(60, 93)))
    (unfinished / STAMP_NAME).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def _images(stamp: dict[str, int]) -> Iterator[tuple[Path, tuple[int, int, int]]]:
    """Yield each image's path in the folder, and the numbers of its split, class and itself."""
    for (i, split), (j, class_name) in product(enumerate(SPLITS), enumerate(PAINTERS)):
        for number in range(stamp[split]):
            yield Path(split, class_name, f"{number:03d}.jpg"), (i, j, number)


def _read_stamp(folder: Path) -> dict[str, int] | None:
    try:
        return json.loads((folder / STAMP_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _refuse_foreign_files(folder: Path) -> None:
    """Redrawing empties the folder: stop if that would delete anything not drawn here."""
    stamp = _read_stamp(folder) or dict.fromkeys(SPLITS, 0)
    drawn = {folder / STAMP_NAME, *(folder / path for path, _ in _images(stamp))}
    foreign = sorted(path for path in folder.rglob("*") if path.is_file() and path not in drawn)
    if foreign:
        what = f"{folder} holds files that were not drawn here, such as {foreign[0].name}"
        raise FileExistsError(f"{what}; move them away, or name another folder")


def main() -> None:
    """Draw the folder that the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Draw sample images of menus and of other things.",
        epilog="example: python demo/draw_images.py data-demo --train 120 --validation 40",
    )
    add = parser.add_argument
    add("folder", type=Path, help="where to write train/ and validation/")
    add("--train", type=int, default=120, help="training images per class (%(default)s)")
    add("--validation", type=int, default=40, help="validation images per class (%(default)s)")
    add("--seed", type=int, default=0, help="another seed, other images (%(default)s)")
    chosen = parser.parse_args()
    counts = {"num_train": chosen.train, "num_validation": chosen.validation}
    try:
        draw_data_folder(chosen.folder, **counts, seed=chosen.seed)
    except OSError as error:
        sys.exit(f"error: {error}")
    total = len(PAINTERS) * (chosen.train + chosen.validation)
    print(f"{total} images of menus and of other things lie in {chosen.folder}")


if __name__ == "__main__":
    main()
