"""Held images, in memory and on disk."""

import concurrent.futures
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.feedback.image_store import KeptImages, KeptLimits
from imagesieve.serving.feedback.recent import HeldImage, HeldImages, HeldLimits
from imagesieve.serving.feedback.selection import Selection, uncertainty

SURE = Prediction("red", 0.9, {"blue": 0.05, "green": 0.05, "red": 0.9}, "red")
UNSURE = Prediction("red", 0.4, {"blue": 0.35, "green": 0.25, "red": 0.4}, "red")
NEVER = Selection()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def note(held: HeldImages, name: str, data: bytes, prediction: Prediction = SURE) -> bool:
    return held.note(name, data, sha(data), prediction, "sha256:1", "colours")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptImages]:
    kept = KeptImages(tmp_path / ".held")
    kept.open()
    yield kept
    kept.close()


def reopened(kept: KeptImages, folder: Path, **options: object) -> KeptImages:
    kept.close()
    again = KeptImages(folder, **options)
    again.open()
    return again


def test_a_image_is_found_by_id_and_by_content() -> None:
    held = HeldImages(NEVER)
    assert note(held, "one", b"image")
    found = held.by_id("one")
    assert found is held.by_sha256(sha(b"image"))
    assert (found.prediction, found.digest, found.name) == (SURE, "sha256:1", "colours")
    assert (found.reason, found.num_bytes) == (RECENT, 7)
    assert held.data(found.sha256) == b"image"
    assert held.by_id("two") is held.by_sha256("0" * 64) is held.data("0" * 64) is None


def test_the_same_image_again_is_one_entry_with_the_last_prediction() -> None:
    held = HeldImages(NEVER)
    for number in range(100):
        note(held, f"id {number}", b"image", UNSURE if number < 99 else SURE)
    (found,) = held.all()
    assert found.prediction is SURE
    assert found.ids[-1] == "id 99"
    assert held.by_id("id 99") is held.by_id("id 90") is found
    assert len(found.ids) < 100
    assert held.by_id("id 0") is None  # the first of so many ids are forgotten


def test_those_judged_least_recently_go_first() -> None:
    held = HeldImages(NEVER, HeldLimits(max_images=3))
    for name in "abc":
        note(held, name, name.encode())
    note(held, "a again", b"a")
    note(held, "d", b"d")
    assert [image.ids for image in held.all()] == [("c",), ("a", "a again"), ("d",)]
    assert held.by_id("b") is None
    assert held.data(sha(b"b")) is None


def test_bytes_are_bounded_too_and_ids_go_with_their_images() -> None:
    held = HeldImages(NEVER, HeldLimits(max_bytes=100))
    for number in range(50):
        note(held, str(number), bytes([number]) * 30)
    assert [image.ids for image in held.all()] == [("47",), ("48",), ("49",)]
    assert len(held._by_id) == 3
    assert held._num_bytes == 90
    assert not note(held, "huge", bytes(101))
    assert held.by_id("huge") is None
    assert len(held.all()) == 3


def test_many_threads_may_note_and_look() -> None:
    held = HeldImages(NEVER, HeldLimits(max_images=20))

    def work(seed: int) -> None:
        for number in range(300):
            data = bytes([number * seed % 40])
            note(held, f"{seed}-{number}", data)
            found = held.by_sha256(sha(data))
            assert found is None or found.sha256 == sha(data)
            assert len(held.all()) <= 20

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert set(held._by_id.values()) == {image.sha256 for image in held.all()}


def test_uncertainty_is_entropy_from_0_to_1() -> None:
    assert uncertainty({"a": 1.0, "b": 0.0}) == 0
    assert uncertainty({"a": 0.5, "b": 0.5}) == pytest.approx(1)
    assert uncertainty(dict.fromkeys("abcdefg", 1 / 7)) == pytest.approx(1)
    assert uncertainty({"a": 0.9, "b": 0.1}) == pytest.approx(0.468996)  # in bits, by hand
    assert uncertainty({"only": 1.0}) == 0


@pytest.mark.parametrize(
    ("shares", "decision", "expected"),
    [
        ((0.9, 0.1), "a", RECENT),
        ((0.75, 0.25), "a", RECENT),
        ((0.74, 0.26), "a", UNCERTAIN),
        ((0.9, 0.1), "neutral", UNCERTAIN),
        ((1.0,), "a", RECENT),
    ],
)
def test_a_close_second_or_another_decision_is_uncertain(
    shares: tuple[float, ...], decision: str, expected: str
) -> None:
    shares_by_name = dict(zip("ab", shares, strict=False))
    prediction = Prediction("a", shares[0], shares_by_name, decision)
    assert NEVER.reason("0" * 64, prediction, None) == expected


@pytest.mark.parametrize(
    ("interest", "fallback", "label", "decision", "dropped"),
    [
        (None, None, "red", "red", False),
        (None, "neutral", "red", "red", False),
        (None, "neutral", "neutral", "neutral", True),
        (None, "neutral", "red", "neutral", True),
        ("red", None, "red", "red", False),
        ("red", None, "blue", "blue", True),
        ("red", "neutral", "red", "neutral", True),
    ],
)
def test_what_is_dropped(
    interest: str | None, fallback: str | None, label: str, decision: str, dropped: bool
) -> None:
    selection = Selection(class_of_interest=interest, audit_share=1)
    prediction = Prediction(label, 0.9, {label: 0.9, "x": 0.1}, decision)
    assert selection.is_dropped(prediction, fallback) == dropped
    assert (selection.reason("0" * 64, prediction, fallback) == AUDIT) == dropped


def test_the_draw_is_fair_the_same_in_one_run_and_another_in_the_next() -> None:
    dropped = Prediction("blue", 0.9, {"blue": 0.9, "red": 0.1}, "blue")
    images = [sha(str(number).encode()) for number in range(20_000)]

    def drawn(selection: Selection) -> set[str]:
        return {sha for sha in images if selection.reason(sha, dropped, None) == AUDIT}

    one = Selection(audit_share=0.01, class_of_interest="red")
    other = Selection(audit_share=0.01, class_of_interest="red")
    assert drawn(one) == drawn(one)
    assert 130 < len(drawn(one)) < 270  # 200 ± 5 standard deviations
    assert len(drawn(one) & drawn(other)) < 20
    assert not drawn(Selection(audit_share=0.0, class_of_interest="red"))
    assert repr(one.key) not in repr(one)


def test_uncertain_and_audited_images_are_kept_on_disk(kept: KeptImages, tmp_path: Path) -> None:
    selection = Selection(audit_share=1, class_of_interest="red")
    held = HeldImages(selection, kept=kept)
    dropped = Prediction("blue", 0.9, {"blue": 0.9, "red": 0.1}, "blue")
    for name, data, prediction in (
        ("sure", b"sure", SURE),
        ("unsure", b"unsure", UNSURE),
        ("dropped", b"dropped", dropped),
    ):
        note(held, name, data, prediction)
    kept.wait()
    names = {sha(b"unsure"), sha(b"dropped")}
    assert {path.stem for path in tmp_path.glob(".held/*.bin")} == names
    assert {path.stem for path in tmp_path.glob(".held/*.json")} == names
    fresh = HeldImages(selection, kept=reopened(kept, tmp_path / ".held"))
    assert {image.sha256 for image in fresh.all()} == names
    found = fresh.by_id("unsure")
    assert found.prediction == UNSURE
    assert (found.reason, found.digest, found.name) == (UNCERTAIN, "sha256:1", "colours")
    assert fresh.by_sha256(found.sha256) is found
    assert fresh.data(found.sha256) == b"unsure"
    note(fresh, "again", b"unsure", SURE)
    assert {image.ids[-1] for image in fresh.all()} == {"again", "dropped"}  # not twice
    fresh.note_settled(found.sha256)
    assert [path.stem for path in tmp_path.glob(".held/*.bin")] == [sha(b"dropped")]


def test_what_is_undone_is_kept_again(kept: KeptImages) -> None:
    held = HeldImages(NEVER, kept=kept)
    note(held, "one", b"one", UNSURE)
    kept.wait()
    held.note_settled(sha(b"one"))
    assert kept.all() == []
    held.note_unsettled(sha(b"one"))
    held.note_unsettled(sha(b"never seen"))
    kept.wait()
    assert [image.ids for image in kept.all()] == [("one",)]


def test_what_is_corrected_while_it_waits_for_the_disk_is_not_kept(kept: KeptImages) -> None:
    held = HeldImages(NEVER, kept=kept)
    for number in range(20):
        data = bytes([number]) * 100_000
        note(held, str(number), data, UNSURE)
        held.note_settled(sha(data))
    kept.wait()
    assert kept.all() == []
    assert not list(kept._folder.glob("*.*n*"))


def test_what_is_corrected_is_not_kept_again_when_it_is_judged_again(tmp_path: Path) -> None:
    corrected = {sha(b"one")}
    kept = KeptImages(tmp_path, KeptLimits(max_images=1), is_corrected=corrected.__contains__)
    kept.open()
    held = HeldImages(NEVER, kept=kept)
    note(held, "waits for review", b"two", UNSURE)
    note(held, "corrected", b"one", UNSURE)
    kept.wait()
    assert [image.ids for image in kept.all()] == [("waits for review",)]
    assert [path.stem for path in tmp_path.glob("*.bin")] == [sha(b"two")]
    assert held.by_id("corrected")
    corrected.clear()
    held.note_unsettled(sha(b"one"))
    kept.wait()
    assert [image.ids for image in kept.all()] == [("corrected",)]
    kept.close()


def test_what_is_corrected_and_judged_again_while_it_is_written_is_not_kept(tmp_path: Path) -> None:
    corrected = set()

    def is_corrected(sha256: str) -> bool:
        was_corrected = sha256 in corrected
        if not was_corrected:  # it is right after the question
            corrected.add(sha256)
            held.note_settled(sha256)
            note(held, "again", b"one", UNSURE)
        return was_corrected

    kept = KeptImages(tmp_path, is_corrected=is_corrected)
    held = HeldImages(NEVER, kept=kept)
    kept.open()
    note(held, "first", b"one", UNSURE)
    kept.wait()
    kept.close()
    assert kept.all() == []
    assert not list(tmp_path.glob("*.*n*"))


def put(kept: KeptImages, name: str, data: bytes) -> None:
    created = f"2026-11-21T00:00:0{len(kept.all())}Z"
    key = sha(data)
    kept.put(HeldImage(key, (name,), UNSURE, "d", "n", created, UNCERTAIN, len(data)), data)
    kept.wait()


def test_the_disk_is_bounded_the_oldest_go_first(tmp_path: Path) -> None:
    folder = tmp_path / ".held"
    kept = KeptImages(folder, KeptLimits(max_images=3, max_bytes=25))
    kept.open()
    for name in "abcd":
        put(kept, name, name.encode() * 5)
    assert [image.ids[0] for image in kept.all()] == ["b", "c", "d"]
    put(kept, "e", b"e" * 15)
    assert [image.ids[0] for image in kept.all()] == ["c", "d", "e"]
    put(kept, "too large", b"t" * 26)
    assert len(list(folder.glob("*.bin"))) == len(list(folder.glob("*.json"))) == 3
    again = reopened(kept, folder, limits=KeptLimits(max_images=2))
    assert [image.ids[0] for image in again.all()] == ["d", "e"]
    assert len(list(folder.glob("*.bin"))) == 2
    again.close()


def test_damaged_pairs_are_removed_with_one_line(
    kept: KeptImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ".held"
    for number in range(9):
        put(kept, str(number), bytes([number]) * 10)
    paths = sorted(folder.glob("*.json"))
    good = paths[0]
    text = json.loads(good.read_text())
    paths[1].write_text("{")
    paths[2].write_text(json.dumps(text))  # of another image
    paths[3].write_text(json.dumps(text | {"sha256": paths[3].stem, "reason": "<b>"}))
    paths[4].write_text(json.dumps(text | {"sha256": paths[4].stem, "prediction": None}))
    paths[5].with_suffix(".bin").write_bytes(b"short")
    paths[6].unlink()
    paths[7].with_suffix(".bin").unlink()
    shares = {"prediction": {**text["prediction"], "probabilities": {"red": float("nan")}}}
    paths[8].write_text(json.dumps(text | {"sha256": paths[8].stem, **shares}))
    (folder / ".partial-abc").write_bytes(b"half")
    (folder / "mine.txt").write_bytes(b"mine")
    with caplog.at_level(logging.INFO):
        again = reopened(kept, folder)
    assert [image.sha256 for image in again.all()] == [good.stem]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".lock", "mine.txt", good.name, good.with_suffix(".bin").name]
    )
    assert [record.message.split(" from")[0] for record in caplog.records] == [
        "Removed 8 damaged images"
    ]
    again.close()


@pytest.mark.parametrize("ending", ["json", "bin"])
def test_what_cannot_be_read_for_now_stays_on_disk(
    kept: KeptImages, tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    folder = tmp_path / ".held"
    put(kept, "one", b"one")
    put(kept, "two", b"two")
    path, elsewhere = folder / f"{sha(b'one')}.{ending}", tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(path)  # reading it fails with ELOOP, also for root
    again = reopened(kept, folder)
    assert [image.ids for image in again.all()] == [("two",)]
    (record,) = caplog.records
    assert record.message.startswith("1 kept images stay in ")
    elsewhere.replace(path)
    again = reopened(again, folder)
    assert [image.ids for image in again.all()] == [("one",), ("two",)]
    assert again.data(sha(b"one")) == b"one"
    again.close()


def test_a_image_changed_on_disk_is_not_given_out(
    kept: KeptImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(kept, "one", b"original")
    (tmp_path / ".held" / f"{sha(b'original')}.bin").write_bytes(b"replaced")
    assert kept.data(sha(b"original")) is None
    assert "damaged" in caplog.text
    assert kept.all() == []
    assert kept.data(sha(b"original")) is None


def test_a_disk_that_fails_is_told_once_and_costs_no_prediction(
    kept: KeptImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ".held"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_bytes(b"a file in its place")
    held = HeldImages(NEVER, kept=kept)
    for name in ("one", "two", "three"):
        assert note(held, name, name.encode(), UNSURE)
    kept.wait()
    assert len([record for record in caplog.records if "not kept" in record.message]) == 1
    assert held.by_id("two")
    folder.unlink()
    note(held, "four", b"four", UNSURE)  # the disk is back
    kept.wait()
    assert [image.ids for image in kept.all()] == [("four",)]
    kept.close()
    assert caplog.records[-1].message == "Not kept for review: 3 images."


def test_a_folder_that_cannot_be_used_turns_keeping_off(
    tmp_path: Path, kept: KeptImages, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    useless = KeptImages(tmp_path / "file" / ".held")
    second = KeptImages(tmp_path / ".held")  # another server has it
    for other in (useless, second):
        other.open()
        held = HeldImages(NEVER, kept=other)
        assert note(held, "one", b"one", UNSURE)
        assert other.all() == []
        other.close()
    assert "none is kept" in caplog.text
    assert "No image is kept" in caplog.text
    kept.close()
    second.open()
    put(second, "one", b"one")
    assert len(second.all()) == 1
    second.close()
