"""Folder names: safe on every system, inside the output folder, and never two for one."""

import os
import random
import unicodedata
from pathlib import Path

import pytest

from imagesieve.class_folders import class_files, is_class_name, to_class_name


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
def test_class_name_of_a_query(query: str, name: str) -> None:
    assert to_class_name(query) == name
    assert to_class_name(name) == name


@pytest.mark.parametrize(
    "query", ["x" * 300, "寿司" * 200, "🍣" * 100, "e\u0301" * 300, "x." * 150]
)
def test_a_long_name_is_cut_between_characters(query: str, tmp_path: Path) -> None:
    name = to_class_name(query)
    assert len(name.encode()) <= 150
    assert unicodedata.normalize("NFC", query).startswith(name)
    (tmp_path / name).mkdir()


def test_any_query_gives_a_folder_inside(tmp_path: Path) -> None:
    dice = random.Random(0)
    kinds = "ab./\\ .\0\x1f:*寿🍣\u200f\u0301\ud800~-$%\n"
    for _ in range(500):
        query = "".join(dice.choice(kinds) for _ in range(dice.randrange(0, 12)))
        name = to_class_name(query)
        path = tmp_path / name
        assert path.parent == tmp_path
        assert os.path.normpath(path) == str(path)
        assert not name.startswith(".")
        assert name == name.strip(" .")
        assert is_class_name(name)
        path.mkdir(exist_ok=True)


def test_a_class_may_have_any_name_of_one_plain_folder() -> None:
    good = ["red", "not-menu", "été", "a b", "a.b", "x" * 200, "con"]
    bad = ["", ".", "..", ".hidden", "../x", "a/b", "a\\b", "a\0b", "a\nb", "\x7f", "x" * 201]
    bad += ["é" * 101, "\udc80"]
    assert [name for name in good + bad if is_class_name(name)] == good


def test_class_folders_are_those_with_files_that_are_not_hidden(tmp_path: Path) -> None:
    for name in ("b", "a\\c", ".hidden", "empty", "only-hidden"):
        (tmp_path / name).mkdir()
    for path in ("b/deep/1.jpg", "a\\c/1.jpg", ".hidden/1.jpg", "only-hidden/.1.jpg", "file"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert class_files(tmp_path) == {
        "a\\c": [tmp_path / "a\\c" / "1.jpg"],
        "b": [tmp_path / "b" / "deep" / "1.jpg"],
    }
