"""POST /v1/predict and /v1/predict/batch: classes of one image or of several."""

import concurrent.futures
import time
from collections.abc import Mapping, Sequence

import flask
from msgspec import UNSET, UnsetType

from imagesieve.errors import ClassifierError
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import (
    DECIMALS,
    Service,
    current_service,
    json_response,
    milliseconds,
    requires,
)
from imagesieve.serving.limits import BATCH_PATH
from imagesieve.serving.pipeline import Deadline
from imagesieve.serving.requests import ImageRequest, read_image, read_images

_REJECT = openapi.link("correct", requestBody={"id": "$response.body#/id", "reject": True})

blueprint = flask.Blueprint("predict", __name__)


@blueprint.post("/v1/predict")
@requires(Scope.PREDICT)
@openapi.operation(
    "predict",
    openapi.PREDICT,
    "what the model says",
    schemas.Prediction,
    links=_REJECT,
    query=schemas.PredictOptions,
    body=openapi.image_body(schemas.PredictOptions),
    example="CURL --data-binary @image.jpg URL/v1/predict",
)
def predict() -> flask.Response:
    """Classify one image.

    Send its bytes as they are, as a file of a form, or as Base64 in a form or in JSON. (In a
    multipart form, Base64 goes into a text field `imageBase64String`.)
    """
    service = current_service()
    with service.admission.place():
        predictor = service.models.get()
        requested = ImageRequest(*read_image(flask.request, schemas.PredictOptions))
        value = _predict(service, predictor, service.deadline(), requested, flask.g.request_id)
    flask.g.label = value.label
    return json_response(value)


@blueprint.post(BATCH_PATH)
@requires(Scope.PREDICT)
@openapi.operation(
    "predict_batch",
    openapi.PREDICT,
    "a prediction or a problem for each, in the order sent",
    schemas.Batch,
    query=schemas.ImageOptions,
    body=openapi.batch_body(),
    example="CURL -F image=@one.jpg -F image=@two.jpg URL/v1/predict/batch",
)
def predict_batch() -> flask.Response:
    """Classify several images at once.

    The error of one image does not concern the others. Files may also be named like that of a
    single image. Options count for every image.
    """
    service = current_service()
    with service.admission.place(), service.admission.batch_place():
        predictor = service.models.get()
        requested = read_images(flask.request)
        service.access.take(flask.g.caller, len(requested) - 1)
        results = _predict_all(service, predictor, requested)
    failed = sum(isinstance(result, schemas.Failure) for result in results)
    return json_response(schemas.Batch(flask.g.request_id, results, len(results) - failed, failed))


def _predict(
    service: Service,
    predictor: Predictor,
    deadline: Deadline,
    requested: ImageRequest,
    image_id: str,
) -> schemas.Prediction:
    begun = time.perf_counter()
    options = requested.options
    data = requested.image.read(service.fetch)
    result = service.pipeline.predict(predictor, data, deadline, options)
    is_held = service.hold(image_id, result)
    seconds = {**result.seconds, "total": time.perf_counter() - begun}  # fetching it is in there
    prediction = result.prediction
    return schemas.Prediction(
        id=image_id,
        data_id=options.data_id,
        label=prediction.label,
        probability=round(prediction.probability, DECIMALS),
        probabilities=_most_probable(prediction.probabilities, options.top_k),
        decision=prediction.decision,
        decision_policy=schemas.DecisionPolicy(**result.policy.to_json()),
        flags=["unsure"] if prediction.decision != prediction.label else [],
        model=result.model,
        image=result.image,
        timing_ms=schemas.TimingMs(**{name: milliseconds(seconds[name]) for name in seconds}),
        cached=result.is_cached,
        held=is_held,
    )


def _predict_all(
    service: Service, predictor: Predictor, requested: Sequence[ImageRequest]
) -> list[schemas.Prediction | schemas.Failure]:
    request_id, deadline = flask.g.request_id, service.deadline(is_batch=True)

    def predict_one(number: int) -> schemas.Prediction | schemas.Failure:
        one, image_id = requested[number], f"{request_id}-{number}"
        try:
            return _predict(service, predictor, deadline, one, image_id)
        except (ClassifierError, MemoryError) as error:
            return schemas.Failure(service.refuse(error, image_id), one.options.data_id)

    num_threads = predictor.engine.num_streams + 1  # one image is decoded meanwhile
    if any(one.image.is_url for one in requested):  # more would be refused instead of waiting
        num_threads = min(num_threads, service.limits.max_fetches)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(predict_one, range(len(requested))))


def _most_probable(probabilities: Mapping[str, float], top_k: int | UnsetType) -> dict[str, float]:
    """Return all in the model's order, or the `top_k` most probable, best first."""
    names = list(probabilities)
    if top_k is not UNSET:
        names = sorted(names, key=lambda name: -probabilities[name])[:top_k]
    return {name: round(probabilities[name], DECIMALS) for name in names}
