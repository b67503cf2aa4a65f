"""The Open Inference Protocol, version 2, which clients of KServe, Triton and MLServer speak.

Images go in as one tensor of Base64 texts, as the protocol's JSON has no bytes. It knows no
errors of single images either: one that cannot be classified fails the whole request.
"""

import concurrent.futures
import contextlib
from collections.abc import Sequence

import flask

import imagesieve
from imagesieve.errors import ImageError
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import errors, openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import (
    DECIMALS,
    Service,
    current_service,
    error_response,
    json_response,
    requires,
)
from imagesieve.serving.errors import (
    BadParameterError,
    RequestError,
    TooManyImagesError,
    UnknownModelError,
)
from imagesieve.serving.limits import MAX_BODY_BYTES
from imagesieve.serving.model_manager import served_model
from imagesieve.serving.pipeline import PredictionResult
from imagesieve.serving.requests import JSON, ImageInput, read_object
from imagesieve.serving.schemas import MAX_BATCH_IMAGES, MODEL_ALIAS, OipTensor, OutputName

SERVER_NAME = "imagesieve"
PLATFORM = "image-classifier"

_OUTPUTS: tuple[OutputName, ...] = ("label", "probabilities", "decision")

blueprint = flask.Blueprint("oip", __name__, url_prefix="/v2")


@blueprint.errorhandler(Exception)
def fail(error: Exception) -> flask.Response:
    """Return an error as the protocol has it."""
    return error_response(error, _render)


@blueprint.get("")
@requires(Scope.PREDICT)
@openapi.operation("oip_server", openapi.OIP, "its name", schemas.OipServer)
def server() -> flask.Response:
    """Describe this server."""
    return json_response(schemas.OipServer(SERVER_NAME, imagesieve.__version__))


@blueprint.get("/health/live")
@openapi.operation("oip_live", openapi.OIP, "the process answers", {"type": "object"})
def live() -> flask.Response:
    """Return whether the process answers."""
    return json_response({"live": True})


@blueprint.get("/health/ready")
@openapi.operation("oip_ready", openapi.OIP, "a model can predict", {"type": "object"})
def ready() -> flask.Response:
    """Return whether a model can predict."""
    service = current_service()
    service.pipeline.check_ready(service.models.get())
    return json_response({"ready": True})


@blueprint.get("/models/<name>")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_model",
    openapi.OIP,
    "its tensors",
    schemas.OipModel,
    example="CURL URL/v2/models/default",
)
def model(name: str) -> flask.Response:
    """Describe what goes into the model and what comes out."""
    predictor = _find(name)
    return json_response(
        schemas.OipModel(
            name=name,
            versions=[served_model(predictor).digest],
            platform=PLATFORM,
            inputs=[OipTensor("image", "BYTES", [-1])],
            outputs=[
                OipTensor("label", "BYTES", [-1]),
                OipTensor("probabilities", "FP32", [-1, len(predictor.classes)]),
                OipTensor("decision", "BYTES", [-1]),
            ],
            classes=list(predictor.classes),
        )
    )


@blueprint.get("/models/<name>/ready")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_model_ready",
    openapi.OIP,
    "it can",
    schemas.OipModelReady,
    example="CURL URL/v2/models/default/ready",
)
def model_ready(name: str) -> flask.Response:
    """Return whether this model can predict."""
    current_service().pipeline.check_ready(_find(name))
    return json_response(schemas.OipModelReady(name, ready=True))


@blueprint.post("/models/<name>/infer")
@requires(Scope.PREDICT)
@openapi.operation(
    "oip_infer",
    openapi.OIP,
    "label, probabilities and decision of each",
    schemas.OipAnswer,
    body=openapi.json_body("one tensor of images", schemas.OipRequest),
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
        asked = _read(flask.request)
        images = [text if isinstance(text, str) else text[0] for text in asked.inputs[0].data]
        if len(images) > 1:
            places.enter_context(service.admission.batch_place())
        service.access.take(flask.g.caller, len(images) - 1)
        results = _predict_all(service, predictor, images)
    names = [output.name for output in asked.outputs] or _OUTPUTS
    return json_response(
        schemas.OipAnswer(
            model_name=name,
            model_version=results[0].model.digest,
            id=asked.id,
            outputs=[_output(output, results) for output in dict.fromkeys(names)],
        )
    )


def _find(name: str) -> Predictor:
    predictor = current_service().models.get()
    served = predictor.version.name
    if name not in (MODEL_ALIAS, served):
        raise UnknownModelError(
            f"There is no model {name[:100]!r} here: use {MODEL_ALIAS} or {served}."
        )
    return predictor


def _read(request: flask.Request) -> schemas.OipRequest:
    """Read the body of `infer`; `parameters` may stand in it, and none has a meaning here."""
    asked = read_object(
        request,
        schemas.OipRequest,
        max_bytes=MAX_BODY_BYTES,
        num_images=MAX_BATCH_IMAGES,
        kinds=(JSON, ""),  # Triton's own client names no type
    )
    shape, num_images = asked.inputs[0].shape, len(asked.inputs[0].data)
    if num_images > MAX_BATCH_IMAGES:
        raise TooManyImagesError(f"{num_images} images were sent: send at most {MAX_BATCH_IMAGES}.")
    shapes = [num_images], [num_images, 1]
    if shape not in shapes or any(type(size) is not int for size in shape):
        raise BadParameterError(f"The shape of image must be {shapes[0]} or {shapes[1]}.")
    return asked


def _predict_all(
    service: Service, predictor: Predictor, images: Sequence[str]
) -> list[PredictionResult]:
    """Predict images, given as Base64; the first error ends it."""
    request_id = flask.g.request_id
    deadline = service.deadline(is_batch=len(images) > 1)

    def predict(number: int) -> PredictionResult:
        try:
            data = ImageInput(images[number]).read()
            result = service.pipeline.predict(predictor, data, deadline)
        except (ImageError, RequestError) as error:
            raise BadParameterError(f"data[{number}]: {errors.detail_of(error, '')}") from error
        service.hold(f"{request_id}-{number}", result)
        return result

    # One more than streams: one image is decoded meanwhile.
    with concurrent.futures.ThreadPoolExecutor(predictor.engine.num_streams + 1) as pool:
        # Once the response to one that failed is due, those not begun yet never are.
        return list(pool.map(predict, range(len(images))))


def _render(problem: schemas.Problem) -> flask.Response:
    return json_response(schemas.OipError(problem.detail), problem.status)


def _output(name: OutputName, results: Sequence[PredictionResult]) -> schemas.OipOutput:
    predictions = [result.prediction for result in results]
    count = len(predictions)
    if name != "probabilities":
        data = [getattr(prediction, name) for prediction in predictions]
        return schemas.OipOutput(name, "BYTES", [count], data)
    rows = [list(prediction.probabilities.values()) for prediction in predictions]
    data = [round(probability, DECIMALS) for row in rows for probability in row]
    return schemas.OipOutput(name, "FP32", [count, len(rows[0])], data)
