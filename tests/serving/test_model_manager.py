"""Another model while requests run, by a call and over HTTP: what is served and what refused."""

import concurrent.futures
import contextlib
import gc
import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacking import wait_until
from flask.testing import FlaskClient
from guarding import assert_refused
from painted import COLOURS, encode, paint
from running import SECONDS
from werkzeug.test import TestResponse

from imagesieve import files
from imagesieve.errors import ModelDamagedError, ModelNotFoundError, UsageError
from imagesieve.model import engines, golden, versions
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import model_manager
from imagesieve.serving.access import Access, read_keys
from imagesieve.serving.app import Service, create_app
from imagesieve.serving.errors import (
    ModelChangeError,
    ModelChangeFailedError,
    ModelLoadingError,
    ModelRefusedError,
    ModelUnusableError,
    ShuttingDownError,
    UnknownModelError,
)
from imagesieve.serving.model_manager import ModelManager

RED = encode(paint(COLOURS["red"]))
OTHER_CLASSES = ("cyan", "green", "red")

Make = Callable[..., Path]
Start = Callable[..., ModelManager]


def same(answers: np.ndarray) -> np.ndarray:
    return answers


def reversed_(answers: np.ndarray) -> np.ndarray:
    return answers[:, ::-1]


@pytest.fixture(scope="module")
def templates(make_version: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every kind of version; `soft` is less sure of itself than `sharp`."""
    folder = tmp_path_factory.mktemp("versions")
    make_version(folder, name="soft", softness=200, golden=same)
    make_version(folder, name="classes", classes=OTHER_CLASSES)
    make_version(folder, name="golden", golden=reversed_)
    make_version(folder, name="old")
    broken = make_version(folder, name="broken")
    (broken / "openvino/model.bin").write_bytes(b"")
    engineless = make_version(folder, name="engineless")
    (engineless / versions.OPENVINO_MODEL).write_text("<net/>")
    versions.seal(
        engineless, versions.read_manifest(engineless).manifest
    )  # its checksums are right
    half = make_version(folder, name="half")
    (half / versions.MANIFEST).write_text("{")
    new = make_version(folder, name="new")
    manifest = json.loads((new / versions.MANIFEST).read_bytes())
    (new / versions.MANIFEST).write_text(json.dumps({**manifest, "schema": versions.SCHEMA + 1}))
    make_version(folder, name="sharp", golden=same)
    return folder


@pytest.fixture
def folder(templates: Path, tmp_path: Path) -> Path:
    """Return the test's own copy, whose current version is `sharp`."""
    copy = Path(shutil.copytree(templates, tmp_path / "modelFile"))
    versions.promote(versions.load(named(copy, "sharp")))
    return copy


def named(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}-*")
    return found


QUICK = {"watch_seconds": 0.02}  # else the test itself says when to look


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that loads models; what it started is closed in the end."""
    with contextlib.ExitStack() as started:

        def begin(path: Path, **options: Any) -> ModelManager:
            models = ModelManager(path, **{"watch_seconds": 60.0, **options})
            started.callback(models.join)
            started.callback(models.close)
            loaded: concurrent.futures.Future[None] = concurrent.futures.Future()
            models.load_in_background(lambda _: loaded.set_result(None), loaded.set_exception)
            loaded.result(SECONDS)
            return models

        yield begin


def answer(predictor: Predictor) -> float:
    return predictor.predict(predictor.decode(RED)).probability


def pointer(folder: Path) -> bytes:
    return (folder / versions.CURRENT).read_bytes()


def test_before_loading_and_after_closing_there_is_no_predictor(folder: Path, start: Start) -> None:
    models = ModelManager(folder)
    for use in (models.get, models.reload, models.rollback, models.describe_all):
        with pytest.raises(ModelLoadingError):
            use()
    loaded = start(folder, **QUICK)
    assert loaded.get().version.name == named(folder, "sharp").name
    loaded.close()
    for use in (loaded.get, loaded.reload, lambda: loaded.activate("x")):
        with pytest.raises(ShuttingDownError):
            use()


def test_a_change_under_load_fails_no_request_and_mixes_no_answers(
    folder: Path, start: Start
) -> None:
    models = start(folder)
    paths = (named(folder, "soft"), named(folder, "sharp"))
    expected = {path.name: answer(Predictor.load(path)) for path in paths}
    assert len({round(value, 2) for value in expected.values()}) == 2
    refused = iter(("classes", "golden", "broken", "engineless"))
    answers: list[tuple[str, float]] = []
    stop = threading.Event()

    def predict() -> None:
        while not stop.is_set():
            predictor = models.get()
            answers.append((predictor.version.name, answer(predictor)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(predict) for _ in range(8)]
        try:
            for name in [*expected, *expected]:
                count = len(answers)
                assert models.activate(name).changed
                wait_until(lambda count=count: len(answers) > count + 20)
                with pytest.raises(ModelChangeError):
                    models.activate(named(folder, next(refused)).name)
                assert models.get().version.name == name
        finally:
            stop.set()
    for future in running:
        future.result()
    assert {name for name, _ in answers} == set(expected)
    for name, found in answers:
        assert found == pytest.approx(expected[name], abs=1e-6)


REFUSED = {
    "classes": (ModelRefusedError, "other classes (cyan, green, red) than the one served (blue"),
    "golden": (ModelRefusedError, "on its golden images openvino-"),
    "broken": (ModelUnusableError, "was altered: the checksum of openvino/model.bin does not"),
    "engineless": (ModelUnusableError, "The engine of this server cannot run"),
    "half": (ModelUnusableError, "manifest.json is not a manifest"),
    "new": (ModelUnusableError, "update this program"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_version_is_refused_and_the_old_one_keeps_serving(
    folder: Path, start: Start, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, words = REFUSED[name]
    models = start(folder)
    before, written = models.get(), pointer(folder)
    with pytest.raises(kind) as caught, caplog.at_level(logging.WARNING, "imagesieve"):
        models.activate(named(folder, name).name)
    assert words in str(caught.value)
    assert str(folder.parent) not in str(caught.value)
    assert models.get() is before
    assert pointer(folder) == written
    (message,) = caplog.messages
    assert message.startswith(f"Still serving {before.version.name}: ")
    assert "\n" not in message
    assert answer(models.get()) > 0.5


def test_a_pointer_with_a_wrong_digest_is_refused(folder: Path, start: Start) -> None:
    models = start(folder)
    before = models.get()
    soft = named(folder, "soft").name
    files.write_json(folder / versions.CURRENT, {"version": soft, "digest": "0" * 64})
    with pytest.raises(ModelUnusableError, match="was altered") as caught:
        models.reload()
    assert str(folder) not in str(caught.value)
    (folder / versions.CURRENT).unlink()
    with pytest.raises(UnknownModelError, match="no version is the current one"):
        models.reload()
    assert models.get() is before


def test_a_version_of_an_earlier_release_has_nothing_to_compare_and_is_served(
    folder: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    models, old = start(folder), named(folder, "old").name
    with caplog.at_level(logging.INFO, "imagesieve"):
        assert models.activate(old).model.name == old
    assert f"{old} has no golden images to compare its answers with." in caplog.messages


def test_a_name_leads_nowhere_but_into_the_folder(folder: Path, start: Start) -> None:
    models = start(folder)
    outside = Path(shutil.copytree(named(folder, "soft"), folder.parent / "outside"))
    shutil.copytree(outside, folder / ".partial-x")
    inside = named(folder, "soft").name
    for name in [
        "", ".", "..", "../outside", str(outside), f"{inside}/", f"./{inside}", f"x/../{inside}",
        ".partial-x", "current.json", "*", f"{inside[:-1]}*", "a\0b", "..%2foutside", "x" * 10_000,
        "~", "sha256:", f"sha256:{'g' * 64}", f"sha256:{'0' * 64}", f"{inside}\n", "\udcff",
        "nothing", "/etc", "%2e%2e",
    ]:  # fmt: skip
        with pytest.raises(UnknownModelError) as caught:
            models.activate(name)
        assert len(str(caught.value)) < 500
    assert models.get().version.name == named(folder, "sharp").name


def test_a_version_that_was_altered_since_is_not_rolled_back_to(folder: Path, start: Start) -> None:
    models = start(folder)
    sharp, soft = named(folder, "sharp"), named(folder, "soft")
    models.activate(soft.name)
    manifest = (sharp / versions.MANIFEST).read_text()
    (sharp / versions.MANIFEST).write_text(manifest + " ")
    with pytest.raises(ModelUnusableError, match="was altered since it was served"):
        models.rollback()
    shutil.rmtree(sharp)
    with pytest.raises(UnknownModelError, match="not there any more"):
        models.rollback()
    assert models.get().version.name == soft.name == versions.current_name(folder)


def test_a_change_that_a_restart_would_undo_is_none(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = start(folder)
    before = models.get()

    def fail(source: object, target: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ModelChangeFailedError, match=r"^Cannot write current\.json: .* read-only"):
        models.activate(named(folder, "soft").name)
    assert models.get() is before


def test_one_change_at_a_time(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    models = start(folder)
    entered, go_on = threading.Event(), threading.Event()
    read = golden.read

    def slowly(version: versions.ModelVersion) -> golden.Golden | None:
        entered.set()
        assert go_on.wait(SECONDS)
        return read(version)

    monkeypatch.setattr(golden, "read", slowly)
    monkeypatch.setattr(model_manager, "_MAX_WAIT", 0.05)
    soft = named(folder, "soft").name
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(models.activate, soft)
        assert entered.wait(SECONDS)
        for use in (models.reload, models.rollback, lambda: models.activate(soft)):
            with pytest.raises(ModelRefusedError, match="just being changed"):
                use()
        assert models.get().version.name == named(folder, "sharp").name  # served all the while
        go_on.set()
        assert first.result().changed


def test_a_second_change_waits_for_the_first(folder: Path, start: Start) -> None:
    models = start(folder, **QUICK)  # its watcher looks as often as it can
    for name in ("soft", "sharp"):
        models.activate(named(folder, name).name)
        versions.promote(versions.load(named(folder, "old")))
        wait_until(lambda: models.get().version.name == named(folder, "old").name)


def test_one_version_cannot_be_changed_but_can_be_replaced_in_its_place(
    folder: Path, start: Start
) -> None:
    sharp = named(folder, "sharp")
    models = start(sharp, **QUICK)
    for use in (models.rollback, lambda: models.activate(named(folder, "soft").name)):
        with pytest.raises(ModelRefusedError, match="start it with --model and the folder"):
            use()
    assert [entry.name for entry in models.describe_all()] == [sharp.name]
    assert not models.reload().changed
    old = sharp.rename(folder / ".old")
    named(folder, "soft").rename(sharp)
    change = models.reload()
    assert (change.changed, change.model.name) == (True, sharp.name)
    assert change.model.digest != f"sha256:{versions.load(old).digest}"
    (sharp / versions.MANIFEST).write_bytes(b"{")
    with pytest.raises(ModelUnusableError) as caught:
        models.reload()
    assert sharp.name in str(caught.value)
    assert str(folder) not in str(caught.value)


def test_a_model_that_is_not_served_any_more_is_let_go(folder: Path, start: Start) -> None:
    models = start(folder, **QUICK)
    gc.collect()
    gc.disable()  # what goes in circles would stay until it is looked for
    try:
        for name in ("soft", "sharp"):
            with pytest.raises(ModelRefusedError):
                models.activate(named(folder, "classes").name)
            in_flight = models.get()
            former = [weakref.ref(thing) for thing in (in_flight, in_flight.engine)]
            models.activate(named(folder, name).name)
            assert answer(in_flight) > 0.3  # a request finishes with what it took
            del in_flight
            wait_until(  # the watcher may look at it
                lambda former=former: [thing() for thing in former] == [None, None]
            )
    finally:
        gc.enable()


def test_a_promoted_version_is_served_by_itself(
    folder: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    models, soft = start(folder, **QUICK), versions.load(named(folder, "soft"))
    with caplog.at_level(logging.INFO, "imagesieve"):
        versions.promote(soft)
        wait_until(lambda: models.get().version.name == soft.name)
    assert models.rollback().model.name == named(folder, "sharp").name


@pytest.mark.parametrize("name", ["golden", "half"])
def test_a_promoted_version_that_is_bad_is_tried_once_and_the_next_one_is_served(
    folder: Path, start: Start, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    models = start(folder, **QUICK)
    before = models.get()

    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    with caplog.at_level(logging.WARNING, "imagesieve"):
        files.write_json(folder / versions.CURRENT, {"version": named(folder, name).name})
        wait_until(lambda: bool(warnings()))
        time.sleep(0.2)  # ten looks, none of which may try again
    (warning,) = warnings()
    assert warning.startswith(f"Still serving {before.version.name}: ")
    assert models.get() is before
    versions.promote(versions.load(named(folder, "soft")))
    wait_until(lambda: models.get() is not before)


def test_a_pointer_that_is_gone_or_nonsense_changes_nothing(
    folder: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    models = start(folder, **QUICK)
    before = models.get()
    with caplog.at_level(logging.WARNING, "imagesieve"):
        (folder / versions.CURRENT).unlink()
        wait_until(lambda: len(caplog.records) == 1)
        (folder / versions.CURRENT).write_text("{")
        wait_until(lambda: len(caplog.records) >= 2)
    assert models.get() is before
    versions.promote(versions.load(named(folder, "soft")))
    wait_until(lambda: models.get() is not before)


def test_the_watcher_outlives_what_nobody_thought_of(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = start(folder, **QUICK)
    before = models.get()

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "imagesieve"):
        patched.setattr(engines, "open_engine", no_memory)
        versions.promote(versions.load(named(folder, "soft")))
        wait_until(lambda: "The model was not changed: MemoryError" in caplog.text)
    assert models.get() is before
    versions.promote(versions.load(named(folder, "old")))
    wait_until(lambda: models.get() is not before)


def test_no_thread_is_left_after_closing(folder: Path, start: Start) -> None:
    before = set(threading.enumerate())
    models = start(folder, **QUICK)
    models.activate(named(folder, "soft").name)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"model"}
    models.close()
    models.join()
    assert set(threading.enumerate()) <= before


def test_a_start_that_fails_says_why_and_leaves_no_thread(folder: Path, start: Start) -> None:
    before = set(threading.enumerate())
    for path, options, kind in (
        (named(folder, "golden"), {}, ModelRefusedError),
        (named(folder, "broken"), {}, ModelDamagedError),
        (named(folder, "sharp"), {"precision": "int8"}, UsageError),
        (folder / "nothing", {}, ModelNotFoundError),
    ):
        with pytest.raises(kind):
            start(path, **options)
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_precision_that_the_new_version_does_not_have_is_a_refusal(
    folder: Path, start: Start
) -> None:
    sharp = named(folder, "sharp")
    for suffix in (".xml", ".bin"):
        shutil.copy(sharp / f"openvino/model{suffix}", sharp / f"openvino/model-int8{suffix}")
    versions.seal(sharp, versions.read_manifest(sharp).manifest)
    versions.promote(versions.load(sharp))
    models = start(folder, precision="int8")
    assert models.get().engine.name == "openvino-int8"
    with pytest.raises(ModelRefusedError, match="has no int8 model") as caught:
        models.activate(named(folder, "soft").name)
    assert str(folder) not in str(caught.value)


# Over HTTP.

SHOP = {"X-API-Key": "shop-key-0123456789"}
BOSS = {"X-API-Key": "boss-key-0123456789"}
KEYS = f"shop predict {SHOP['X-API-Key']}; boss admin,predict {BOSS['X-API-Key']}"


@pytest.fixture
def client(folder: Path, start: Start) -> FlaskClient:
    access = Access(read_keys(None, {"CLASSIFIER_KEYS": KEYS}))
    return create_app(Service(start(folder), access=access)).test_client()


def post(client: FlaskClient, action: str, **fields: Any) -> TestResponse:
    return client.post(f"/v1/admin/{action}", json=fields, headers=BOSS)


def served(client: FlaskClient) -> dict[str, Any]:
    return client.get("/v1/model", headers=SHOP).get_json()


def test_activate_and_rollback_change_what_is_served_now_and_after_a_restart(
    client: FlaskClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, sharp = named(folder, "soft").name, named(folder, "sharp").name
    assert_refused(post(client, "rollback"), 404, "unknown-model")  # there was no other one
    with caplog.at_level(logging.INFO, "imagesieve"):
        change = post(client, "activate", version=soft).get_json()
    assert any(
        message.startswith(f"Now serving {soft} with ") and message.endswith(f"(before: {sharp})")
        for message in caplog.messages
    )
    digest = f"sha256:{versions.load(named(folder, 'sharp')).digest}"
    former = {"name": sharp, "digest": digest}
    assert change == {"model": served(client), "previous": former, "changed": True}
    assert change["model"]["name"] == soft == versions.current_name(folder)
    again = post(client, "activate", version=soft).get_json()
    assert again == {"model": change["model"], "previous": former, "changed": False}
    back = post(client, "activate", version=f"sha256:{digest[7:].upper()}").get_json()
    assert (back["changed"], back["model"]["name"]) == (True, sharp)
    for name, other in ((soft, sharp), (sharp, soft), (soft, sharp)):
        change = post(client, "rollback").get_json()
        assert (change["model"]["name"], change["previous"]["name"]) == (name, other)
        assert versions.current_name(folder) == name


def test_reload_serves_what_was_made_current(client: FlaskClient, folder: Path) -> None:
    change = post(client, "reload").get_json()
    assert change == {"model": served(client), "previous": None, "changed": False}
    versions.promote(versions.load(named(folder, "soft")))
    change = client.post("/v1/admin/reload", headers=BOSS).get_json()  # no body is as good as {}
    assert (change["changed"], change["model"]["name"]) == (True, named(folder, "soft").name)


def test_other_classes_are_served_when_they_are_allowed(client: FlaskClient, folder: Path) -> None:
    version = named(folder, "classes").name
    assert_refused(post(client, "activate", version=version), 409, "model-refused")
    change = post(client, "activate", version=version, allow_other_classes=True).get_json()
    assert change["model"]["classes"] == list(OTHER_CLASSES)
    change = post(client, "rollback").get_json()
    assert change["model"]["classes"] == list(COLOURS)  # these were served already


def test_the_list_has_every_version_and_marks_the_current_and_the_damaged(
    client: FlaskClient, folder: Path
) -> None:
    def marked() -> list[str]:
        entries = client.get("/v1/models", headers=SHOP).get_json()["models"]
        return [entry["name"].partition("-")[0] for entry in entries if entry["current"]]

    (named(folder, "engineless") / versions.OPENVINO_MODEL).unlink()
    response = client.get("/v1/models", headers=SHOP)
    entries = response.get_json()["models"]
    by_name = {entry["name"].partition("-")[0]: entry for entry in entries}
    assert list(by_name) == sorted([*REFUSED, "old", "sharp", "soft"])
    sharp = versions.load(named(folder, "sharp"))
    assert by_name["sharp"] == {
        "name": sharp.name, "digest": f"sha256:{sharp.digest}", "current": True,
        "created": sharp.manifest.created, "classes": list(COLOURS),
    }  # fmt: skip
    damaged = {name for name, entry in by_name.items() if entry.get("damaged")}
    assert damaged == {"broken", "engineless", "half", "new"}
    assert (by_name["half"]["classes"], by_name["half"]["created"]) == ([], None)
    assert str(folder) not in response.text
    assert marked() == ["sharp"]
    post(client, "activate", version=named(folder, "soft").name)
    assert marked() == ["soft"]
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("activate", {}),
        ("activate", {"version": "x", "allow_other_classes": "yes"}),
        ("reload", {"version": "x"}),
        ("rollback", {"to": "x"}),
    ],
)
def test_a_wrong_body_is_a_problem(
    client: FlaskClient, action: str, body: dict[str, object]
) -> None:
    assert_refused(post(client, action, **body), 400, "bad-parameter")
