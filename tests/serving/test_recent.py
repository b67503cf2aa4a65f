"""Recent images, in memory and on disk, and why they should be reviewed."""

import concurrent.futures
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from correcting import recent_image

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.errors import FeedbackUnavailableError
from imagesieve.serving.feedback import recent as recent_module
from imagesieve.serving.feedback.recent import DATABASE_NAME, RecentImages
from imagesieve.serving.feedback.review import Selection, uncertainty

SURE = Prediction("red", 0.9, {"blue": 0.05, "green": 0.05, "red": 0.9}, "red")
UNSURE = Prediction("red", 0.4, {"blue": 0.35, "green": 0.25, "red": 0.4}, "red")

Open = Callable[..., RecentImages]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(recent: RecentImages, name: str, data: bytes, prediction: Prediction = SURE) -> bool:
    reason = UNCERTAIN if prediction is UNSURE else RECENT
    return recent.add(recent_image(sha(data), name, prediction, reason), data)


def add_unsure(recent: RecentImages, *names: str) -> None:
    """Add an image for each name, and wait until they are stored."""
    for name in names:
        add(recent, name, name.encode(), UNSURE)
    recent.wait()


def ids(images: RecentImages) -> list[str]:
    return sorted(image.shown.id for image in images.all())


def stored(folder: Path) -> list[str]:
    """Return the ids of the images on disk."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        return sorted(image_id for (image_id,) in database.execute("SELECT id FROM recent"))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_limits(**limits: int) -> None:
        for name, value in limits.items():
            monkeypatch.setattr(recent_module, name, value)

    return set_limits


@pytest.fixture
def open_recent(tmp_path: Path) -> Iterator[Open]:
    """Yield what opens recent images that are stored in one folder."""
    with contextlib.ExitStack() as opened:

        def open_one(is_corrected: Callable[[str], bool] = lambda sha256: False) -> RecentImages:
            recent = RecentImages(tmp_path, (UNCERTAIN, AUDIT), is_corrected)
            opened.callback(recent.close)
            recent.open()
            return recent

        yield open_one


def test_an_image_has_its_last_prediction_and_is_found_by_all_ids(
    limit: Callable[..., None],
) -> None:
    limit(MAX_IMAGES=2)
    recent = RecentImages()
    for number in range(100):
        assert add(recent, f"id {number}", b"image", UNSURE if number < 99 else SURE)
    (found,) = recent.all()
    assert found == recent_image(sha(b"image"), "id 99", SURE)
    assert recent.by_id("id 99") is recent.by_id("id 90") is recent.by_sha256(sha(b"image"))
    assert recent.data(sha(b"image")) == b"image"
    assert recent.by_id("id 0") is None  # the first of so many ids are forgotten
    assert recent.by_id("two") is recent.by_sha256("0" * 64) is recent.data("0" * 64) is None


def test_the_oldest_images_in_memory_make_room(limit: Callable[..., None]) -> None:
    limit(MAX_IMAGES=3, MAX_BYTES=100)
    recent = RecentImages()
    for name in ("a", "b", "c", "a again", "d"):
        add(recent, name, name[:1].encode())
    assert ids(recent) == ["a again", "c", "d"]
    assert recent.by_id("b") is recent.data(sha(b"b")) is None
    for number in range(50):
        add(recent, str(number), bytes([number]) * 45)
    assert not add(recent, "huge", bytes(101))
    assert ids(recent) == ["48", "49"]


def test_many_threads_may_add_and_look(limit: Callable[..., None]) -> None:
    limit(MAX_IMAGES=20)
    recent = RecentImages()

    def work(seed: int) -> None:
        for number in range(300):
            data = bytes([number * seed % 40])
            add(recent, f"{seed}-{number}", data)
            found = recent.by_sha256(sha(data))
            assert found is None or found.shown.sha256 == sha(data)
            assert len(recent.all()) <= 20

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((1.0, 0.0), 0),
        ((0.5, 0.5), 1),
        ((1 / 7,) * 7, 1),
        ((0.9, 0.1), 0.468996),  # in bits, by hand
        ((1.0,), 0),
    ],
)
def test_uncertainty_is_entropy_from_0_to_1(shares: tuple[float, ...], expected: float) -> None:
    assert uncertainty(dict(zip("abcdefg", shares, strict=False))) == pytest.approx(expected)


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
    assert Selection().reason("0" * 64, prediction, None) == expected


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

    one, other = (Selection(audit_share=0.01, class_of_interest="red") for _ in range(2))
    assert drawn(one) == drawn(one)
    assert 130 < len(drawn(one)) < 270  # 200 ± 5 standard deviations
    assert len(drawn(one) & drawn(other)) < 20
    assert not drawn(Selection(audit_share=0.0, class_of_interest="red"))
    assert repr(one.key) not in repr(one)


def test_images_to_review_are_on_disk_after_a_restart(tmp_path: Path, open_recent: Open) -> None:
    recent = open_recent()
    add(recent, "sure", b"sure")
    add(recent, "unsure", b"unsure", UNSURE)
    recent.add(recent_image(sha(b"dropped"), "dropped", SURE, AUDIT), b"dropped")
    recent.close()
    fresh = open_recent()
    assert ids(fresh) == ["dropped", "unsure"]
    found = fresh.by_id("unsure")
    assert found == recent_image(sha(b"unsure"), "unsure", UNSURE, UNCERTAIN)
    assert fresh.by_sha256(sha(b"unsure")) == found
    assert fresh.data(sha(b"unsure")) == b"unsure"
    add(fresh, "again", b"unsure", SURE)
    assert ids(fresh) == ["again", "dropped"]  # not twice
    fresh.note_corrected(sha(b"unsure"))
    assert stored(tmp_path) == ["dropped"]
    fresh.note_undone(sha(b"never seen"))
    fresh.wait()
    assert stored(tmp_path) == ["dropped"]


def test_a_corrected_image_is_not_stored_until_its_correction_is_undone(
    tmp_path: Path, open_recent: Open, limit: Callable[..., None]
) -> None:
    limit(MAX_STORED_IMAGES=1)
    corrected = {sha(b"one")}
    recent = open_recent(corrected.__contains__)
    add_unsure(recent, "waits for review", "one")
    assert stored(tmp_path) == ["waits for review"]
    assert recent.by_id("one")
    corrected.clear()
    recent.note_undone(sha(b"one"))
    recent.wait()
    assert stored(tmp_path) == ["one"]


def test_an_image_that_is_corrected_and_predicted_again_while_it_is_written_is_not_stored(
    tmp_path: Path, open_recent: Open
) -> None:
    corrected = set()

    def is_corrected(sha256: str) -> bool:
        was_corrected = sha256 in corrected
        if not was_corrected:  # it is right after the question
            corrected.add(sha256)
            recent.note_corrected(sha256)
            add(recent, "again", b"one", UNSURE)
        return was_corrected

    recent = open_recent(is_corrected)
    add_unsure(recent, "one")
    recent.wait()
    assert stored(tmp_path) == []


def test_servers_share_the_images_to_review_less_what_another_corrected(
    tmp_path: Path, open_recent: Open
) -> None:
    one, other = open_recent(), open_recent()
    add_unsure(one, "one")
    add_unsure(other, "two")
    assert ids(one) == ids(other) == ["one", "two"]
    assert ids(open_recent({sha(b"one")}.__contains__)) == ["two"]
    assert stored(tmp_path) == ["two"]


def test_the_thread_that_writes_outlives_a_store_of_corrections_that_cannot_be_read(
    tmp_path: Path, open_recent: Open, caplog: pytest.LogCaptureFixture
) -> None:
    def is_corrected(sha256: str) -> bool:
        if sha256 == sha(b"one"):
            raise FeedbackUnavailableError("no disk")
        return False

    add_unsure(open_recent(is_corrected), "one", "two")
    assert stored(tmp_path) == ["two"]
    assert "not stored for review: no disk" in caplog.text


def test_the_disk_is_bounded_and_the_oldest_make_room(
    tmp_path: Path, open_recent: Open, limit: Callable[..., None]
) -> None:
    limit(MAX_STORED_IMAGES=3, MAX_STORED_BYTES=25)
    recent = open_recent()
    for name, size, expected in (
        *((name, 5, None) for name in "abc"),
        ("d", 5, ["b", "c", "d"]),
        ("e", 15, ["c", "d", "e"]),
        ("too large", 26, ["c", "d", "e"]),
    ):
        add(recent, name, name[:1].encode() * size, UNSURE)
        recent.wait()
        assert expected is None or stored(tmp_path) == expected


def test_a_disk_that_fails_is_logged_once_and_costs_no_prediction(
    tmp_path: Path, open_recent: Open, caplog: pytest.LogCaptureFixture
) -> None:
    recent = open_recent()
    recent._database.execute("PRAGMA max_page_count = 1")  # SQLite lets it grow no further
    for number in range(3):
        assert add(recent, str(number), bytes([number]) * 50_000, UNSURE)
    recent.wait()
    assert len([record for record in caplog.records if "not stored" in record.message]) == 1
    assert recent.by_id("2")
    recent._database.execute("PRAGMA max_page_count = 1000000")
    add_unsure(recent, "later")  # there is room again
    assert stored(tmp_path) == ["later"]
    recent._database.execute("DROP TABLE recent")
    recent.note_corrected(sha(b"one"))
    assert ids(recent) == ["0", "1", "2", "later"]  # from memory
    assert "no such table" in caplog.text
    recent.close()
    assert caplog.records[-1].message == "Not stored for review: 3 images."


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_folder_that_cannot_be_used_stores_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_folder: bool
) -> None:
    if is_folder:
        (tmp_path / "folder" / DATABASE_NAME).mkdir(parents=True)
    else:
        (tmp_path / "folder").write_bytes(b"")
    recent = RecentImages(tmp_path / "folder", (UNCERTAIN,))
    recent.open()
    assert add(recent, "one", b"one", UNSURE)
    assert ids(recent) == ["one"]
    recent.close()
    assert "No image is stored for review" in caplog.text
