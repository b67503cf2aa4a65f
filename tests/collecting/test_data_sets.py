"""Whole data sets: a plan fills every folder, and no image lies on two sides of a split."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fake_bing import FakeBing, draw
from filling import images_in
from PIL import Image

import bing_downloader
from imagesieve import images
from imagesieve.images import fingerprints

ROOT = Path(bing_downloader.__file__).parent
Start = Callable[..., int]


def copy_of(number: int) -> bytes:
    """Return the image that `draw(number)` draws in another encoding."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(draw(number))).save(buffer, "PNG")
    return buffer.getvalue()


PLAN = """
output = "data"
type = "photo"
train_limit = 30
validation_limit = 21

[class.menu]
queries = ["restaurant menu", "menu board"]
validation_queries = ["cafe menu"]

[class.not-menu]
queries = ["food", "restaurant interior"]
validation_queries = ["street"]
"""
QUERIES = ("restaurant menu", "menu board", "cafe menu", "food", "restaurant interior", "street")


def test_a_plan_fills_a_data_set_that_training_finds_nothing_wrong_with(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    for number, query in enumerate(QUERIES):
        bing.add_images(45, start=100 * number, query=query)
    # What leaks: a validation query that finds images of training again, whole and re-encoded.
    for number in range(5):
        bing.add(f"/again{number}.jpg", draw(number), query="cafe menu")
        bing.add(f"/copy{number}.png", copy_of(10 + number), query="street")
    bing.items_of["cafe menu"].reverse()
    bing.items_of["street"].reverse()
    (tmp_path / "plan.toml").write_text(PLAN)

    assert start("--plan", "plan.toml") == 0
    counts = {
        f"{folder.parent.name}/{folder.name}": len(images_in(folder))
        for folder in sorted((tmp_path / "data").glob("*/*"))
    }
    assert counts == {
        "train/menu": 30,
        "train/not-menu": 30,
        "validation/menu": 21,
        "validation/not-menu": 21,
    }
    assert {page["qft"] for page in bing.page_requests} == {"+filterui:photo-photo"}

    check = subprocess.run(
        [sys.executable, ROOT / "trainMyDataWithKerasModel.py", "--data", "data", "--check-only"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert "nothing wrong was found" in check.stdout + check.stderr

    bing.requests.clear()
    assert start("--plan", "plan.toml") == 0
    assert bing.requests == []


def prints_of(folder: Path) -> list[bytes]:
    size = fingerprints.CHECK_SIZE
    return [
        fingerprints.fingerprint(images.decode(path, image_size=size).pixels)
        for path in images_in(folder)
    ]


def test_a_fraction_splits_and_a_rerun_moves_nothing(
    bing: FakeBing, start: Start, tmp_path: Path
) -> None:
    for number in range(60):
        bing.add(f"/{number}.jpg", draw(number), host=1 + number % 20)
        if number % 3 == 0:
            bing.add(f"/{number}.png", copy_of(number), host=1 + number % 20)
    arguments = ("-s", "red panda", "-o", "data", "--validation-fraction", "0.25", "--limit")
    assert start(*arguments, "40") == 0
    train, validation = (
        tmp_path / "data" / split / "red_panda" for split in ("train", "validation")
    )
    before = {path: path.read_bytes() for path in (*images_in(train), *images_in(validation))}
    assert (len(images_in(train)), len(images_in(validation))) == (30, 10)

    assert start(*arguments, "56") == 0
    assert (len(images_in(train)), len(images_in(validation))) == (42, 14)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert fingerprints.near_pairs(prints_of(train) + prints_of(validation)) == []
