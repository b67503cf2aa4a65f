import collections
import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data_folders import draw_scene, fill
from painted import COLOURS, encode, paint

from imagesieve.errors import DataError
from imagesieve.learning.data.dataset import Sample, read_dataset

NOBODY = 65534


def shas(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.sha256 for sample in samples}


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only; whoever is root becomes nobody, since root may write anywhere."""
    is_root = os.geteuid() == 0
    folder.chmod(0o555)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_class_folders_in_order_are_read_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, 4, classes=("red", "blue", "green"))
    shutil.copytree(tmp_path / "train/red", tmp_path / "train/.cache")
    (tmp_path / "train/red/.DS_Store").write_bytes(b"x")
    (tmp_path / "train/notes.txt").write_text("not in a class folder")
    fill(tmp_path, 5, split="feedback", first=50)  # corrected images are no split
    shutil.copytree(tmp_path / "feedback/red", tmp_path / "feedback/.held/red")
    found = read_dataset(tmp_path)
    assert found.classes == ("blue", "green", "red")
    assert len(found.train) + len(found.validation) == 12
    for sample in (*found.train, *found.validation):
        assert sample.path.parent.name == found.classes[sample.class_index]
    assert not found.rejects


def keep_one(folder: Path) -> None:
    for path in sorted((folder / "train/red").iterdir())[1:]:
        path.unlink()


def keep_one_twice(folder: Path) -> None:
    keep_one(folder)
    shutil.copy(folder / "train/red/000.png", folder / "train/red/again.png")


def keep_nothing_readable(folder: Path) -> None:
    for path in (folder / "train/red").iterdir():
        path.write_text("no image")


def keep_one_class(folder: Path) -> None:
    shutil.rmtree(folder / "train/red")
    shutil.rmtree(folder / "train/green")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (
        lambda folder: shutil.rmtree(folder / "train"),
        "There is no folder .*train: put images into",
    ),
    "an empty class": (
        lambda folder: (folder / "train/yellow").mkdir(),
        "class folder .*yellow is empty: add images to it or remove it",
    ),
    "one class": (keep_one_class, "holds only the class 'blue': at least two"),
    "one image": (keep_one, "class folder .*red holds 1 .*image: at least 2"),
    "one image twice": (keep_one_twice, "class folder .*red holds 1 .*image: at least 2"),
    "nothing readable": (keep_nothing_readable, "folder .*red holds 0 .*images: at least 2"),
    "other classes in validation": (
        lambda folder: fill(folder, 2, split="validation", classes=("blue", "green")),
        r"Only one of .*train and .*validation has images of red \(train\): both",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_folder_that_cannot_be_trained_on_is_one_clear_error(tmp_path: Path, name: str) -> None:
    spoil, message = BAD_FOLDERS[name]
    fill(tmp_path, 3)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_unreadable_files_are_listed_and_stay_where_they_are(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    jpeg = encode(paint(COLOURS["red"], size=(200, 200)))
    bad = {"half.jpg": jpeg[: len(jpeg) // 2], "empty.png": b"", "page.jpg": b"<html>"}
    for name, data in bad.items():
        (tmp_path / "train/red" / name).write_bytes(data)
    found = read_dataset(tmp_path)
    assert {path.name for path in found.rejects} == set(bad)
    assert all(found.rejects.values())
    assert len(found.train) + len(found.validation) == 12
    assert all((tmp_path / "train/red" / name).read_bytes() == bad[name] for name in bad)


def test_a_validation_folder_is_used_as_it_is(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("validation", 3), ("test", 2)):
        fill(tmp_path, count, split=split)
    found = read_dataset(tmp_path)
    assert not found.split_by_content
    splits = (found.train, found.validation, found.test)
    assert [found.counts(split) for split in splits] == [[4, 4, 4], [3, 3, 3], [2, 2, 2]]
    assert not (tmp_path / ".split.json").exists()


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (3, 1), (7, 1), (10, 2)])
def test_a_fifth_of_each_class_but_one_image_at_least_is_set_aside_and_remembered(
    tmp_path: Path, count: int, expected: int
) -> None:
    found = read_dataset(fill(tmp_path, count))
    assert found.split_by_content
    assert found.counts(found.validation) == [expected] * 3
    assert found.counts(found.train) == [count - expected] * 3
    remembered = json.loads((tmp_path / ".split.json").read_text())["images"]
    sides = dict.fromkeys(shas(found.train), "train")
    assert remembered == sides | dict.fromkeys(shas(found.validation), "validation")


@pytest.mark.parametrize("key", ["images", "pictures"])  # the latter was its former name
def test_what_is_remembered_outranks_what_would_be_chosen(tmp_path: Path, key: str) -> None:
    before = read_dataset(fill(tmp_path, 6))
    moved = next(iter(shas(before.train)))
    path = tmp_path / ".split.json"
    splits = json.loads(path.read_text())["images"]
    path.write_text(json.dumps({key: {**splits, moved: "validation"}}))
    assert moved in shas(read_dataset(tmp_path).validation)
    assert moved in shas(read_dataset(tmp_path).validation), "nor is it lost when it is written"


def test_the_split_depends_on_content_not_on_names_or_order(tmp_path: Path) -> None:
    """Two groups of near-duplicates of one size: neither fits into the fifth, one has to do."""
    fill(tmp_path, 5, classes=("blue",))
    (tmp_path / "train/red").mkdir()
    for number in (1, 2):
        draw_scene(number).save(tmp_path / f"train/red/{number}.png")
        draw_scene(number).save(tmp_path / f"train/red/{number}.jpg", quality=90)
    before = read_dataset(tmp_path)
    for path in list((tmp_path / "train").rglob("*.*g")):
        path.rename(path.with_name(f"{999 - int(path.stem)}-renamed{path.suffix}"))
    (tmp_path / ".split.json").unlink()
    after = read_dataset(tmp_path)
    assert shas(after.validation) == shas(before.validation)
    assert after.digest() == before.digest()


def test_adding_images_never_moves_an_old_one_not_even_one_that_was_away(tmp_path: Path) -> None:
    before = read_dataset(fill(tmp_path, 5))
    fill(tmp_path, 25, first=5)
    after = read_dataset(tmp_path)
    assert shas(before.train) <= shas(after.train)
    assert shas(before.validation) <= shas(after.validation)
    assert after.counts(after.validation) == [6, 6, 6]
    away = before.validation[0].path
    data = away.read_bytes()
    away.unlink()
    read_dataset(tmp_path)
    away.write_bytes(data)
    assert before.validation[0].sha256 in shas(read_dataset(tmp_path).validation)


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    for first, name in ((50, "blue"), (0, "red")):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for number in range(8):
            scene = draw_scene(first + number)
            scene.save(folder / f"{number}.png")
            scene.save(folder / f"{number}.jpg", quality=60)
            scene.resize((320, 240)).save(folder / f"{number}-large.webp")
    found = read_dataset(tmp_path)
    sides = collections.defaultdict(set)
    for side, samples in (("train", found.train), ("validation", found.validation)):
        for sample in samples:
            sides[sample.path.parent.name, sample.path.stem.split("-")[0]].add(side)
    assert len(sides) == 16
    assert all(len(side) == 1 for side in sides.values()), sides
    assert min(found.counts(found.validation)) >= 1


def test_near_duplicates_of_a_class_share_a_group_whatever_the_split(tmp_path: Path) -> None:
    fill(fill(tmp_path, 3), 3, split="validation")
    names = ("train/red/0.png", "train/red/1.jpg", "validation/red/2.webp", "train/blue/3.jpg")
    for name in names:
        draw_scene(1).save(tmp_path / name, quality=len(name) + 70)
    found = read_dataset(tmp_path)
    groups = {sample.path: sample.group for sample in (*found.train, *found.validation)}
    assert len({groups[tmp_path / name] for name in names[:3]}) == 1
    assert len({groups[tmp_path / name] for name in names}) == 2
    assert len(set(found.groups)) == len(found.train) - 1
    alone = [sample for sample in found.train if len(sample.path.stem) > 1]
    assert all(sample.group == sample.sha256 for sample in alone)


def test_a_class_of_near_duplicates_alone_keeps_most_for_training(tmp_path: Path) -> None:
    fill(tmp_path, 10, classes=("blue",))
    (tmp_path / "train/red").mkdir()
    for quality in range(50, 100, 5):
        draw_scene(1).save(tmp_path / f"train/red/{quality}.jpg", quality=quality)
    found = read_dataset(tmp_path)
    assert found.counts(found.train) == [8, 8]
    assert found.counts(found.validation) == [2, 2]


def test_a_class_whose_training_images_were_removed_still_has_both_sides(tmp_path: Path) -> None:
    before = read_dataset(fill(tmp_path, 12))
    for sample in before.train:
        if before.classes[sample.class_index] == "red":
            sample.path.unlink()
    found = read_dataset(tmp_path)
    assert min(found.counts(found.train)) >= 1
    assert min(found.counts(found.validation)) >= 1


def test_images_that_lie_in_two_classes_leave_both_sides_filled(tmp_path: Path) -> None:
    fill(tmp_path, 20, classes=("blue",))
    read_dataset(fill(tmp_path, 3, classes=("red",)))
    found = read_dataset(tmp_path)
    aside = [sample for sample in found.validation if sample.class_index == 0]
    shutil.rmtree(tmp_path / "train/red")
    (tmp_path / "train/red").mkdir()
    for sample in aside:  # all of red's images are blue's validation images
        shutil.copy(sample.path, tmp_path / "train/red")
    (tmp_path / ".split.json").unlink()
    for _ in range(2):  # chosen anew, then from what was remembered
        found = read_dataset(tmp_path)
        assert min(found.counts(found.train)) >= 1
        assert min(found.counts(found.validation)) >= 1


def test_the_fingerprint_sees_content_class_and_split_but_no_names(tmp_path: Path) -> None:
    first = read_dataset(fill(tmp_path / "a", 5)).digest()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b/train").rglob("*.png"):
        path.rename(path.with_name(f"x{path.name}"))
    assert read_dataset(tmp_path / "b").digest() == first
    (tmp_path / "b/train/red/x000.png").rename(tmp_path / "b/train/blue/moved.png")
    assert read_dataset(tmp_path / "b").digest() != first


def test_a_read_only_data_folder_works_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to nobody
        folder = fill(Path(name), 5)
        folder.chmod(0o755)
        with caplog.at_level(logging.WARNING), read_only(folder):
            found = read_dataset(folder)
        assert found.counts(found.validation) == [1, 1, 1]
        assert not (folder / ".split.json").exists()
    assert "not remembered" in caplog.text
    assert "permission is denied" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', "{}", "\ufffd"])
def test_a_broken_split_file_is_an_error_that_tells_the_way_out(
    tmp_path: Path, content: str
) -> None:
    fill(tmp_path, 2)
    (tmp_path / ".split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json is unreadable .*restore it, or delete it"):
        read_dataset(tmp_path)
    assert (tmp_path / ".split.json").read_text() == content
