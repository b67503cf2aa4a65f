"""Targets: how a limit is shared out, and which folders are compared."""

from pathlib import Path

import pytest
from filling import one_folder, split

from imagesieve.collecting.targets import Side, neighbours


@pytest.mark.parametrize(
    ("limit", "fraction", "sizes"),
    [
        (10, 0.2, (8, 2)),
        (300, 0.2, (240, 60)),
        (2, 0.01, (1, 1)),
        (2, 0.99, (1, 1)),
        (3, 0.5, (1, 2)),
        (100, 0.333, (67, 33)),
    ],
)
def test_a_limit_is_shared_out(
    tmp_path: Path, limit: int, fraction: float, sizes: tuple[int, int]
) -> None:
    target = split(tmp_path, limit, fraction)
    assert tuple(side.limit for side in target.sides) == sizes
    assert target.limit == limit
    assert [side.folder for side in target.sides] == [
        tmp_path / "train" / "x",
        tmp_path / "validation" / "x",
    ]
    assert target.validation_fraction == sizes[1] / limit


def test_one_folder_has_no_validation(tmp_path: Path) -> None:
    target = one_folder(tmp_path, 7)
    assert (target.limit, target.validation_fraction) == (7, 0.0)
    assert target.sides == (Side(tmp_path, 7),)


def test_neighbours_are_the_other_classes_of_every_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["train/a", "train/b", "validation/a", "test/c", "other/d", "train/.trash"]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "train" / "file.txt").touch()
    expected = [tmp_path / place for place in ("train/b", "validation/a", "test/c")]
    assert neighbours(tmp_path / "train" / "a") == expected
    assert neighbours(tmp_path / "other" / "d") == []
    assert neighbours(tmp_path / "train") == []
    monkeypatch.chdir(tmp_path / "train" / "a")
    assert neighbours(Path()) == expected
