"""What a run says: counts that add up, one exit code, and lines that fit a terminal."""

import collections
import contextlib
import io
import itertools
import json
import logging
import os
import pty
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from imagesieve.collecting import outcome as outcomes_module
from imagesieve.collecting import view
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.search import BlockedError, MarkupChangedError, NetworkDownError
from imagesieve.collecting.outcome import EXIT_SHORT, Outcome, summary, summary_table
from imagesieve.collecting.targets import Side, Target, split_target

FAILED = collections.Counter({"http status 404": 120, "not an image": 12, "timeout": 40})
NAMES = ["menu", "寿司" * 30, "a" * 100, "[red]x[/red]_:smile:", "مطعم" * 20, "👨👩👧" * 20]


def done(name: str = "x", limit: int = 300, **counts: object) -> Outcome:
    target = Target(name, (Query("words"), Query("more words")), Side(Path("data") / name, limit))
    return Outcome(target, **counts)


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Let standard output and error be a terminal of 80 columns; give what reads its screen."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)

    def read() -> str:
        sys.stderr.flush()
        with contextlib.suppress(BlockingIOError):
            return os.read(ours, 1 << 16).decode()
        return ""

    with pytest.MonkeyPatch.context() as patch, os.fdopen(theirs, "w", encoding="utf-8") as screen:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        yield read
    os.close(ours)


# Exit codes and sentences


@pytest.mark.parametrize(
    ("counts", "code"),
    [
        ({"kept": 300}, 0),
        ({"before": 300}, 0),
        ({"before": 100, "kept": 200}, 0),
        ({"before": 400}, 0),
        ({"kept": 299}, 3),
        ({}, 3),
        ({"kept": 299, "error": BlockedError("no")}, 4),
        ({"kept": 299, "error": MarkupChangedError("no", "<html>")}, 5),
        ({"kept": 299, "error": NetworkDownError("no")}, 6),
        ({"kept": 300, "error": BlockedError("no")}, 0),
        ({"kept": 299, "is_out_of_time": True}, 3),
    ],
)
def test_exit_code_of_one(counts: dict[str, object], code: int) -> None:
    assert done(**counts).exit_code == code
    assert done(**counts).is_filled == (code == 0)
    assert (done(**counts).explanation == "") == (code == 0)


def test_an_error_counts_more_than_a_short_class() -> None:
    filled, short = done(kept=300), done(kept=1)
    blocked = done(error=BlockedError("no"))
    changed = done(error=MarkupChangedError("no", "<html>"))
    assert EXIT_SHORT == 3
    for expected, given in (
        (0, []),
        (0, [filled, filled]),
        (3, [filled, short]),
        (4, [short, blocked, filled]),
        (5, [changed, blocked]),
        (4, [filled, blocked, changed]),
    ):
        assert outcomes_module.exit_code(given) == expected


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"kept": 12}, "menu: 12 of 300 images: no more were found."),
        ({"before": 3, "kept": 9, "is_out_of_time": True}, "12 of 300 images: the time is over."),
        ({"error": BlockedError("Bing asks for a captcha.")}, "0 of 300 images: Bing asks for a"),
    ],
)
def test_a_short_class_says_why(counts: dict[str, object], sentence: str) -> None:
    assert sentence in done("menu", **counts).explanation


# The summary


def test_summary_is_json_and_adds_up() -> None:
    images = [
        done("a", before=10, kept=5, found=50, duplicates=2, failed=FAILED, known=3, leaks=1),
        done("b", kept=300, found=400, near_duplicates=7, enlarged=4, seconds=1.23456),
        Outcome(split_target("c", (Query("c"),), Path("data"), 10, 0.2), error=BlockedError("no")),
    ]
    images[0].also_in[Path("data/a/1.jpg")] = (Path("data/b/2.jpg"),)
    images[0].unusable.append(Path("data/a/notes.txt"))
    found = json.loads(json.dumps(summary(images)))
    assert {name: found[name] for name in found if name != "classes"} == {
        "images": 315,
        "kept": 305,
        "duplicates": 2,
        "near_duplicates": 7,
        "failed": {"http status 404": 120, "timeout": 40, "not an image": 12},
        "exit_code": 4,
    }
    first, second, third = found["classes"]
    assert first["queries"] == ["words", "more words"]
    assert first["also_in"] == {"data/a/1.jpg": ["data/b/2.jpg"]}
    assert first["unusable"] == ["data/a/notes.txt"]
    assert (first["in_another_split"], first["known"], first["error"]) == (1, 3, None)
    assert (second["seconds"], second["enlarged"], second["exit_code"]) == (1.235, 4, 0)
    assert third["folders"] == [
        {"path": "data/train/c", "limit": 8},
        {"path": "data/validation/c", "limit": 2},
    ]
    assert third["error"] == "no"


def test_summary_of_nothing() -> None:
    assert summary([])["exit_code"] == 0


# The table


def test_table_shows_what_was_counted_and_every_reason() -> None:
    table = summary_table([done("menu", kept=250, found=500, failed=FAILED), done("other")])
    lines = {tuple(line.split()) for line in table.splitlines()}
    assert ("menu", "other") in lines
    assert ("kept", "250", "0") in lines
    assert ("failed:", "http", "status", "404", "120", "0") in lines
    assert "near duplicates" not in table, "what nobody counted"
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


def test_names_in_the_table_are_text_not_markup() -> None:
    assert "[red]x[/red]_:smile:" in summary_table([done(NAMES[3])])


# The line


def line_of(outcome: Outcome, seconds: float = 30.0) -> str:
    line = view._Line(outcome)
    line._start -= seconds
    file = io.StringIO()
    Console(width=80, file=file, force_terminal=True, color_system=None).print(line)
    return file.getvalue().removesuffix("\n")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [0, 1, 250, 300])
def test_the_line_fits_a_terminal_with_all_its_numbers(name: str, kept: int) -> None:
    line = line_of(
        done(
            name, kept=kept, found=1200, duplicates=100, near_duplicates=20, leaks=3, failed=FAILED
        )
    )
    assert cell_len(line) <= 80
    rate = f"{kept / 30:.1f}/s"
    assert line.rstrip().endswith(f"{kept}/300 kept · 1200 found · 123 dup · 172 failed · {rate}")
    assert line.startswith(name[:3])


@pytest.mark.parametrize("name", NAMES)
def test_the_line_is_one_line_whatever_the_numbers(name: str) -> None:
    many = done(name, 10**6, kept=10**6, found=10**7, duplicates=10**6, failed=FAILED)
    line = line_of(many)
    assert cell_len(line) <= 80
    assert "\n" not in line
    assert "1000000/1000000 kept" in line


def test_more_than_wanted_is_shown_as_it_is() -> None:
    assert "350/300 kept" in line_of(done(before=350))


def test_the_line_changes_while_the_block_runs() -> None:
    outcome = done("寿司", 3)
    with terminal() as read:
        with view.watching(outcome):
            for _ in range(3):
                outcome.kept += 1
                time.sleep(0.3)
        seen = read()
    assert "寿司" in seen
    assert "1/3 kept" in seen
    assert seen.rindex("3/3 kept") > seen.index("1/3 kept")


def test_without_a_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(view, "_PLAIN_SECONDS", 0.02)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, "imagesieve")
    outcome = done("menu", kept=7)
    with view.watching(outcome):
        end = time.monotonic() + 5.0
        while len(caplog.records) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    count = len(caplog.records)
    assert count >= 2
    assert caplog.records[0].getMessage().startswith("menu: 7/300 kept · 0 found")
    time.sleep(0.05)
    assert len(caplog.records) == count, "nothing comes afterwards"


def test_quiet_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(view, "_PLAIN_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    with terminal() as read:
        with view.watching(done(kept=7), quiet=True):
            time.sleep(0.05)
        assert read() == ""
    assert not caplog.records


@pytest.mark.parametrize("screen", [contextlib.nullcontext, terminal])
def test_an_error_in_the_block_comes_through(
    screen: Callable[[], contextlib.AbstractContextManager[object]],
) -> None:
    before = set(threading.enumerate())
    with screen(), pytest.raises(KeyboardInterrupt), view.watching(done()):
        raise KeyboardInterrupt
    for thread in set(threading.enumerate()) - before:
        thread.join(2.0)
        assert not thread.is_alive()
