"""Corrections and reviews over HTTP, with a real model behind the real application."""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import models_of
from correcting import check, read_lines
from flask.testing import FlaskClient
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
from imagesieve.serving.feedback.recent import DATABASE_NAME as RECENT_DATABASE
from imagesieve.serving.limits import Admission, TokenBuckets
from imagesieve.serving.routes.feedback import Corrections

RED_KEY = hashlib.sha256(RED_JPEG).hexdigest()
MURKY = encode(paint((110, 120, 100)))  # the model hardly prefers green
MURKY_KEY = hashlib.sha256(MURKY).hexdigest()
POLICY = DecisionPolicy(CONFIDENT, 0.6, "neutral")
KEYS = "ann feedback,predict 0123456789abcdef;boss admin,predict fedcba9876543210"
ANN, BOSS = {"X-API-Key": "0123456789abcdef"}, {"X-API-Key": "fedcba9876543210"}

_OPENED: list[Corrections] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close what a test opened, before its folder is removed."""
    yield
    while _OPENED:
        _OPENED.pop().close()


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path, policy=POLICY)


def parse(*arguments: str) -> argparse.Namespace:
    parser = console.argument_parser("", "")
    add_options(parser)
    return parser.parse_args(arguments)


def make_corrections(predictor: Predictor, folder: Path, *options: str) -> Corrections:
    corrections = corrections_from_options(parse("--feedback", str(folder), *options))
    corrections.check(predictor.classes, predictor.policy)
    corrections.open()
    _OPENED.append(corrections)
    return corrections


def client_of(
    predictor: Predictor, corrections: Corrections, keys: str = "", **more: Any
) -> FlaskClient:
    access = Access(read_keys(None, {"CLASSIFIER_KEYS": keys}))
    service = Service(models_of(predictor), access=access, corrections=corrections, **more)
    return create_app(service).test_client()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder in memory where there is one: these tests wait for the disk all the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path) / "feedback"


@pytest.fixture
def client(predictor: Predictor, folder: Path) -> FlaskClient:
    return client_of(predictor, make_corrections(predictor, folder))


def predict(client: FlaskClient, data: bytes, **options: Any) -> dict[str, Any]:
    response = client.post("/v1/predict", data=data, content_type="image/jpeg", **options)
    assert response.status_code == 200, response.text
    return response.get_json()


def correct(client: FlaskClient, **fields: Any) -> Any:
    return client.post("/v1/feedback", json=fields)


def send(client: FlaskClient, data: bytes = RED_JPEG, **fields: str) -> Any:
    form = {"image": (io.BytesIO(data), "../x.php"), **fields}
    return client.post("/v1/feedback", data=form)


def assert_problem(response: Any, status: int, slug: str, words: str = "") -> None:
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    value = response.get_json(force=True)
    assert value["type"] == f"/problems/{slug}"
    assert words in value["detail"]


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
    assert {name: first[name] for name in ("predicted", "model", "reason", "reviewer", "note")} == {
        "predicted": {
            "label": "red", "decision": "red",
            "probability": pytest.approx(answer["probability"], abs=1e-6),
        },
        "model": answer["model"]["digest"], "reason": "recent", "reviewer": "Ann Ü",
        "note": "a\nb",
    }  # fmt: skip
    assert (second["caller"], second["note"], second["label"]) == (None, None, "green")
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
        assert_problem(send(client, label="red", **wrong), 400, "bad-parameter", "another one")
    assert send(client, label="green", id="gone").get_json()["previous"] == "red"
    assert check(folder) == {RED_KEY: "green", MURKY_KEY: "blue"}


def test_reject_and_undo(client: FlaskClient, folder: Path) -> None:
    answer = predict(client, RED_JPEG)
    correct(client, id=answer["id"], label="blue")
    rejected = correct(client, id=answer["id"], reject=True)
    assert rejected.status_code == 200
    assert rejected.get_json() == {
        "sha256": RED_KEY, "label": None, "rejected": True, "previous": "blue", "stored": None,
    }  # fmt: skip
    assert not list(folder.glob("*/*.jpg"))
    undone = client.delete(f"/v1/feedback/{RED_KEY}")
    assert (undone.status_code, undone.get_json()["label"]) == (200, "blue")
    assert client.delete(f"/v1/feedback/{RED_KEY}").get_json() == {
        "sha256": RED_KEY, "label": None, "rejected": False, "previous": "blue", "stored": None,
    }  # fmt: skip
    assert_problem(client.delete(f"/v1/feedback/{RED_KEY}"), 404, "unknown-picture")
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
    assert_problem(
        correct(client, sha256=RED_KEY, label=label), 400, "unknown-label", "blue, green, red"
    )
    assert_problem(send(client, label=label), 400, "unknown-label")
    assert not folder.exists()


def test_a_class_that_cannot_name_a_folder_is_refused(
    predictor: Predictor, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = dataclasses.replace(predictor.version.manifest, classes=("../up", ".hidden", "red"))
    version = dataclasses.replace(predictor.version, manifest=manifest)
    odd = Predictor(version, predictor.engine)
    client = client_of(odd, make_corrections(odd, folder))
    assert "'../up'" in caplog.text
    for label in ("../up", ".hidden"):
        assert_problem(send(client, label=label), 400, "unknown-label", "rename")
    assert send(client, label="red").status_code == 201
    assert {path.name for path in folder.parent.iterdir()} == {"feedback"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": "red"}, "which image"),
        ({"id": "a", "sha256": RED_KEY, "label": "red"}, "which image"),
        ({"sha256": RED_KEY}, "either label or reject"),
        ({"sha256": RED_KEY, "label": "red", "reject": True}, "either label or reject"),
        ({"sha256": RED_KEY, "reject": False}, "either label or reject"),
        ({"sha256": RED_KEY, "reject": "true"}, "bool"),
        ({"sha256": RED_KEY, "reject": 1}, "bool"),
        ({"sha256": RED_KEY, "label": 3}, "label"),
        ({"sha256": RED_KEY, "label": ["red"]}, "label"),
        ({"sha256": RED_KEY, "label": None}, "label"),
        ({"sha256": "../../etc/passwd", "label": "red"}, "64"),
        ({"sha256": RED_KEY[:-1], "label": "red"}, "64"),
        ({"sha256": "ß" * 64, "label": "red"}, "64"),
        ({"id": "", "label": "red"}, "id"),
        ({"id": "x" * 101, "label": "red"}, "id"),
        ({"id": 7, "label": "red"}, "id"),
        ({"sha256": RED_KEY, "label": "red", "note": "x" * 501}, "500"),
        ({"sha256": RED_KEY, "label": "red", "note": "bell \a"}, "printed"),
        ({"sha256": RED_KEY, "label": "red", "note": 1}, "note"),
        ({"sha256": RED_KEY, "label": "red", "reviewer": "x" * 65}, "64"),
        ({"sha256": RED_KEY, "label": "red", "reviewer": "Ann\nBen"}, "printed"),
        ({"sha256": RED_KEY, "label": "red", "lable": "x"}, "lable"),
        ({"sha256": RED_KEY, "label": "red", "image": "AAAA"}, "image"),
        ({}, "either label or reject"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused(client: FlaskClient, fields: dict[str, Any], words: str) -> None:
    assert_problem(correct(client, **fields), 400, "bad-parameter", words)


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "red", "extra": "x"},
        {"label": "red", "reject": "yes"},
        {"label": ["red", "blue"]},
        {"label": "red", "file": (io.BytesIO(RED_JPEG), "x.jpg")},
        {"label": "red", "note": "x" * 400_000},
    ],
)
def test_a_wrong_field_of_a_form_is_refused(client: FlaskClient, fields: dict[str, Any]) -> None:
    form = {"image": (io.BytesIO(RED_JPEG), "x.jpg"), **fields}
    assert_problem(client.post("/v1/feedback", data=form), 400, "bad-parameter")


def test_other_bodies_are_refused(client: FlaskClient) -> None:
    def post(data: bytes, kind: str) -> Any:
        return client.post("/v1/feedback", data=data, content_type=kind)

    two = {"image": [(io.BytesIO(RED_JPEG), "a"), (io.BytesIO(MURKY), "b")], "label": "red"}
    assert_problem(client.post("/v1/feedback", data=two), 400, "several-images")
    assert_problem(send(client, b"", label="red"), 400, "empty-image")
    assert_problem(send(client, b"<script>", label="red"), 415, "unsupported-image-format")
    assert_problem(send(client, b"<script>", reject="true"), 415, "unsupported-image-format")
    assert_problem(send(client, RED_JPEG[:200], label="red"), 422, "truncated-image")
    assert_problem(post(b"label=red", "application/x-www-form-urlencoded"), 415,
                   "unsupported-media-type")  # fmt: skip
    assert_problem(post(RED_JPEG, "image/jpeg"), 415, "unsupported-media-type")
    assert_problem(post(b"[1]", "application/json"), 400, "malformed-body")
    assert_problem(post(b'{"label":"red","label":"blue"}', "application/json"), 400,
                   "malformed-body")  # fmt: skip
    assert_problem(post(b'{"note":"' + b"x" * 10**6 + b'"}', "application/json"), 413,
                   "body-too-large")  # fmt: skip
    assert_problem(client.post("/v1/feedback?label=red", json={}), 400, "bad-parameter")


def test_unknown_images_and_methods(client: FlaskClient) -> None:
    assert_problem(correct(client, id="nobody", label="red"), 404, "unknown-picture")
    assert_problem(correct(client, sha256=RED_KEY, label="red"), 404, "unknown-picture")
    assert_problem(correct(client, sha256=RED_KEY, reject=True), 404, "unknown-picture")
    for path in (RED_KEY, "abc", "..%2f..%2fetc", "0" * 63 + "G"):
        assert_problem(client.delete(f"/v1/feedback/{path}"), 404,
                       "not-found" if "%" in path else "unknown-picture")  # fmt: skip
        assert client.get(f"/v1/review/{path}/image").status_code == 404
    for method in ("GET", "POST"):
        assert client.open(f"/v1/feedback/{RED_KEY}", method=method).status_code == 405


def test_a_correction_sent_a_thousand_times_is_one(client: FlaskClient, folder: Path) -> None:
    answer = predict(client, RED_JPEG)
    codes = {correct(client, id=answer["id"], label="blue").status_code for _ in range(1000)}
    assert codes == {200, 201}  # and none was rate-limited
    assert len(read_lines(folder)) == 1


def test_a_flood_of_changes_is_slowed_down(client: FlaskClient, folder: Path) -> None:
    predict(client, RED_JPEG)
    responses = [
        correct(client, sha256=RED_KEY, label=("red", "blue")[number % 2]) for number in range(150)
    ]
    refused = [response for response in responses if response.status_code == 429]
    assert 0 < len(refused) <= 30
    assert_problem(refused[0], 429, "rate-limited")
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert_problem(client.delete(f"/v1/feedback/{RED_KEY}"), 429, "rate-limited")
    check(folder)


def test_each_caller_has_a_rate_limit_of_its_own(predictor: Predictor, folder: Path) -> None:
    corrections = make_corrections(predictor, folder)
    corrections.buckets = TokenBuckets(rate=0.001, burst=1)
    keys = KEYS.replace("admin,predict", "admin,predict,feedback")
    client = client_of(predictor, corrections, keys)
    for headers in (ANN, BOSS):
        predict(client, RED_JPEG, headers=headers)
        label = "red" if headers is ANN else "blue"
        body = {"sha256": RED_KEY, "label": label}
        assert client.post("/v1/feedback", json=body, headers=headers).status_code in (200, 201)
        body["label"] = "green"
        late = client.post("/v1/feedback", json=body, headers=headers)
        assert_problem(late, 429, "rate-limited")
    assert [line["caller"] for line in read_lines(folder)] == ["ann", "boss"]


def test_an_undo_takes_one_of_the_places(predictor: Predictor, folder: Path) -> None:
    admission = Admission()
    client = client_of(predictor, make_corrections(predictor, folder), admission=admission)
    send(client, label="red")
    with contextlib.ExitStack() as taken:
        for _ in range(admission.limits.max_in_flight):
            taken.enter_context(admission.place())
        assert_problem(client.delete(f"/v1/feedback/{RED_KEY}"), 503, "overloaded")
        assert check(folder) == {RED_KEY: "red"}
    assert client.delete(f"/v1/feedback/{RED_KEY}").status_code == 200


def test_keys_open_only_what_they_allow(predictor: Predictor, folder: Path) -> None:
    client = client_of(predictor, make_corrections(predictor, folder), KEYS)
    addresses = [
        ("POST", "/v1/feedback"), ("DELETE", f"/v1/feedback/{RED_KEY}"), ("GET", "/v1/review"),
        ("GET", f"/v1/review/{RED_KEY}/image"), ("GET", "/v1/feedback/export"),
    ]  # fmt: skip
    for method, path in addresses:
        assert_problem(client.open(path, method=method), 401, "unauthorized")
        headers = ANN if path.endswith("export") else BOSS
        assert_problem(client.open(path, method=method, headers=headers), 403, "forbidden")


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


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=-1", "limit=1e9", "limit=x", "limit=", "page=2",
     "limit=1&limit=x", "limit=" + "9" * 500],
)  # fmt: skip
def test_a_wrong_option_of_the_review_queue_is_refused(client: FlaskClient, query: str) -> None:
    assert_problem(client.get(f"/v1/review?{query}"), 400, "bad-parameter")


def test_an_image_to_review_is_encoded_anew(
    client: FlaskClient, predictor: Predictor, folder: Path
) -> None:
    sent = ACCEPTED["JPEG and PHP behind it"]
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    large = encode(paint(COLOURS["red"]).resize((2000, 1000)), exif=exif)
    for data in (sent, large):
        key = predict(client, data)["image"]["sha256"]
        response = client.get(f"/v1/review/{key}/image")
        assert (response.status_code, response.mimetype) == (200, "image/jpeg")
        assert response.headers["Content-Disposition"] == "inline"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert b"php" not in response.data
        assert b"secret" not in response.data
        shown = Image.open(io.BytesIO(response.data))
        assert max(shown.size) <= 1024
    send(client, MURKY, label="red")
    fresh = client_of(predictor, make_corrections(predictor, folder))  # has no recent images
    stored = fresh.get(f"/v1/review/{MURKY_KEY}/image")
    assert stored.data == (folder / "red" / f"{MURKY_KEY}.jpg").read_bytes()
    assert_problem(fresh.get(f"/v1/review/{key}/image"), 404, "unknown-picture")
    for other in (MURKY_KEY[:16] + "0" * 48, MURKY_KEY[:16], MURKY_KEY + "0", MURKY_KEY.upper()):
        assert_problem(fresh.get(f"/v1/review/{other}/image"), 404, "unknown-picture")


def test_export_has_the_history_even_while_another_process_writes(
    predictor: Predictor, folder: Path
) -> None:
    client = client_of(predictor, make_corrections(predictor, folder), KEYS)
    with client.get("/v1/feedback/export", headers=BOSS) as empty:
        assert (empty.status_code, empty.data) == (200, b"")
    predict(client, RED_JPEG, headers=ANN)
    for number in range(3):
        body = {"sha256": RED_KEY, "label": ("red", "blue")[number % 2], "note": "x\ny </script>"}
        assert client.post("/v1/feedback", json=body, headers=ANN).status_code < 300
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        with client.get("/v1/feedback/export", headers=BOSS) as response:
            assert response.mimetype == "application/x-ndjson"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert list(map(json.loads, response.data.splitlines())) == read_lines(folder)
        other.rollback()
    assert len(read_lines(folder)) == 3
    assert_problem(client.get("/v1/feedback/export?x=1", headers=BOSS), 400, "bad-parameter")


def test_a_disk_that_fails_costs_corrections_and_nothing_else(
    client: FlaskClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_bytes(b"a file in its place")
    answer = predict(client, MURKY)
    refused = correct(client, id=answer["id"], label="red")
    assert_problem(refused, 503, "feedback-unavailable")
    assert refused.headers["Retry-After"]
    assert str(folder) not in refused.text
    assert str(folder) in caplog.text
    assert client.get("/v1/review").get_json()["waiting"] == 1
    assert client.get(f"/v1/review/{MURKY_KEY}/image").status_code == 200
    assert predict(client, RED_JPEG)["held"] is True
    folder.unlink()
    assert correct(client, id=answer["id"], label="red").status_code == 201


def test_a_server_starts_with_a_folder_that_cannot_be_used(
    predictor: Predictor, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / DATABASE_NAME).mkdir(parents=True)
    corrections = make_corrections(predictor, folder, "--keep", "all")
    client = client_of(predictor, corrections)
    assert "cannot be stored" in caplog.text
    assert "runs without corrections" in caplog.text
    assert predict(client, RED_JPEG)["held"] is True
    assert_problem(correct(client, sha256=RED_KEY, label="red"), 503, "feedback-unavailable")
    for _ in range(3):
        assert_problem(client.get("/v1/review"), 503, "feedback-unavailable", "cannot read")
    assert caplog.text.count("cannot be read") == 1


def test_a_full_store_refuses_more_images(predictor: Predictor, folder: Path) -> None:
    client = client_of(predictor, make_corrections(predictor, folder, "--feedback-limit", "1"))
    noisy = paint(COLOURS["red"], size=(1000, 700))
    codes = [send(client, encode(noisy, quality=90 + n), label="red").status_code for n in range(3)]
    assert codes == [201, 201, 507]
    assert_problem(send(client, encode(noisy, quality=92), label="red"), 507, "feedback-full")
    assert len(check(folder)) == 2


def waiting_on_disk(folder: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(folder / RECENT_DATABASE)) as database:
        return {sha256 for (sha256,) in database.execute("SELECT sha256 FROM recent")}


def test_images_on_disk_are_reviewed_after_a_restart(predictor: Predictor, folder: Path) -> None:
    corrections = make_corrections(predictor, folder, "--keep", "uncertain")
    client = client_of(predictor, corrections)
    other = encode(paint((100, 120, 110), seed=3))
    for data in (MURKY, RED_JPEG, other):
        predict(client, data)
    murky = predict(client, MURKY)
    correct(client, sha256=hashlib.sha256(other).hexdigest(), label="green")
    predict(client, other)  # once more: it stays corrected
    corrections.close()
    assert waiting_on_disk(folder) == {MURKY_KEY}
    fresh = make_corrections(predictor, folder, "--keep", "uncertain")
    client = client_of(predictor, fresh)
    queue = client.get("/v1/review").get_json()
    assert [image["sha256"] for image in queue["images"]] == [MURKY_KEY]
    assert (queue["waiting"], queue["corrected"]) == (1, 1)
    assert client.get(f"/v1/review/{MURKY_KEY}/image").status_code == 200
    assert murky["id"]
    assert correct(client, id=queue["images"][0]["id"], label="green").status_code == 201
    assert read_lines(folder)[-1]["reason"] == "uncertain"
    assert waiting_on_disk(folder) == set()


def test_the_audit_estimates_what_the_filter_misses(predictor: Predictor, folder: Path) -> None:
    options = ("--audit-share", "1", "--class-of-interest", "red")
    corrections = make_corrections(predictor, folder, *options)
    client = client_of(predictor, corrections)
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
    audit = client.get("/v1/review").get_json()["audit"]
    assert audit["missed_share"] == pytest.approx(1 / 3)
    assert audit.pop("interval") == pytest.approx([0.0615, 0.7923], abs=1e-3)
    audit.pop("missed_share")
    assert audit == {"share": 1.0, "kept": 4, "reviewed": 3, "missed": 1}
    corrections.close()
    assert len(waiting_on_disk(folder)) == 1  # on disk, as an audit takes time
    later = client_of(predictor, make_corrections(predictor, folder)).get("/v1/review").get_json()
    assert later["audit"]["reviewed"] == 3


def test_nothing_is_written_unless_asked_for(predictor: Predictor, folder: Path) -> None:
    for options in ((), ("--keep", "none", "--audit-share", "1", "--class-of-interest", "red")):
        corrections = make_corrections(predictor, folder, *options)
        client = client_of(predictor, corrections)
        predict(client, MURKY)
        assert client.get("/v1/review").get_json()["waiting"] == 1
        corrections.close()
    assert not folder.exists()


def test_no_byte_of_a_request_gets_into_the_log_unescaped(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        send(client, label="red", note="first\nINFO forged line", reviewer="Ann")
        correct(client, sha256=RED_KEY, label="x\nINFO forged line")
        client.delete("/v1/feedback/x%0AINFO forged line")
    assert "\nINFO forged" not in caplog.text


@pytest.mark.parametrize(
    "arguments",
    ["--audit-share=2", "--audit-share=nan", "--audit-share=-0.1", "--feedback-limit=0",
     "--feedback-limit=1.5", "--keep=some"],
)  # fmt: skip
def test_a_wrong_option_is_a_usage_error(arguments: str) -> None:
    with pytest.raises(UsageError):
        parse(arguments)


def test_without_feedback_no_other_option_of_corrections_is_taken() -> None:
    def build(*arguments: str) -> object:
        return corrections_from_options(parse(*arguments))

    assert build("--no-feedback") is None
    for more in (["--keep", "all"], ["--feedback", "x"], ["--audit-share", "0"]):
        with pytest.raises(UsageError, match=more[0]):
            build("--no-feedback", *more)


def test_a_class_of_interest_that_the_model_lacks_is_a_usage_error(
    predictor: Predictor, folder: Path
) -> None:
    with pytest.raises(UsageError, match="blue, green, red"):
        make_corrections(predictor, folder, "--class-of-interest", "menu")


def test_an_audit_of_nothing_is_logged(
    version_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_corrections(Predictor.load(version_path), folder, "--audit-share", "0.5")
    assert "--class-of-interest" in caplog.text
