"""The API's description: valid, whole, and true of what the service really answers."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from apps import app_of, models_of
from flask.testing import FlaskClient
from openapi_spec_validator import validate

import imagesieve
from imagesieve.explaining.worker import Explainer
from imagesieve.model.decisions import CONFIDENT, DecisionPolicy
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import errors
from imagesieve.serving.access import Access, read_keys
from imagesieve.serving.app import Service, create_app, route_of
from imagesieve.serving.feedback.review import Corrections
from imagesieve.serving.limits import Admission
from imagesieve.serving.model_manager import ModelManager

KEYS = "boss predict,feedback,admin aaaaaaaaaaaaaaaaaaaa"
BOSS = {"X-API-Key": "aaaaaaaaaaaaaaaaaaaa"}

Document = dict[str, Any]


def whole_app(
    models: ModelManager, corrections: Corrections, access: Access | None = None
) -> flask.Flask:
    """Return a service with every route that there is."""
    admission = Admission()
    return create_app(
        Service(models, admission, access or Access(), lambda url: b"", corrections, Explainer())
    )


@pytest.fixture(scope="module")
def predictor(version_path: Path) -> Predictor:
    return Predictor.load(version_path, policy=DecisionPolicy(CONFIDENT, 0.5, "neutral"))


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corrections]:
    with contextlib.closing(Corrections(tmp_path_factory.mktemp("feedback"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(predictor: Predictor, corrections: Corrections) -> flask.Flask:
    return whole_app(models_of(predictor), corrections)


@pytest.fixture(scope="module")
def client(app: flask.Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def keyed(predictor: Predictor, corrections: Corrections) -> flask.Flask:
    access = Access(read_keys(None, {"CLASSIFIER_KEYS": KEYS}))
    return whole_app(models_of(predictor), corrections, access)


@pytest.fixture(scope="module")
def spec(client: FlaskClient) -> Document:
    return described(client)


def described(client: FlaskClient) -> Document:
    response = client.get("/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    return response.get_json()


def operations(spec: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield method, path and operation."""
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def command(operation: Document) -> str:
    """Return the example of an operation."""
    match = re.search("```sh\n(.*)\n```", operation["description"])
    assert match, operation
    return match[1]


def body(spec: Document, path: str, media_type: str) -> Document:
    """Return the schema of what is posted to a path."""
    content = spec["paths"][path]["post"]["requestBody"]["content"]
    return content[media_type]["schema"]


def test_document_is_valid_openapi_with_and_without_keys_and_model(
    spec: Document, keyed: flask.Flask, version_path: Path, tmp_path: Path
) -> None:
    loading = whole_app(ModelManager(version_path), Corrections(tmp_path)).test_client()
    for document in (spec, described(keyed.test_client()), described(loading)):
        validate(document)
        assert document["openapi"].startswith("3.1")
        assert document["info"]["version"] == imagesieve.__version__


def test_every_route_of_the_service_is_described_and_no_other(
    app: flask.Flask, spec: Document, predictor: Predictor
) -> None:
    there = {
        (method, route_of(rule).replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static" and rule.endpoint != "pages.docs_file"
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations(spec)} == there
    assert len(there) >= 28
    without = described(app_of(predictor).test_client())["paths"]
    assert set(spec["paths"]) - set(without) == {
        "/v1/explain", "/v1/feedback", "/v1/feedback/{sha256}", "/v1/feedback/export",
        "/v1/review", "/v1/review/{sha256}/image",
    }  # fmt: skip


def test_examples_lead_to_the_routes_that_they_stand_by(
    app: flask.Flask, keyed: flask.Flask, spec: Document
) -> None:
    urls = app.url_map.bind("localhost")
    for method, path, operation in operations(spec):
        arguments = shlex.split(command(operation).rpartition("curl ")[2])
        address = arguments[-1].removeprefix("http://localhost").partition("?")[0]
        address = address.replace("SHA256-OF-THE-IMAGE", "0" * 64)
        rule, _ = urls.match(address, method, return_rule=True)
        assert route_of(rule) == path.replace("{", "<").replace("}", ">")
        assert operation["summary"]
        sends = any(one.startswith(("--data", "--json", "-F", "-X")) for one in arguments)
        assert sends == (method != "GET")
    response = app.test_client().get("/openapi.json", base_url="http://images.example:8080")
    example = command(response.get_json()["paths"]["/v1/predict"]["post"])
    assert example == "curl --data-binary @image.jpg http://images.example:8080/v1/predict"
    for _, _, operation in operations(described(keyed.test_client())):
        assert ("X-API-Key: KEY" in command(operation)) == ("security" in operation)


def test_classes_limits_and_sources_are_those_of_the_service(
    spec: Document, predictor: Predictor, version_path: Path, tmp_path: Path
) -> None:
    schemas = spec["components"]["schemas"]
    assert schemas["ClassName"]["enum"] == ["blue", "green", "red"]
    assert schemas["PredictOptions"]["properties"]["frames"]["maximum"] == 8
    assert schemas["BatchBody"]["properties"]["images"]["maxItems"] == 32
    files = body(spec, "/v1/predict/batch", "multipart/form-data")["properties"]["image"]
    assert files["maxItems"] == 32
    loading = described(whole_app(ModelManager(version_path), Corrections(tmp_path)).test_client())
    assert "enum" not in loading["components"]["schemas"]["ClassName"]
    assert "/v1/predict" in loading["paths"]
    without = described(app_of(predictor).test_client())
    for document, is_taken in ((spec, True), (without, False)):  # images by URL
        for media_type in ("application/json", "application/x-www-form-urlencoded"):
            assert ("url" in body(document, "/v1/predict", media_type)["properties"]) == is_taken
        item = document["components"]["schemas"]["BatchItem"]
        assert ("url" in item["properties"]) == is_taken
        assert item["oneOf"] == [{"required": ["image"]}] + [{"required": ["url"]}] * is_taken


def test_keys_are_described_only_where_they_are_needed(spec: Document, keyed: flask.Flask) -> None:
    assert "securitySchemes" not in spec["components"]
    assert not [one for _, _, one in operations(spec) if "security" in one]
    with_keys = described(keyed.test_client())
    assert set(with_keys["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    scopes = {
        f"{method} {path}": {scope for way in one["security"] for (scope,) in way.values()}
        for method, path, one in operations(with_keys)
        if "security" in one
    }
    assert scopes["POST /v1/predict"] == {"predict"}
    assert scopes["POST /v1/feedback"] == {"feedback"}
    assert scopes["GET /metrics"] == scopes["POST /v1/admin/reload"] == {"admin"}
    client = keyed.test_client()
    for method, path, operation in operations(with_keys):
        response = client.open(path.replace("{sha256}", "0" * 64), method=method)
        assert (response.status_code == 401) == ("security" in operation), path


def test_every_problem_is_in_the_table_and_every_refusal_has_its_shape(spec: Document) -> None:
    slugs = {row.slug for row in errors.PROBLEMS.values()} - {"client-gone"}
    table = re.findall(
        "^\\| (\\d+) \\| `/problems/(.+)` \\| .+ \\|$", spec["info"]["description"], re.M
    )
    assert {slug for _, slug in table} == slugs
    assert ("413", "body-too-large") in table
    kinds = spec["components"]["schemas"]["ProblemType"]["enum"]
    assert set(kinds) == {f"/problems/{slug}" for slug in slugs}
    own = {"Open Inference Protocol": "OipError", "First generation": "LegacyFailure"}
    for _, path, operation in operations(spec):
        name = own.get(operation["tags"][0], "Problem")
        expected = {"$ref": f"#/components/responses/{name}"}
        for status in ("4XX", "5XX"):
            assert operation["responses"][status] == expected, path


def test_a_url_of_its_own_is_no_value_of_another_one_s_variable(client: FlaskClient) -> None:
    path = "/v1/feedback/export"  # beside DELETE /v1/feedback/{sha256}
    image = "/v1/feedback/" + "0" * 64
    for method, url, allow in (("DELETE", path, "GET, HEAD"), ("GET", image, "DELETE")):
        response = client.open(url, method=method)
        assert (response.status_code, response.headers["Allow"]) == (405, allow)
