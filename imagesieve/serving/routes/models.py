"""/v1/model, /v1/models and /v1/admin: which model versions there are, and which one is served."""

from collections.abc import Mapping
from typing import Any

import flask

from imagesieve.serving import openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import BadParameterError
from imagesieve.serving.requests import read_object
from imagesieve.serving.service import current_service, json_response, requires

_VERSIONS = openapi.json_content(
    "the versions, by name",
    schemas.Models,
    links={
        "activate": {
            "operationId": "activate",
            "requestBody": {"version": "$response.body#/models/0/name"},
            "description": "serve the first of them",
        }
    },
)
_CHANGE = {200: openapi.json_content("what is served now", schemas.ModelChange)}
_NO_BODY = openapi.json_body("none, or an empty object", schemas.Nothing, required=False)

blueprint = flask.Blueprint("models", __name__)


@blueprint.get("/v1/model")
@requires(Scope.PREDICT)
@openapi.operation(
    "model",
    openapi.PREDICT,
    {200: openapi.json_content("the model", schemas.Model)},
    errors=openapi.LOADING,
)
def model() -> flask.Response:
    """Describe the model version that is served."""
    return json_response(current_service().predictor().describe())


@blueprint.get("/v1/models")
@requires(Scope.PREDICT)
@openapi.operation("models", openapi.MODELS, {200: _VERSIONS}, errors=openapi.LOADING)
def list_models() -> flask.Response:
    """List all versions of the model folder."""
    return json_response({"models": current_service().models.describe_all()})


@blueprint.post("/v1/admin/reload")
@requires(Scope.ADMIN)
@openapi.operation(
    "reload",
    openapi.MODELS,
    _CHANGE,
    body=_NO_BODY,
    errors=openapi.MODEL_CHANGE_ERRORS,
    example="CURL -X POST URL/v1/admin/reload",
)
def reload() -> flask.Response:
    """Serve the version that is current on disk.

    When it cannot be served, the version that is served now stays.
    """
    _read_fields()
    return json_response(current_service().models.reload().to_json())


@blueprint.post("/v1/admin/activate")
@requires(Scope.ADMIN)
@openapi.operation(
    "activate",
    openapi.MODELS,
    _CHANGE,
    body=openapi.json_body("which version", schemas.Activation),
    errors=openapi.MODEL_CHANGE_ERRORS,
    example="""CURL --json '{"version": "NAME-OR-DIGEST"}' URL/v1/admin/activate""",
)
def activate() -> flask.Response:
    """Serve another version.

    It becomes the current one for the next start, too. When it cannot be served, the version that
    is served now stays.
    """
    fields = _read_fields("version", "allow_other_classes")
    version, allow = fields.get("version"), fields.get("allow_other_classes", False)
    if not isinstance(version, str) or not version:
        raise BadParameterError(
            "The field version must be a version's folder name or sha256: and its digest."
        )
    if not isinstance(allow, bool):
        raise BadParameterError("The field allow_other_classes must be true or false.")
    change = current_service().models.activate(version, allow_other_classes=allow)
    return json_response(change.to_json())


@blueprint.post("/v1/admin/rollback")
@requires(Scope.ADMIN)
@openapi.operation(
    "rollback",
    openapi.MODELS,
    _CHANGE,
    body=_NO_BODY,
    errors=openapi.MODEL_CHANGE_ERRORS,
    example="CURL -X POST URL/v1/admin/rollback",
)
def rollback() -> flask.Response:
    """Serve the version that was served before."""
    _read_fields()
    return json_response(current_service().models.rollback().to_json())


def _read_fields(*names: str) -> Mapping[str, Any]:
    return read_object(flask.request, current_service().limits, names)
