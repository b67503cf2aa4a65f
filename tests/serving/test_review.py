"""The order of the review queue, and the estimate that the audit gives."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from correcting import opened, recent_image

from imagesieve.feedback import AUDIT, CORRECT, RECENT, REJECT, UNCERTAIN, UNDO, FeedbackEvent
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import schemas
from imagesieve.serving.feedback.recent import RecentImages
from imagesieve.serving.feedback.review import Selection, review
from imagesieve.serving.feedback.store import FeedbackStore

OFF = Selection()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with opened(tmp_path / "feedback") as store:
        yield store


def predicted(red: float, decision: str | None = None) -> Prediction:
    shares = {"blue": 1 - red, "red": red}
    label = max(shares, key=shares.__getitem__)
    return Prediction(label, shares[label], shares, decision or label)


def add(
    recent: RecentImages, name: str, prediction: Prediction, selection: Selection = OFF
) -> None:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    reason = selection.reason(sha256, prediction, "blue")
    recent.add(recent_image(sha256, name, prediction, reason), b"an image")


def look(
    recent: RecentImages, store: FeedbackStore, selection: Selection = OFF, limit: int = 100
) -> schemas.Review:
    return review(recent, store, selection, ["blue", "red"], limit)


def correct(store: FeedbackStore, recent: RecentImages, name: str, label: str | None) -> None:
    image = recent.by_id(name)
    event = FeedbackEvent(
        CORRECT if label else REJECT,
        image.shown.sha256,
        label,
        predicted={"label": image.shown.label, "decision": image.shown.decision},
        reason=image.shown.reason,
    )
    store.record(event, b"a JPEG")


def undo(store: FeedbackStore, recent: RecentImages, name: str) -> None:
    store.record(FeedbackEvent(UNDO, recent.by_id(name).shown.sha256))


def test_the_most_uncertain_come_first_and_corrected_ones_leave(store: FeedbackStore) -> None:
    recent = RecentImages()
    for name, red in (("sure", 0.99), ("70", 0.7), ("51", 0.51), ("60", 0.6), ("sureish", 0.9)):
        add(recent, name, predicted(red))
    assert [image.id for image in look(recent, store).images] == [
        "51", "60", "70", "sureish", "sure",
    ]  # fmt: skip
    found = look(recent, store, OFF, 2)
    assert [image.reason for image in found.images] == [UNCERTAIN] * 2
    assert (found.waiting, found.corrected, found.audit) == (3, 0, None)
    correct(store, recent, "51", "red")
    correct(store, recent, "60", None)
    found = look(recent, store)
    assert [image.id for image in found.images] == ["70", "sureish", "sure"]
    assert (found.waiting, found.corrected) == (1, 2)
    undo(store, recent, "51")
    found = look(recent, store, OFF, 1)
    assert (found.images[0].id, found.waiting, found.corrected) == ("51", 2, 1)


def test_audited_images_come_second_in_an_order_by_lot(store: FeedbackStore) -> None:
    selection = Selection(audit_share=1.0)
    recent = RecentImages()
    add(recent, "unsure", predicted(0.6), selection)
    add(recent, "sure", predicted(0.99), selection)
    shares = [0.01 + number / 100 for number in range(40)]
    for number, red in enumerate(shares):  # dropped, and the less sure the later
        add(recent, f"dropped {number}", predicted(red), selection)
    found = look(recent, store, selection, 100)
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
        event = FeedbackEvent(
            CORRECT if label else REJECT,
            f"{number:064}",
            label,
            predicted={"label": "blue", "decision": decision} if decision else None,
            reason=AUDIT,
        )
        store.record(event, b"a JPEG")
    # A rejected image was dropped rightly; one without a prediction says nothing of the filter.
    estimate = look(RecentImages(), store, selection).audit
    assert (estimate.reviewed, estimate.missed) == (3, missed)
    store.record(FeedbackEvent(UNDO, f"{0:064}"))
    assert look(RecentImages(), store, selection).audit.reviewed == 2
