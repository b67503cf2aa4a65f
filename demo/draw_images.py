"""Draw the demo's sample images: photographs of menus, and of everything else.

    python demo/draw_images.py data-demo --train 120 --validation 40 --seed 0

Every image is painted here, so the demo needs no download and nobody's photographs.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from draw_menus import paint_menu
from draw_scenes import paint_scene
from draw_text_pages import paint_text_page
from lettering import chance
from photograph import photograph_scene, photograph_sheet
from PIL import Image

SPLITS = ("train", "validation")  # the order counts: it is part of every image's seed
TEXT_SHARE = 0.25  # of the other images; without pages of text the task would be too easy
STAMP_NAME = ".images.json"  # hidden, so that it is no part of the data
DRAWING_VERSION = 2  # raise it when the images change, and old folders are drawn again


def draw_menu(rng: np.random.Generator) -> Image.Image:
    """A photograph or a scan of a menu: RGB, 350 to 900 pixels a side."""
    return photograph_sheet(paint_menu, rng)


def draw_other(rng: np.random.Generator) -> Image.Image:
    """A photograph of anything but a menu: RGB, 350 to 900 pixels a side."""
    if chance(rng, TEXT_SHARE):
        return photograph_sheet(paint_text_page, rng)
    return photograph_scene(paint_scene, rng)


PAINTERS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "menu": draw_menu,
    "not-menu": draw_other,
}


def draw_data_folder(folder: Path, *, num_train: int, num_validation: int, seed: int) -> None:
    """Write `folder/train/<class>/NNN.jpg` and `folder/validation/<class>/NNN.jpg`.

    The numbers are images per class. An image depends on the seed, its split, its class and
    its number alone, so a larger set begins with the images of a smaller one. A folder that
    holds this set already is left as it is; one that holds files from elsewhere is refused.
    """
    counts = {"train": num_train, "validation": num_validation}
    stamp = {"drawing": DRAWING_VERSION, "seed": seed, **counts}
    if _read_stamp(folder) == stamp:
        return
    _refuse_strangers(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, class_name, number in _images(counts):
        path = unfinished / _image_path(split, class_name, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw_file(path, split, class_name, number, seed)
    (unfinished / STAMP_NAME).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def _images(counts: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    for split in SPLITS:
        for class_name in PAINTERS:
            for number in range(counts[split]):
                yield split, class_name, number


def _image_path(split: str, class_name: str, number: int) -> Path:
    return Path(split) / class_name / f"{number:03d}.jpg"


def _draw_file(path: Path, split: str, class_name: str, number: int, seed: int) -> None:
    key = (seed, SPLITS.index(split), list(PAINTERS).index(class_name), number)
    rng = np.random.default_rng(key)
    image = PAINTERS[class_name](rng)
    image.save(path, "JPEG", quality=int(rng.integers(60, 93)))


def _read_stamp(folder: Path) -> dict[str, int] | None:
    try:
        return json.loads((folder / STAMP_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _refuse_strangers(folder: Path) -> None:
    """Redrawing empties the folder: stop if that would delete anything not drawn here."""
    if not folder.exists():
        return
    counts = _read_stamp(folder) or dict.fromkeys(SPLITS, 0)
    known = {folder / _image_path(*image) for image in _images(counts)}
    known.add(folder / STAMP_NAME)
    strangers = sorted(path for path in folder.rglob("*") if path.is_file() and path not in known)
    if strangers:
        raise FileExistsError(
            f"{folder} holds files that were not drawn here, such as {strangers[0].name}; "
            "move them away, or name another folder"
        )


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description="Draw sample images of menus and of other things.",
        epilog="example: python demo/draw_images.py data-demo --train 120 --validation 40",
    )
    add = parser.add_argument
    add("folder", type=Path, help="where to write train/ and validation/")
    add("--train", type=int, default=120, help="training images per class (%(default)s)")
    add("--validation", type=int, default=40, help="validation images per class (%(default)s)")
    add("--seed", type=int, default=0, help="another seed, other images (%(default)s)")
    return parser.parse_args(arguments)


def main() -> None:
    """Draw the folder that the command line asks for."""
    options = read_arguments()
    counts = {"num_train": options.train, "num_validation": options.validation}
    try:
        draw_data_folder(options.folder, **counts, seed=options.seed)
    except OSError as error:
        sys.exit(f"error: {error}")
    total = len(PAINTERS) * sum(counts.values())
    print(f"{total} images of menus and of other things lie in {options.folder}")


if __name__ == "__main__":
    main()
