"""The Open Inference Protocol: what clients of KServe, Triton and MLServer send and expect."""

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from apps import app_of
from flask.testing import FlaskClient
from painted import COLOURS, encode, paint
from werkzeug.test import TestResponse

import imagesieve
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.access import Access, read_keys
from imagesieve.serving.feedback.review import Corrections
from imagesieve.serving.limits import ServingLimits, TokenBuckets
from imagesieve.serving.model_manager import ModelManager

IMAGES = {name: encode(paint(colour)) for name, colour in COLOURS.items()}
TEXTS = {name: base64.b64encode(data).decode() for name, data in IMAGES.items()}
RED = TEXTS["red"]
KEYS = "shop predict aaaaaaaaaaaaaaaaaaaa; clerk feedback bbbbbbbbbbbbbbbbbbbb"
SHOP = {"X-API-Key": "aaaaaaaaaaaaaaaaaaaa"}
CLERK = {"X-API-Key": "bbbbbbbbbbbbbbbbbbbb"}


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> FlaskClient:
    return app_of(predictor).test_client()


def tensor(*texts: object, **changes: object) -> dict[str, Any]:
    data = list(texts)
    return {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data, **changes}


def infer(client: FlaskClient, *inputs: object, model: str = "default", **more: Any):
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


def outputs(response: TestResponse) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.get_json()["outputs"]}


def assert_error(response: TestResponse, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    value = response.get_json()
    assert list(value) == ["error"]
    for word in words:
        assert word in value["error"]


def test_server_and_model_describe_themselves(client: FlaskClient, predictor: Predictor) -> None:
    version = imagesieve.__version__
    server = {"name": "imagesieve", "version": version, "extensions": []}
    assert client.get("/v2").get_json() == server
    for name in ("default", predictor.version.name):
        assert client.get(f"/v2/models/{name}").get_json() == {
            "name": name,
            "versions": [f"sha256:{predictor.version.digest}"],
            "platform": "image-classifier",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "decision", "datatype": "BYTES", "shape": [-1]},
            ],
            "classes": ["blue", "green", "red"],
        }
        ready = client.get(f"/v2/models/{name}/ready")
        assert ready.get_json() == {"name": name, "ready": True}
    assert client.get("/v2/health/live").get_json() == {"live": True}
    assert client.get("/v2/health/ready").get_json() == {"ready": True}


def test_images_are_classified_in_the_order_sent(client: FlaskClient, predictor: Predictor) -> None:
    names = ["red", "blue", "green", "blue"]
    response = infer(client, tensor(*(TEXTS[name] for name in names)), id="shop-77/3")
    value = response.get_json()
    assert list(value) == ["model_name", "model_version", "id", "outputs"]
    assert (value["model_name"], value["id"]) == ("default", "shop-77/3")
    assert value["model_version"] == f"sha256:{predictor.version.digest}"
    found = outputs(response)
    assert found["label"] == {"name": "label", "datatype": "BYTES", "shape": [4], "data": names}
    assert found["decision"]["data"] == names
    table = found["probabilities"]
    assert (table["datatype"], table["shape"], len(table["data"])) == ("FP32", [4, 3], 12)
    for row, name in enumerate(names):
        expected = predictor.predict(predictor.decode(IMAGES[name])).probabilities
        found_row = table["data"][3 * row : 3 * row + 3]
        assert found_row == pytest.approx(list(expected.values()), abs=1e-6)
        assert sum(found_row) == pytest.approx(1, abs=1e-6)


def test_a_tensor_may_have_a_second_side_of_one(client: FlaskClient) -> None:
    red, blue = TEXTS["red"], TEXTS["blue"]
    for texts in ([red, blue], [[red], [blue]]):
        body = json.dumps({"inputs": [tensor(*texts, shape=[2, 1])]})
        response = client.post("/v2/models/default/infer", data=body)  # no media type either
        assert outputs(response)["label"]["data"] == ["red", "blue"]


def test_only_the_outputs_asked_for_are_answered(client: FlaskClient, predictor: Predictor) -> None:
    parameters = {"priority": 1, "binary_data": False}  # none has a meaning here
    requested = [{"name": "decision"}, {"name": "label", "parameters": parameters}]
    image = tensor(RED, parameters=parameters)
    more = {"outputs": requested, "parameters": parameters}
    response = infer(client, image, model=predictor.version.name, **more)
    assert list(outputs(response)) == ["decision", "label"]
    assert response.get_json()["model_name"] == predictor.version.name
    assert "id" not in response.get_json()
    assert list(outputs(infer(client, tensor(RED), outputs=[]))) == [
        "label",
        "probabilities",
        "decision",
    ]


def test_thirty_two_images_are_classified_and_one_more_is_refused(client: FlaskClient) -> None:
    assert outputs(infer(client, tensor(*[RED] * 32)))["label"]["data"] == ["red"] * 32
    assert_error(infer(client, tensor(*[RED] * 33)), 413, "32")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%%", "Base64"),
        (base64.b64encode(IMAGES["red"][:-2]).decode(), "ends early"),
        (5, "expected `str | array`"),
        ([RED, RED], "of length <= 1"),
    ],
)
def test_one_bad_image_fails_all_and_is_named(
    client: FlaskClient, text: object, words: str
) -> None:
    assert_error(infer(client, tensor(RED, RED, text, RED)), 400, "data[2]", words)
    assert outputs(infer(client, tensor(RED)))["label"]["data"] == ["red"]


FAULTS: dict[str, tuple[Any, str]] = {
    "nothing in it": ({}, "inputs"),
    "other name": ({"inputs": [tensor(RED, name="input_1")]}, "'input_1'"),
    "floats": ({"inputs": [tensor(RED, datatype="FP32")]}, "datatype: invalid enum value 'FP32'"),
    "binary data": ({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES",
                                 "parameters": {"binary_data_size": 9}}]}, "`data`"),
    **{f"shape {shape}": ({"inputs": [tensor(RED, shape=shape)]}, "[1] or [1, 1]")
       for shape in (None, 1, [], [2], [1, 2], [1, 1, 1], [0], [-1], [True], ["1"], [1.5], [[1]])},
    "unknown field": ({"inputs": [tensor(RED)], "priority": 1}, "'priority'"),
    "half a character as id": ({"inputs": [tensor(RED)], "id": "\ud800"}, "surrogate"),
    "unknown output": ({"inputs": [tensor(RED)], "outputs": [{"name": "logits"}]}, "'logits'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_requests_are_told_in_the_protocol_s_shape(client: FlaskClient, fault: str) -> None:
    body, words = FAULTS[fault]
    assert_error(client.post("/v2/models/default/infer", json=body), 400, words)


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b'{"inputs": [], "parameters": {"a": {"b": 1, "b": 2}}}', "application/json", 400),
        (IMAGES["red"], "image/jpeg", 415),
        (bytes(17 * 2**20), "application/json", 413),
    ],
)
def test_bodies_that_are_no_request_are_refused(
    client: FlaskClient, body: bytes, media_type: str, status: int
) -> None:
    path = "/v2/models/default/infer"
    assert_error(client.post(path, data=body, content_type=media_type), status)


def test_other_models_are_unknown(client: FlaskClient) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/..%5c"):
        assert_error(client.get(path), 404, "use default or ")
    assert_error(infer(client, tensor(RED), model="other"), 404, "'other'")
    assert client.get("/v2/models/a/b/c").status_code == 404


def test_while_the_model_loads_only_the_process_is_there(version_path: Path) -> None:
    client = app_of(ModelManager(version_path)).test_client()
    assert client.get("/v2").status_code == client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/default", "/v2/models/default/ready"):
        response = client.get(path)
        assert_error(response, 503, "loading")
        assert int(response.headers["Retry-After"]) >= 1
    assert_error(infer(client, tensor(RED)), 503, "loading")


def test_probes_are_open_and_all_else_asks_for_a_key(predictor: Predictor) -> None:
    access = Access(read_keys(None, {"CLASSIFIER_KEYS": KEYS}))
    client = app_of(predictor, access=access).test_client()
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    body = {"inputs": [tensor(RED)]}
    for method, path, value in (
        ("GET", "/v2", None),
        ("GET", "/v2/models/default", None),
        ("GET", "/v2/models/default/ready", None),
        ("POST", "/v2/models/default/infer", body),
    ):
        assert_error(client.open(path, method=method, json=value), 401)
        assert_error(client.open(path, method=method, json=value, headers=CLERK), 403)
        assert client.open(path, method=method, json=value, headers=SHOP).status_code == 200


def test_each_image_costs_a_token_and_several_take_a_place_of_a_batch(
    predictor: Predictor,
) -> None:
    access = Access(buckets=TokenBuckets(rate=0.001, burst=5))
    client = app_of(predictor, access=access).test_client()
    assert infer(client, tensor(*[RED] * 5)).status_code == 200
    response = infer(client, tensor(RED))
    assert_error(response, 429)
    assert response.headers["Retry-After"]
    client = app_of(predictor, ServingLimits(max_batches=0)).test_client()
    assert infer(client, tensor(RED)).status_code == 200
    assert_error(infer(client, tensor(RED, RED)), 503, "batches")


def test_classified_images_can_be_corrected_later(predictor: Predictor, tmp_path: Path) -> None:
    with contextlib.closing(Corrections(tmp_path)) as corrections:
        client = app_of(predictor, corrections=corrections).test_client()
        request_id = infer(client, tensor(TEXTS["red"], TEXTS["blue"])).headers["X-Request-Id"]
        for number, name in enumerate(("red", "blue")):
            given = {"id": f"{request_id}-{number}", "label": "green"}
            stored = client.post("/v1/feedback", json=given).get_json()
            assert stored["sha256"] == hashlib.sha256(IMAGES[name]).hexdigest()


def test_failure_of_the_engine_is_no_fault_of_the_image(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Predictor, _image: object) -> None:
        raise RuntimeError("secret path /srv/model")

    client = app_of(predictor).test_client()
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict", fail)
        response = infer(client, tensor(RED, TEXTS["blue"], TEXTS["green"]))
    assert_error(response, 500, response.headers["X-Request-Id"])
    assert "secret" not in response.text
    assert outputs(infer(client, tensor(RED)))["label"]["data"] == ["red"]
    assert "classifier_in_flight 0.0" in client.get("/metrics").text
