"""/v1/model, /v1/models and /v1/admin: which model versions there are, and which one is served."""

from collections.abc import Mapping
from typing import Any

import flask

from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import BadParameterError
from imagesieve.serving.requests import read_object
from imagesieve.serving.service import current_service, json_response, requires

blueprint = flask.Blueprint("models", __name__)


@blueprint.get("/v1/model")
@requires(Scope.PREDICT)
def model() -> flask.Response:
    """Return the model version that is served."""
    return json_response(current_service().predictor().describe())


@blueprint.get("/v1/models")
@requires(Scope.PREDICT)
def list_models() -> flask.Response:
    """Return all versions of the model folder."""
    return json_response({"models": current_service().models.describe_all()})


@blueprint.post("/v1/admin/reload")
@requires(Scope.ADMIN)
def reload() -> flask.Response:
    """Serve what `current.json` names."""
    _read_fields()
    return json_response(current_service().models.reload().to_json())


@blueprint.post("/v1/admin/activate")
@requires(Scope.ADMIN)
def activate() -> flask.Response:
    """Serve the version that the body names."""
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
def rollback() -> flask.Response:
    """Serve what was served before."""
    _read_fields()
    return json_response(current_service().models.rollback().to_json())


def _read_fields(*names: str) -> Mapping[str, Any]:
    return read_object(flask.request, current_service().limits, names)
