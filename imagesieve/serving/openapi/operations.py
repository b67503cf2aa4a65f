"""What there is to say of each address that answers programs, besides what its route says.

The schemas, parameters and bodies that are named here stand in `answers` and
`requests`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from imagesieve import errors as base_errors
from imagesieve.serving import errors
from imagesieve.serving.forms import JSON, LEGACY_FIELD
from imagesieve.serving.openapi.words import Json, content, ref, text
from imagesieve.serving.requests import PREDICT_OPTIONS

JUDGE, CORRECT, MODELS, WATCH, OIP, FIRST, PAGES = TAGS = (
    "Judge",
    "Correct",
    "Models",
    "Watch",
    "Open Inference Protocol",
    "First generation",
    "Pages",
)

Errors = tuple[type[Exception], ...]

LOADING: Errors = (errors.ModelLoadingError, errors.ShuttingDownError)
BUSY: Errors = (*LOADING, errors.OverloadedError, errors.DeadlineExceededError)
OPTION: Errors = (
    errors.BadParameterError,
    errors.MalformedBodyError,
    errors.TooManyFieldsError,
)
BODY: Errors = (
    errors.BadParameterError,
    errors.MalformedBodyError,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
)
FORM: Errors = (*BODY, errors.TooManyFieldsError)
UNUSABLE: Errors = (
    base_errors.EmptyImageError,
    base_errors.ImageTooLargeError,
    base_errors.UnsupportedImageFormatError,
    base_errors.TooManyPixelsError,
    base_errors.ImageTooSmallError,
    base_errors.TruncatedImageError,
    base_errors.ImageError,
)
ONE_IMAGE: Errors = (
    errors.MissingImageError,
    errors.SeveralImagesError,
    errors.BadBase64Error,
    *FORM,
    *UNUSABLE,
    *BUSY,
)
FROM_URL: Errors = (errors.UrlNotAllowedError, errors.FetchFailedError)  # where it is allowed
FEEDBACK: Errors = (errors.FeedbackUnavailableError,)
CHANGE: Errors = (
    errors.UnknownModelError,
    errors.ModelRefusedError,
    errors.ModelChangeFailedError,
    errors.ModelUnusableError,
    *BODY,
    *LOADING,
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One address with one method.

    Attributes:
        name: what programs made from the description call it.
        tag: one of `TAGS`.
        summary: one line.
        answers: HTTP status -> what is answered when all is well.
        description: more words, as Markdown.
        parameters: names of them.
        body: name of it.
        errors: that its own view may raise; those of every address come by themselves.
        takes_urls: whether an image's address may be sent instead of it.
        curl: options of an example.
        piped: what comes before the example, to be read by it.
        example: path of the example, where it is not the operation's own.
    """

    name: str
    tag: str
    summary: str
    answers: Mapping[int, Json]
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: str | None = None
    errors: Errors = ()
    takes_urls: bool = False
    curl: str = ""
    piped: str = ""
    example: str = ""


def gives(description: str, schema: str) -> Json:
    """Describe an answer of JSON, by the name of its schema."""
    return {"description": description, "content": content(JSON, ref(schema))}


_IMAGE = "--data-binary @image.jpg"
_CORRECT_LINK: Json = {
    "correct": {
        "operationId": "correct",
        "requestBody": {"id": "$response.body#/id", "reject": True},
        "description": "say that the image belongs to no class",
    }
}
_ANSWER = {200: {**gives("what the model says", "Answer"), "links": _CORRECT_LINK}}
_LABEL_HEADER = {
    "description": "the class that it is about, percent-encoded UTF-8",
    "schema": text(),
}

_JUDGING = {
    "POST /v1/predict": Operation(
        "predict",
        JUDGE,
        "Judge one image",
        _ANSWER,
        "Send its bytes as they are, as a file of a form, or as Base64 in a form or in JSON. (In a "
        f"multipart form, Base64 goes into a text field `{LEGACY_FIELD}`.)",
        parameters=PREDICT_OPTIONS,
        body="Image",
        errors=ONE_IMAGE,
        takes_urls=True,
        curl=_IMAGE,
    ),
    "POST /v1/predict/batch": Operation(
        "predict_batch",
        JUDGE,
        "Judge some images at once",
        {200: gives("an answer or a problem for each, in the order sent", "BatchAnswer")},
        "What is wrong with one image says nothing about the others. Files may also be named "
        "like that of a single image. Options count for every image.",
        parameters=tuple(name for name in PREDICT_OPTIONS if name != "data_id"),
        body="Batch",
        errors=(*FORM, errors.MissingImageError, errors.TooManyImagesError, *BUSY),
        takes_urls=False,  # what is wrong with an address is told beside its image
        curl="-F image=@one.jpg -F image=@two.jpg",
    ),
    "POST /v1/explain": Operation(
        "explain",
        JUDGE,
        "Show which places of an image speak for a class",
        {
            200: {
                "description": "the image with a heat map",
                "headers": {"X-Label": _LABEL_HEADER},
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        "It takes some seconds, and one image at a time. The class is the most probable one "
        "unless `label` names another.",
        parameters=("label",),
        body="ImageToExplain",
        errors=(*ONE_IMAGE, errors.ExplainingUnavailableError),
        takes_urls=True,
        curl=f"{_IMAGE} -o explanation.png",
    ),
}

_FIRST_GENERATION = {
    "POST /image/detection": Operation(
        "detect",
        FIRST,
        "Judge one image, as the first generation did",
        {200: gives("what the model says, or what was wrong: look at `code`", "FirstAnswer")},
        "Everything that is wrong with a request is told with status 200 and code 98. Below the "
        "model's confidence the class `neutral` is answered, if it has one.",
        parameters=(LEGACY_FIELD,),
        body="LegacyForm",
        errors=BUSY,
        curl=f"--data-urlencode {LEGACY_FIELD}@-",
        piped="base64 < image.jpg |",
    ),
    "GET /helloWorld": Operation(
        "greet",
        FIRST,
        "Say hello",
        {200: {"description": "a greeting", "content": content("text/plain", text())}},
    ),
}

_OPEN_INFERENCE = {
    "GET /v2": Operation(
        "oip_server", OIP, "Tell what this server is", {200: gives("its name", "OipServer")}
    ),
    "GET /v2/health/live": Operation(
        "oip_live",
        OIP,
        "Tell whether the process answers",
        {200: {"description": "it does", "content": content(JSON, {"type": "object"})}},
    ),
    "GET /v2/health/ready": Operation(
        "oip_ready",
        OIP,
        "Tell whether a model can be asked",
        {200: {"description": "it can", "content": content(JSON, {"type": "object"})}},
        errors=(*LOADING, errors.OverloadedError),
    ),
    "GET /v2/models/{name}": Operation(
        "oip_model",
        OIP,
        "Tell what goes into the model and what comes out",
        {200: gives("its tensors", "OipModel")},
        parameters=("name",),
        errors=(errors.UnknownModelError, *LOADING),
        example="/v2/models/default",
    ),
    "GET /v2/models/{name}/ready": Operation(
        "oip_model_ready",
        OIP,
        "Tell whether this model can be asked",
        {200: gives("it can", "OipModelReady")},
        parameters=("name",),
        errors=(errors.UnknownModelError, errors.OverloadedError, *LOADING),
        example="/v2/models/default/ready",
    ),
    "POST /v2/models/{name}/infer": Operation(
        "oip_infer",
        OIP,
        "Judge one image or some",
        {200: gives("label, probabilities and decision of each", "OipAnswer")},
        "An image that cannot be judged fails the whole request: the error names its place in "
        "`data`, counted from 0. `shape` has to agree with `data`.",
        parameters=("name",),
        body="Inference",
        errors=(
            errors.UnknownModelError,
            errors.MissingImageError,
            errors.TooManyImagesError,
            *BODY,
            *BUSY,
        ),
        curl="--json @-",
        # An image is too long for an argument.
        piped="{ printf '"
        + '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["'
        + "'; base64 < image.jpg | tr -d '\\n'; printf '\"]}]}'; } |",
        example="/v2/models/default/infer",
    ),
}

FOR_PROGRAMS: Mapping[str, Operation] = MappingProxyType(
    _JUDGING | _FIRST_GENERATION | _OPEN_INFERENCE
)
