"""What a run says: counts that add up, one exit code, and lines that fit a terminal."""

import collections
import itertools
import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from terminals import terminal

from imagesieve.collecting import outcome as outcomes_module
from imagesieve.collecting.bing.errors import BlockedError, MarkupChangedError, NetworkDownError
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.outcome import Outcome, summary, summary_table
from imagesieve.collecting.targets import Side, Target, split_target

FAILED = collections.Counter({"http status 404": 120, "not an image": 12, "timeout": 40})
NAMES = ["menu", "寿司" * 30, "a" * 100, "[red]x[/red]_:smile:", "مطعم" * 20, "👨👩👧" * 20]


def done(name: str = "x", limit: int = 300, **counts: object) -> Outcome:
    target = Target(name, (Query("words"), Query("more words")), Side(Path("data") / name, limit))
    return Outcome(target, **counts)


# Exit codes and sentences


@pytest.mark.parametrize(
    ("counts", "code", "sentence"),
    [
        ({"kept": 300}, 0, ""),
        ({"before": 300}, 0, ""),
        ({"before": 100, "kept": 200}, 0, ""),
        ({"before": 400}, 0, ""),
        ({"kept": 299}, 3, "menu: 299 of 300 images: no more were found."),
        ({}, 3, "menu: 0 of 300"),
        ({"kept": 299, "error": BlockedError("A captcha.")}, 4, "299 of 300 images: A captcha."),
        ({"kept": 299, "error": MarkupChangedError("no", "<html>")}, 5, "no"),
        ({"kept": 299, "error": NetworkDownError("no")}, 6, "no"),
        ({"kept": 300, "error": BlockedError("no")}, 0, ""),
        ({"kept": 290, "before": 9, "is_out_of_time": True}, 3, "299 of 300 images: the time is"),
    ],
)
def test_exit_code_and_reason_of_one(counts: dict[str, object], code: int, sentence: str) -> None:
    outcome = done("menu", **counts)
    assert (outcome.exit_code, outcome.is_filled) == (code, code == 0)
    assert sentence in outcome.explanation
    assert bool(outcome.explanation) == (code != 0)


def test_an_error_counts_more_than_a_short_class() -> None:
    filled, short = done(kept=300), done(kept=1)
    blocked = done(error=BlockedError("no"))
    changed = done(error=MarkupChangedError("no", "<html>"))
    for code, given in ((0, []), (0, [filled]), (3, [filled, short]), (4, [short, blocked])):
        assert outcomes_module.exit_code(given) == code
    assert outcomes_module.exit_code([changed, blocked]) == 5, "the first error counts"
    assert outcomes_module.exit_code([blocked, changed]) == 4


# The summary


def test_summary_is_json_and_adds_up() -> None:
    images = [
        done("a", before=10, kept=5, found=50, duplicates=2, failed=FAILED, known=3),
        done("b", kept=300, found=400, near_duplicates=7, enlarged=4, seconds=1.23456),
        Outcome(split_target("c", (Query("c"),), Path("data"), 10, 0.2), error=BlockedError("no")),
    ]
    images[0].in_another_split = 1
    images[0].also_in[Path("data/a/1.jpg")] = (Path("data/b/2.jpg"),)
    images[0].unusable.append(Path("data/a/notes.txt"))
    found = json.loads(json.dumps(summary(images)))
    first, second, third = found.pop("classes")
    failed = {"http status 404": 120, "timeout": 40, "not an image": 12}
    assert found == {"failed": failed, "exit_code": 4} | {
        "images": 315, "kept": 305, "duplicates": 2, "near_duplicates": 7
    }  # fmt: skip
    assert first["queries"] == ["words", "more words"]
    assert first["also_in"] == {"data/a/1.jpg": ["data/b/2.jpg"]}
    assert first["unusable"] == ["data/a/notes.txt"]
    assert (first["in_another_split"], first["known"], first["error"]) == (1, 3, None)
    assert (second["seconds"], second["enlarged"], second["exit_code"]) == (1.235, 4, 0)
    folders = {folder["path"]: folder["limit"] for folder in third["folders"]}
    assert folders == {"data/train/c": 8, "data/validation/c": 2}
    assert third["error"] == "no"


# The table


def test_table_shows_what_was_counted_and_every_reason() -> None:
    table = summary_table([done("menu", kept=250, found=500, failed=FAILED), done("other")])
    lines = {tuple(line.split()) for line in table.splitlines()}
    assert ("menu", "other") in lines
    assert ("kept", "250", "0") in lines
    assert ("failed:", "http", "status", "404", "120", "0") in lines
    assert "near duplicates" not in table, "a count of 0"
    assert ("duplicates", "0", "0") in lines, "what everybody wants to know"


def test_many_classes_go_downwards_with_the_reasons_for_all_together() -> None:
    table = summary_table(
        [
            done(f"class-{number}", kept=number, duplicates=1, near_duplicates=2, failed=FAILED)
            for number in range(9)
        ]
    )
    lines = [line.split() for line in table.splitlines()]
    assert ["class-7", "300", "0", "0", "7", "3", "172"] in lines
    assert ["failed:", "http", "status", "404", str(9 * 120)] in lines
    assert ["kept", "36"] in lines


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6])
def test_table_fits_a_terminal(count: int) -> None:
    names = itertools.islice(itertools.cycle(NAMES), count)
    counted = [done(name, found=90_000, kept=250, failed=FAILED) for name in names]
    with terminal():
        table = summary_table(counted)
    assert max(map(cell_len, table.splitlines())) <= 80
    numbers = [line.split()[1:] for line in table.splitlines() if "90000" in line]
    assert numbers, "no number is broken in two"


def test_progress_is_shown_in_counts_and_a_rate() -> None:
    outcome = done(
        kept=250, before=3, found=1200, duplicates=100, near_duplicates=20, failed=FAILED
    )
    outcome.in_another_split = 3
    assert outcome.progress(30.0) == ("253/300 kept · 1200 found · 123 dup · 172 failed · 8.3/s")
    assert done(before=350).progress(0.0).startswith("350/300 kept")
