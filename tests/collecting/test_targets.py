"""Targets: how a limit is shared out, which folders are compared, which queries share one."""

from pathlib import Path

import pytest
from filling import split

from imagesieve.collecting.options import _distinct
from imagesieve.collecting.targets import neighbours
from imagesieve.errors import UsageError


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


def test_repeated_queries_are_searched_once_in_order() -> None:
    assert _distinct(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
    assert _distinct([]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a?b"),
        ("Menu", "menu"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("red panda", "red_panda"),
        ("x" * 151, "x" * 152),
        ("CON", "_con"),
    ],
)
def test_queries_that_would_share_a_folder_are_refused_by_name(one: str, other: str) -> None:
    with pytest.raises(UsageError, match="would share the folder") as caught:
        _distinct(["first", one, other])
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)
