"""The first generation's contract, word by word."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from apps import app_of
from flask.testing import FlaskClient
from painted import COLOURS, encode, paint

from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Predictor

GREEN = base64.b64encode(encode(paint(COLOURS["green"]))).decode()
MURKY = base64.b64encode(encode(paint((110, 120, 100)))).decode()


def client_for(version: Path, policy: DecisionPolicy | None = None) -> FlaskClient:
    return app_of(Predictor.load(version, policy=policy)).test_client()


@pytest.fixture(scope="module")
def client(version_path: Path) -> FlaskClient:
    return client_for(version_path)


@pytest.fixture(scope="module")
def neutral_version(make_version: Callable[..., Path]) -> Path:
    return make_version(classes=("neutral", "political", "porn"))


def detect(client: FlaskClient, text: str) -> dict[str, str]:
    response = client.post("/image/detection", data={"imageBase64String": text})
    assert response.status_code == 200
    return json.loads(response.data)


def test_success_has_the_old_shape_and_words_in_ascii(client: FlaskClient) -> None:
    response = client.post("/image/detection", data={"imageBase64String": GREEN})
    assert response.data.isascii()
    answer = response.get_json()
    probability = answer["probability"]
    assert list(answer.items()) == [
        ("code", "00"),
        ("message", "图片检测成功，类别是：green"),
        ("predictedClass", "green"),
        ("probability", probability),
    ]
    assert isinstance(probability, str)
    assert 0.75 < float(probability) < 1
    assert "Hello" in client.get("/helloWorld").text


@pytest.mark.parametrize(
    "options",
    [
        {"query_string": {"imageBase64String": GREEN}},
        {"data": {"imageBase64String": GREEN, "x": "y"}, "content_type": "multipart/form-data"},
        {"data": {"imageBase64String": f"data:image/jpeg;base64,{GREEN}", "unknown": "1"}},
    ],
    ids=["query", "multipart", "data URI and an unknown field"],
)
def test_field_is_taken_from_form_or_query(client: FlaskClient, options: dict) -> None:
    response = client.post("/image/detection", **options)
    assert response.get_json()["predictedClass"] == "green"


@pytest.mark.parametrize(
    "options",
    [{}, {"data": {"image": GREEN}}, {"data": {"imageBase64String": ""}}, {"json": {"x": 1}}],
    ids=["nothing", "another field", "empty", "JSON"],
)
def test_missing_field_has_the_old_words(client: FlaskClient, options: dict) -> None:
    response = client.post("/image/detection", **options)
    assert response.status_code == 200
    assert json.loads(response.data) == {"code": "98", "message": "缺少必要传入参数"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data": {"imageBase64String": "!!!"}}, "Base64"),
        ({"data": {"imageBase64String": "aGVsbG8="}}, "not a known image format"),
        ({"data": bytes(17 * 2**20)}, "16,777,216 bytes"),
    ],
    ids=["no Base64", "no image", "large"],
)
def test_fault_of_the_caller_is_http_200_with_code_98(
    client: FlaskClient, options: dict, reason: str
) -> None:
    response = client.post("/image/detection", **options)
    answer = json.loads(response.data)
    assert response.status_code == 200
    assert list(answer) == ["code", "message"]
    assert answer["code"] == "98"
    assert answer["message"].startswith("图片检测失败，原因是：")
    assert reason in answer["message"]


def test_unsure_is_neutral_when_the_model_has_such_a_class(
    client: FlaskClient, neutral_version: Path
) -> None:
    assert detect(client, MURKY)["predictedClass"] == "green"  # it knows no neutral
    client = client_for(neutral_version, DecisionPolicy())
    unsure, sure = detect(client, MURKY), detect(client, GREEN)
    assert float(unsure["probability"]) < 0.75
    assert unsure["predictedClass"] == "neutral"
    assert unsure["message"] == "图片检测成功，类别是：neutral"
    assert sure["predictedClass"] == "political"
    client = client_for(neutral_version, DecisionPolicy(CONFIDENT, 0.2, "neutral"))
    assert detect(client, MURKY)["predictedClass"] == "political"  # a policy in force is kept
