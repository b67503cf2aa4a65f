"""The history of corrections: what is in force, the journal of earlier releases, copies."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import correcting
import pytest
from correcting import opened, read_lines

from imagesieve.errors import OutputError, UsageError
from imagesieve.feedback import (
    DATABASE_NAME,
    JOURNAL_NAME,
    FeedbackEvent,
    copy_folder,
    main,
    read_corrections,
)

# As the release before the database wrote it.
REST = "8e5b326e338ae53300000000000000000000000000000000"
ONE, TWO, THREE, FOUR = (f"{digits}79a4d60de6718e" for digits in ("1a", "2b", "3c", "4d"))
PREDICTED = {"label": "blue", "probability": 0.75, "decision": "blue"}
NAMES = ("predicted", "model", "reason", "reviewer", "caller", "note")
SENT = (None, None, "sent", None, None, None)


def journal_line(
    second: int, action: str, name: str, label: str | None = None, more: tuple[Any, ...] = SENT
) -> dict[str, Any]:
    return {
        "time": f"2026-11-20T08:00:0{second}Z", "action": action, "sha256": name + REST,
        "label": label, "stored": label and f"{label}/{name}.jpg",
        **dict(zip(NAMES, more, strict=True)),
    }  # fmt: skip


JOURNAL = [
    journal_line(0, "correct", ONE, "red",
                 (PREDICTED, "sha256:77", "uncertain", "Ann", "desk", "two\nlines")),
    journal_line(1, "correct", TWO, "blue"),
    journal_line(2, "correct", TWO, "red"),
    journal_line(3, "reject", THREE, None, (None, None, "audit", None, None, None)),
    journal_line(4, "correct", FOUR, "red"),
    journal_line(5, "undo", FOUR),
]  # fmt: skip
IN_FORCE = {ONE: "red", TWO: "red", THREE: None}


def write_lines(folder: Path, lines: Iterable[dict[str, Any]]) -> None:
    with open(folder / JOURNAL_NAME, "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """Return a feedback folder of the release before the database, killed while it wrote."""
    folder = tmp_path / "feedback"
    for name in (f"red/{ONE}.jpg", f"red/{TWO}.jpg", f"blue/{TWO}.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name[-20:].encode())
    write_lines(folder, JOURNAL)
    (folder / ".feedback.lock").write_text('{"entry": {}, "removes": null}')
    return folder


def labels(folder: Path) -> dict[str, str | None]:
    """Return what is in force, by the first digits."""
    found = read_corrections(folder)
    return {name: event.label for name, event in found.items() if len(name) == 16}


def take_over(folder: Path) -> None:
    with opened(folder):
        pass


def test_a_journal_is_taken_over_once_with_every_event(former: Path) -> None:
    journal = (former / JOURNAL_NAME).read_bytes()
    for _ in range(3):
        take_over(former)
        assert read_lines(former) == JOURNAL
        assert labels(former) == IN_FORCE
    assert sorted(path.name for path in former.glob("*/*")) == [f"{ONE}.jpg", f"{TWO}.jpg"]
    (renamed,) = former.glob(".feedback-*.jsonl")
    assert renamed.read_bytes() == journal
    with opened(former) as store:
        again = store.record(FeedbackEvent("correct", TWO + REST, "red"))  # under its short name
        assert again.before == again.after
        for label, image in (("blue", f"{TWO}.jpg".encode()), (None, None)):
            done = store.record(FeedbackEvent("undo", TWO + REST))
            assert (done.after.label if done.after else None) == label
            assert store.image(TWO + REST) == image
    assert [path.name for path in former.glob("*/*")] == [f"{ONE}.jpg"]


def test_a_journal_is_taken_over_whenever_the_process_is_killed(former: Path) -> None:
    """Kill -9 before each call that may change the disk, one after another in the same folder."""
    command = [sys.executable, "-W", "error", correcting.__file__, "each-open", str(former)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout)["calls"] > 20
    assert read_lines(former) == JOURNAL
    assert labels(former) == IN_FORCE
    assert sorted(path.name for path in former.glob("*/*")) == [f"{ONE}.jpg", f"{TWO}.jpg"]
    assert len(list(former.glob(".feedback-*.jsonl"))) == 1


def test_what_an_earlier_release_adds_in_a_journal_is_taken_over_too(former: Path) -> None:
    take_over(former)
    write_lines(former, [journal_line(6, "reject", ONE)])
    take_over(former)
    assert len(read_lines(former)) == 7
    assert labels(former) == IN_FORCE | {ONE: None}


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_reading_a_folder_changes_nothing(former: Path, is_taken_over: bool) -> None:
    if is_taken_over:
        take_over(former)
    before = sorted(former.rglob("*"))
    found = read_corrections(former)
    assert sorted(former.rglob("*")) == before
    assert labels(former) == IN_FORCE
    assert found[ONE] == found[ONE + REST]
    assert (found[ONE].sha256, found[ONE].predicted) == (ONE + REST, PREDICTED)
    assert found[ONE].time.isoformat() == "2026-11-20T08:00:00+00:00"


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
    for word in said:
        action, _, label = word.partition(" to ")
        if word not in ("undo", "reject") and not label:
            action, label = "correct", word
        write_lines(tmp_path, [journal_line(0, action, ONE, label or None)])
    assert list(labels(tmp_path).values()) == in_force


def test_a_recovered_file_is_found_by_its_name_and_by_what_was_sent(tmp_path: Path) -> None:
    """Of a file that was moved by hand, an event has that file's SHA-256."""
    unknown = journal_line(2, "correct", FOUR, "blue") | {"reason": "recovered"}
    moved = unknown | {"stored": f"blue/{ONE}.jpg", "sha256": THREE + REST}
    write_lines(tmp_path, [journal_line(0, "correct", ONE, "red"), moved, unknown])
    assert labels(tmp_path) == {ONE: "blue", FOUR: "blue"}
    assert read_corrections(tmp_path)[ONE].sha256 == ONE + REST


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
        f"{field} {number}": json.dumps({**JOURNAL[0], field: value}).encode()
        for field, values in WRONG.items()
        for number, value in enumerate(values)
    },
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_reported_and_the_others_count(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good = json.dumps(journal_line(0, "correct", TWO, "red")).encode()
    (tmp_path / JOURNAL_NAME).write_bytes(b"\n".join([line, good, line]))
    assert labels(tmp_path) == {TWO: "red"}
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
    with opened(former) as store:
        assert main(["copy", str(former), str(target)]) == 0
        store.record(FeedbackEvent("correct", TWO + REST, "blue"))
        assert labels(target) == IN_FORCE
        assert main(["copy", str(former), str(target)]) == 0  # again, over the former copy
    assert capsys.readouterr().out.count("has 2 corrected images and their history") == 2
    assert labels(target) == IN_FORCE | {TWO: "blue"}
    assert read_lines(target) == read_lines(former)
    assert sorted(
        path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()
    ) == [DATABASE_NAME, f"blue/{TWO + REST}.jpg", f"red/{ONE}.jpg"]


def test_a_copy_passes_over_images_that_were_removed_by_hand(former: Path, tmp_path: Path) -> None:
    (former / f"red/{ONE}.jpg").unlink()
    assert copy_folder(former, tmp_path / "copy") == 1
    assert labels(tmp_path / "copy") == IN_FORCE


def test_a_copy_leaves_out_no_image_that_is_there_but_cannot_be_read(
    former: Path, tmp_path: Path
) -> None:
    image = former / f"red/{ONE}.jpg"
    image.unlink()
    image.symlink_to(former / f"red/{TWO}.jpg")
    with pytest.raises(OutputError, match=rf"Cannot read or copy .*{ONE}\.jpg"):
        main(["copy", str(former), str(tmp_path / "copy")])


def test_a_copy_of_what_changes_meanwhile_says_so(
    former: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def correct_meanwhile(path: Path) -> bytes:
        if path.suffix == ".jpg":
            write_lines(former, [journal_line(6, "correct", name, "green") for name in (ONE, TWO)])
            raise FileNotFoundError(path)
        return path.read_bytes()

    monkeypatch.setattr("imagesieve.feedback.read_file", correct_meanwhile)
    with pytest.raises(OutputError, match="changed meanwhile: copy it again"):
        copy_folder(former, tmp_path / "copy")


def test_the_history_is_exported_as_json_lines(
    former: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["export", str(former)]) == 0
    assert list(map(json.loads, capfdbinary.readouterr().out.splitlines())) == JOURNAL
    take_over(former)
    command = [sys.executable, "-m", "imagesieve.feedback", "export", str(former)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert list(map(json.loads, done.stdout.splitlines())) == JOURNAL


def test_a_folder_without_a_history_replaces_no_copy(former: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert copy_folder(former, copy) > 0
    before = sorted(copy.rglob("*"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="has no history of corrections: nothing was copied"):
        copy_folder(tmp_path / "empty", copy)
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_export_that_does_not_fit_on_the_disk_says_so(
    former: Path, tmp_path: Path, unbuffered: str
) -> None:
    with open(tmp_path / "export.jsonl", "wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "imagesieve.feedback", "export", str(former)],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=file,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: Cannot write the output: ")


@pytest.mark.parametrize("arguments", [["export", "nowhere"], ["copy", "."], ["export", ".", "x"]])
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        main(arguments)
