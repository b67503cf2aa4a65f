"""The first generation's HTTP contract: its routes, shapes and texts.

`POST /image/detection` answers with HTTP 200 whatever the image was: old callers look only at
`code`. What does not concern the image (`schemas.LEGACY_STATUSES`) has a status of its own and the
same body.
"""

import json
from typing import Final

import flask
import msgspec

from imagesieve.model.decisions import ARGMAX, DecisionPolicy
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import Problem
from imagesieve.serving.forms import MULTIPART, URLENCODED
from imagesieve.serving.requests import ImageRequest, read_legacy_image
from imagesieve.serving.service import (
    current_service,
    error_response,
    problem_response,
    requires,
    response_of,
)

PATH = "/image/detection"
SUCCESS: Final = "00"
FAILURE: Final = "98"
MISSING_MESSAGE = "缺少必要传入参数"

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


@blueprint.post(PATH)
@requires(Scope.PREDICT)
@openapi.operation(
    "detect",
    openapi.FIRST_GENERATION,
    openapi.json_content("what the model says, or what was wrong: look at `code`", _ANSWER),
    query=_FORM,
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
        image = read_legacy_image(flask.request, service.limits)
        if image is None:
            return response_of(failure(MISSING_MESSAGE))
        result = service.pipeline.predict(predictor, ImageRequest(image), service.deadline())
    prediction = result.prediction
    flask.g.label = prediction.label
    label = label_of(prediction, result.policy)
    return response_of(
        _encode(
            schemas.LegacySuccess(
                SUCCESS, success_message(label), label, str(prediction.probability)
            )
        )
    )


@blueprint.get("/helloWorld")
@openapi.operation(
    "greet", openapi.FIRST_GENERATION, openapi.Content("a greeting", {"text/plain": openapi.TEXT})
)
def greet() -> flask.Response:
    """Say hello."""
    return response_of("Hello World!", media_type="text/plain")


@blueprint.errorhandler(Exception)
def fail(error: Exception) -> flask.Response:
    """Return an error as the first generation's clients expect it."""
    is_detection = flask.request.path == PATH
    return error_response(error, _render) if is_detection else problem_response(error)


def success_message(label: str) -> str:
    """Return the text for an image."""
    return f"图片检测成功，类别是：{label}"


def failure_message(reason: str) -> str:
    """Return the text for an image that could not be classified."""
    return f"图片检测失败，原因是：{reason}"


def failure(message: str) -> str:
    """Return the answer when something was wrong, as JSON text."""
    return _encode(schemas.LegacyFailure(FAILURE, message))


def label_of(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Return the decision; where a class is `neutral`, it is that class below the confidence.

    The first generation had no policies: below 0.75 it meant to answer `neutral`, always.
    """
    if policy.kind == ARGMAX:
        policy = DecisionPolicy.default_for(list(prediction.probabilities))
    return policy.decide(prediction.probabilities).decision


def _encode(answer: schemas.LegacySuccess | schemas.LegacyFailure) -> str:
    return json.dumps(msgspec.structs.asdict(answer))  # in ASCII, as it was


def _render(problem: Problem, detail: str, _seconds: int | None) -> flask.Response:
    status = problem.status if problem.status in schemas.LEGACY_STATUSES else 200
    return response_of(failure(failure_message(detail)), status)
