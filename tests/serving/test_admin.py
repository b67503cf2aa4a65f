"""Changing the model over HTTP, with keys, while others ask for predictions."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from painted import COLOURS, encode, paint
from running import SECONDS
from werkzeug.test import TestResponse

from imagesieve import files
from imagesieve.model import versions
from imagesieve.serving.access import Access, read_keys
from imagesieve.serving.app import Service, create_app
from imagesieve.serving.models import Models

RED = encode(paint(COLOURS["red"]))
KEYS = "shop predict shop-key-0123456789; boss admin,predict boss-key-0123456789"
SHOP = {"X-API-Key": "shop-key-0123456789"}
BOSS = {"X-API-Key": "boss-key-0123456789"}


@pytest.fixture(scope="module")
def templates(make_version: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    make_version(folder, name="soft", softness=200, golden=lambda answers: answers)
    make_version(folder, name="golden", golden=lambda answers: answers[::-1])
    make_version(folder, name="classes", classes=("a", "b", "c"))
    broken = make_version(folder, name="broken")
    (broken / "openvino/model.bin").unlink()
    make_version(folder, name="sharp", golden=lambda answers: answers)
    return folder


@pytest.fixture
def folder(templates: Path, tmp_path: Path) -> Path:
    """Return the test's own copy, whose current version is `sharp`."""
    return Path(shutil.copytree(templates, tmp_path / "modelFile"))


def named(folder: Path, name: str) -> str:
    (found,) = folder.glob(f"{name}-*")
    return found.name


@pytest.fixture
def models(folder: Path) -> Iterator[Models]:
    models = Models(folder, watch_seconds=60)
    loaded = threading.Event()
    models.load_in_background(lambda _: loaded.set(), lambda _: None)
    assert loaded.wait(SECONDS)
    yield models
    models.close()
    models.join()


@pytest.fixture
def client(models: Models) -> FlaskClient:
    access = Access(read_keys(None, {"CLASSIFIER_KEYS": KEYS}))
    service = Service(models, access=access)
    return create_app(service).test_client()


def post(client: FlaskClient, action: str, **fields: Any) -> TestResponse:
    return client.post(f"/v1/admin/{action}", json=fields, headers=BOSS)


def assert_problem(response: TestResponse, status: int, slug: str) -> str:
    assert response.status_code == status, response.text
    value = json.loads(response.text)
    assert value["type"] == f"/problems/{slug}"
    assert response.mimetype == "application/problem+json"
    return str(value["detail"])


def test_activate_and_rollback_change_what_is_served(client: FlaskClient, folder: Path) -> None:
    soft, sharp = named(folder, "soft"), named(folder, "sharp")
    change = post(client, "activate", version=soft).get_json()
    assert set(change) == {"model", "previous", "changed"}
    assert change["changed"] is True
    assert change["previous"]["name"] == sharp
    assert client.get("/v1/model", headers=SHOP).get_json() == change["model"]
    assert change["model"]["name"] == soft
    digest = change["previous"]["digest"]
    assert post(client, "activate", version=digest).get_json()["model"]["digest"] == digest
    change = post(client, "rollback").get_json()
    assert (change["model"]["name"], change["previous"]["name"]) == (soft, sharp)
    assert versions.current_name(folder) == soft


def test_reload_serves_what_was_made_current(client: FlaskClient, folder: Path) -> None:
    assert post(client, "reload").get_json()["changed"] is False
    versions.promote(versions.load(folder / named(folder, "soft")))
    change = client.post("/v1/admin/reload", headers=BOSS).get_json()  # no body is as good as {}
    assert (change["changed"], change["model"]["name"]) == (True, named(folder, "soft"))


def test_the_list_is_for_whoever_may_predict(client: FlaskClient, folder: Path) -> None:
    listed = client.get("/v1/models", headers=SHOP).get_json()
    entries = {entry["name"].partition("-")[0]: entry for entry in listed["models"]}
    assert set(entries) == {"broken", "classes", "golden", "sharp", "soft"}
    assert set(entries["soft"]) == {"name", "digest", "current", "created", "classes"}
    assert entries["broken"]["damaged"] is True
    assert [name for name, entry in entries.items() if entry["current"]] == ["sharp"]
    assert str(folder) not in json.dumps(listed)
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("name", "status", "slug"),
    [
        ("classes", 409, "model-refused"),
        ("golden", 409, "model-refused"),
        ("broken", 422, "model-damaged"),
    ],
)
def test_a_bad_version_is_a_problem_that_says_why(
    client: FlaskClient, folder: Path, name: str, status: int, slug: str
) -> None:
    before = client.get("/v1/model", headers=SHOP).get_json()
    detail = assert_problem(post(client, "activate", version=named(folder, name)), status, slug)
    assert named(folder, name) in detail
    assert str(folder.parent) not in detail
    assert client.get("/v1/model", headers=SHOP).get_json() == before


def test_other_classes_need_a_word(client: FlaskClient, folder: Path) -> None:
    version = named(folder, "classes")
    response = post(client, "activate", version=version, allow_other_classes=True)
    assert response.get_json()["model"]["classes"] == ["a", "b", "c"]


def test_a_wrong_digest_in_the_pointer_is_a_problem(client: FlaskClient, folder: Path) -> None:
    version = named(folder, "soft")
    files.write_json(folder / versions.CURRENT, {"version": version, "digest": "1" * 64})
    assert_problem(post(client, "reload"), 422, "model-damaged")


@pytest.mark.parametrize("name", ["nothing", "..", "../x", "/etc", "%2e%2e", "a\0b", "x" * 50_000])
def test_a_version_that_is_not_there_is_unknown(client: FlaskClient, name: str) -> None:
    detail = assert_problem(post(client, "activate", version=name), 404, "unknown-model")
    assert len(detail) < 500


def test_nothing_to_roll_back_to_is_unknown(client: FlaskClient) -> None:
    assert_problem(post(client, "rollback"), 404, "unknown-model")


BODIES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no body": ("activate", {}, 400, "bad-parameter"),
    "a text for a yes": (
        "activate", {"json": {"version": "x", "allow_other_classes": "yes"}}, 400, "bad-parameter",
    ),
    "reload with a field": ("reload", {"json": {"version": "x"}}, 400, "bad-parameter"),
    "rollback with a field": ("rollback", {"json": {"to": "x"}}, 400, "bad-parameter"),
    "no object": ("reload", {"json": []}, 400, "malformed-body"),
    "a form": ("activate", {"data": {"version": "x"}}, 415, "unsupported-media-type"),
    "a flood": ("reload", {"json": {"x": "y" * 2**20}}, 413, "body-too-large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_a_problem_and_changes_nothing(client: FlaskClient, name: str) -> None:
    action, body, status, slug = BODIES[name]
    before = client.get("/v1/model", headers=SHOP).get_json()
    response = client.post(f"/v1/admin/{action}", headers=BOSS, **body)
    assert_problem(response, status, slug)
    assert client.get("/v1/model", headers=SHOP).get_json() == before


def test_no_request_fails_while_models_come_and_go(
    client: FlaskClient, models: Models, folder: Path
) -> None:
    expected: dict[str, float] = {}
    for name in ("soft", "sharp"):
        predictor = (post(client, "activate", version=named(folder, name)), models.get())[1]
        judged = predictor.predict(predictor.decode(RED))
        expected[predictor.version.name] = judged.probability
    found: list[tuple[int, str, float]] = []
    stop = threading.Event()

    def ask(seed: int) -> None:
        own = client.application.test_client()
        while not stop.is_set():
            # Other bytes each time, of the same pixels: no answer comes from a cache.
            data = RED + np.random.default_rng(seed + len(found)).bytes(8)
            response = own.post("/v1/predict", data=data, content_type="image/jpeg", headers=SHOP)
            value = response.get_json(force=True)
            name = value.get("model", {}).get("name", response.text)
            found.append((response.status_code, name, value.get("probability", 0)))

    threads = [threading.Thread(target=ask, args=(seed << 32,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        for name in ("soft", "classes", "sharp", "golden", "soft", "broken", "sharp"):
            post(client, "activate", version=named(folder, name))
        assert post(client, "rollback").status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in found} == {200}, found
    assert {name for _, name, _ in found} == set(expected)
    for _, name, probability in found:
        assert probability == pytest.approx(expected[name], abs=1e-6)
