"""The first generation's HTTP contract: its routes, shapes and texts.

`POST /image/detection` answers with HTTP 200 whatever the image was: old callers look only at
`code`. What does not concern the image (`schemas.LEGACY_STATUSES`) has a status of its own and the
same body.
"""

import json

import flask

from imagesieve.model.decisions import ARGMAX, DecisionPolicy
from imagesieve.prediction.predictor import Prediction
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import current_service, error_response, problem_response, requires
from imagesieve.serving.requests import JSON, MULTIPART, URLENCODED, read_legacy_image

PATH = "/image/detection"
# Codes and texts, which `predictWithMyModel.py` gives importing programs too.
SUCCESS, FAILURE = "00", "98"
SUCCESS_TEXT, FAILURE_TEXT = "图片检测成功，类别是：{}", "图片检测失败，原因是：{}"
MISSING_TEXT = "缺少必要传入参数"

_ANSWER = {"oneOf": [openapi.ref("LegacySuccess"), openapi.ref("LegacyFailure")]}
# Without a type: a field that cannot be read is answered with code 98, as a missing one is.
_FORM = {"properties": {"imageBase64String": {**openapi.TEXT, "description": "as Base64"}}}

blueprint = flask.Blueprint("legacy", __name__)


@blueprint.post(PATH)
@requires(Scope.PREDICT)
@openapi.operation(
    "detect",
    openapi.FIRST_GENERATION,
    "what the model says, or what was wrong: look at `code`",
    _ANSWER,
    query=_FORM,
    body=openapi.content("other fields are ignored", {URLENCODED: _FORM, MULTIPART: _FORM}),
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
        image = read_legacy_image(flask.request)
        if image is None:
            return _response(_encode(FAILURE, MISSING_TEXT))
        result = service.pipeline.predict(predictor, image.read(), service.deadline())
    prediction = result.prediction
    flask.g.label = prediction.label
    label = legacy_decision(prediction, result.policy)
    more = {"predictedClass": label, "probability": str(prediction.probability)}
    return _response(_encode(SUCCESS, SUCCESS_TEXT.format(label), **more))


@blueprint.get("/helloWorld")
@openapi.operation(
    "greet", openapi.FIRST_GENERATION, "a greeting", openapi.TEXT, media_type="text/plain"
)
def greet() -> flask.Response:
    """Say hello."""
    return flask.Response("Hello World!", mimetype="text/plain")


@blueprint.errorhandler(Exception)
def fail(error: Exception) -> flask.Response:
    """Return an error as the first generation's clients expect it."""
    is_detection = flask.request.path == PATH
    return error_response(error, _render) if is_detection else problem_response(error)


def failure(reason: str) -> str:
    """Return the answer when an image could not be classified, as JSON text."""
    return _encode(FAILURE, FAILURE_TEXT.format(reason))


def _encode(code: str, message: str, **more: str) -> str:
    return json.dumps({"code": code, "message": message, **more})  # in ASCII, as it was


def legacy_decision(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Return the decision; where a class is `neutral`, it is that class below the confidence.

    The first generation had no policies: below 0.75 it meant to answer `neutral`, always.
    """
    if policy.kind == ARGMAX:
        policy = DecisionPolicy.default_for(list(prediction.probabilities))
    return policy.decide(prediction.probabilities).decision


def _render(problem: schemas.Problem) -> flask.Response:
    status = problem.status if problem.status in schemas.LEGACY_STATUSES else 200
    return _response(failure(problem.detail), status)


def _response(text: str, status: int = 200) -> flask.Response:
    return flask.Response(text, status, mimetype=JSON)
