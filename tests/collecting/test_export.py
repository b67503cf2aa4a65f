"""What the journals tell: the last word on each address, tables for people, files gone wrong."""

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from fake_bing import draw

from imagesieve import images
from imagesieve.collecting import export
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.journal import JOURNAL_NAME, failed_results, last_entries

URL = "http://images.example/{}.jpg"


class Downloaded:
    """A class folder with images and a journal, written as a run writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL_NAME
        folder.mkdir(parents=True)
        self.journal.touch()

    def add_line(self, number: int, status: str, **fields: Any) -> None:
        entry = {"time": "2026-11-20T10:00:00Z", "url": URL.format(number), "status": status}
        with open(self.journal, "a") as file:
            file.write(json.dumps(entry | fields) + "\n")

    def add_image(self, number: int, **fields: Any) -> Path:
        data = draw(number)
        sha256 = images.decode(data).sha256
        path = self.folder / f"{sha256[:16]}.jpg"
        path.write_bytes(data)
        self.add_line(number, "kept", sha256=sha256, path=path.name, **fields)
        return path


@pytest.fixture
def downloaded(tmp_path: Path) -> Downloaded:
    return Downloaded(tmp_path / "data" / "train" / "menu")


def exported(folder: Path, form: str) -> str:
    out = io.StringIO()
    export.export(folder, form, out)
    return out.getvalue()


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported(folder, "csv"))))


def exported_urls(folder: Path) -> list[str]:
    return exported(folder, "urls").splitlines()


def problems(folder: Path) -> list[tuple[str, Path]]:
    found = [problem for check in export.verify(folder) for problem in check.problems]
    return [(problem.kind, problem.path) for problem in found]


def test_journals_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b/validation/x", "a/train/y"):
        Downloaded(tmp_path / name)
    (tmp_path / "b" / JOURNAL_NAME).touch()
    assert export.journals(tmp_path) == [
        tmp_path / name / JOURNAL_NAME for name in ("a/train/y", "b", "b/validation/x")
    ]
    lowest = tmp_path / "b/validation/x"
    assert export.journals(lowest) == [lowest / JOURNAL_NAME]


def test_the_last_line_about_a_url_counts(downloaded: Downloaded) -> None:
    for number in (1, 2, 3):
        downloaded.add_line(number, "failed")
    downloaded.add_image(1)
    found = [(entry["url"], entry["status"]) for entry in last_entries(downloaded.journal)]
    expected = [(2, "failed"), (3, "failed"), (1, "kept")]
    assert found == [(URL.format(number), status) for number, status in expected]


def test_csv_has_a_row_for_each_url_under_stable_columns(
    downloaded: Downloaded, tmp_path: Path
) -> None:
    path = downloaded.add_image(
        1, title='Menu, "the best"\nof all', query="menu", rank=3, new_field="x"
    )
    downloaded.add_line(2, "failed", reason="http status 404", http_status=404, attempts=1)
    downloaded.add_image(3, robots=None).unlink()
    downloaded.add_line(4, "kept", path="../../../outside.jpg")
    kept, failed, gone, outside = rows(tmp_path)
    assert tuple(kept) == export.COLUMNS
    assert "new_field" not in kept
    assert kept["file"] == f"data/train/menu/{path.name}"
    assert (kept["on_disk"], kept["title"]) == ("yes", 'Menu, "the best"\nof all')
    assert (kept["rank"], kept["query"]) == ("3", "menu")
    assert (failed["file"], failed["on_disk"], failed["http_status"]) == ("", "no", "404")
    assert (gone["status"], gone["on_disk"], gone["robots"]) == ("kept", "no", "")
    assert outside["file"] == ""


def test_no_cell_is_a_formula_and_all_can_be_written(downloaded: Downloaded) -> None:
    formulas = ["=HYPERLINK(1)", "+1", "-2", "@SUM(A1)", "\t=1"]
    cells = {f: f"'{f}" for f in formulas} | {"a=b": "a=b", "菜单 🍜": "菜单 🍜", -5: "-5"}
    cells |= {"cut \ud83c here": "cut ? here", ("a", 1): '["a", 1]'}
    for number, title in enumerate(cells):
        downloaded.add_line(number, "failed", title=title)
    assert [row["title"] for row in rows(downloaded.folder)] == list(cells.values())


def test_urls_are_those_of_images_on_disk(downloaded: Downloaded, tmp_path: Path) -> None:
    other = Downloaded(tmp_path / "data" / "validation" / "menu")
    elsewhere = f"../../validation/menu/{other.add_image(9).name}"
    downloaded.add_image(1)
    downloaded.add_image(2).unlink()
    downloaded.add_line(3, "duplicate", same_as="0" * 64)
    downloaded.add_line(4, "failed")
    downloaded.add_line(5, "kept", path=elsewhere)
    assert exported_urls(tmp_path) == [URL.format(1), URL.format(9)]


def test_failed_and_tried_urls_come_back_as_results_in_order(downloaded: Downloaded) -> None:
    for number, status in enumerate(("failed", "tried", "failed", "skipped", "duplicate"), 1):
        downloaded.add_line(number, status)
    downloaded.add_image(3)
    known = {"page_url": "http://p.example/", "title": "A menu", "query": "menu", "rank": 7}
    downloaded.add_line(1, "failed", bing_md5="0" * 32, width=10, **known)
    with open(downloaded.journal, "a") as file:
        file.write('{"url": "file:///etc/passwd", "status": "failed"}\n')
    assert failed_results(last_entries(downloaded.journal)) == [
        SearchResult(URL.format(2)),
        SearchResult(URL.format(1), md5="0" * 32, **known),
    ]


def test_a_folder_in_order_has_no_problem(downloaded: Downloaded) -> None:
    path = downloaded.add_image(0)
    downloaded.add_image(1)
    (downloaded.folder / "my_own.jpg").write_bytes(draw(50, size=(600, 500)))
    (downloaded.folder / ".hidden").write_bytes(b"x")
    (downloaded.folder / "sub").mkdir()
    assert export.verify(downloaded.folder) == [export.FolderCheck(downloaded.folder, 3, 1, ())]
    (check,) = export.verify(downloaded.folder, images.Limits(min_side=500))
    assert (check.num_good, {problem.kind for problem in check.problems}) == (1, {"unusable"})
    assert "96×80 pixels" in next(p.detail for p in check.problems if p.path == path)


def test_verify_distinguishes_missing_changed_and_damaged_files(downloaded: Downloaded) -> None:
    _, missing, changed, truncated, emptied = (downloaded.add_image(number) for number in range(5))
    missing.unlink()
    changed.write_bytes(draw(70))
    truncated.write_bytes(truncated.read_bytes()[:-200])
    emptied.write_bytes(b"")
    leftover = downloaded.folder / ".partial-abc"
    leftover.write_bytes(b"half")
    text = downloaded.folder / "notes.txt"
    text.write_text("not an image")
    before = {path: path.read_bytes() for path in downloaded.folder.iterdir()}
    (check,) = export.verify(downloaded.folder)
    assert {(problem.kind, problem.path) for problem in check.problems} == {
        (export.MISSING, missing),
        (export.CHANGED, changed),
        (export.UNUSABLE, truncated),
        (export.UNUSABLE, emptied),
        (export.UNUSABLE, text),
        (export.LEFTOVER, leftover),
    }
    assert (check.num_good, check.num_unknown) == (1, 1)
    assert {path: path.read_bytes() for path in downloaded.folder.iterdir()} == before
    described = [str(problem) for problem in check.problems if problem.path == truncated]
    assert described[0].startswith(f"{truncated}: unusable (the JPEG ends early")
    header, _, row = export.verify_table([check]).splitlines()
    titles = ["folder", "good", "not in the journal", *export.PROBLEMS]
    assert [cell.strip() for cell in header.split("  ") if cell.strip()] == titles
    assert row.split() == [str(downloaded.folder), "1", "1", "1", "1", "3", "0", "1"]


def test_equal_bytes_are_found_across_all_folders(downloaded: Downloaded, tmp_path: Path) -> None:
    path = downloaded.add_image(1)
    twin = Downloaded(tmp_path / "data" / "validation" / "menu").add_image(1)
    copy = downloaded.folder / "zz_copy.jpg"
    copy.write_bytes(path.read_bytes())
    checks = export.verify(tmp_path)
    assert [check.num_good for check in checks] == [2, 1]
    assert [problem for check in checks for problem in check.problems] == [
        export.Problem(export.SAME_BYTES, copy, f"as {path}"),
        export.Problem(export.SAME_BYTES, twin, f"as {path}"),
    ]


def test_an_image_that_was_replaced_or_lost_and_failed_later_is_not_missing(
    downloaded: Downloaded,
) -> None:
    small = downloaded.add_image(1)
    downloaded.add_image(2, replaces=small.name)
    small.unlink()
    downloaded.add_image(3).unlink()
    downloaded.add_line(3, "failed", reason="http status 404")
    assert problems(downloaded.folder) == []


def test_an_image_is_not_replaced_before_the_larger_one_is_there(downloaded: Downloaded) -> None:
    small = downloaded.add_image(1)
    large = downloaded.add_image(2, replaces=small.name)
    large.unlink()  # as after a crash between the line and the file
    (check,) = export.verify(downloaded.folder)
    assert check.num_unknown == 0
    assert [problem.path for problem in check.problems] == [large]


@pytest.mark.parametrize(
    "name", ["../up.jpg", "/etc/passwd", "..", ".", ".hidden.jpg", "", "a\0b", "\ud800", "x" * 5000]
)
def test_a_journal_cannot_point_out_of_its_folder(downloaded: Downloaded, name: str) -> None:
    downloaded.add_image(1)
    downloaded.add_line(2, "kept", path=name, sha256="0" * 64)
    assert problems(downloaded.folder) == []
    assert exported_urls(downloaded.folder) == [URL.format(1)]
    assert rows(downloaded.folder)[1]["file"] == ""


def test_only_the_urls_of_a_journal_are_in_memory(downloaded: Downloaded) -> None:
    for number in range(8_000):
        downloaded.add_line(number % 6_000, "skipped", title="x" * 3_000)
    tracemalloc.start()
    try:
        export.export(downloaded.folder, "urls", io.StringIO())
        assert failed_results(last_entries(downloaded.journal)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert downloaded.journal.stat().st_size > 24_000_000
    assert peak < 5_000_000
