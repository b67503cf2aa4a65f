"""Folder names: safe on every system, inside the output folder, and never two for one."""

import os
import random
import unicodedata
from pathlib import Path

import pytest

from imagesieve.collecting.folders import distinct, folder_name
from imagesieve.errors import UsageError


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("menu", "menu"),
        ("red panda", "red_panda"),
        ("crème brûlée", "crème_brûlée"),
        ("寿司 メニュー", "寿司_メニュー"),
        ("🍣", "🍣"),
        ("a/b\\c", "a_b_c"),
        ("what?", "what_"),
        ('a<>:"|*b', "a______b"),
        ("tab\tnew\nline\0nul\x7f", "tab_new_line_nul_"),
        (".hidden", "hidden"),
        ("...", "_"),
        ("..", "_"),
        ("", "_"),
        ("x. .", "x._"),
        ("x...", "x"),
        ("site:example.org -x", "site_example.org_-x"),
        ("קפה \u202e-x", "קפה__-x"),
        ("cafe\u0301", "café"),
        ("lone \ud800", "lone__"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("aux.tar.gz", "_aux.tar.gz"),
        ("lpt9", "_lpt9"),
        ("com¹", "_com¹"),
        ("CONIN$", "_CONIN$"),
        ("console", "console"),
        ("com10", "com10"),
    ],
)
def test_folder_name_of_a_query(query: str, name: str) -> None:
    assert folder_name(query) == name


@pytest.mark.parametrize(
    "query", ["x" * 300, "寿司" * 200, "🍣" * 100, "e\u0301" * 300, "x." * 150]
)
def test_a_long_name_is_cut_between_characters(query: str, tmp_path: Path) -> None:
    name = folder_name(query)
    assert len(name.encode()) <= 150
    assert unicodedata.normalize("NFC", query).startswith(name)
    (tmp_path / name).mkdir()


def test_any_query_gives_a_folder_inside(tmp_path: Path) -> None:
    dice = random.Random(0)
    kinds = "ab./\\ .\0\x1f:*寿🍣\u200f\u0301\ud800~-$%\n"
    for _ in range(500):
        query = "".join(dice.choice(kinds) for _ in range(dice.randrange(0, 12)))
        name = folder_name(query)
        path = tmp_path / name
        assert path.parent == tmp_path
        assert os.path.normpath(path) == str(path)
        assert not name.startswith(".")
        assert name == name.strip(" .")
        path.mkdir(exist_ok=True)


@pytest.mark.parametrize("query", ["red panda", "CON", "..", "nul.txt", "x. ", "寿司", "a" * 200])
def test_a_folder_name_is_its_own_folder_name(query: str) -> None:
    assert folder_name(folder_name(query)) == folder_name(query)


def test_repeated_queries_are_searched_once_in_order() -> None:
    assert distinct(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
    assert distinct([]) == []


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
        distinct(["first", one, other])
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)
