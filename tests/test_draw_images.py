"""The demo's painted images: the same every time, and no class told by its shape."""

from pathlib import Path

import numpy as np
import pytest
from draw_images import PAINTERS, draw_data_folder
from draw_menus import paint_image_menu
from lettering import READING, letters
from photograph import MAX_SIDE, MIN_SIDE, choose_frame
from PIL import Image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_data_folder(folder, num_train=2, num_validation=1, seed=5)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The images' bytes by their path inside the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")
    }


def test_folder_holds_both_classes_in_equal_numbers(drawn: Path):
    names = ["train/menu/000.jpg", "train/menu/001.jpg", "validation/menu/000.jpg"]
    names += [name.replace("menu", "not-menu") for name in names]
    assert sorted(contents(drawn)) == sorted(names)
    visible = [path.name for path in drawn.iterdir() if not path.name.startswith(".")]
    assert sorted(visible) == ["train", "validation"]


def test_every_image_opens_as_rgb_within_the_promised_size(drawn: Path):
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
        assert image.mode == "RGB"
        assert all(MIN_SIDE <= side <= MAX_SIDE for side in image.size)


def test_growing_the_set_keeps_the_first_images_byte_for_byte(drawn: Path, tmp_path: Path):
    draw_data_folder(tmp_path / "data", num_train=3, num_validation=1, seed=5)
    grown = contents(tmp_path / "data")
    assert len(grown) == 2 * (3 + 1)
    assert contents(drawn).items() <= grown.items()


def test_another_seed_gives_other_images_and_replaces_the_old_ones(drawn: Path, tmp_path: Path):
    draw_data_folder(tmp_path / "data", num_train=1, num_validation=0, seed=5)
    old = contents(tmp_path / "data")
    assert old.items() <= contents(drawn).items(), "the same chance draws the same"
    draw_data_folder(tmp_path / "data", num_train=1, num_validation=0, seed=6)
    new = contents(tmp_path / "data")
    assert old.keys() == new.keys()
    assert not set(old.values()) & set(new.values())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_same_settings_again_write_nothing(drawn: Path):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    draw_data_folder(drawn, num_train=2, num_validation=1, seed=5)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_a_folder_with_foreign_files_is_refused_and_left_alone(tmp_path: Path):
    mine = tmp_path / "train" / "menu" / "holiday.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"holiday\.jpg"):
        draw_data_folder(tmp_path, num_train=1, num_validation=0, seed=0)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("draw", PAINTERS.values(), ids=PAINTERS)
def test_both_classes_come_in_both_orientations(draw):
    sizes = [draw(np.random.default_rng(number)).size for number in range(8)]
    assert {width > height for width, height in sizes} == {True, False}


def test_frames_are_portrait_as_often_as_landscape():
    frames = [choose_frame(np.random.default_rng(number)) for number in range(400)]
    num_landscape = sum(width > height for width, height in frames)
    num_portrait = sum(width < height for width, height in frames)
    assert abs(num_landscape - num_portrait) < 60


def test_a_large_grid_of_plates_does_not_run_out_of_dishes():
    for number in range(6):
        assert paint_image_menu((700, 1100), np.random.default_rng(number)).size == (700, 1100)


def test_typefaces_without_accents_spell_dishes_in_plain_letters():
    for typeface in READING:
        spelled = letters(typeface, 12).spell("Crème brûlée 5 €")
        expected = "Crème brûlée 5 €" if typeface.has_accents else "Creme brulee 5 EUR"
        assert spelled.strip() == expected
