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


def rows(folder: Path) -> list[dict[str, str]]:
    out = io.StringIO()
    export.export(folder, "csv", out)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def exported_urls(folder: Path) -> list[str]:
    out = io.StringIO()
    export.export(folder, "urls", out)
    return out.getvalue().splitlines()


def problems(folder: Path) -> list[tuple[str, Path]]:
    found = [problem for check in export.verify(folder) for problem in check.problems]
    return [(problem.kind, problem.path) for problem in found]


def test_journals_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("b", "b/validation/x", "a/train/y")]
    for folder in folders:
        Downloaded(folder) if not folder.exists() else None
    assert export.journals(tmp_path) == [
        tmp_path / name / JOURNAL_NAME for name in ("a/train/y", "b", "b/validation/x")
    ]
    assert export.journals(tmp_path / "b/validation/x") == [folders[1] / JOURNAL_NAME]


def test_the_last_line_about_a_url_counts(downloaded: Downloaded) -> None:
    downloaded.add_line(1, "failed", reason="timeout")
    downloaded.add_line(2, "failed", reason="timeout")
    downloaded.add_line(3, "failed", reason="http status 404")
    downloaded.add_image(1)
    found = [(entry["url"], entry["status"]) for entry in last_entries(downloaded.journal)]
    assert found == [
        (URL.format(2), "failed"),
        (URL.format(3), "failed"),
        (URL.format(1), "kept"),
    ]


def test_torn_and_broken_lines_are_passed_over(downloaded: Downloaded) -> None:
    downloaded.add_image(1)
    whole = downloaded.journal.read_bytes()
    broken = [b"", b"\0" * 50, b"[1]", b'"text"', b"{}", b'{"url": 3}', b"\xff\xfe{", b"[" * 9999]
    downloaded.journal.write_bytes(b"\n".join(broken) + b"\n" + whole)
    downloaded.add_image(2)
    text = json.dumps({"url": URL.format(3), "status": "kept", "path": "x.jpg"})
    for length in range(len(text)):  # cut off anywhere
        with open(downloaded.journal, "r+b") as file:
            size = file.seek(0, io.SEEK_END)
            file.write(text[:length].encode())
        assert exported_urls(downloaded.folder) == [URL.format(1), URL.format(2)]
        with open(downloaded.journal, "r+b") as file:
            file.truncate(size)
    assert problems(downloaded.folder) == []


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


@pytest.mark.parametrize(
    ("title", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ("菜单 🍜", "菜单 🍜"),
        ("cut \ud83c here", "cut ? here"),
        (["a", 1], '["a", 1]'),
        (-5, "-5"),
    ],
)
def test_no_cell_is_a_formula_and_all_can_be_written(
    downloaded: Downloaded, title: object, cell: str
) -> None:
    downloaded.add_line(1, "failed", title=title)
    assert rows(downloaded.folder)[0]["title"] == cell


def test_urls_are_those_of_images_on_disk(downloaded: Downloaded, tmp_path: Path) -> None:
    other = Downloaded(tmp_path / "data" / "validation" / "menu")
    other.add_image(9)
    downloaded.add_image(1)
    downloaded.add_image(2).unlink()
    downloaded.add_line(3, "duplicate", same_as="0" * 64)
    downloaded.add_line(4, "failed")
    downloaded.add_line(
        5, "kept", path=f"../../validation/menu/{next(other.folder.glob('*.jpg')).name}"
    )
    assert exported_urls(tmp_path) == [URL.format(1), URL.format(9)]


def test_failed_and_tried_urls_come_back_as_results_in_order(downloaded: Downloaded) -> None:
    downloaded.add_line(1, "failed")
    downloaded.add_line(2, "tried")
    downloaded.add_line(3, "failed")
    downloaded.add_line(4, "skipped", robots="noai")
    downloaded.add_line(5, "duplicate")
    downloaded.add_image(3)
    known = {"title": "A menu", "query": "menu", "rank": 7, "bing_md5": "0" * 32, "width": 10}
    downloaded.add_line(1, "failed", page_url="http://page.example/", **known)
    with open(downloaded.journal, "a") as file:
        file.write('{"url": "file:///etc/passwd", "status": "failed"}\n')
    assert failed_results(last_entries(downloaded.journal)) == [
        SearchResult(URL.format(2)),
        SearchResult(
            URL.format(1),
            page_url="http://page.example/",
            title="A menu",
            md5="0" * 32,
            query="menu",
            rank=7,
        ),
    ]


def test_a_folder_in_order_has_no_problem(downloaded: Downloaded) -> None:
    for number in range(3):
        downloaded.add_image(number)
    (downloaded.folder / "my_own.jpg").write_bytes(draw(50))
    (downloaded.folder / ".hidden").write_bytes(b"x")
    (downloaded.folder / "sub").mkdir()
    (check,) = export.verify(downloaded.folder)
    assert check == export.FolderCheck(downloaded.folder, 4, 1, ())


def test_verify_distinguishes_missing_changed_and_damaged_files(downloaded: Downloaded) -> None:
    good, missing, changed, truncated, emptied = (
        downloaded.add_image(number) for number in range(5)
    )
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
    assert good in before
    described = [str(problem) for problem in check.problems if problem.path == truncated]
    assert described[0].startswith(f"{truncated}: unusable (the JPEG ends early")


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


def test_a_replaced_image_is_not_missing(downloaded: Downloaded) -> None:
    small = downloaded.add_image(1)
    downloaded.add_image(2, replaces=small.name)
    small.unlink()
    assert problems(downloaded.folder) == []


def test_an_image_is_not_replaced_before_the_larger_one_is_there(downloaded: Downloaded) -> None:
    small = downloaded.add_image(1)
    large = downloaded.add_image(2, replaces=small.name)
    large.unlink()  # as after a crash between the line and the file
    (check,) = export.verify(downloaded.folder)
    assert check.num_unknown == 0
    assert [problem.path for problem in check.problems] == [large]


def test_an_image_that_was_lost_and_failed_later_is_not_missing(downloaded: Downloaded) -> None:
    downloaded.add_image(1).unlink()
    downloaded.add_line(1, "failed", reason="http status 404")
    assert problems(downloaded.folder) == []


@pytest.mark.parametrize(
    "name", ["../up.jpg", "/etc/passwd", "..", ".", ".hidden.jpg", "", "a\0b", "\ud800", "x" * 5000]
)
def test_a_journal_cannot_point_out_of_its_folder(downloaded: Downloaded, name: str) -> None:
    downloaded.add_image(1)
    downloaded.add_line(2, "kept", path=name, sha256="0" * 64)
    assert problems(downloaded.folder) == []
    assert exported_urls(downloaded.folder) == [URL.format(1)]
    assert rows(downloaded.folder)[1]["file"] == ""


def test_limits_decide_what_can_be_used(downloaded: Downloaded) -> None:
    path = downloaded.add_image(1)
    (check,) = export.verify(downloaded.folder, images.Limits(min_side=500))
    (problem,) = check.problems
    assert (problem.kind, problem.path) == (export.UNUSABLE, path)
    assert "96×80 pixels" in problem.detail


def test_the_table_has_a_row_for_each_folder(downloaded: Downloaded, tmp_path: Path) -> None:
    downloaded.add_image(1)
    downloaded.add_image(2).unlink()
    other = Downloaded(tmp_path / "data" / "validation" / "menu")
    header, _, *body = export.verify_table(export.verify(tmp_path)).splitlines()
    assert header.split("  ")[0] == "folder"
    assert [cell.strip() for cell in header.split("  ") if cell.strip()] == [
        *("folder", "good", "not in the journal"),
        *export.PROBLEMS,
    ]
    assert [line.split() for line in body] == [
        [str(downloaded.folder), "1", "0", "1", "0", "0", "0", "0"],
        [str(other.folder), "0", "0", "0", "0", "0", "0", "0"],
    ]


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
