import datetime
import hashlib
import json
from pathlib import Path

import pytest
from feedback import Feedback

from imagesieve.learning.data import feedback_journal

FIRST, SECOND = b"one image", b"another"


def held(folder: Path) -> list[str | None]:
    return [entry.label for entry in feedback_journal.read(folder).entries.values()]


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        (["red"], ["red"]),
        (["red", "blue"], ["blue"]),
        (["red", "undo"], []),
        (["red", "blue", "undo to red"], ["red"]),
        (["red", "blue", "undo to red", "undo"], []),
        (["undo"], []),
        (["reject"], [None]),
        (["red", "reject"], [None]),
        (["red", "reject", "undo to red"], ["red"]),
        (["undo to red"], ["red"]),  # lines before it were lost
        (["blue", "undo to red"], ["red"]),
        (["reject", "red", "undo"], [None]),
        (["red", "red", "undo"], []),  # the same again is no step of its own
        (["reject", "undo", "blue"], ["blue"]),
    ],
)
def test_what_holds_is_what_was_said_last_and_not_undone(
    tmp_path: Path, said: list[str], holds: list[str | None]
) -> None:
    feedback = Feedback(tmp_path)
    for word in said:
        if word in ("undo", "reject"):
            feedback.note(word, FIRST)
        elif word == "undo to red":
            feedback.note("undo", FIRST, "red")
        else:
            feedback.note("correct", FIRST, word)
    assert held(tmp_path) == holds


def test_each_image_has_a_story_of_its_own_and_is_found_by_the_name_of_its_file(
    tmp_path: Path,
) -> None:
    feedback = Feedback(tmp_path)
    feedback.note("correct", FIRST, "red")
    feedback.note("reject", SECOND)
    feedback.note("undo", SECOND)
    feedback.note("reject", SECOND)
    journal = feedback_journal.read(tmp_path)
    (first,) = (entry for entry in journal.entries.values() if entry.label)
    assert journal.entry_of(tmp_path / "red" / f"{first.sha256[:16]}.jpg") == first
    assert first.time == datetime.datetime(2026, 11, 1, 12, 0, 1, tzinfo=datetime.UTC)
    (rejected,) = journal.rejected()
    assert rejected != first.sha256
    assert journal.entry_of(tmp_path / "red/holiday.jpg") is None


def test_a_file_that_the_service_found_is_known_by_its_name_and_what_was_sent(
    tmp_path: Path,
) -> None:
    """Of a file without a line, or moved by hand, the service notes down that file's SHA-256."""
    feedback = Feedback(tmp_path)
    feedback.note("correct", FIRST, "red")
    sent = hashlib.sha256(FIRST).hexdigest()
    for key in (sent[:16], "0123456789abcdef"):
        line = {**GOOD, "sha256": hashlib.sha256(key.encode()).hexdigest(), "label": "blue"}
        with feedback.journal.open("a") as file:
            file.write(json.dumps({**line, "stored": f"blue/{key}.jpg"}) + "\n")
    entries = feedback_journal.read(tmp_path).entries
    assert {key: entry.label for key, entry in entries.items()} == {
        sent[:16]: "blue",
        "0123456789abcdef": "blue",
    }
    assert entries[sent[:16]].sha256 == sent


def test_what_the_model_had_said_is_known_where_it_was_asked(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    feedback.note("correct", FIRST, "red", "blue")
    feedback.note("correct", SECOND, "red")
    entries = feedback_journal.read(tmp_path).entries.values()
    assert [entry.predicted for entry in entries] == ["blue", None]


BAD_LINES = {
    "torn": b'{"time": "2026-11-01T12:0',
    "no text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "deep": b"[" * 100_000,
    "no time": json.dumps({"action": "reject", "sha256": "0" * 64, "label": None}).encode(),
}
GOOD = {
    "time": "2026-11-01T12:00:00Z",
    "action": "correct",
    "sha256": "0" * 64,
    "label": "red",
    "stored": f"red/{16 * '0'}.jpg",
    "reason": "sent",
    **dict.fromkeys(("predicted", "model", "reviewer", "caller", "note")),
}
WRONG = {
    "predicted": (5, ["red"]),
    "action": ("delete", 3),
    "sha256": ("0" * 63, "../" + "0" * 61, None),
    "label": (None, 5),
    "time": ("yesterday", 5, None),
}
for field, values in WRONG.items():
    for number, value in enumerate(values):
        BAD_LINES[f"{field} {number}"] = json.dumps({**GOOD, field: value}).encode()


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_damaged_line_is_told_and_the_others_count(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    feedback = Feedback(tmp_path)
    feedback.note("correct", FIRST, "red")
    feedback.journal.write_bytes(line + b"\n" + feedback.journal.read_bytes() + line)
    assert held(tmp_path) == ["red"]
    assert "2 of 3 lines of" in caplog.text


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    line = {**GOOD, "time": "2026-11-01T12:00:00"}
    (tmp_path / ".feedback.jsonl").write_text(json.dumps(line))
    (entry,) = feedback_journal.read(tmp_path).entries.values()
    assert entry.time == datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)


def test_a_journal_that_is_missing_or_cannot_be_read_is_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert held(tmp_path) == []
    assert not caplog.text
    (tmp_path / ".feedback.jsonl").mkdir()
    assert held(tmp_path) == []
    assert ".feedback.jsonl cannot be read" in caplog.text
