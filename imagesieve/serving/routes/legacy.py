"""The first generation's routes."""

import flask

from imagesieve.serving import legacy
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import Problem
from imagesieve.serving.predict_options import PredictOptions
from imagesieve.serving.requests import ImageInput, ImageRequest, read_legacy_image
from imagesieve.serving.service import (
    current_service,
    error_response,
    problem_response,
    requires,
    response_of,
)

blueprint = flask.Blueprint("legacy", __name__)


@blueprint.post(legacy.PATH)
@requires(Scope.PREDICT)
def detect() -> flask.Response:
    """Predict the image of the one field."""
    service = current_service()
    with service.admission.place():
        predictor = service.predictor()
        data = read_legacy_image(flask.request, service.limits)
        if data is None:
            return response_of(legacy.missing())
        asked = ImageRequest(ImageInput(data), PredictOptions())
        result = service.pipeline.predict(predictor, asked, service.deadline())
    flask.g.label = result.prediction.label
    return response_of(legacy.success(result.prediction, result.policy))


@blueprint.get("/helloWorld")
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
