"""The history of corrections: what is in force, the journal of earlier releases, copies."""

import contextlib
import datetime
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from imagesieve.errors import OutputError, UsageError
from imagesieve.feedback import (
    DATABASE_NAME,
    JOURNAL_NAME,
    FeedbackEvent,
    copy_folder,
    main,
    read_corrections,
    read_history,
)
from imagesieve.serving.feedback.store import FeedbackStore

PROGRAM = Path(__file__).parent / "serving" / "correcting.py"
FIRST, SECOND = (hashlib.sha256(data).hexdigest() for data in (b"one image", b"another"))

# As the release before the database wrote it.
JOURNAL = """\
{"time": "2026-11-20T08:00:00Z", "action": "correct", "sha256": "1a79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": "red", "stored": "red/1a79a4d60de6718e.jpg", "predicted": {"label": "blue", "probability": 0.75, "decision": "blue"}, "model": "sha256:77", "reason": "uncertain", "reviewer": "Ann", "caller": "desk", "note": "two\\nlines"}
{"time": "2026-11-20T08:00:01Z", "action": "correct", "sha256": "2b79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": "blue", "stored": "blue/2b79a4d60de6718e.jpg", "predicted": null, "model": null, "reason": "sent", "reviewer": null, "caller": null, "note": null}
{"time": "2026-11-20T08:00:02Z", "action": "correct", "sha256": "2b79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": "red", "stored": "red/2b79a4d60de6718e.jpg", "predicted": null, "model": null, "reason": "sent", "reviewer": null, "caller": null, "note": null}
{"time": "2026-11-20T08:00:03Z", "action": "reject", "sha256": "3c79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": null, "stored": null, "predicted": null, "model": null, "reason": "audit", "reviewer": null, "caller": null, "note": null}
{"time": "2026-11-20T08:00:04Z", "action": "correct", "sha256": "4d79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": "red", "stored": "red/4d79a4d60de6718e.jpg", "predicted": null, "model": null, "reason": "sent", "reviewer": null, "caller": null, "note": null}
{"time": "2026-11-20T08:00:05Z", "action": "undo", "sha256": "4d79a4d60de6718e8e5b326e338ae53300000000000000000000000000000000", "label": null, "stored": null, "predicted": null, "model": null, "reason": "sent", "reviewer": null, "caller": null, "note": null}
"""  # noqa: E501
ONE, TWO, THREE = (f"{digits}79a4d60de6718e" for digits in ("1a", "2b", "3c"))
IN_FORCE = {ONE: "red", TWO: "red", THREE: None}


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """Return a feedback folder of the release before the database, killed while it wrote."""
    folder = tmp_path / "feedback"
    for name in (f"red/{ONE}.jpg", f"red/{TWO}.jpg", f"blue/{TWO}.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name[-20:].encode())
    (folder / JOURNAL_NAME).write_text(JOURNAL)
    (folder / ".feedback.lock").write_text('{"entry": {}, "removes": null}')
    return folder


def labels(folder: Path) -> dict[str, str | None]:
    return {key: event.label for key, event in read_corrections(folder).items()}


def lines(folder: Path) -> list[dict[str, object]]:
    with read_history(folder) as history:
        return [event.to_json() for event in history.events().values()]


def take_over(folder: Path) -> None:
    with contextlib.closing(FeedbackStore(folder)) as store:
        store.open()


def test_a_journal_is_taken_over_once_with_every_event(former: Path) -> None:
    expected = list(map(json.loads, JOURNAL.splitlines()))
    for _ in range(3):
        take_over(former)
        assert lines(former) == expected
        assert labels(former) == IN_FORCE
    assert sorted(path.name for path in former.glob("*/*")) == [f"{ONE}.jpg", f"{TWO}.jpg"]
    (journal,) = former.glob(".feedback-*.jsonl")
    assert journal.read_text() == JOURNAL
    with contextlib.closing(FeedbackStore(former)) as store:
        sha256 = TWO + "8e5b326e338ae53300000000000000000000000000000000"
        assert store.record(FeedbackEvent("undo", sha256)).after.label == "blue"
        assert store.image(sha256) == f"{TWO}.jpg".encode()


def test_a_journal_is_taken_over_whenever_the_process_is_killed(former: Path) -> None:
    """Kill -9 before each call that may change the disk, one after another in the same folder."""
    command = [sys.executable, "-W", "error", str(PROGRAM), "each-open", str(former)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] > 20
    assert lines(former) == list(map(json.loads, JOURNAL.splitlines()))
    assert labels(former) == IN_FORCE
    assert sorted(path.name for path in former.glob("*/*")) == [f"{ONE}.jpg", f"{TWO}.jpg"]
    assert len(list(former.glob(".feedback-*.jsonl"))) == 1


def test_what_an_earlier_release_adds_to_its_journal_is_taken_over_too(former: Path) -> None:
    take_over(former)
    extra = json.loads(JOURNAL.splitlines()[0]) | {"action": "reject", "label": None}
    line = json.dumps(extra | {"stored": None, "note": "later"}) + "\n"
    (former / JOURNAL_NAME).write_text(JOURNAL + line)
    take_over(former)
    assert len(lines(former)) == 7
    assert labels(former) == IN_FORCE | {ONE: None}


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_reading_a_folder_changes_nothing(former: Path, is_taken_over: bool) -> None:
    if is_taken_over:
        take_over(former)
    before = sorted(former.rglob("*"))
    assert labels(former) == IN_FORCE
    assert sorted(former.rglob("*")) == before


def test_an_image_has_the_sha256_of_what_was_sent_and_what_was_predicted(former: Path) -> None:
    found = read_corrections(former)
    assert found[ONE].sha256.startswith(ONE)
    assert found[ONE].predicted == {"label": "blue", "probability": 0.75, "decision": "blue"}
    assert found[ONE].time == datetime.datetime(2026, 11, 20, 8, tzinfo=datetime.UTC)


def write_journal(folder: Path, said: list[str]) -> None:
    """Write events of one image: a class, `reject`, `undo`, or `undo to` a class."""
    with open(folder / JOURNAL_NAME, "a") as file:
        for word in said:
            action, _, label = word.partition(" to ")
            if word not in ("undo", "reject") and not label:
                action, label = "correct", word
            stored = f"{label}/{FIRST[:16]}.jpg" if label else None
            event = FeedbackEvent(action, FIRST, label or None, stored)
            file.write(json.dumps(event.to_json()) + "\n")


@pytest.mark.parametrize(
    ("said", "in_force"),
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
        (["undo to red"], ["red"]),  # events before it were lost
        (["blue", "undo to red"], ["red"]),
        (["reject", "red", "undo"], [None]),
        (["red", "red", "undo"], []),  # the same again is undone with the first
        (["reject", "undo", "blue"], ["blue"]),
    ],
)
def test_the_last_event_that_was_not_undone_is_in_force(
    tmp_path: Path, said: list[str], in_force: list[str | None]
) -> None:
    write_journal(tmp_path, said)
    assert list(labels(tmp_path).values()) == in_force


def test_a_recovered_file_is_found_by_its_name_and_by_what_was_sent(tmp_path: Path) -> None:
    """Of a file that was moved by hand, an event has that file's SHA-256."""
    write_journal(tmp_path, ["red"])
    for key in (FIRST[:16], "0123456789abcdef"):
        event = FeedbackEvent("correct", SECOND, "blue", f"blue/{key}.jpg", reason="recovered")
        with open(tmp_path / JOURNAL_NAME, "a") as file:
            file.write(json.dumps(event.to_json()) + "\n")
    assert labels(tmp_path) == {FIRST[:16]: "blue", "0123456789abcdef": "blue"}
    assert read_corrections(tmp_path)[FIRST[:16]].sha256 == FIRST


GOOD = json.loads(JOURNAL.splitlines()[0])
WRONG = {
    "predicted": (5, ["red"]),
    "action": ("delete", 3),
    "sha256": ("0" * 63, "../" + "0" * 61, None),
    "label": (None, 5, "blue"),
    "stored": (None, "../red/0123456789abcdef.jpg", f"red/{ONE}.jpg/../../x.jpg", f"../{ONE}.jpg"),
    "time": ("yesterday", 5, None),
    "note": ({"a": 1}, "\ud800"),
    "model": (2**70,),
}
DAMAGED = {
    "torn": b'{"time": "2026-11-01T12:0',
    "not text": b"\xff\xfe\x00",
    "not an object": b"[1, 2]",
    "zeros": b"\0\0\0",
    "deep": b"[" * 100_000,
    "no time": json.dumps({"action": "reject", "sha256": "0" * 64, "label": None}).encode(),
    **{
        f"{field} {number}": json.dumps({**GOOD, field: value}).encode()
        for field, values in WRONG.items()
        for number, value in enumerate(values)
    },
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_reported_and_the_others_count(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_journal(tmp_path, ["red"])
    journal = tmp_path / JOURNAL_NAME
    journal.write_bytes(line + b"\n" + journal.read_bytes() + line)
    assert labels(tmp_path) == {FIRST[:16]: "red"}
    assert "2 of 3 lines of" in caplog.text


@pytest.mark.parametrize("name", [JOURNAL_NAME, DATABASE_NAME])
def test_a_history_that_is_missing_or_cannot_be_read_is_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    assert labels(tmp_path) == {}
    assert not caplog.text
    (tmp_path / name).mkdir()
    assert labels(tmp_path) == {}
    assert "cannot be read" in caplog.text


def test_a_copy_is_made_while_the_service_corrects_and_is_one_plain_folder(
    tmp_path: Path, former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "copies/feedback"
    with contextlib.closing(FeedbackStore(former)) as store:
        store.open()
        assert main(["copy", str(former), str(target)]) == 0
        sent = TWO + "8e5b326e338ae53300000000000000000000000000000000"
        store.record(FeedbackEvent("correct", sent, "blue"))
        assert labels(target) == IN_FORCE
        assert main(["copy", str(former), str(target)]) == 0  # again, over the former copy
    assert capsys.readouterr().out.count("has 2 corrected images and their history") == 2
    assert labels(target) == IN_FORCE | {TWO: "blue"}
    assert lines(target) == lines(former)
    assert sorted(
        path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()
    ) == [DATABASE_NAME, f"blue/{TWO}.jpg", f"red/{ONE}.jpg"]


def test_a_copy_passes_over_images_that_were_removed_by_hand(former: Path, tmp_path: Path) -> None:
    (former / f"red/{ONE}.jpg").unlink()
    assert copy_folder(former, tmp_path / "copy") == 1
    assert labels(tmp_path / "copy") == IN_FORCE


def test_a_copy_of_what_changes_meanwhile_says_so(
    former: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def correct_meanwhile(path: Path) -> bytes:
        if path.suffix == ".jpg":
            (former / JOURNAL_NAME).write_text(JOURNAL.replace("red", "green"))
            raise FileNotFoundError(path)
        return path.read_bytes()

    monkeypatch.setattr("imagesieve.feedback.read_image", correct_meanwhile)
    with pytest.raises(OutputError, match="changed meanwhile: copy it again"):
        copy_folder(former, tmp_path / "copy")


def test_the_history_is_exported_as_json_lines(
    former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["export", str(former)]) == 0
        assert list(map(json.loads, capsys.readouterr().out.splitlines())) == list(
            map(json.loads, JOURNAL.splitlines())
        )
        take_over(former)


@pytest.mark.parametrize("arguments", [["export", "nowhere"], ["copy", "."], ["export", ".", "x"]])
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        main(arguments)


def test_the_command_runs_as_a_module(former: Path) -> None:
    command = [sys.executable, "-m", "imagesieve.feedback", "export", str(former)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 6
