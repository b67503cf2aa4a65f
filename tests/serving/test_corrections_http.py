"""Corrections and reviews over HTTP, with a real model behind the real application."""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import models_of
from attacking import wait_until
from correcting import check, read_lines
from flask.testing import FlaskClient
from guarding import assert_refused
from hostile import ACCEPTED, RED_JPEG
from painted import COLOURS, encode, paint
from PIL import Image

from imagesieve import console
from imagesieve.errors import UsageError
from imagesieve.feedback import DATABASE_NAME
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.access import Access, read_keys
from imagesieve.serving.app import Service, create_app
from imagesieve.serving.config import add_options, corrections_from_options
from imagesieve.serving.feedback import review
from imagesieve.serving.feedback.recent import DATABASE_NAME as RECENT_DATABASE
from imagesieve.serving.limits import Admission, TokenBuckets

RED_KEY = hashlib.sha256(RED_JPEG).hexdigest()
MURKY = encode(paint((110, 120, 100)))  # the model hardly prefers green
MURKY_KEY = hashlib.sha256(MURKY).hexdigest()
POLICY = DecisionPolicy(CONFIDENT, 0.6, "neutral")
KEYS = "ann feedback,predict 0123456789abcdef;boss admin,predict,feedback fedcba9876543210"
ANN, BOSS = {"X-API-Key": "0123456789abcdef"}, {"X-API-Key": "fedcba9876543210"}

Serve = Callable[..., FlaskClient]


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path, policy=POLICY)


def parse(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("", "")
    add_options(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def serve(predictor: Predictor, folder: Path) -> Iterator[Serve]:
    """Return a function that starts a service with options, as a restart does with the last one."""
    with contextlib.ExitStack() as running:

        def start(
            *options: str, keys: str = "", served: Predictor = predictor, **parts: Any
        ) -> FlaskClient:
            running.close()
            corrections = corrections_from_options(parse("--feedback", str(folder), *options))
            corrections.check(served.classes, served.policy)
            corrections.open()
            running.callback(corrections.close)
            parts["access"] = Access(read_keys(None, {"CLASSIFIER_KEYS": keys}))
            service = Service(models_of(served), corrections=corrections, **parts)
            return create_app(service).test_client()

        yield start


@pytest.fixture
def client(serve: Serve) -> FlaskClient:
    return serve()


def predict(client: FlaskClient, data: bytes, **options: Any) -> dict[str, Any]:
    response = client.post("/v1/predict", data=data, content_type="image/jpeg", **options)
    assert response.status_code == 200, response.text
    return response.get_json()


def correct(client: FlaskClient, **fields: Any) -> Any:
    return client.post("/v1/feedback", json=fields)


def send(client: FlaskClient, data: bytes = RED_JPEG, **fields: Any) -> Any:
    form = {"image": (io.BytesIO(data), "../x.php"), **fields}
    return client.post("/v1/feedback", data=form)


def undo(client: FlaskClient, key: str = RED_KEY) -> Any:
    return client.delete(f"/v1/feedback/{key}")


def test_a_prediction_is_corrected_by_its_id(client: FlaskClient, folder: Path) -> None:
    answer = predict(client, RED_JPEG)
    assert answer["held"] is True
    stored = f"blue/{RED_KEY}.jpg"
    new = correct(client, id=answer["id"], label="blue", note="a\nb", reviewer="Ann Ü")
    assert new.status_code == 201
    assert new.get_json() == {
        "sha256": RED_KEY, "label": "blue", "rejected": False, "previous": None, "stored": stored,
    }  # fmt: skip
    again = correct(client, id=answer["id"], label="blue")
    assert (again.status_code, again.get_json()["previous"]) == (200, "blue")
    changed = correct(client, sha256=RED_KEY.upper(), label="green")
    assert (changed.status_code, changed.get_json()["previous"]) == (200, "blue")
    first, second = read_lines(folder)
    assert first.pop("time").endswith("Z")
    assert first == {
        "action": "correct", "sha256": RED_KEY, "label": "blue", "stored": stored,
        "predicted": {
            "label": "red", "decision": "red",
            "probability": pytest.approx(answer["probability"], abs=1e-6),
        },
        "model": answer["model"]["digest"], "reason": "recent", "reviewer": "Ann Ü",
        "caller": None, "note": "a\nb",
    }  # fmt: skip
    assert (second["label"], second["note"]) == ("green", None)
    assert check(folder) == {RED_KEY: "green"}


def test_an_image_can_come_along(client: FlaskClient, folder: Path) -> None:
    done = send(client, label="red", reviewer="Ann", note="<img src=x onerror=alert(1)>")
    assert (done.status_code, done.get_json()["sha256"]) == (201, RED_KEY)
    (line,) = read_lines(folder)
    assert (line["reason"], line["predicted"]) == ("sent", None)
    assert send(client, label="red", sha256=RED_KEY).status_code == 200
    answer = predict(client, MURKY)
    assert send(client, MURKY, label="blue", id=answer["id"]).status_code == 201
    assert read_lines(folder)[1]["predicted"]["decision"] == "neutral"
    for wrong in ({"sha256": "0" * 64}, {"id": answer["id"]}):
        assert_refused(send(client, label="red", **wrong), 400, "bad-parameter", "another one")
    assert send(client, label="green", id="gone").get_json()["previous"] == "red"
    assert check(folder) == {RED_KEY: "green", MURKY_KEY: "blue"}


def test_reject_and_undo(client: FlaskClient, folder: Path) -> None:
    nothing = {
        "sha256": RED_KEY, "label": None, "rejected": False, "previous": "blue", "stored": None,
    }  # fmt: skip
    answer = predict(client, RED_JPEG)
    correct(client, id=answer["id"], label="blue")
    rejected = correct(client, id=answer["id"], reject=True)
    assert rejected.get_json() == nothing | {"rejected": True}
    assert not list(folder.glob("*/*.jpg"))
    undone = undo(client)
    assert (undone.status_code, undone.get_json()["label"]) == (200, "blue")
    assert undo(client).get_json() == nothing
    assert_refused(undo(client), 404, "unknown-picture")
    for _ in range(2):  # said again, it is not counted
        assert send(client, MURKY, reject="true").get_json()["rejected"] is True
    assert check(folder) == {MURKY_KEY: None}
    figures = client.get("/metrics").text
    for action, count in (("correct", 1), ("reject", 2), ("undo", 2)):
        assert f'classifier_corrections_total{{action="{action}"}} {count}.0' in figures


@pytest.mark.parametrize(
    "label",
    ["../x", ".hidden", "CON", "a\0b", "", "RED", "red ", "x" * 5000, "neutral", "<b>", "..",
     "red/../blue", "红"],
)  # fmt: skip
def test_an_unknown_label_is_refused_with_the_classes(
    client: FlaskClient, folder: Path, label: str
) -> None:
    assert_refused(
        correct(client, sha256=RED_KEY, label=label), 400, "unknown-label", "blue, green, red"
    )
    assert_refused(send(client, label=label), 400, "unknown-label")
    assert not folder.exists()


def test_a_class_that_cannot_name_a_folder_is_refused(
    predictor: Predictor, serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = dataclasses.replace(predictor.version.manifest, classes=("../up", ".hidden", "red"))
    version = dataclasses.replace(predictor.version, manifest=manifest)
    client = serve(served=Predictor(version, predictor.engine))
    assert "'../up'" in caplog.text
    for label in ("../up", ".hidden"):
        assert_refused(send(client, label=label), 400, "unknown-label", "rename")
    assert send(client, label="red").status_code == 201
    assert {path.name for path in folder.parent.iterdir()} == {"feedback"}


NAMED = {"sha256": RED_KEY, "label": "red"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either label or reject"),
        ({"label": "red"}, "which image"),
        ({**NAMED, "id": "a"}, "which image"),
        ({"sha256": RED_KEY}, "either label or reject"),
        ({**NAMED, "reject": True}, "either label or reject"),
        ({"sha256": RED_KEY, "reject": False}, "either label or reject"),
        ({"sha256": RED_KEY, "reject": "true"}, "bool"),
        ({"sha256": RED_KEY, "label": None}, "label"),
        ({"sha256": "../../etc/passwd", "label": "red"}, "64"),
        ({"sha256": "ß" * 64, "label": "red"}, "64"),
        ({"id": "", "label": "red"}, "id"),
        ({"id": "x" * 101, "label": "red"}, "id"),
        ({**NAMED, "note": "x" * 501}, "500"),
        ({**NAMED, "note": "bell \a"}, "printed"),
        ({**NAMED, "reviewer": "Ann\nBen"}, "printed"),
        ({**NAMED, "lable": "x"}, "lable"),
        ({**NAMED, "image": "AAAA"}, "image"),
    ],
)
def test_a_wrong_field_is_refused(client: FlaskClient, fields: dict[str, Any], words: str) -> None:
    assert_refused(correct(client, **fields), 400, "bad-parameter", words)


def test_a_wrong_field_of_a_form_is_refused(client: FlaskClient) -> None:
    for wrong in (
        {"extra": "x"}, {"reject": "yes"}, {"label": ["red", "blue"]}, {"note": "x" * 400_000},
        {"file": (io.BytesIO(RED_JPEG), "x.jpg")},
    ):  # fmt: skip
        assert_refused(send(client, **{"label": "red", **wrong}), 400, "bad-parameter")


def test_what_is_no_image_is_refused(client: FlaskClient) -> None:
    two = {"image": [(io.BytesIO(RED_JPEG), "a"), (io.BytesIO(MURKY), "b")], "label": "red"}
    assert_refused(client.post("/v1/feedback", data=two), 400, "several-images")
    assert_refused(send(client, b"", label="red"), 400, "empty-image")
    assert_refused(send(client, b"<script>", label="red"), 415, "unsupported-image-format")
    assert_refused(send(client, b"<script>", reject="true"), 415, "unsupported-image-format")
    assert_refused(send(client, RED_JPEG[:200], label="red"), 422, "truncated-image")
    form = client.post("/v1/feedback", data={"label": "red"})
    assert_refused(form, 415, "unsupported-media-type")


def test_unknown_images_and_options(client: FlaskClient) -> None:
    for named in ({"id": "nobody", "label": "red"}, NAMED, {"sha256": RED_KEY, "reject": True}):
        assert_refused(correct(client, **named), 404, "unknown-picture")
    for path in (RED_KEY, "abc", "..%2f..%2fetc", "0" * 63 + "G"):
        slug = "unknown-picture" if len(path) == 64 else "not-found"
        assert_refused(undo(client, path), 404, slug)
        assert client.get(f"/v1/review/{path}/image").status_code == 404
    assert_refused(client.post("/v1/feedback?label=red", json={}), 400, "bad-parameter")


def test_a_flood_of_changes_is_slowed_down_and_what_changes_nothing_is_not(
    client: FlaskClient, folder: Path
) -> None:
    answer = predict(client, RED_JPEG)
    codes = {correct(client, id=answer["id"], label="blue").status_code for _ in range(150)}
    assert codes == {200, 201}
    assert len(read_lines(folder)) == 1
    responses = [
        correct(client, sha256=RED_KEY, label=("red", "blue")[number % 2]) for number in range(150)
    ]
    refused = [response for response in responses if response.status_code == 429]
    assert 0 < len(refused) <= 31
    assert_refused(refused[0], 429, "rate-limited")
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert_refused(undo(client), 429, "rate-limited")
    check(folder)


def test_each_caller_has_a_rate_limit_of_its_own(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "TokenBuckets", lambda *_: TokenBuckets(rate=0.001, burst=1))
    client = serve(keys=KEYS)
    predict(client, RED_JPEG, headers=ANN)
    for headers, label in ((ANN, "red"), (BOSS, "blue")):
        body = {"sha256": RED_KEY, "label": label}
        assert client.post("/v1/feedback", json=body, headers=headers).status_code in (200, 201)
        body["label"] = "green"
        late = client.post("/v1/feedback", json=body, headers=headers)
        assert_refused(late, 429, "rate-limited")
    assert [line["caller"] for line in read_lines(folder)] == ["ann", "boss"]


@pytest.mark.parametrize(
    "ask",
    [
        undo,
        lambda client: send(client, label="blue"),
        lambda client: client.get(f"/v1/review/{RED_KEY}/image"),
    ],
    ids=["undo", "correction", "image to review"],
)
def test_what_may_decode_takes_one_of_the_places(
    serve: Serve, folder: Path, ask: Callable[[FlaskClient], Any]
) -> None:
    admission = Admission()
    client = serve(admission=admission)
    send(client, label="red")
    with contextlib.ExitStack() as taken:
        for _ in range(admission.limits.max_in_flight):
            taken.enter_context(admission.place())
        assert_refused(ask(client), 503, "overloaded")
        assert check(folder) == {RED_KEY: "red"}
    assert ask(client).status_code == 200


def test_the_review_queue_begins_with_uncertain_images_and_leaves_out_corrected_ones(
    client: FlaskClient,
) -> None:
    sure, murky = predict(client, RED_JPEG), predict(client, MURKY)
    queue = client.get("/v1/review").get_json()
    assert [image["id"] for image in queue["images"]] == [murky["id"], sure["id"]]
    first = queue.pop("images")[0]
    assert first.pop("created").endswith("Z")
    assert sum(first.pop("probabilities").values()) == pytest.approx(1)
    assert first == {
        "sha256": MURKY_KEY, "id": murky["id"], "label": "green", "decision": "neutral",
        "probability": pytest.approx(murky["probability"], abs=1e-6), "reason": "uncertain",
    }  # fmt: skip
    assert queue == {"waiting": 1, "corrected": 0, "audit": None, "classes": list(COLOURS)}
    correct(client, sha256=MURKY_KEY, label="green")
    queue = client.get("/v1/review?limit=1").get_json()
    assert [image["sha256"] for image in queue["images"]] == [RED_KEY]
    assert (queue["waiting"], queue["corrected"]) == (0, 1)


def test_an_image_to_review_is_encoded_anew(serve: Serve, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    large = encode(paint(COLOURS["red"]).resize((2000, 1000)), exif=exif)
    client = serve()
    for data in (ACCEPTED["JPEG and PHP behind it"], large):
        key = predict(client, data)["image"]["sha256"]
        response = client.get(f"/v1/review/{key}/image")
        assert (response.status_code, response.mimetype) == (200, "image/jpeg")
        assert response.headers["Content-Disposition"] == "inline"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert b"php" not in response.data
        assert b"secret" not in response.data
        assert max(Image.open(io.BytesIO(response.data)).size) <= 1024
    send(client, MURKY, label="red")
    client = serve()  # has no recent images
    stored = client.get(f"/v1/review/{MURKY_KEY}/image")
    assert stored.data == (folder / "red" / f"{MURKY_KEY}.jpg").read_bytes()
    start = MURKY_KEY[:16]
    for other in (key, start + "0" * 48, start, MURKY_KEY + "0", MURKY_KEY.upper()):
        slug = "unknown-picture" if len(other) == 64 else "not-found"
        assert_refused(client.get(f"/v1/review/{other}/image"), 404, slug)


def test_export_has_the_history_even_while_another_process_writes(
    serve: Serve, folder: Path
) -> None:
    client = serve(keys="boss admin,feedback fedcba9876543210")
    client.environ_base["HTTP_X_API_KEY"] = BOSS["X-API-Key"]
    with client.get("/v1/feedback/export") as empty:
        assert (empty.status_code, empty.data) == (200, b"")
    for label in ("red", "blue", "red"):
        assert send(client, label=label, note="x\ny </script>").status_code < 300
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        with client.get("/v1/feedback/export") as response:
            assert response.mimetype == "application/x-ndjson"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert list(map(json.loads, response.data.splitlines())) == read_lines(folder)
        other.rollback()
    assert len(read_lines(folder)) == 3
    assert_refused(client.get("/v1/feedback/export?x=1"), 400, "bad-parameter")


def test_a_disk_that_fails_costs_corrections_and_nothing_else(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / DATABASE_NAME).mkdir(parents=True)
    client = serve("--keep", "all")
    assert "runs without corrections" in caplog.text
    answer = predict(client, MURKY)
    assert answer["held"] is True
    for _ in range(3):
        refused = correct(client, id=answer["id"], label="red")
        assert_refused(refused, 503, "feedback-unavailable")
    assert refused.headers["Retry-After"]
    assert str(folder) not in refused.text
    assert caplog.text.count("cannot be stored") == 1
    assert f"{folder} cannot be stored" in caplog.text
    assert_refused(client.get("/v1/review"), 503, "feedback-unavailable", "cannot read")
    (folder / DATABASE_NAME).rmdir()
    assert client.get("/v1/review").get_json()["waiting"] == 1
    assert client.get(f"/v1/review/{MURKY_KEY}/image").status_code == 200
    assert correct(client, id=answer["id"], label="red").status_code == 201


def test_a_full_store_refuses_more_images(serve: Serve, folder: Path) -> None:
    client = serve("--feedback-limit", "1")
    noisy = paint(COLOURS["red"], size=(1000, 700))
    images = [encode(noisy, quality=quality) for quality in (90, 91, 92)]
    codes = [send(client, data, label="red").status_code for data in images]
    assert codes == [201, 201, 507]
    assert_refused(send(client, images[2], label="red"), 507, "feedback-full")
    assert len(check(folder)) == 2


def waiting_on_disk(folder: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(folder / RECENT_DATABASE)) as database:
        return {sha256 for (sha256,) in database.execute("SELECT sha256 FROM recent")}


def test_images_on_disk_are_reviewed_after_a_restart(serve: Serve, folder: Path) -> None:
    client = serve("--keep", "uncertain")
    other = encode(paint((100, 120, 110), seed=3))
    for data in (MURKY, RED_JPEG):
        predict(client, data)
    send(client, other, label="green")
    predict(client, other)  # once more: it stays corrected
    client = serve("--keep", "uncertain")
    assert waiting_on_disk(folder) == {MURKY_KEY}
    queue = client.get("/v1/review").get_json()
    assert [image["sha256"] for image in queue["images"]] == [MURKY_KEY]
    assert (queue["waiting"], queue["corrected"]) == (1, 1)
    assert client.get(f"/v1/review/{MURKY_KEY}/image").status_code == 200
    assert correct(client, id=queue["images"][0]["id"], label="green").status_code == 201
    assert waiting_on_disk(folder) == set()


def test_an_image_whose_correction_was_undone_is_reviewed_after_a_restart(
    serve: Serve, folder: Path
) -> None:
    client = serve("--keep", "uncertain")
    answer = predict(client, MURKY)
    wait_until(lambda: waiting_on_disk(folder) == {MURKY_KEY})
    correct(client, id=answer["id"], label="green")
    assert waiting_on_disk(folder) == set()
    undo(client, MURKY_KEY)
    queue = serve("--keep", "uncertain").get("/v1/review").get_json()
    assert [image["sha256"] for image in queue["images"]] == [MURKY_KEY]


def test_the_audit_estimates_what_the_filter_misses(serve: Serve, folder: Path) -> None:
    client = serve("--audit-share", "1", "--class-of-interest", "red")
    dropped = [encode(paint(COLOURS["blue"], seed=seed)) for seed in range(4)]
    for data in (RED_JPEG, *dropped):
        predict(client, data)
    queue = client.get("/v1/review").get_json()
    reasons = [image["reason"] for image in queue["images"]]
    assert reasons == ["audit"] * 4 + ["recent"]
    assert queue["audit"] == {
        "share": 1.0, "kept": 4, "reviewed": 0, "missed": 0, "missed_share": None, "interval": None,
    }  # fmt: skip
    for number, label in enumerate(("red", "blue", "blue")):
        correct(client, sha256=queue["images"][number]["sha256"], label=label)
    assert client.get("/v1/review").get_json()["audit"] == {
        "share": 1.0, "kept": 4, "reviewed": 3, "missed": 1,
        "missed_share": pytest.approx(1 / 3), "interval": pytest.approx([0.0615, 0.7923], abs=1e-3),
    }  # fmt: skip
    client = serve()
    assert len(waiting_on_disk(folder)) == 1  # on disk, as an audit takes time
    assert client.get("/v1/review").get_json()["audit"]["reviewed"] == 3


@pytest.mark.parametrize(
    "options", [(), ("--keep", "none", "--audit-share", "1", "--class-of-interest", "red")]
)
def test_nothing_is_written_unless_asked_for(
    serve: Serve, folder: Path, options: tuple[str, ...]
) -> None:
    client = serve(*options)
    predict(client, MURKY)
    assert client.get("/v1/review").get_json()["waiting"] == 1
    serve()
    assert not folder.exists()


@pytest.mark.parametrize(
    "options",
    ["--audit-share=2", "--audit-share=nan", "--audit-share=-0.1", "--feedback-limit=0",
     "--feedback-limit=1.5", "--keep=some", "--no-feedback --keep all",
     "--no-feedback --feedback x", "--no-feedback --audit-share 0"],
)  # fmt: skip
def test_a_wrong_option_is_a_usage_error(options: str) -> None:
    with pytest.raises(UsageError, match=options.split()[-2:][0].partition("=")[0]):
        corrections_from_options(parse(*options.split()))


def test_options_must_suit_the_model(
    serve: Serve, version_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert corrections_from_options(parse("--no-feedback")) is None
    with pytest.raises(UsageError, match="blue, green, red"):
        serve("--class-of-interest", "menu")
    serve("--audit-share", "0.5", served=Predictor.load(version_path))  # drops nothing
    assert "--class-of-interest" in caplog.text
