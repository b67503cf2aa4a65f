"""The Open Inference Protocol, version 2, which clients of KServe, Triton and MLServer speak.

Images go in as one tensor of Base64 texts, as the protocol's JSON has no bytes. It knows no
errors of single images either: one that cannot be judged fails the whole request.
"""

import concurrent.futures
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flask

import imagesieve
from imagesieve.errors import ImageError
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import errors, oip_requests, openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.answers import DECIMALS
from imagesieve.serving.errors import (
    BadParameterError,
    MissingImageError,
    OverloadedError,
    Problem,
    RequestError,
    TooManyImagesError,
    UnknownModelError,
)
from imagesieve.serving.models import threads_for
from imagesieve.serving.oip_requests import BYTES, DECISION, INPUT, LABEL, PROBABILITIES, Inference
from imagesieve.serving.pipeline import Deadline, PredictionResult
from imagesieve.serving.predict_options import PredictOptions
from imagesieve.serving.requests import ImageInput, ImageRequest
from imagesieve.serving.service import (
    Service,
    current_service,
    error_response,
    json_response,
    requires,
    response_of,
)

SERVER_NAME = "imagesieve"
ALIAS = schemas.MODEL_ALIAS
PLATFORM = "image-classifier"
FLOAT = "FP32"

blueprint = flask.Blueprint("oip", __name__, url_prefix="/v2")


@blueprint.errorhandler(Exception)
def fail(error: Exception) -> flask.Response:
    """Return an error as the protocol has it."""
    return error_response(error, _render)


@blueprint.get("")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_server",
    openapi.OIP,
    {200: openapi.json_content("its name", schemas.OipServer)},
)
def server() -> flask.Response:
    """Describe this server."""
    version = imagesieve.__version__
    return json_response({"name": SERVER_NAME, "version": version, "extensions": []})


@blueprint.get("/health/live")
@openapi.operation(
    "oip_live",
    openapi.OIP,
    {200: openapi.json_content("the process answers", schemas.OipLive)},
)
def live() -> flask.Response:
    """Return whether the process answers."""
    return json_response({"live": True})


@blueprint.get("/health/ready")
@openapi.operation(
    "oip_ready",
    openapi.OIP,
    {200: openapi.json_content("a model can predict", schemas.OipReady)},
    errors=(*openapi.LOADING, OverloadedError),
)
def ready() -> flask.Response:
    """Return whether a model can predict."""
    service = current_service()
    service.pipeline.check_ready(service.predictor())
    return json_response({"ready": True})


@blueprint.get("/models/<name>")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_model",
    openapi.OIP,
    {200: openapi.json_content("its tensors", schemas.OipModel)},
    errors=(UnknownModelError, *openapi.LOADING),
    example="CURL URL/v2/models/default",
)
def model(name: str) -> flask.Response:
    """Describe what goes into the model and what comes out."""
    described = _find(name).describe()
    return json_response(
        {
            "name": name,
            "versions": [described["digest"]],
            "platform": PLATFORM,
            "inputs": [_about(INPUT, BYTES, -1)],
            "outputs": [
                _about(LABEL, BYTES, -1),
                _about(PROBABILITIES, FLOAT, -1, len(described["classes"])),
                _about(DECISION, BYTES, -1),
            ],
            "classes": list(described["classes"]),  # in the order of `probabilities`
        }
    )


@blueprint.get("/models/<name>/ready")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_model_ready",
    openapi.OIP,
    {200: openapi.json_content("it can", schemas.OipModelReady)},
    errors=(UnknownModelError, OverloadedError, *openapi.LOADING),
    example="CURL URL/v2/models/default/ready",
)
def model_ready(name: str) -> flask.Response:
    """Return whether this model can predict."""
    current_service().pipeline.check_ready(_find(name))
    return json_response({"name": name, "ready": True})


@blueprint.post("/models/<name>/infer")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_infer",
    openapi.OIP,
    {200: openapi.json_content("label, probabilities and decision of each", schemas.OipAnswer)},
    body=openapi.json_body("one tensor of images", schemas.OipRequest),
    errors=(
        UnknownModelError,
        MissingImageError,
        TooManyImagesError,
        *openapi.BODY_ERRORS,
        *openapi.BUSY,
    ),
    # An image is too long for an argument.
    example="{ printf '"
    '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["'
    "'; base64 < image.jpg | tr -d '\\n'; printf '\"]}]}'; } | "
    "CURL --json @- URL/v2/models/default/infer",
)
def infer(name: str) -> flask.Response:
    """Classify one image or several.

    An image that cannot be classified fails the whole request: the error names its place in
    `data`, counted from 0. `shape` has to agree with `data`.
    """
    service = current_service()
    with contextlib.ExitStack() as places:
        places.enter_context(service.admission.place())
        predictor = _find(name)
        asked = oip_requests.read_inference(flask.request, service.limits)
        if len(asked.images) > 1:
            places.enter_context(service.admission.batch_place())
        service.access.take(flask.g.caller, len(asked.images) - 1)
        results = _predict_all(service, predictor, asked.images)
    return json_response(_answer(name, asked, results))


def _find(name: str) -> Predictor:
    predictor = current_service().predictor()
    served = predictor.describe()["name"]
    if name not in (ALIAS, served):
        raise UnknownModelError(f"There is no model {name[:100]!r} here: use {ALIAS} or {served}.")
    return predictor


def _predict_all(
    service: Service, predictor: Predictor, images: Sequence[str]
) -> list[PredictionResult]:
    """Predict images, given as Base64; the first error ends it."""
    request_id = flask.g.request_id
    deadline = service.deadline(is_batch=len(images) > 1)

    def predict(number: int) -> PredictionResult:
        result = _predict(service, predictor, images[number], deadline, number)
        service.remember(f"{request_id}-{number}", result)
        return result

    with concurrent.futures.ThreadPoolExecutor(threads_for(predictor)) as pool:
        # Once the response to one that failed is due, those not begun yet never are.
        return list(pool.map(predict, range(len(images))))


def _predict(
    service: Service, predictor: Predictor, image: str, deadline: Deadline, number: int
) -> PredictionResult:
    asked = ImageRequest(ImageInput(image), PredictOptions())
    try:
        return service.pipeline.predict(predictor, asked, deadline)
    except (ImageError, RequestError) as error:
        detail = errors.detail_of(error, "")
        raise BadParameterError(f"data[{number}]: {detail}") from error


def _render(problem: Problem, detail: str, _seconds: int | None) -> flask.Response:
    return response_of(json.dumps({"error": detail}), problem.status)


def _about(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _answer(name: str, asked: Inference, judged: Sequence[PredictionResult]) -> dict[str, Any]:
    return {
        "model_name": name,
        "model_version": judged[0].described["digest"],
        **({"id": asked.id} if asked.id is not None else {}),
        "outputs": [_OUTPUTS[output](judged) for output in asked.outputs],
    }


def _labels(judged: Sequence[PredictionResult]) -> dict[str, Any]:
    labels = [one.prediction.label for one in judged]
    return {**_about(LABEL, BYTES, len(labels)), "data": labels}


def _decisions(judged: Sequence[PredictionResult]) -> dict[str, Any]:
    decisions = [one.prediction.decision for one in judged]
    return {**_about(DECISION, BYTES, len(decisions)), "data": decisions}


def _probabilities(judged: Sequence[PredictionResult]) -> dict[str, Any]:
    rows = [list(one.prediction.probabilities.values()) for one in judged]
    data = [round(probability, DECIMALS) for row in rows for probability in row]
    return {**_about(PROBABILITIES, FLOAT, len(rows), len(rows[0])), "data": data}


_OUTPUTS: Mapping[str, Callable[[Sequence[PredictionResult]], dict[str, Any]]] = {
    LABEL: _labels,
    PROBABILITIES: _probabilities,
    DECISION: _decisions,
}
