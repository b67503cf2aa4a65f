"""Recent images, in memory and on disk; which should be reviewed, in which order; the audit."""

import concurrent.futures
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from correcting import opened, recent_image

from imagesieve.feedback import AUDIT, CORRECT, RECENT, REJECT, UNCERTAIN, UNDO, FeedbackEvent
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import schemas
from imagesieve.serving.errors import FeedbackUnavailableError
from imagesieve.serving.feedback import recent as recent_module
from imagesieve.serving.feedback.recent import DATABASE_NAME, RecentImages
from imagesieve.serving.feedback.review import Corrections, Selection, uncertainty
from imagesieve.serving.feedback.store import FeedbackStore

Open = Callable[..., RecentImages]
Limit = Callable[..., None]


def predicted(red: float, decision: str | None = None) -> Prediction:
    shares = {"blue": 1 - red, "red": red}
    label = max(shares, key=shares.__getitem__)
    return Prediction(label, shares[label], shares, decision or label)


SURE, UNSURE = predicted(0.9), predicted(0.6)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def add(
    recent: RecentImages,
    name: str,
    prediction: Prediction = SURE,
    *,
    data: str = "",
    reason: str | None = None,
) -> bool:
    """Add an image whose bytes are `data`, or else the name, which is its id."""
    data = data or name
    reason = reason or (UNCERTAIN if prediction is UNSURE else RECENT)
    return recent.hold(recent_image(sha(data), name, prediction, reason), data.encode())


def add_unsure(recent: RecentImages, *names: str) -> None:
    """Add an image for each name, and wait until they are stored."""
    for name in names:
        add(recent, name, UNSURE)
    recent.wait()


def ids(images: RecentImages) -> list[str]:
    return sorted(image.shown.id for image in images.all())


def stored(folder: Path) -> list[str]:
    """Return the ids of the images on disk."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        return sorted(image_id for (image_id,) in database.execute("SELECT id FROM recent"))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
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


def test_an_image_has_its_last_prediction_and_is_found_by_all_ids(limit: Limit) -> None:
    limit(MAX_IMAGES=2)
    recent = RecentImages()
    for number in range(100):
        assert add(recent, f"id {number}", UNSURE if number < 99 else SURE, data="image")
    (found,) = recent.all()
    assert found == recent_image(sha("image"), "id 99", SURE)
    assert recent.by_id("id 99") is recent.by_id("id 90") is recent.by_sha256(sha("image"))
    assert recent.data(sha("image")) == b"image"
    assert recent.by_id("id 0") is None  # the first of so many ids are forgotten
    assert recent.by_id("two") is recent.by_sha256("0" * 64) is recent.data("0" * 64) is None


def test_an_image_that_left_the_memory_is_found_by_its_last_id(
    limit: Limit, open_recent: Open
) -> None:
    limit(MAX_IMAGES=1)
    recent = open_recent()
    for number in range(3):
        add(recent, f"id {number}", UNSURE, data="image")
        recent.wait()
    add(recent, "another")
    for number in range(3):
        found = recent.by_id(f"id {number}")
        assert found is not None
        assert found.shown.sha256 == sha("image")


def test_the_oldest_images_in_memory_make_room(limit: Limit) -> None:
    limit(MAX_IMAGES=3, MAX_BYTES=100)
    recent = RecentImages()
    for name in ("a", "b", "c", "a again", "d"):
        add(recent, name, data=name[:1])
    assert ids(recent) == ["a again", "c", "d"]
    assert recent.by_id("b") is recent.data(sha("b")) is None
    for number in range(10, 60):
        add(recent, str(number), data=f"{number}" * 22)
    assert not add(recent, "huge", data="x" * 101)
    assert ids(recent) == ["58", "59"]


def test_many_threads_may_add_and_look(limit: Limit) -> None:
    limit(MAX_IMAGES=20)
    recent = RecentImages()

    def work(seed: int) -> None:
        for number in range(100):
            data = str(number * seed % 40)
            add(recent, f"{seed}-{number}", data=data)
            found = recent.by_sha256(sha(data))
            assert found is None or found.shown.sha256 == sha(data)
            assert len(recent.all()) <= 20

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


# On disk.


def test_images_to_review_are_on_disk_after_a_restart(tmp_path: Path, open_recent: Open) -> None:
    recent = open_recent()
    add(recent, "sure")
    add(recent, "unsure", UNSURE)
    add(recent, "dropped", reason=AUDIT)
    recent.close()
    fresh = open_recent()
    assert ids(fresh) == ["dropped", "unsure"]
    found = fresh.by_id("unsure")
    assert found == recent_image(sha("unsure"), "unsure", UNSURE, UNCERTAIN)
    assert fresh.by_sha256(sha("unsure")) == found
    assert fresh.data(sha("unsure")) == b"unsure"
    add(fresh, "again", data="unsure")
    assert ids(fresh) == ["again", "dropped"]  # not twice
    fresh.note_corrected(sha("unsure"))
    fresh.note_undone(sha("never seen"))
    fresh.wait()
    assert stored(tmp_path) == ["dropped"]


def test_a_corrected_image_is_not_stored_until_its_correction_is_undone(
    tmp_path: Path, open_recent: Open, limit: Limit
) -> None:
    limit(MAX_STORED_IMAGES=1)
    corrected = {sha("one")}
    recent = open_recent(corrected.__contains__)
    add_unsure(recent, "waits for review", "one")
    assert stored(tmp_path) == ["waits for review"]
    assert recent.by_id("one")
    corrected.clear()
    recent.note_undone(sha("one"))
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
            add(recent, "again", UNSURE, data="one")
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
    assert ids(open_recent({sha("one")}.__contains__)) == ["two"]
    assert stored(tmp_path) == ["two"]


def test_the_thread_that_writes_outlives_a_store_of_corrections_that_cannot_be_read(
    tmp_path: Path, open_recent: Open, caplog: pytest.LogCaptureFixture
) -> None:
    def is_corrected(sha256: str) -> bool:
        if sha256 == sha("one"):
            raise FeedbackUnavailableError("no disk")
        return False

    add_unsure(open_recent(is_corrected), "one", "two")
    assert stored(tmp_path) == ["two"]
    assert "not stored for review: no disk" in caplog.text


def test_the_disk_is_bounded_and_the_oldest_make_room(
    tmp_path: Path, open_recent: Open, limit: Limit
) -> None:
    limit(MAX_STORED_IMAGES=3, MAX_STORED_BYTES=25)
    recent = open_recent()
    for name, size in (*((name, 5) for name in "abcd"), ("e", 15), ("too large", 26)):
        add(recent, name, UNSURE, data=name[:1] * size)
        recent.wait()
    assert stored(tmp_path) == ["c", "d", "e"]


def test_a_disk_that_fails_is_logged_once_and_costs_no_prediction(
    tmp_path: Path, open_recent: Open, caplog: pytest.LogCaptureFixture
) -> None:
    recent = open_recent()
    recent._database.execute("PRAGMA max_page_count = 1")  # SQLite lets it grow no further
    for name in "012":
        assert add(recent, name, UNSURE, data=name * 50_000)
    recent.wait()
    assert caplog.text.count("not stored") == 1
    assert recent.by_id("2")
    recent._database.execute("PRAGMA max_page_count = 1000000")
    add_unsure(recent, "later")  # there is room again
    assert stored(tmp_path) == ["later"]
    recent._database.execute("DROP TABLE recent")
    recent.note_corrected(sha("one"))
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
    assert add(recent, "one", UNSURE)
    assert ids(recent) == ["one"]
    recent.close()
    assert "No image is stored for review" in caplog.text


# Why an image should be reviewed.


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
    ("prediction", "expected"),
    [
        (predicted(0.75), RECENT),
        (predicted(0.74), UNCERTAIN),
        (predicted(0.9, "neutral"), UNCERTAIN),
        (Prediction("only", 1.0, {"only": 1.0}, "only"), RECENT),
    ],
    ids=["far ahead", "close second", "another decision", "one class"],
)
def test_a_close_second_or_another_decision_is_uncertain(
    prediction: Prediction, expected: str
) -> None:
    assert Selection().reason("0" * 64, prediction, None) == expected


@pytest.mark.parametrize(
    ("interest", "fallback", "decision", "dropped"),
    [
        (None, None, "red", False),
        (None, "neutral", "red", False),
        (None, "neutral", "neutral", True),
        ("red", None, "red", False),
        ("red", None, "blue", True),
        ("red", "neutral", "neutral", True),
    ],
)
def test_what_is_dropped(
    interest: str | None, fallback: str | None, decision: str, dropped: bool
) -> None:
    selection = Selection(class_of_interest=interest, audit_share=1)
    assert selection.is_dropped(predicted(0.9, decision), fallback) == dropped
    reason = selection.reason("0" * 64, predicted(0.9, decision), fallback)
    assert (reason == AUDIT) == dropped


def test_the_draw_is_fair_the_same_in_one_run_and_another_in_the_next() -> None:
    images = [sha(str(number)) for number in range(20_000)]

    def drawn(selection: Selection) -> set[str]:
        dropped = predicted(0.1)
        return {sha for sha in images if selection.reason(sha, dropped, None) == AUDIT}

    one, other = (Selection(audit_share=0.01, class_of_interest="red") for _ in range(2))
    assert drawn(one) == drawn(one)
    assert 130 < len(drawn(one)) < 270  # 200 ± 5 standard deviations
    assert len(drawn(one) & drawn(other)) < 20
    assert not drawn(Selection(audit_share=0.0, class_of_interest="red"))
    assert repr(one.key) not in repr(one)


# The review queue, and the estimate that the audit gives.


@pytest.fixture
def store(folder: Path) -> Iterator[FeedbackStore]:
    with opened(folder) as store:
        yield store


def look(
    recent: RecentImages,
    store: FeedbackStore,
    selection: Selection = Selection(),  # noqa: B008 (frozen)
    limit: int = 100,
) -> schemas.Review:
    corrections = Corrections(Path(), selection=selection)
    corrections.recent, corrections.store = recent, store
    return corrections.review(["blue", "red"], limit)


def look_for_ids(recent: RecentImages, store: FeedbackStore) -> list[str]:
    return [image.id for image in look(recent, store).images]


def test_the_most_uncertain_come_first_and_corrected_ones_leave(store: FeedbackStore) -> None:
    recent = RecentImages()
    for name, red in (("sure", 0.99), ("70", 0.7), ("51", 0.51), ("60", 0.6), ("sureish", 0.9)):
        add(recent, name, predicted(red), reason=UNCERTAIN if red <= 0.7 else RECENT)
    assert look_for_ids(recent, store) == ["51", "60", "70", "sureish", "sure"]
    found = look(recent, store, limit=2)
    assert (len(found.images), found.waiting, found.corrected, found.audit) == (2, 3, 0, None)
    store.record(FeedbackEvent(CORRECT, sha("51"), "red"), b"a JPEG")
    store.record(FeedbackEvent(REJECT, sha("60")), b"a JPEG")
    found = look(recent, store)
    assert (found.images[0].id, found.waiting, found.corrected) == ("70", 1, 2)
    store.record(FeedbackEvent(UNDO, sha("51")))
    assert look_for_ids(recent, store) == ["51", "70", "sureish", "sure"]


def test_audited_images_come_second_in_an_order_by_lot(store: FeedbackStore) -> None:
    selection = Selection(audit_share=1.0)
    recent = RecentImages()
    add(recent, "unsure", UNSURE)
    add(recent, "sure")
    shares = [0.01 + number / 100 for number in range(40)]
    for number, red in enumerate(shares):  # dropped, and the less sure the later
        add(recent, f"dropped {number}", predicted(red), reason=AUDIT)
    found = look(recent, store, selection)
    reasons = [image.reason for image in found.images]
    assert reasons == [UNCERTAIN, *[AUDIT] * 40, RECENT]
    order = [image.probabilities["red"] for image in found.images[1:-1]]
    assert sorted(order) == pytest.approx(shares)
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert found.waiting == 41


@pytest.mark.parametrize(("interest", "missed"), [(None, 1), ("green", 1), ("blue", 0), ("red", 1)])
def test_what_the_filter_missed_is_counted_by_the_class_of_interest(
    store: FeedbackStore, interest: str | None, missed: int
) -> None:
    selection = Selection(audit_share=1.0, class_of_interest=interest)
    for number, (label, decision) in enumerate(
        (("red", "blue"), ("green", "green"), (None, "blue"), ("red", None))
    ):
        predicted = {"label": "blue", "decision": decision} if decision else None
        action, sha256 = CORRECT if label else REJECT, f"{number:064}"
        event = FeedbackEvent(action, sha256, label, predicted=predicted, reason=AUDIT)
        store.record(event, b"a JPEG")
    # A rejected image was dropped rightly; one without a prediction says nothing of the filter.
    estimate = look(RecentImages(), store, selection).audit
    assert (estimate.reviewed, estimate.missed) == (3, missed)
    store.record(FeedbackEvent(UNDO, f"{0:064}"))
    assert look(RecentImages(), store, selection).audit.reviewed == 2
