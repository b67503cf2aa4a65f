"""/v1/model, /v1/models and /v1/admin: which model versions there are, and which one is served."""

import flask

from imagesieve.serving import openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.models import describe
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
_CHANGE = openapi.json_content("what is served now", schemas.ModelChange)
_NO_BODY = openapi.json_body("none, or an empty object", schemas.Nothing, required=False)

blueprint = flask.Blueprint("models", __name__)


@blueprint.get("/v1/model")
@requires(Scope.PREDICT)
@openapi.operation(
    "model",
    openapi.PREDICT,
    openapi.json_content("the model", schemas.Model),
    errors=openapi.LOADING,
)
def model() -> flask.Response:
    """Describe the model version that is served."""
    return json_response(describe(current_service().models.get()))


@blueprint.get("/v1/models")
@requires(Scope.PREDICT)
@openapi.operation("models", openapi.MODELS, _VERSIONS, errors=openapi.LOADING)
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
    service = current_service()
    read_object(flask.request, service.limits, schemas.Nothing)
    return json_response(service.models.reload())


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
    service = current_service()
    asked = read_object(flask.request, service.limits, schemas.Activation)
    change = service.models.activate(asked.version, allow_other_classes=asked.allow_other_classes)
    return json_response(change)


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
    service = current_service()
    read_object(flask.request, service.limits, schemas.Nothing)
    return json_response(service.models.rollback())
