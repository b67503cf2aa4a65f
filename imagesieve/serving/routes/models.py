"""/v1/model, /v1/models and /v1/admin: which model versions there are, and which one is served."""

import flask

from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import current_service, json_response, requires
from imagesieve.serving.model_manager import describe
from imagesieve.serving.requests import read_object

_ACTIVATE_FIRST = openapi.link("activate", requestBody={"version": "$response.body#/models/0/name"})
_NOW = "what is served now"
_NO_BODY = openapi.json_body("none, or an empty object", schemas.Nothing, required=False)

blueprint = flask.Blueprint("models", __name__)


@blueprint.get("/v1/model")
@requires(Scope.PREDICT)
@openapi.operation("model", openapi.PREDICT, "the model", schemas.Model)
def model() -> flask.Response:
    """Describe the model version that is served."""
    return json_response(describe(current_service().models.get()))


@blueprint.get("/v1/models")
@requires(Scope.PREDICT)
@openapi.operation(
    "models", openapi.MODELS, "the versions, by name", schemas.Models, links=_ACTIVATE_FIRST
)
def list_models() -> flask.Response:
    """List all versions of the model folder."""
    return json_response({"models": current_service().models.describe_all()})


@blueprint.post("/v1/admin/reload")
@requires(Scope.ADMIN)
@openapi.operation("reload", openapi.MODELS, _NOW, schemas.ModelChange, body=_NO_BODY)
def reload() -> flask.Response:
    """Serve the version that is current on disk.

    When it cannot be served, the version that is served now stays.
    """
    read_object(flask.request, schemas.Nothing)
    return json_response(current_service().models.reload())


@blueprint.post("/v1/admin/activate")
@requires(Scope.ADMIN)
@openapi.operation(
    "activate",
    openapi.MODELS,
    _NOW,
    schemas.ModelChange,
    body=openapi.json_body("which version", schemas.Activation),
    example="""CURL --json '{"version": "NAME-OR-DIGEST"}' URL/v1/admin/activate""",
)
def activate() -> flask.Response:
    """Serve another version.

    It becomes the current one for the next start, too. When it cannot be served, the version that
    is served now stays.
    """
    asked = read_object(flask.request, schemas.Activation)
    models, may_differ = current_service().models, asked.allow_other_classes
    return json_response(models.activate(asked.version, allow_other_classes=may_differ))


@blueprint.post("/v1/admin/rollback")
@requires(Scope.ADMIN)
@openapi.operation("rollback", openapi.MODELS, _NOW, schemas.ModelChange, body=_NO_BODY)
def rollback() -> flask.Response:
    """Serve the version that was served before."""
    read_object(flask.request, schemas.Nothing)
    return json_response(current_service().models.rollback())
