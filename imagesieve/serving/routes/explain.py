"""POST /v1/explain: which places of an image speak for its class."""

import urllib.parse

import flask
from msgspec import UNSET

from imagesieve.serving import openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import BadParameterError, ExplainingUnavailableError
from imagesieve.serving.explain import Explainer
from imagesieve.serving.requests import ImageInput, ImageRequest, read_image
from imagesieve.serving.service import current_service, requires, response_of

_LABEL_HEADER = {
    "description": "the class that it is about, percent-encoded UTF-8",
    "schema": openapi.TEXT,
}
_EXPLANATION = openapi.Content(
    "the image with a heat map",
    {"image/png": openapi.BINARY},
    {"headers": {"X-Label": _LABEL_HEADER}},
)

blueprint = flask.Blueprint("explain", __name__)


@blueprint.post("/v1/explain")
@requires(Scope.PREDICT)
@openapi.operation(
    "explain",
    openapi.PREDICT,
    {200: _EXPLANATION},
    query=schemas.ExplainOptions,
    body=openapi.image_body(schemas.ExplainOptions),
    errors=(ExplainingUnavailableError,),
    example="CURL --data-binary @image.jpg -o explanation.png URL/v1/explain",
)
def explain() -> flask.Response:
    """Show which places of an image speak for a class.

    It takes some seconds, and one image at a time. The class is the most probable one unless
    `label` names another.
    """
    service = current_service()
    explainer: Explainer = service.explainer  # type: ignore[assignment]  # or it has no such route
    # Only until the image is decoded: an explanation takes seconds, during which predictions shall
    # have every place. There is never more than one.
    with service.admission.place():
        predictor = service.models.get()
        explainer.check(predictor.version)
        sent, options = read_image(flask.request, service.limits, schemas.ExplainOptions)
        deadline = service.deadline()
        data = sent.read(service.fetch)
        label = options.label
        if label is UNSET:
            # A URL is fetched only once.
            asked = ImageRequest(ImageInput(data), schemas.PredictOptions())
            label = service.pipeline.predict(predictor, asked, deadline).prediction.label
        elif label not in predictor.classes:
            raise BadParameterError(f"The model has no class {label[:100]!r}.")
        deadline.check()
        at_once = service.admission.decoding(deadline.at)
        decoded = predictor.decode(data, service.limits.images, at_once=at_once)
        deadline.check()
    flask.g.label = label
    response = response_of(explainer.explain(predictor, decoded, label), media_type="image/png")
    # Percent-encoded UTF-8, as a header cannot hold other alphabets.
    response.headers["X-Label"] = urllib.parse.quote(label, safe=" ")
    return response
