"""What requests may hold and what answers hold: validation and the API's description use these.

A field that may be missing is `UNSET` then, so that `null` is refused as a value. A `$ref` leads to
a schema of `openapi` that depends on the model in use.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MODEL_ALIAS = "default"  # names the model in use in the Open Inference Protocol
MAX_TOP_K = 1000
MAX_FRAMES = 8  # of an animation
MAX_BATCH_IMAGES = 32


class RequestSchema(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent; nothing else may be in it."""


class AnswerSchema(msgspec.Struct):
    """What is answered; later versions may answer more."""


def doc(description: str, **schema: object) -> Meta:
    """Return a description for a field, and other members of its JSON Schema."""
    return Meta(description=description, extra_json_schema=schema)


def refer(name: str) -> Meta:
    return Meta(extra_json_schema={"$ref": f"#/components/schemas/{name}"})


# No control characters; a note may have line breaks and tabs. Python's `$` also matches before a
# line break at the end.
PRINTABLE = Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)")
PRINTABLE_LINES = Meta(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")
_BASE64 = {
    "description": "the image as Base64; a `data:` prefix, line breaks, the URL-safe alphabet and "
    "missing padding are accepted too",
    "format": "byte",
    "minLength": 1,
}
# In a form, a contentEncoding would make it a part of bytes.
BASE64_FIELD = {"type": "string", **_BASE64}

Base64 = Annotated[
    str,
    Meta(extra_json_schema={**_BASE64, "contentEncoding": "base64", "contentMediaType": "image/*"}),
]
Url = Annotated[str, doc("the URL of the image", format="uri")]
ClassName = Annotated[str, refer("ClassName")]
Decision = Annotated[str, doc("a class, or the fallback class of the policy")]
Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$"), doc("SHA-256 of its manifest")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$"), doc("of the encoded image")]
Time = Annotated[str, doc("ISO 8601, UTC")]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Probabilities = Annotated[
    dict[str, Probability], doc("of each class; those of all classes sum to 1")
]
Milliseconds = Annotated[float, Meta(ge=0)]
DataId = Annotated[
    str,
    Meta(min_length=1, max_length=128),
    PRINTABLE,
    doc("your own name for the image, repeated in the answer", examples=["shop/7"]),
]
TopK = Annotated[int, Meta(ge=1, le=MAX_TOP_K), doc("how many classes, best first (all)")]
Threshold = Annotated[
    Probability,
    doc("the min_confidence of this request: below it, the fallback class (the model's)"),
]
Frames = Annotated[int, Meta(ge=1, le=MAX_FRAMES), doc("of an animation; the riskiest counts")]


# Requests.


class ImageOptions(RequestSchema):
    top_k: TopK | UnsetType = UNSET
    threshold: Threshold | UnsetType = UNSET
    frames: Frames = 1


class PredictOptions(ImageOptions):
    data_id: DataId | UnsetType = UNSET


class ExplainOptions(RequestSchema):
    """What is to be explained of an image: a class, the most probable one by default."""

    label: ClassName | UnsetType = UNSET


class BatchItem(RequestSchema):
    """One image of a batch; exactly one of `image` and `url`."""

    image: Base64 | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    data_id: DataId | UnsetType = UNSET


class BatchBody(ImageOptions, kw_only=True):
    """A batch of images as JSON, and the options for all of them."""

    # Only described: none or too many are an error of their own.
    images: Annotated[list[BatchItem], doc("the images", minItems=1, maxItems=MAX_BATCH_IMAGES)]


PredictionId = Annotated[str, Meta(min_length=1, max_length=100), doc("of the prediction")]
AnySha256 = Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$", max_length=64), doc("of the image")]
Note = Annotated[str, Meta(max_length=500), PRINTABLE_LINES, doc("your words")]
Reviewer = Annotated[str, Meta(max_length=64), PRINTABLE, doc("your name")]


class Correction(RequestSchema):
    """What an image really is: a class, or with `reject` none."""

    id: PredictionId | UnsetType = UNSET
    sha256: AnySha256 | UnsetType = UNSET
    label: ClassName | UnsetType = UNSET
    reject: Annotated[bool, doc("true: it belongs to no class; keep it out of the training")] = (
        False
    )
    note: Note | UnsetType = UNSET
    reviewer: Reviewer | UnsetType = UNSET


class ReviewOptions(RequestSchema):
    limit: Annotated[int, Meta(ge=1, le=100, description="how many images at most")] = 20


class Nothing(RequestSchema):
    """An empty object."""


class Activation(RequestSchema):
    version: Annotated[str, Meta(min_length=1), doc("a folder's name, or `sha256:` and a digest")]
    allow_other_classes: Annotated[bool, doc("accept classes other than those served")] = False


# Answers.


class Problem(AnswerSchema):
    """A problem document, RFC 9457."""

    type: Annotated[str, refer("ProblemType")]
    title: Annotated[str, doc("the same for each type")]
    status: Annotated[int, Meta(ge=400, le=599, description="of HTTP")]
    detail: Annotated[str, doc("what was wrong this time")]
    instance: Annotated[str, doc("the request, as in the server's log", pattern="^urn:")]
    retry_after: Annotated[Positive, doc("seconds to wait")] | UnsetType = UNSET


class Status(AnswerSchema):
    status: Literal["ok", "ready"]


class DecisionPolicy(AnswerSchema):
    """How a decision is made from the probabilities."""

    kind: Literal["argmax", "confident"]
    min_confidence: Probability | UnsetType = UNSET
    fallback_class: str | UnsetType = UNSET


class ModelName(AnswerSchema):
    name: str
    digest: Digest


class ServedModel(ModelName):
    """The version of the model that made a prediction, and what ran it."""

    engine: str


class ImageInfo(AnswerSchema):
    format: Literal["JPEG", "PNG", "GIF", "WEBP", "BMP"]
    width: Annotated[Positive, doc("pixels, upright")]
    height: Annotated[Positive, doc("pixels, upright")]
    orientation: Annotated[int, Meta(ge=1, le=8, description="EXIF's, which was applied")]
    frames: Annotated[Positive, doc("how many were looked at")]
    sha256: Sha256
    truncated: Annotated[bool, doc("whether it ends early: such images are refused")] = False


class TimingMs(AnswerSchema):
    queue: Milliseconds
    decode: Milliseconds
    infer: Milliseconds
    total: Milliseconds


class Prediction(AnswerSchema, kw_only=True):
    """What the model says of an image."""

    id: Annotated[str, Meta(min_length=1), doc("of this prediction: a correction may name it")]
    data_id: DataId | UnsetType = UNSET
    label: ClassName
    probability: Annotated[Probability, doc("of the label")]
    probabilities: Probabilities
    decision: Decision
    decision_policy: DecisionPolicy
    flags: Annotated[list[Literal["unsure"]], doc("`unsure`: the decision is not the label")]
    model: ServedModel
    image: ImageInfo
    timing_ms: TimingMs
    cached: Annotated[bool, doc("whether these bytes were known, and the model not asked")]
    held: Annotated[bool, doc("whether the image can be corrected by its id alone")]


class Failure(AnswerSchema):
    """What was wrong with one image of a batch."""

    error: Problem
    data_id: DataId | UnsetType = UNSET


_RESULT = Meta(
    extra_json_schema={
        "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Prediction", "Failure")]
    }
)


class Batch(AnswerSchema):
    """A prediction or a problem for each image, in the order sent."""

    id: Annotated[str, doc("of this request", format="uuid")]
    results: Annotated[list[Annotated[Any, _RESULT]], Meta(min_length=1)]
    ok: Annotated[Count, doc("how many were classified")]
    failed: Annotated[Count, doc("how many were not")]


class Size(AnswerSchema):
    height: Positive
    width: Positive


class Model(ModelName):
    """The version of the model that is served."""

    created: Time
    classes: Annotated[list[str], Meta(min_length=1), doc("in the order of the model's answers")]
    backbone: str
    image_size: Size
    pixel_contract: Annotated[str, doc("how images become pixels")]
    engine: Annotated[str, doc("what runs the model, and in which precision")]
    streams: Annotated[Positive, doc("images classified at once")]
    decision_policy: DecisionPolicy
    temperature: Annotated[float, doc("that calibrates the probabilities")]
    metrics: Annotated[dict[str, Any], doc("what testing it gave")]


class ListedModel(AnswerSchema):
    name: str
    digest: Digest | None
    current: Annotated[bool, doc("whether it is served now")]
    created: Time | None
    classes: list[str]
    damaged: Annotated[bool, doc("there only where it is true")] | UnsetType = UNSET


class Models(AnswerSchema):
    models: list[ListedModel]


class ModelChange(AnswerSchema):
    """Which version is served now."""

    model: Model
    previous: Annotated[ModelName | None, doc("what a rollback would bring back")]
    changed: Annotated[bool, doc("whether another version was served before")]


class Corrected(AnswerSchema):
    """What holds now of an image."""

    sha256: Sha256
    label: Annotated[str | None, doc("what holds now")]
    rejected: Annotated[bool, doc("whether it belongs to no class")]
    previous: Annotated[str | None, doc("the label before that")]
    stored: Annotated[str | None, doc("where the image lies in the feedback folder")]


class ReviewImage(AnswerSchema):
    """An image of the review queue; a model with other classes may have classified it."""

    sha256: Sha256
    id: Annotated[str, doc("of its last prediction")]
    label: str
    probability: Probability
    probabilities: dict[str, Probability]
    decision: str
    reason: Annotated[Literal["uncertain", "audit", "recent"], doc("why to look at it")]
    created: Time


class Audit(AnswerSchema):
    """What the filter misses, as far as the audit tells."""

    share: Probability
    kept: Count
    reviewed: Count
    missed: Count
    missed_share: Probability | None
    interval: Annotated[list[Probability], Meta(min_length=2, max_length=2)] | None


class Review(AnswerSchema):
    """The images that should be looked at, the most urgent first."""

    images: list[ReviewImage]
    waiting: Annotated[Count, doc("how many ask for a look")]
    corrected: Annotated[Count, doc("how many were corrected or rejected")]
    classes: Annotated[list[str], doc("that an image can be corrected to")]
    audit: Audit | None


class LegacySuccess(AnswerSchema):
    code: Literal["00"]
    message: str
    predictedClass: Decision  # noqa: N815
    probability: Annotated[str, doc("a number as text", pattern="^[0-9.e-]+$")]


LEGACY_STATUSES = frozenset({401, 403, 429, 503, 504})  # besides 200: not about the image


class LegacyFailure(AnswerSchema):
    code: Literal["98"]
    message: Annotated[str, doc("what was wrong; its first part is Chinese")]


# The Open Inference Protocol.

Parameters = Annotated[dict[str, Any], doc("none has a meaning here")]
TensorText = Base64 | Annotated[list[Base64], Meta(min_length=1, max_length=1)]
_MOST = Meta(extra_json_schema={"maxItems": MAX_BATCH_IMAGES})
_COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_BATCH_IMAGES}
_SHAPE = {"type": "array", "prefixItems": [_COUNT, {"const": 1}], "minItems": 1, "maxItems": 2}


class OipInput(RequestSchema):
    name: Literal["image"]
    # Compared with the data, once there is any.
    shape: Annotated[Any, doc("[n] or [n, 1], as many as there are texts in `data`", **_SHAPE)]
    datatype: Literal["BYTES"]
    data: Annotated[list[TensorText], Meta(min_length=1), _MOST]
    parameters: Parameters | UnsetType = UNSET


OutputName = Literal["label", "probabilities", "decision"]


class OipRequestedOutput(RequestSchema):
    name: OutputName
    parameters: Parameters | UnsetType = UNSET


class OipRequest(RequestSchema):
    """One tensor of images, and what to answer of them."""

    inputs: Annotated[list[OipInput], Meta(min_length=1, max_length=1)]
    id: Annotated[str, Meta(max_length=128), doc("repeated in the answer")] | UnsetType = UNSET
    outputs: Annotated[list[OipRequestedOutput], Meta(max_length=3), doc("all if empty")] = []
    parameters: Parameters | UnsetType = UNSET


class OipServer(AnswerSchema):
    name: str
    version: str
    extensions: Annotated[list[str], Meta(max_length=0)] = []


class OipTensor(AnswerSchema):
    name: str
    datatype: str
    shape: Annotated[list[int], doc("-1: any number")]


class OipModel(AnswerSchema):
    name: str
    versions: list[Digest]
    platform: str
    inputs: list[OipTensor]
    outputs: list[OipTensor]
    classes: Annotated[list[ClassName], doc("in the order of `probabilities`")]


class OipModelReady(AnswerSchema):
    name: str
    ready: bool


class OipOutput(AnswerSchema):
    """What is answered of the images; the probabilities row by row, a row for each image."""

    name: OutputName
    datatype: Literal["BYTES", "FP32"]
    shape: Annotated[list[Positive], Meta(min_length=1, max_length=2)]
    data: Annotated[list[str | Probability], Meta(min_length=1)]


class OipAnswer(AnswerSchema, kw_only=True):
    """The tensors that were asked for, in that order."""

    model_name: Annotated[str, doc("as it was asked for")]
    model_version: Digest
    id: Annotated[str, doc("of the request, as it was sent")] | UnsetType = UNSET
    outputs: Annotated[list[OipOutput], Meta(min_length=1)]


class OipError(AnswerSchema):
    error: str
