"""Copies in a class folder: refused in the class and in other splits, kept in other classes."""

from pathlib import Path

import pytest
from filling import MANY, Start, folder_of, one_folder, real, reason_of, split

from imagesieve.collecting.class_folder import (
    DUPLICATE,
    NEAR_DUPLICATE,
    OTHER_SPLIT,
    ClassFolder,
    Destination,
)

COPIES = {
    "half the size": (120, "JPEG", {}),
    "a third of the size": (80, "PNG", {}),
    "a poor JPEG": (240, "JPEG", {"quality": 30}),
    "WebP": (200, "WEBP", {"quality": 60}),
    "PNG": (240, "PNG", {}),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_refused_in_the_class(tmp_path: Path, copy: str) -> None:
    width, image_format, options = COPIES[copy]
    folder = ClassFolder(split(tmp_path))
    for seed in range(20):
        original = real(seed)
        assert isinstance(folder.place(original), Destination)
        assert reason_of(folder.place(original)) == DUPLICATE
        refusal = folder.place(real(seed, width, image_format, **options))
        assert reason_of(refusal) == NEAR_DUPLICATE
        assert refusal.twin is not None
        assert refusal.twin.sha256 == original.sha256


@pytest.mark.parametrize("copy", [*COPIES, "the very same"])
@pytest.mark.parametrize(
    ("here", "there"), [("train", "validation"), ("validation", "train"), ("train", "test")]
)
def test_a_copy_of_another_split_is_refused(
    start_run: Start, tmp_path: Path, copy: str, here: str, there: str
) -> None:
    width, image_format, options = COPIES.get(copy, (240, "JPEG", {}))
    start_run(one_folder(tmp_path / there / "x")).keep(real(1))
    folder = start_run(one_folder(tmp_path / here / "x")).folder
    refusal = folder.place(real(1, width, image_format, **options))
    assert reason_of(refusal) == OTHER_SPLIT
    assert refusal.twin is not None
    assert refusal.twin.path.parent == tmp_path / there / "x"
    assert folder.has_anywhere(refusal.twin.sha256)
    assert folder.num_missing == MANY
    assert isinstance(folder.place(real(2)), Destination)


@pytest.mark.parametrize("width", [240, 120, 480])
def test_a_copy_of_another_class_is_kept_with_a_warning(
    start_run: Start, tmp_path: Path, width: int
) -> None:
    start_run(one_folder(tmp_path / "train" / "a")).keep(real(1))
    place = start_run(one_folder(tmp_path / "train" / "b")).folder.place(real(1, width))
    assert isinstance(place, Destination)
    assert place.also_in == (tmp_path / "train" / "a" / real(1).file_name,)
    assert place.replaces is None


def test_a_copy_of_another_class_in_another_split_is_refused(
    start_run: Start, tmp_path: Path
) -> None:
    start_run(one_folder(tmp_path / "train" / "a")).keep(real(1))
    folder = start_run(one_folder(tmp_path / "validation" / "b")).folder
    assert reason_of(folder.place(real(1))) == OTHER_SPLIT
    assert reason_of(folder.place(real(1, 120))) == OTHER_SPLIT


def test_each_other_class_is_named_once(start_run: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        start_run(one_folder(tmp_path / "train" / name)).keep(real(1))
    folder = start_run(one_folder(tmp_path / "train" / "c")).folder
    place = folder.place(real(1, 120))
    assert isinstance(place, Destination)
    assert place.also_in == tuple(
        tmp_path / "train" / name / real(1).file_name for name in ("a", "b")
    )


def test_folders_outside_a_data_set_are_compared_when_they_are_named(
    start_run: Start, tmp_path: Path
) -> None:
    start_run(one_folder(tmp_path / "a")).keep(real(1))
    alone = start_run(one_folder(tmp_path / "b")).folder.place(real(1))
    assert isinstance(alone, Destination)
    assert alone.also_in == ()
    named = start_run(one_folder(tmp_path / "b"), others=[tmp_path / "a", tmp_path / "b"]).folder
    place = named.place(real(1))
    assert isinstance(place, Destination)
    assert place.also_in == (tmp_path / "a" / real(1).file_name,)


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    folder = ClassFolder(split(tmp_path / "nowhere"), [tmp_path / "neither"])
    assert (folder.num_before, folder.unusable) == (0, [])


def test_copies_may_be_kept_but_on_one_side(start_run: Start, tmp_path: Path) -> None:
    run = start_run(split(tmp_path, fraction=0.5), keeps_near_duplicates=True)
    for seed in range(12):
        side = folder_of(run.keep(real(seed)))
        for width in (60, 120, 180, 300):
            assert folder_of(run.keep(real(seed, width))) == side
        assert reason_of(run.keep(real(seed))) == DUPLICATE
    again = start_run(split(tmp_path, fraction=0.5), keeps_near_duplicates=True).folder
    assert again.num_before == 60
