"""The first generation's routes."""

import flask

from imagesieve.serving import legacy, openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import Problem
from imagesieve.serving.forms import MULTIPART, URLENCODED
from imagesieve.serving.requests import ImageInput, ImageRequest, read_legacy_image
from imagesieve.serving.service import (
    current_service,
    error_response,
    problem_response,
    requires,
    response_of,
)

_ANSWER = {
    "oneOf": [
        {"$ref": "#/components/schemas/LegacySuccess"},
        {"$ref": "#/components/schemas/LegacyFailure"},
    ]
}
# Without a type: a field that cannot be read is answered with code 98, as a missing one is.
_FORM = {
    "properties": {"imageBase64String": {"type": "string", "description": "the image as Base64"}}
}

blueprint = flask.Blueprint("legacy", __name__)


@blueprint.post(legacy.PATH)
@requires(Scope.PREDICT)
@openapi.operation(
    "detect",
    openapi.FIRST_GENERATION,
    {200: openapi.json_content("what the model says, or what was wrong: look at `code`", _ANSWER)},
    query=schemas.LegacyFields,
    body=openapi.Content(
        "other fields are ignored", {URLENCODED: _FORM, MULTIPART: _FORM}, {"required": False}
    ),
    errors=openapi.BUSY,
    example="base64 < image.jpg | CURL --data-urlencode imageBase64String@- URL/image/detection",
)
def detect() -> flask.Response:
    """Classify one image, as the first generation did.

    Everything that is wrong with a request is answered with status 200 and code 98. Below the
    model's confidence the class `neutral` is answered, if it has one.
    """
    service = current_service()
    with service.admission.place():
        predictor = service.models.get()
        data = read_legacy_image(flask.request, service.limits)
        if data is None:
            return response_of(legacy.missing())
        asked = ImageRequest(ImageInput(data), schemas.PredictOptions())
        result = service.pipeline.predict(predictor, asked, service.deadline())
    flask.g.label = result.prediction.label
    return response_of(legacy.success(result.prediction, result.policy))


@blueprint.get("/helloWorld")
@openapi.operation(
    "greet",
    openapi.FIRST_GENERATION,
    {200: openapi.Content("a greeting", {"text/plain": openapi.TEXT})},
)
def greet() -> flask.Response:
    """Say hello."""
    return response_of(legacy.GREETING, media_type="text/plain")


@blueprint.errorhandler(Exception)
def fail(error: Exception) -> flask.Response:
    """Return an error as the first generation's clients expect it."""
    return error_response(error, _render) if _is_detection() else problem_response(error)


def _is_detection() -> bool:
    return flask.request.path == legacy.PATH


def _render(problem: Problem, detail: str, _seconds: int | None) -> flask.Response:
    status = problem.status if problem.status in legacy.TOLD_BY_STATUS else 200
    return response_of(legacy.failure(detail), status)
