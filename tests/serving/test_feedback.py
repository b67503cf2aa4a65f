"""The store of corrections: what it writes, and that nothing tears it apart."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import correcting
import pytest
from correcting import JPEGS, KEYS, check, correct, event, opened, read_lines, undo
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import files
from imagesieve.feedback import (
    AUDIT,
    CORRECT,
    DATABASE_NAME,
    JOURNAL_NAME,
)
from imagesieve.images import DEFAULT_LIMITS, decode
from imagesieve.serving.errors import (
    FeedbackFullError,
    FeedbackUnavailableError,
    ImageNeededError,
    UnknownImageError,
)
from imagesieve.serving.feedback import store as store_module
from imagesieve.serving.feedback.store import MAX_SIDE, FeedbackStore, to_jpeg

KEY = KEYS[0]
PREDICTED = {"label": "blue", "probability": 0.75, "decision": "neutral"}


@pytest.fixture
def store(folder: Path) -> Iterator[FeedbackStore]:
    with opened(folder) as store:
        yield store


def stored_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def store_size(folder: Path) -> int:
    """Return the number of images that the database has a row for."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        return database.execute("SELECT count(*) FROM images").fetchone()[0]


def run(mode: str, folder: Path) -> dict[str, int]:
    command = [sys.executable, "-W", "error", correcting.__file__, mode, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_made_before_the_first_correction(folder: Path, store: FeedbackStore) -> None:
    assert store.num_corrected() == 0
    assert store.image(KEY) is store.in_force(KEY) is None
    assert b"".join(store.export()) == b""
    for label in ("red", None):
        with pytest.raises(ImageNeededError):
            correct(store, 0, label)
    with pytest.raises(UnknownImageError, match="no correction"):
        undo(store)
    assert list(folder.parent.iterdir()) == []


def test_another_label_moves_the_image_and_undo_brings_all_back(
    folder: Path, store: FeedbackStore
) -> None:
    correct(store, 0, "red", JPEGS[0])
    correct(store, 0, "blue")  # no image: it is stored already
    done = correct(store, 0, None)
    assert (done.before.label, done.after.label, done.after.stored) == ("blue", None, None)
    assert check(folder) == {KEY: None}
    store.close()
    with pytest.raises(FeedbackUnavailableError):  # a request that is late opens nothing
        undo(store)
    with opened(folder) as fresh:  # a restart changes nothing
        for label in ("blue", "red", None):
            done = undo(fresh)
            assert (done.after.label if done.after else None) == label
            assert check(folder) == ({KEY: label} if label else {})
            assert fresh.image(KEY) == (JPEGS[0] if label else None)  # not encoded a second time
        with pytest.raises(UnknownImageError, match="no correction"):
            undo(fresh)
    actions = [line["action"] for line in read_lines(folder)]
    assert actions == ["correct", "correct", "reject", "undo", "undo", "undo"]


def test_an_undo_says_when_the_image_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_REMOVED_BYTES", len(JPEGS[1]))
    with opened(folder) as store:
        for number in (0, 1):
            correct(store, number, "red", JPEGS[number])
            correct(store, number, None)
        with pytest.raises(ImageNeededError, match="send it again"):
            undo(store, 0)
        assert undo(store, 1).after.label == "red"  # removed last, so it is there still
        assert check(folder) == {KEY: None, KEYS[1]: "red"}
        assert undo(store, 0, JPEGS[0]).after.label == "red"


def test_a_stored_image_that_somebody_removed_comes_back(folder: Path) -> None:
    with opened(folder) as store:
        correct(store, 0, "red", JPEGS[0])
    (folder / "red" / f"{KEY}.jpg").unlink()
    with opened(folder) as store:
        assert store.corrected_among([KEY]) == {KEY}  # the event counts all the same
        with pytest.raises(ImageNeededError):
            correct(store, 0, "red")
        assert correct(store, 0, "red", JPEGS[0]).before is not None
        assert check(folder) == {KEY: "red"}
        assert undo(store).after is None  # it was said twice, and is undone at once


def test_what_was_drawn_for_the_audit_stays_in_it(folder: Path, store: FeedbackStore) -> None:
    audited = event(CORRECT, KEY, "red", predicted=PREDICTED, model="sha256:1", reason=AUDIT)
    store.record(audited, JPEGS[0])
    store.record(dataclasses.replace(audited, label="green", reason="recent"))
    correct(store, 0, "red")
    undo(store)
    lines = read_lines(folder)
    assert {line["reason"] for line in lines} == {AUDIT}
    assert all(line["predicted"] == PREDICTED and line["model"] == "sha256:1" for line in lines)
    assert [entry.label for entry in store.audited()] == ["green"]


def test_each_limit_refuses_with_nothing_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, opened(folder) as store:
        patched.setattr(store_module, "MAX_IMAGES", 1)
        correct(store, 0, "red", JPEGS[0])
        with pytest.raises(FeedbackFullError, match="1 images"):
            correct(store, 1, "red", JPEGS[1])
        assert store_size(folder) == 1
        correct(store, 1, None, JPEGS[1])  # takes no room
        correct(store, 0, "blue")
        undo(store)
        undo(store)
        correct(store, 1, "red", JPEGS[1])  # there is room again
        assert check(folder) == {KEYS[1]: "red"}
    with opened(folder, max_bytes=len(JPEGS[1]) + 1) as store:  # counted at the start
        with pytest.raises(FeedbackFullError, match="MB"):
            correct(store, 0, "red", JPEGS[0])
        monkeypatch.setattr(store_module, "MAX_HISTORY_BYTES", 4096)
        with pytest.raises(FeedbackFullError, match="history"):
            correct(store, 0, "red", JPEGS[0])
    assert check(folder) == {KEYS[1]: "red"}
    assert stored_in(folder) == [f"red/{KEYS[1]}.jpg"]


def test_a_class_folder_that_leads_elsewhere_is_refused(
    folder: Path, store: FeedbackStore, tmp_path: Path
) -> None:
    folder.mkdir()
    (folder / "red").symlink_to(tmp_path)
    with pytest.raises(FeedbackUnavailableError):
        correct(store, 0, "red", JPEGS[0])
    assert not list(tmp_path.iterdir())
    assert read_lines(folder) == []
    correct(store, 0, "blue", JPEGS[0])
    assert store.num_corrected() == 1


@pytest.mark.parametrize("name", [f"red/{KEY}.jpg", DATABASE_NAME, JOURNAL_NAME])
def test_a_link_is_not_followed_and_the_log_has_the_reason(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with opened(folder) as store:
        correct(store, 0, "red", JPEGS[0])
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with (
        contextlib.closing(FeedbackStore(folder)) as store,
        pytest.raises(FeedbackUnavailableError, match="cannot read") as caught,
    ):
        store.image(KEY)
    assert str(folder) not in str(caught.value)
    assert "cannot be read" in caplog.text
    assert str(folder / name) in caplog.text
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_images_that_are_not_in_the_history_are_added_to_it(folder: Path) -> None:
    with opened(folder) as store:
        correct(store, 0, "red", JPEGS[0])
        correct(store, 1, "green", JPEGS[1])
    (folder / "blue").mkdir()
    (folder / f"red/{KEY}.jpg").rename(folder / f"blue/{KEY}.jpg")  # by hand
    (folder / f"blue/{KEYS[2]}.jpg").write_bytes(JPEGS[2])
    short = folder / "blue/0123456789abcdef.jpg"  # of an earlier release
    short.write_bytes(b"short")
    own = [folder / name for name in ("blue/holiday.jpg", "blue/.hidden.jpg", "notes.txt")]
    for path in own:
        path.write_bytes(b"not ours")
    digest = files.sha256_of(short)
    for _ in range(2):  # the second time there is nothing left to add
        with opened(folder) as store:
            assert store.num_corrected() == 4
        recovered = [line for line in read_lines(folder) if line["reason"] == "recovered"]
        assert sorted((line["sha256"], line["stored"]) for line in recovered) == sorted(
            [(key, f"blue/{key}.jpg") for key in (KEY, KEYS[2])] + [(digest, f"blue/{short.name}")]
        )
    assert all(path.exists() for path in own)
    with opened(folder) as store:
        assert store.record(event(CORRECT, digest, "red")).before.label == "blue"
        assert not short.exists()
        assert correct(store, 2, "green").before.label == "blue"  # the image itself is sent again
        assert undo(store, 2).after.label == "blue"


def test_leftovers_of_killed_writers_are_removed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as store:
        correct(store, 0, "red", JPEGS[0])
    (folder / "red" / f"{files.PARTIAL_PREFIX}abc").write_bytes(b"half")
    (folder / "blue").mkdir()
    (folder / "blue" / f"{KEY}.jpg").write_bytes(b"an old place")
    with opened(folder):
        assert stored_in(folder) == [f"red/{KEY}.jpg"]
    assert f"blue/{KEY}.jpg" in caplog.text


def test_a_damaged_database_is_refused_with_a_reason_until_it_is_moved(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as store:
        correct(store, 0, "red", JPEGS[0])
    (folder / DATABASE_NAME).write_bytes(b"no database" * 1000)
    with contextlib.closing(FeedbackStore(folder)) as store:
        with pytest.raises(FeedbackUnavailableError):
            store.open()
        assert "not a database" in caplog.text
        (folder / DATABASE_NAME).unlink()
        store.open()
        assert store.num_corrected() == 1


def test_another_process_sees_and_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAGE_EVENTS", 2)
    with opened(folder) as first, opened(folder) as second:
        correct(first, 0, "red", JPEGS[0])
        assert correct(second, 0, "blue").before.label == "red"
        correct(first, 1, "green", JPEGS[1])
        assert undo(first, 0).after.label == "red"
        assert undo(second, 0).after is None
        assert first.num_corrected() == second.num_corrected() == 1
        lines = b"".join(second.export()).splitlines()
        labels = [json.loads(line)["label"] for line in lines]
        assert labels == ["red", "blue", "green", "red", None]
        folder.rename(folder.with_name("elsewhere"))  # as the error of a full store says
        assert second.num_corrected() == 0
        correct(first, 2, "red", JPEGS[2])
        assert second.num_corrected() == 1
    assert check(folder) == {KEYS[2]: "red"}
    assert check(folder.with_name("elsewhere")) == {KEYS[1]: "green"}


def test_eight_threads_correct_the_same_and_different_images(folder: Path) -> None:
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(16)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for key in chance.sample(keys, 16):
            store = chance.choice(stores)
            store.record(event(CORRECT, key, "red"), JPEGS[0])
            store.record(event(CORRECT, keys[0], chance.choice(["green", "blue"])), JPEGS[0])

    with (
        opened(folder) as one,
        opened(folder) as other,  # as another process would have
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        stores = [one, other]
        list(pool.map(work, range(8)))
    in_force = check(folder)
    assert in_force.pop(keys[0]) in ("red", "green", "blue")
    assert in_force == dict.fromkeys(keys[1:], "red")


def test_two_processes_killed_at_any_moment_lose_no_acknowledged_correction(folder: Path) -> None:
    assert run("at-random", folder)["acknowledged"] > 20


def test_killed_before_any_system_call_a_change_is_done_or_not(folder: Path) -> None:
    outcomes = run("each-step", folder)
    assert outcomes["undone"] > 50
    assert outcomes["done"] > 10


def test_a_full_disk_changes_nothing_wherever_it_strikes(folder: Path) -> None:
    assert run("full-disk", folder)["refused"] > 20


def test_a_lock_that_is_not_released_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as store:
        correct(store, 1, "red", JPEGS[1])
    monkeypatch.setattr("imagesieve.feedback.LOCK_SECONDS", 0.05)
    with (
        contextlib.closing(FeedbackStore(folder)) as store,
        contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FeedbackUnavailableError):
            correct(store, 0, "red", JPEGS[0])
        other.execute("ROLLBACK")
        assert correct(store, 0, "red", JPEGS[0]).before is None


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_system_without_locks_or_shared_memory_is_found_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_there: bool
) -> None:
    connect = sqlite3.connect
    without = "file:{}?vfs=unix-none"  # SQLite's own stand-in for such a file system
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **more: connect(without.format(path), uri=True, **more)
    )
    if is_there:
        folder.mkdir()
    with contextlib.closing(FeedbackStore(folder)) as store:
        with pytest.raises(FeedbackUnavailableError):
            store.open()
        assert caplog.text.count("no file locks or shared memory") == 1
        with pytest.raises(FeedbackUnavailableError):
            correct(store, 0, "red", JPEGS[0])


@pytest.mark.parametrize(
    ("image_format", "size", "orientation", "expected"),
    [
        ("JPEG", (64, 48), 1, (64, 48)),
        ("PNG", (64, 48), 6, (48, 64)),
        ("PNG", (1500, 1000), 1, (1024, 683)),
        ("JPEG", (2400, 1200), 1, (1024, 512)),
        ("JPEG", (2400, 1200), 6, (512, 1024)),
        ("JPEG", (20_000, 20), 1, (1024, 16)),
    ],
)
def test_a_stored_image_is_upright_small_and_bare(
    image_format: str, size: tuple[int, int], orientation: int, expected: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "secret place"
    data = encode(Image.new("RGB", size, COLOURS["red"]), image_format, exif=exif)
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
