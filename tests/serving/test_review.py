"""The order of the review queue, and the estimate that the audit gives."""

import hashlib
import zlib
from pathlib import Path

import pytest
from correcting import open_store
from painted import COLOURS, encode, paint

from imagesieve.feedback import AUDIT, RECENT, UNCERTAIN
from imagesieve.intervals import wilson_interval
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.feedback.recent import HeldImage, HeldImages
from imagesieve.serving.feedback.review import ReviewQueue, as_json
from imagesieve.serving.feedback.selection import Selection
from imagesieve.serving.feedback.store import FeedbackStore, Remark

OFF = Selection()


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    return open_store(tmp_path / "feedback")


def judged(red: float, decision: str | None = None) -> Prediction:
    shares = {"blue": 1 - red, "red": red}
    label = max(shares, key=shares.__getitem__)
    return Prediction(label, shares[label], shares, decision or label)


def note(held: HeldImages, name: str, prediction: Prediction) -> bytes:
    data = encode(paint(COLOURS["red"], size=(20, 16), seed=zlib.crc32(name.encode())))
    sha256 = hashlib.sha256(data).hexdigest()
    held.note(name, data, sha256, prediction, "sha256:1", "colours", fallback_class="blue")
    return data


def correct(store: FeedbackStore, held: HeldImages, name: str, label: str | None) -> None:
    image = held.by_id(name)
    prediction = image.prediction
    predicted = {
        "label": prediction.label,
        "probability": prediction.probability,
        "decision": prediction.decision,
    }
    remark = Remark(predicted, image.digest, image.reason)
    store.correct(image.sha256, label, remark, held.data(image.sha256))


def test_the_most_uncertain_come_first_and_corrected_ones_leave(store: FeedbackStore) -> None:
    held = HeldImages(OFF)
    queue = ReviewQueue(held, store, OFF)
    for name, red in (("sure", 0.99), ("70", 0.7), ("51", 0.51), ("60", 0.6), ("sureish", 0.9)):
        note(held, name, judged(red))
    assert [image.ids[0] for image in queue.look(100).images] == [
        "51", "60", "70", "sureish", "sure",
    ]  # fmt: skip
    found = queue.look(2)
    assert [image.reason for image in found.images] == [UNCERTAIN] * 2
    assert (found.waiting, found.corrected, found.audit) == (3, 0, None)
    correct(store, held, "51", "red")
    correct(store, held, "60", None)
    found = queue.look(100)
    assert [image.ids[0] for image in found.images] == ["70", "sureish", "sure"]
    assert (found.waiting, found.corrected) == (1, 2)
    store.undo(held.by_id("51").sha256, Remark())
    found = queue.look(1)
    assert (found.images[0].ids[0], found.waiting, found.corrected) == ("51", 2, 1)


def test_an_entry_tells_all_that_a_reviewer_needs(store: FeedbackStore) -> None:
    held = HeldImages(OFF)
    note(held, "first", judged(0.6))
    note(held, "first", judged(0.6, "neutral"))
    (image,) = ReviewQueue(held, store, OFF).look(10).images
    value = dict(as_json(image))
    assert value.pop("created").endswith("Z")
    assert value.pop("sha256") == image.sha256
    assert value == {
        "id": "first", "label": "red", "probability": 0.6,
        "probabilities": {"blue": 0.4, "red": 0.6}, "decision": "neutral",
        "reason": "uncertain",
    }  # fmt: skip


def test_audited_images_come_second_in_an_order_by_lot(store: FeedbackStore) -> None:
    selection = Selection(audit_share=1.0)
    held = HeldImages(selection)
    note(held, "unsure", judged(0.6))
    note(held, "sure", judged(0.99))
    shares = [0.01 + number / 100 for number in range(40)]
    for number, red in enumerate(shares):  # dropped, and the less sure the later
        note(held, f"dropped {number}", judged(red))
    found = ReviewQueue(held, store, selection).look(100)
    reasons = [image.reason for image in found.images]
    assert reasons == [UNCERTAIN, *[AUDIT] * 40, RECENT]
    order = [image.prediction.probabilities["red"] for image in found.images[1:-1]]
    assert sorted(order) == pytest.approx(shares)
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert found.waiting == 41


def test_the_estimate_counts_what_was_reviewed_and_survives_a_restart(
    store: FeedbackStore, tmp_path: Path
) -> None:
    selection = Selection(audit_share=1.0, class_of_interest="red")
    held = HeldImages(selection)
    queue = ReviewQueue(held, store, selection)
    assert queue.look(1).audit.to_json() == {
        "share": 1.0, "kept": 0, "reviewed": 0, "missed": 0,
        "missed_share": None, "interval": None,
    }  # fmt: skip
    for number in range(10):
        note(held, str(number), judged(0.1))
    for number in range(4):
        correct(store, held, str(number), "red" if number == 0 else "blue")
    correct(store, held, "4", None)
    told = queue.look(1).audit.to_json()
    assert told == {
        "share": 1.0, "kept": 10, "reviewed": 5, "missed": 1,
        "missed_share": 0.2, "interval": list(wilson_interval(1, 5)),
    }  # fmt: skip
    later = ReviewQueue(HeldImages(OFF), open_store(tmp_path / "feedback"), OFF)
    estimate = later.look(1).audit
    assert (estimate.share, estimate.kept, estimate.reviewed, estimate.missed) == (0, 5, 5, 1)
    store.undo(held.by_id("0").sha256, Remark())
    assert queue.look(1).audit.to_json()["missed"] == 0


def test_of_a_thousand_images_as_many_come_as_asked_for(store: FeedbackStore) -> None:
    held = HeldImages(OFF)
    for number in range(1000):
        shares = {"blue": 0.5, "red": 0.5}
        held.note(str(number), b"", f"{number:064}", Prediction("red", 0.5, shares, "red"), "", "")
    found = ReviewQueue(held, store, OFF).look(100)
    assert len(found.images) == 100
    assert found.waiting == 1000
    assert isinstance(found.images[0], HeldImage)
