"""POST /v1/explain: which places of an image speak for its class, by another process, on demand."""

import urllib.parse

import flask
from msgspec import UNSET

from imagesieve import images
from imagesieve.errors import EngineError, UsageError
from imagesieve.explaining.worker import Explainer, Question, obstacle
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import Service, current_service, requires
from imagesieve.serving.errors import (
    BadParameterError,
    DeadlineExceededError,
    ExplainingUnavailableError,
    OverloadedError,
)
from imagesieve.serving.requests import read_image

LONGEST_SIDE = 512  # pixels of an explanation; the network saw fewer than that

_LABEL = {"description": "the explained class, percent-encoded UTF-8", "schema": openapi.TEXT}

blueprint = flask.Blueprint("explain", __name__)


@blueprint.post("/v1/explain")
@requires(Scope.PREDICT)
@openapi.operation(
    "explain",
    openapi.PREDICT,
    "the image with a heat map",
    openapi.BINARY,
    media_type="image/png",
    headers={"X-Label": _LABEL},
    query=schemas.ExplainOptions,
    body=openapi.image_body(schemas.ExplainOptions),
    example="CURL --data-binary @image.jpg -o explanation.png URL/v1/explain",
)
def explain() -> flask.Response:
    """Show which places of an image speak for a class.

    It takes some seconds, and one image at a time. The class is the most probable one unless
    `label` names another.
    """
    service = current_service()
    # Only until the image is decoded: an explanation takes seconds, during which predictions shall
    # have every place. There is never more than one.
    with service.admission.place():
        predictor = service.models.get()
        if reason := obstacle(predictor.version):
            raise ExplainingUnavailableError(reason)
        sent, options = read_image(flask.request, schemas.ExplainOptions)
        deadline = service.deadline()
        data = sent.read(service.fetch)
        label = options.label
        if label is UNSET:
            label = service.pipeline.predict(predictor, data, deadline).prediction.label
        elif label not in predictor.classes:
            raise BadParameterError(f"The model has no class {label[:100]!r}.")
        deadline.check()
        at_once = service.admission.decoding(deadline.at)
        decoded = predictor.decode(data, service.limits.images, at_once=at_once)
        deadline.check()
    flask.g.label = label
    explanation = _explain(service, predictor, decoded, label)
    about = {"X-Label": urllib.parse.quote(label, safe=" ")}  # headers hold no other alphabets
    return flask.Response(explanation, mimetype="image/png", headers=about)


def _explain(
    service: Service, predictor: Predictor, image: images.DecodedImage, label: str
) -> bytes:
    """Return a PNG in the shape of the original, its longer side `LONGEST_SIDE`."""
    explainer: Explainer = service.explainer  # type: ignore[assignment]  # or it has no such route
    scale = LONGEST_SIDE / max(image.width, image.height)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    question = Question(image.pixels, predictor.classes.index(label), size)
    try:
        return explainer.explain(predictor.version, question)
    except BlockingIOError as error:
        raise OverloadedError(str(error)) from error
    except TimeoutError as error:
        raise DeadlineExceededError(str(error)) from error
    except UsageError as error:
        raise ExplainingUnavailableError(str(error)) from error
    except EngineError:
        service.models.get()  # a server that is stopping says so
        raise
