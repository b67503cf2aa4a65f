"""The HTTP edge: answers, problems, and hostile images, with a real predictor."""

import base64
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apps import app_of
from flask.testing import FlaskClient
from hostile import RED_JPEG
from painted import COLOURS, encode, paint

from imagesieve import errors as base_errors
from imagesieve import files
from imagesieve.model import versions
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import errors
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.model_manager import ModelManager

RED_TEXT = base64.b64encode(RED_JPEG).decode()
BATCH = {"images": [{"image": RED_TEXT}]}


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> FlaskClient:
    return app_of(predictor).test_client()


Failing = Callable[[Exception], contextlib.AbstractContextManager[None]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Return a context in which an error is raised wherever something should be predicted."""

    @contextlib.contextmanager
    def fail(error: Exception) -> Iterator[None]:
        def predict(_self: Predictor, _image: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "predict", predict)
            yield

    return fail


def predict(client: FlaskClient, data: bytes, query: str = ""):
    return client.post(f"/v1/predict{query}", data=data, content_type="application/octet-stream")


def leaves(kind: type[Exception]) -> list[type[Exception]]:
    children = kind.__subclasses__()
    return [leaf for child in children for leaf in leaves(child)] if children else [kind]


def assert_problem(response, status: int, slug: str) -> None:
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    value = response.get_json(force=True)
    assert value["type"] == f"/problems/{slug}"
    assert value["status"] == status
    assert value["title"]
    assert value["detail"]
    assert value["instance"] == f"urn:request:{response.headers['X-Request-Id']}"


def test_answer_tells_label_probabilities_model_image_and_times(
    client: FlaskClient, predictor: Predictor
) -> None:
    data = encode(paint(COLOURS["green"], size=(90, 70)))
    response = predict(client, data, "?data_id=shop-77/3")
    value = response.get_json()
    expected = predictor.predict(predictor.decode(data))
    assert response.status_code == 200
    assert list(value) == [
        "id", "data_id", "label", "probability", "probabilities", "decision", "decision_policy",
        "flags", "model", "image", "timing_ms", "cached", "held",
    ]  # fmt: skip
    assert value["id"] == response.headers["X-Request-Id"]
    assert value["data_id"] == "shop-77/3"
    assert value["label"] == value["decision"] == "green"
    assert value["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert value["probability"] == value["probabilities"]["green"]
    assert sum(value["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert value["decision_policy"] == {"kind": "argmax"}
    assert value["model"] == {
        "name": predictor.version.name,
        "digest": f"sha256:{predictor.version.digest}",
        "engine": predictor.engine.name,
    }
    image = predictor.decode(data)
    assert value["image"] == {
        "format": "JPEG", "width": 90, "height": 70, "orientation": 1, "frames": 1,
        "sha256": image.sha256, "truncated": False,
    }  # fmt: skip
    times = value["timing_ms"]
    assert 0 < times["queue"] + times["decode"] + times["infer"] <= times["total"] + 0.03
    assert (value["flags"], value["cached"], value["held"]) == ([], False, False)


def test_top_k_keeps_the_most_probable_best_first(client: FlaskClient) -> None:
    everything = predict(client, RED_JPEG).get_json()["probabilities"]
    answer = predict(client, RED_JPEG, "?top_k=2").get_json()
    assert "data_id" not in answer
    best_two = answer["probabilities"]
    assert list(everything) == ["blue", "green", "red"]
    assert list(best_two.items()) == sorted(everything.items(), key=lambda item: -item[1])[:2]
    assert len(predict(client, RED_JPEG, "?top_k=999").get_json()["probabilities"]) == 3


JSON, JPEG = ({"content_type": kind} for kind in ("application/json", "image/jpeg"))


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "slug"),
    [
        ("POST", "/v1/predict", {"data": "x"}, 415, "unsupported-media-type"),
        ("POST", "/v1/predict", {"data": "{", **JSON}, 400, "malformed-body"),
        (
            "POST",
            "/v1/predict",
            {"data": RED_JPEG + bytes(10 * 2**20), **JPEG},
            413,
            "image-too-large",
        ),
        ("POST", "/v1/model", {}, 405, "method-not-allowed"),
        ("GET", "/image/detection", {}, 405, "method-not-allowed"),
        ("GET", "/v1/nothing", {}, 404, "not-found"),
        ("GET", "/static/../app.py", {}, 404, "not-found"),
    ],
)
def test_wrong_request_is_a_problem_with_its_own_type(
    client: FlaskClient, method: str, path: str, options: dict, status: int, slug: str
) -> None:
    response = client.open(path, method=method, **{"content_type": "text/plain", **options})
    assert_problem(response, status, slug)
    assert (status == 405) == ("Allow" in response.headers)


def test_model_route_tells_what_is_served(client: FlaskClient, predictor: Predictor) -> None:
    value = client.get("/v1/model").get_json()
    version, manifest = predictor.version, predictor.version.manifest
    assert value["name"] == version.name
    assert value["digest"] == f"sha256:{files.sha256_of(version.path / versions.MANIFEST)}"
    assert value["classes"] == list(COLOURS)
    height, width = manifest.image_size
    assert value["image_size"] == {"height": height, "width": width}
    assert (value["engine"], value["streams"]) == (
        predictor.engine.name,
        predictor.engine.num_streams,
    )
    assert value["decision_policy"] == {"kind": "argmax"}
    assert value["metrics"] == manifest.metrics
    assert client.get("/healthz").headers["Cache-Control"] == "no-store"


def test_before_the_model_is_loaded_only_readiness_and_prediction_say_so(
    version_path: Path,
) -> None:
    holder = ModelManager(version_path)
    client = app_of(holder).test_client()
    assert client.get("/healthz").status_code == 200
    for response in (client.get("/readyz"), client.get("/v1/model"), predict(client, RED_JPEG)):
        assert_problem(response, 503, "model-loading")
        assert int(response.headers["Retry-After"]) >= 1
    old = client.post("/image/detection", data={"imageBase64String": RED_TEXT})
    assert (old.status_code, old.get_json()["code"]) == (503, "98")
    loaded = threading.Event()
    holder.load_in_background(lambda _: loaded.set(), lambda _: None)
    assert loaded.wait(5)
    assert client.get("/readyz").status_code == 200
    holder.close()
    assert_problem(client.get("/readyz"), 503, "shutting-down")


class Stuck(Predictor):
    """A real predictor that predicts only when it is let."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.version, predictor.engine)
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()

    def predict(self, image):
        self.entered.release()
        assert self.go_on.wait(10)
        return super().predict(image)


@pytest.fixture
def stuck(predictor: Predictor) -> Iterator[Stuck]:
    stuck = Stuck(predictor)
    yield stuck
    stuck.go_on.set()


def test_one_request_too_many_is_told_to_come_back_while_health_answers(stuck: Stuck) -> None:
    app = app_of(stuck, ServingLimits(max_in_flight=2))
    client = app.test_client()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(predict, app.test_client(), RED_JPEG) for _ in range(2)]
        assert all(stuck.entered.acquire(timeout=5) for _ in answers)
        assert_problem(predict(client, RED_JPEG), 503, "overloaded")
        refused = client.post("/image/detection", data={"imageBase64String": RED_TEXT})
        assert (refused.status_code, refused.get_json()["code"]) == (503, "98")
        assert refused.headers["Retry-After"] == "1"
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        stuck.go_on.set()
        assert [answer.result(5).get_json()["label"] for answer in answers] == ["red", "red"]
    for _ in range(3):  # the places were given back
        assert predict(client, RED_JPEG).status_code == 200


@pytest.mark.parametrize(("max_waiting", "status"), [(1, 200), (0, 503)])
def test_who_comes_a_moment_too_early_waits_where_there_is_room(
    stuck: Stuck, max_waiting: int, status: int
) -> None:
    limits = ServingLimits(max_in_flight=1, max_waiting=max_waiting, max_waiting_seconds=10)
    app = app_of(stuck, limits)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(predict, app.test_client(), RED_JPEG)
        assert stuck.entered.acquire(timeout=5)
        second = pool.submit(predict, app.test_client(), RED_JPEG + b"another one")
        with contextlib.suppress(TimeoutError):
            second.result(0.2)
        stuck.go_on.set()
        assert (first.result().status_code, second.result().status_code) == (200, status)


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/predict", 500), ("/image/detection", 200)], ids=["v1", "legacy"]
)
def test_failure_of_the_server_tells_no_secret_and_the_next_request_is_right(
    predictor: Predictor, path: str, status: int, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    client = app_of(predictor, ServingLimits(max_in_flight=1)).test_client()
    assert "classifier_in_flight 0.0" in client.get("/metrics").text
    with failing(base_errors.EngineError("secret path /srv/model")):
        response = client.post(path, data={"imageBase64String": RED_TEXT})
    assert response.status_code == status
    assert "secret" not in response.text
    assert response.headers["X-Request-Id"] in response.text
    assert response.headers["X-Request-Id"] in caplog.text
    assert "red" in client.post(path, data={"imageBase64String": RED_TEXT}).text


def test_failure_with_one_image_of_a_batch_is_counted_and_in_the_log(
    predictor: Predictor, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    client = app_of(predictor).test_client()
    for error, slug in ((base_errors.EngineError("!"), "internal"), (MemoryError(), "overloaded")):
        with failing(error), caplog.at_level(logging.DEBUG):
            value = client.post("/v1/predict/batch", json=BATCH).get_json()
        request_id = f"{value['id']}-0"
        refusal = value["results"][0]["error"]
        assert refusal["type"] == f"/problems/{slug}"
        assert request_id in refusal["detail"]
        assert f"Request {request_id} failed: {type(error).__name__}." in caplog.text
        assert f'classifier_problems_total{{problem="{slug}"}} 1.0' in client.get("/metrics").text
    assert "Traceback" in caplog.text


def test_large_images_are_decoded_one_after_another_until_the_deadline(
    predictor: Predictor,
) -> None:
    limits = ServingLimits(heavy_pixels=100, max_decoding=2, max_decoding_wait=0.05)
    decoding = Admission(limits).decoding()
    with decoding(101):
        with decoding(100), decoding(100):  # small ones do not wait for it
            for num_pixels in (100, 101):
                with pytest.raises(errors.OverloadedError), decoding(num_pixels):
                    pass
        admission = Admission(ServingLimits(heavy_pixels=100))
        begun = time.monotonic()
        with admission.decoding()(101), pytest.raises(errors.OverloadedError):
            predictor.decode(RED_JPEG, at_once=admission.decoding(begun + 0.05))
        assert time.monotonic() - begun < 5
    with decoding(101):
        pass


def test_every_error_of_an_image_or_request_has_a_row_of_its_own() -> None:
    kinds = [*base_errors.ImageError.__subclasses__(), *leaves(errors.RequestError)]
    # Those of tests, or that a module defines for itself, take the row of their parent.
    modules = (base_errors.__name__, errors.__name__)
    kinds = [kind for kind in kinds if kind.__module__ in modules]
    assert len(kinds) > 12
    special = [kind for kind in kinds if kind is not base_errors.UndecodableImageError]
    assert [kind for kind in special if kind not in errors.PROBLEMS] == []
    for kind in kinds:
        row = next(errors.PROBLEMS[parent] for parent in kind.__mro__ if parent in errors.PROBLEMS)
        assert 400 <= row.status < 500, kind
    slugs = [row.slug for row in errors.PROBLEMS.values()]
    assert all(slug.replace("-", "").isalnum() for slug in slugs)
