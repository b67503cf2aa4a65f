"""The store of corrections: what it keeps, and that nothing tears it apart."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import correcting
import pytest
from correcting import IMAGES, KEYS, REMARK, check, open_store, read_lines
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import errors, files
from imagesieve.feedback import Entry
from imagesieve.images import DEFAULT_LIMITS, decode
from imagesieve.serving.errors import (
    BadParameterError,
    FeedbackFullError,
    FeedbackUnavailableError,
    UnknownImageError,
)
from imagesieve.serving.feedback.folder import FeedbackLimits
from imagesieve.serving.feedback.journal import Change, Journal
from imagesieve.serving.feedback.jpegs import MAX_SIDE, to_jpeg
from imagesieve.serving.feedback.store import FeedbackStore, Remark

PROGRAM = Path(correcting.__file__)
KEY, DATA = KEYS[0], IMAGES[0]
NAME = KEY[:16]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: these tests wait for the disk all the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path) / "feedback"


@pytest.fixture
def store(folder: Path) -> FeedbackStore:
    return open_store(folder)


def stored_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def command(mode: str, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-W", "error", str(PROGRAM), mode, str(folder), *more]


def run(mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(mode, folder), capture_output=True, text=True, check=False)


def start(mode: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(mode, folder, *more), stdout=subprocess.PIPE, text=True)


def test_a_correction_is_a_jpeg_in_its_class_and_a_line(folder: Path, store: FeedbackStore) -> None:
    predicted = {"label": "blue", "probability": 0.75, "decision": "neutral"}
    remark = Remark(predicted, "sha256:1", "uncertain", "Ann", "page", "a <b>note</b>\nin lines")
    done = store.correct(KEY, "red", remark, DATA)
    assert dataclasses.asdict(done) == {
        "sha256": KEY, "label": "red", "is_rejected": False, "previous": None,
        "stored": f"red/{NAME}.jpg", "is_new": True, "is_changed": True,
    }  # fmt: skip
    (line,) = read_lines(folder)
    assert files.sha256_of(folder / done.stored) != KEY
    assert line.pop("time").endswith("Z")
    assert line == {
        "action": "correct", "sha256": KEY, "label": "red", "stored": f"red/{NAME}.jpg",
        "predicted": predicted, "model": "sha256:1", "reason": "uncertain", "reviewer": "Ann",
        "caller": "page", "note": "a <b>note</b>\nin lines",
    }  # fmt: skip
    assert check(folder) == {KEY: "red"}


def test_nothing_is_made_before_the_first_correction(folder: Path, store: FeedbackStore) -> None:
    assert store.num_corrected() == 0
    assert store.image(KEY) is None
    assert store.export()[0].read() == b""
    store.open()
    assert not folder.exists()


def test_the_same_again_writes_nothing_even_a_thousand_times(
    folder: Path, store: FeedbackStore
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jp*")}
    for _ in range(1000):
        done = store.correct(KEY, "red", Remark(note="once more"), DATA)
        assert (done.is_changed, done.is_new, done.previous) == (False, False, "red")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jp*")} == before
    assert len(read_lines(folder)) == 1


def test_another_label_moves_the_image_and_undo_brings_all_back(
    folder: Path, store: FeedbackStore
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    first = store.image(KEY)
    store.correct(KEY, "blue", REMARK)  # no data: it is stored already
    assert stored_in(folder) == [f"blue/{NAME}.jpg"]
    done = store.correct(KEY, None, REMARK)
    assert (done.is_rejected, done.previous, done.stored) == (True, "blue", None)
    assert stored_in(folder) == []
    labels = []
    for _ in range(3):
        done = store.undo(KEY, Remark(caller="Ben"))
        labels.append((done.previous, done.label, done.is_rejected))
        check(folder)
        if done.label:
            assert store.image(KEY) == first  # not encoded a second time
    assert labels == [(None, "blue", False), ("blue", "red", False), ("red", None, False)]
    with pytest.raises(UnknownImageError, match="no correction"):
        store.undo(KEY, REMARK)
    assert [line["action"] for line in read_lines(folder)] == [
        "correct", "correct", "reject", "undo", "undo", "undo",
    ]  # fmt: skip


def test_undo_works_after_a_restart_and_says_when_the_image_is_gone(folder: Path) -> None:
    store = open_store(folder)
    store.correct(KEY, "red", REMARK, DATA)
    store.correct(KEY, "blue", REMARK)
    store.correct(KEY, None, REMARK)
    again = open_store(folder)
    with pytest.raises(UnknownImageError, match="send it again"):
        again.undo(KEY, REMARK)
    assert check(folder) == {KEY: None}
    assert again.undo(KEY, REMARK, DATA).label == "blue"
    assert again.undo(KEY, REMARK).label == "red"
    assert check(folder) == {KEY: "red"}


@pytest.mark.parametrize("change", ["undo", "correct"])
def test_a_image_is_encoded_while_others_may_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("imagesieve.serving.feedback.journal._LOCK_SECONDS", 0.05)
    before, other = open_store(folder), open_store(folder)
    before.correct(KEY, "red", REMARK, DATA)
    encoded = []

    def to_jpeg_meanwhile(data: bytes) -> bytes:
        other.correct(KEYS[1], "red", REMARK, IMAGES[1])
        encoded.append(data)
        return to_jpeg(data, DEFAULT_LIMITS)

    store = FeedbackStore(folder, to_jpeg_meanwhile)
    store.open()
    if change == "undo":
        before.correct(KEY, None, REMARK)  # what this store does not know yet
        done = store.undo(KEY, REMARK, DATA)
    else:
        (folder / "red" / f"{NAME}.jpg").unlink()  # likewise
        done = store.correct(KEY, "red", REMARK, DATA)
    assert (done.label, done.is_changed, encoded) == ("red", True, [DATA])
    assert check(folder) == {KEY: "red", KEYS[1]: "red"}


def test_an_undo_that_needs_no_image_decodes_none(folder: Path, store: FeedbackStore) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    store.correct(KEY, "blue", REMARK)
    assert store.undo(KEY, REMARK, b"no image").label == "red"
    assert store.undo(KEY, REMARK, b"no image").label is None
    store.correct(KEY, "red", REMARK, DATA)
    store.correct(KEY, None, REMARK)
    with pytest.raises(errors.UnsupportedImageFormatError):
        open_store(folder).undo(KEY, REMARK, b"no image")
    assert check(folder) == {KEY: None}


def test_undoing_a_correction_of_a_rejected_image_rejects_it_again(store: FeedbackStore) -> None:
    store.correct(KEY, None, REMARK, DATA)
    store.correct(KEY, "red", REMARK, DATA)
    done = store.undo(KEY, REMARK)
    assert (done.label, done.is_rejected, done.previous) == (None, True, "red")


def test_a_image_that_nobody_has_is_unknown(folder: Path, store: FeedbackStore) -> None:
    for label in ("red", None):
        with pytest.raises(UnknownImageError):
            store.correct(KEY, label, REMARK)
    assert read_lines(folder) == []


def test_what_is_no_image_leaves_nothing_behind(folder: Path, store: FeedbackStore) -> None:
    with pytest.raises(errors.UnsupportedImageFormatError):
        store.correct(KEY, "red", REMARK, b"<script>")
    assert not folder.exists()
    assert store.num_corrected() == 0


def test_a_stored_image_that_somebody_removed_comes_back(
    folder: Path, store: FeedbackStore
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    (folder / "red" / f"{NAME}.jpg").unlink()
    assert open_store(folder).corrected_among([KEY]) == {KEY}  # the line counts all the same
    done = store.correct(KEY, "red", REMARK, DATA)
    assert (done.is_new, done.is_changed) == (False, True)
    assert check(folder) == {KEY: "red"}
    assert store.undo(KEY, REMARK).label is None  # it was said twice, and is one step


def test_what_was_drawn_for_the_audit_stays_in_it(folder: Path, store: FeedbackStore) -> None:
    predicted = {"label": "blue", "probability": 0.9, "decision": "blue"}
    audited = Remark(predicted, "sha256:1", "audit")
    store.correct(KEY, "red", audited, DATA)
    store.correct(KEY, "green", dataclasses.replace(audited, reason="recent"))
    store.correct(KEY, "red", Remark())
    lines = read_lines(folder)
    assert {line["reason"] for line in lines} == {"audit"}
    assert all(line["predicted"] == predicted and line["model"] == "sha256:1" for line in lines)
    assert open_store(folder).audit(None) == (1, 1)


def test_audit_counts_reviewed_and_missed_and_no_undone_ones(store: FeedbackStore) -> None:
    def audited(decision: str) -> Remark:
        return Remark({"label": "blue", "probability": 0.9, "decision": decision}, None, "audit")

    store.correct(KEYS[0], "red", audited("blue"), IMAGES[0])
    store.correct(KEYS[1], "green", audited("green"), IMAGES[1])
    store.correct(KEYS[2], None, audited("blue"), IMAGES[2])
    assert store.audit(None) == (3, 1)  # what belongs to no class was dropped rightly
    assert store.audit("green") == (3, 1)
    assert store.audit("blue") == (3, 0)
    store.undo(KEYS[0], REMARK)
    store.correct(KEYS[1], "red", Remark(), IMAGES[1])
    assert store.audit(None) == (2, 1)


def test_each_limit_refuses_with_nothing_changed(folder: Path) -> None:
    store = open_store(folder, limits=FeedbackLimits(max_images=1))
    store.correct(KEYS[0], "red", REMARK, IMAGES[0])
    with pytest.raises(FeedbackFullError, match="1 images"):
        store.correct(KEYS[1], "red", REMARK, IMAGES[1])
    store.correct(KEYS[1], None, REMARK, IMAGES[1])  # takes no room
    store.correct(KEYS[0], "blue", REMARK)
    store.undo(KEYS[0], REMARK)
    store.undo(KEYS[0], REMARK)
    store.correct(KEYS[1], "red", REMARK, IMAGES[1])  # there is room again
    size = len(store.image(KEYS[1]))
    assert check(folder) == {KEYS[1]: "red"}
    crowded = open_store(folder, limits=FeedbackLimits(max_bytes=size + 1))  # counted at the start
    with pytest.raises(FeedbackFullError, match="MB"):
        crowded.correct(KEYS[0], "red", REMARK, IMAGES[0])
    long = (folder / ".feedback.jsonl").stat().st_size
    wordy = open_store(folder, limits=FeedbackLimits(max_journal_bytes=long + 10))
    with pytest.raises(FeedbackFullError, match="journal"):
        wordy.correct(KEYS[0], "red", REMARK, IMAGES[0])
    assert check(folder) == {KEYS[1]: "red"}


def test_images_with_the_same_first_digits_are_not_mixed_up(
    folder: Path, store: FeedbackStore
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    with pytest.raises(BadParameterError, match="same digits"):
        store.correct(NAME + "0" * 48, "blue", REMARK, DATA)
    assert store.image(KEY)
    assert store.image(NAME + "0" * 48) is None
    assert check(folder) == {KEY: "red"}


def test_a_class_folder_that_leads_elsewhere_is_refused(
    folder: Path, store: FeedbackStore, tmp_path: Path
) -> None:
    folder.mkdir()
    (folder / "red").symlink_to(tmp_path)
    with pytest.raises(FeedbackUnavailableError):
        store.correct(KEY, "red", REMARK, DATA)
    assert not list(tmp_path.iterdir())
    assert read_lines(folder) == []
    store.correct(KEY, "blue", REMARK, DATA)
    assert open_store(folder).num_corrected() == 1


def test_a_link_in_the_place_of_a_image_or_the_journal_is_not_followed(
    folder: Path, store: FeedbackStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store.correct(KEY, "red", REMARK, DATA)
    image = folder / "red" / f"{NAME}.jpg"
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(FeedbackUnavailableError):
        store.image(KEY)
    (folder / ".feedback.jsonl").unlink()
    (folder / ".feedback.jsonl").symlink_to(secret)
    with pytest.raises(FeedbackUnavailableError):
        store.correct(KEYS[1], "red", REMARK, IMAGES[1])
    assert secret.read_bytes() == b"secret"


def test_paths_in_the_journal_that_lead_elsewhere_are_no_lines(
    folder: Path, store: FeedbackStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    line = read_lines(folder)[0]
    wrong = [
        {"stored": "../red/0123456789abcdef.jpg"},
        {"label": "..", "stored": f"../{NAME}.jpg"},
        {"label": "blue"},
        {"stored": None},
        {"stored": f"red/{NAME}.jpg/../../x.jpg"},
        {"sha256": "abc"},
        {"sha256": None},
        {"action": "delete"},
        {"predicted": 3},
    ]
    with open(folder / ".feedback.jsonl", "a") as file:
        file.writelines(json.dumps(line | change) + "\n" for change in wrong)
        file.write("\0\0\0\n[]\n" + "[" * 5000 + "\n")
    again = open_store(folder)
    assert "12 lines" in caplog.text
    assert again.num_corrected() == 1
    assert again.correct(KEY, "blue", REMARK).previous == "red"


def test_a_torn_last_line_is_cut_off(
    folder: Path, store: FeedbackStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    journal = folder / ".feedback.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 2])
    again = open_store(folder)
    assert journal.read_bytes() == whole
    assert "torn" in caplog.text
    again.correct(KEY, "blue", REMARK)
    assert check(folder) == {KEY: "blue"}


def test_images_without_a_line_get_one(folder: Path, store: FeedbackStore) -> None:
    store.correct(KEYS[0], "red", REMARK, IMAGES[0])
    store.correct(KEYS[1], "green", REMARK, IMAGES[1])
    (folder / "blue").mkdir()
    (folder / "red" / f"{NAME}.jpg").rename(folder / "blue" / f"{NAME}.jpg")  # by hand
    unknown = folder / "blue" / "0123456789abcdef.jpg"
    unknown.write_bytes(to_jpeg(IMAGES[2], DEFAULT_LIMITS))
    own = ["blue/holiday.jpg", "blue/.hidden.jpg", "notes.txt"]
    for name in own:
        (folder / name).write_bytes(b"not ours")
    again = open_store(folder)
    recovered = [line for line in read_lines(folder) if line["reason"] == "recovered"]
    assert {(line["sha256"], line["stored"]) for line in recovered} == {
        (KEYS[0], f"blue/{NAME}.jpg"),
        (files.sha256_of(unknown), "blue/0123456789abcdef.jpg"),
    }
    assert again.num_corrected() == 3
    assert all((folder / name).exists() for name in own)
    assert len(read_lines(folder)) == 4
    open_store(folder)
    assert len(read_lines(folder)) == 4  # once is enough
    digest = files.sha256_of(unknown)
    assert again.correct(digest, "red", REMARK).stored == "red/0123456789abcdef.jpg"
    assert again.undo(digest, REMARK).label == "blue"
    assert open_store(folder).undo(digest, REMARK).label is None
    assert not unknown.exists()


def test_leftovers_of_killed_writers_are_removed(
    folder: Path, store: FeedbackStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    (folder / "red" / f"{files.PARTIAL_PREFIX}abc").write_bytes(b"half")
    (folder / "blue").mkdir()
    (folder / "blue" / f"{NAME}.jpg").write_bytes(b"an old place")
    open_store(folder)
    assert stored_in(folder) == [f"red/{NAME}.jpg"]
    assert f"blue/{NAME}.jpg" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entry": {}, "removes": null}', "\0" * 50])
def test_a_damaged_lock_file_means_nothing(folder: Path, store: FeedbackStore, text: str) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    (folder / ".feedback.lock").write_text(text)
    assert open_store(folder).correct(KEY, "blue", REMARK).previous == "red"
    assert check(folder) == {KEY: "blue"}


def test_a_begun_change_removes_nothing_outside(folder: Path, tmp_path: Path) -> None:
    journal = Journal(folder, 10**6)
    with journal.locked():
        entry = Entry("correct", KEY, "red", f"red/{NAME}.jpg")
        for removes in ("../victim.jpg", f"../{NAME}.jpg", f"red/../{NAME}.jpg", "/etc/x.jpg"):
            journal.begin(Change(entry, removes))
            assert journal.begun() is None
        journal.begin(Change(entry, f"blue/{NAME}.jpg"))
        assert journal.begun() == Change(entry, f"blue/{NAME}.jpg")


def test_another_process_sees_and_continues(folder: Path) -> None:
    first, second = open_store(folder), open_store(folder)
    first.correct(KEYS[0], "red", REMARK, IMAGES[0])
    assert second.correct(KEYS[0], "blue", REMARK).previous == "red"
    assert first.correct(KEYS[1], "green", REMARK, IMAGES[1]).is_new
    assert first.undo(KEYS[0], REMARK).label == "red"
    assert second.undo(KEYS[0], REMARK).label is None
    assert first.num_corrected() == 2  # it looks again only when it writes
    (folder / ".feedback.jsonl").rename(folder / ".old")  # somebody starts a new journal
    assert first.correct(KEYS[2], "red", REMARK, IMAGES[2]).is_new
    reasons = [line["reason"] for line in read_lines(folder)]
    assert sorted(reasons) == ["recovered", "sent"]


def test_export_gives_the_whole_lines_of_all_processes(folder: Path) -> None:
    first, second = open_store(folder), open_store(folder)
    first.correct(KEYS[0], "red", REMARK, IMAGES[0])
    second.correct(KEYS[1], "blue", Remark(note="x" * 500), IMAGES[1])
    journal = folder / ".feedback.jsonl"
    whole = journal.read_bytes()
    for torn in (b"", b'{"time"', b"x" * 200_000):  # somebody is writing it
        journal.write_bytes(whole + torn)
        for store in (first, second, FeedbackStore(folder, encode)):  # the last was never opened
            file, num_bytes = store.export()
            with file:
                assert file.read(num_bytes) == whole
    journal.write_bytes(b"torn")
    file, num_bytes = first.export()
    with file:
        assert num_bytes == 0


def test_what_cannot_be_read_is_told_as_that(
    folder: Path, store: FeedbackStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.correct(KEY, "red", REMARK, DATA)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret\n")
    for path, read in (
        (folder / "red" / f"{NAME}.jpg", lambda: store.image(KEY)),
        (folder / ".feedback.jsonl", store.export),
    ):
        path.unlink()
        path.symlink_to(secret)
        caplog.clear()
        with pytest.raises(FeedbackUnavailableError, match="cannot read") as caught:
            read()
        assert str(folder) not in str(caught.value)
        assert "cannot be read" in caplog.text
        assert str(path) in caplog.text
        assert "stored" not in caplog.text


def test_eight_threads_correct_the_same_and_different_images(folder: Path) -> None:
    images = [encode(paint(COLOURS["red"], size=(20, 16), seed=seed)) for seed in range(16)]
    keys = [hashlib.sha256(data).hexdigest() for data in images]
    stores = [open_store(folder), open_store(folder)]  # as two processes would

    def work(seed: int) -> int:
        chance, num_new = random.Random(seed), 0
        for number in chance.sample(range(16), 16):
            store = chance.choice(stores)
            num_new += store.correct(keys[number], "red", REMARK, images[number]).is_new
            store.correct(keys[0], chance.choice(["green", "blue"]), REMARK, images[0])
        return num_new

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        num_new = sum(pool.map(work, range(8)))
    assert num_new <= 16
    holds = {}
    for line in read_lines(folder):
        holds[line["sha256"]] = line["label"]
    assert set(holds) == set(keys)
    assert {holds[key] for key in keys[1:]} == {"red"}
    assert len(stored_in(folder)) == 16
    assert open_store(folder).num_corrected() == 16


def test_two_processes_killed_at_any_moment_leave_a_whole_store(folder: Path) -> None:
    chance = random.Random(5)
    for seed in (10, 20, 30):
        with contextlib.ExitStack() as running:
            children = [
                running.enter_context(start("loop", folder, str(seed + number)))
                for number in range(2)
            ]
            for child in children:
                assert child.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.05, 0.25))
            for child in children:
                child.send_signal(signal.SIGKILL)
        assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
        open_store(folder)  # puts in order what is left half done
        check(folder)
    assert len(read_lines(folder)) > 20


def test_killed_before_any_system_call_a_change_is_done_or_not(folder: Path) -> None:
    done = run("each-step", folder)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes["calls"] > 50
    assert outcomes["done"] > 10
    assert outcomes["undone"] > 10


def test_a_full_disk_changes_nothing_wherever_it_strikes(folder: Path) -> None:
    done = run("full-disk", folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refused"] > 20


def test_a_file_in_the_place_of_the_folder_is_told_and_heals(
    folder: Path, store: FeedbackStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_bytes(b"")
    with pytest.raises(FeedbackUnavailableError) as caught:
        store.correct(KEY, "red", REMARK, DATA)
    assert str(folder) not in str(caught.value)
    assert str(folder) in caplog.text
    assert store.num_corrected() == 0
    folder.unlink()
    assert store.correct(KEY, "red", REMARK, DATA).is_new


def test_a_lock_that_is_not_let_go_of_is_told(
    folder: Path, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("imagesieve.serving.feedback.journal._LOCK_SECONDS", 0.05)
    folder.mkdir()
    with open(folder / ".feedback.lock", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FeedbackUnavailableError):
            store.correct(KEY, "red", REMARK, DATA)
    assert store.correct(KEY, "red", REMARK, DATA).is_new


@pytest.mark.parametrize(
    ("size", "orientation", "expected"),
    [
        ((64, 48), 1, (64, 48)),
        ((64, 48), 6, (48, 64)),
        ((1500, 1000), 1, (1024, 683)),
        ((2400, 1200), 1, (1024, 512)),
        ((2400, 1200), 6, (512, 1024)),
        ((20_000, 20), 1, (1024, 16)),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_stored_image_is_upright_small_and_bare(
    size: tuple[int, int], orientation: int, expected: tuple[int, int], image_format: str
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "secret place"
    image = Image.new("RGB", size, COLOURS["red"])
    data = encode(image, image_format, exif=exif)
    jpeg = to_jpeg(data, DEFAULT_LIMITS)
    assert b"secret" in data
    assert b"secret" not in jpeg
    assert b"Exif" not in jpeg
    decoded = decode(jpeg)
    assert (decoded.width, decoded.height) == expected
    assert max(expected) <= MAX_SIDE
    means = decoded.pixels.reshape(-1, 3).mean(axis=0)
    assert means == pytest.approx(COLOURS["red"], abs=6)


def test_the_network_sees_in_a_stored_image_what_it_saw_in_the_sent_one() -> None:
    fine = paint((120, 130, 140), size=(160, 120)).resize((2400, 1800), Image.Resampling.BICUBIC)
    data = encode(fine)
    sent = decode(data, image_size=(299, 299)).pixels.astype(int)
    stored = to_jpeg(data, DEFAULT_LIMITS)
    seen = decode(stored, image_size=(299, 299)).pixels.astype(int)
    assert abs(sent - seen).mean() < 1


def test_recovering_is_logged_by_name(
    folder: Path, store: FeedbackStore, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "red").mkdir(parents=True)
    (folder / "red" / f"{NAME}.jpg").write_bytes(to_jpeg(DATA, DEFAULT_LIMITS))
    with caplog.at_level(logging.INFO):
        store.open()
    assert f"red/{NAME}.jpg" in caplog.text
