"""What requests may hold and what answers hold: validation and the API's description use these.

A field that may be missing is `UNSET` then, so that `null` is refused as a value. Keys in
`extra_json_schema` besides those of JSON Schema are filled in by `openapi`: `x-limit` names the
field of `ServingLimits` that bounds a number or a list, and a `$ref` leads to a schema that
depends on the model in use. `extra` may hold the words that finish "<field> must be ..." in errors.
"""

import unicodedata
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_TOP_K = 1000
MAX_DATA_ID_CHARS = 128
MAX_ID_CHARS = 100
MAX_NOTE_CHARS = 500
MAX_REVIEWER_CHARS = 64
MAX_REVIEW = 100
DEFAULT_REVIEW = 20
MAX_REQUEST_ID_CHARS = 128
MODEL_ALIAS = "default"  # names the model in use in the Open Inference Protocol

_LINE_BREAKS = frozenset("\n\r\t")
# No control characters; a note may have line breaks and tabs.
_PRINTABLE = {"pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}
_PRINTABLE_LINES = {"pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"}

# Texts.
ClassName = Annotated[
    str,
    Meta(
        extra_json_schema={"$ref": "#/components/schemas/ClassName"},
        extra={"expected": "the name of a class"},
    ),
]
Decision = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/Decision"})]
Digest = Annotated[
    str,
    Meta(pattern="^sha256:[0-9a-f]{64}$", description="SHA-256 of the version's manifest"),
]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="of the encoded image")]
Time = Annotated[str, Meta(description="ISO 8601, UTC")]
DataId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_DATA_ID_CHARS,
        description="your own name for the image, repeated in the answer",
        extra_json_schema=_PRINTABLE,
    ),
]
_BASE64_WORDS = (
    "the image as Base64; a `data:` prefix, line breaks, the URL-safe alphabet and missing "
    "padding are accepted too"
)
Base64 = Annotated[
    str,
    Meta(
        description=_BASE64_WORDS,
        extra_json_schema={
            "format": "byte",
            "minLength": 1,
            "contentEncoding": "base64",
            "contentMediaType": "image/*",
        },
        extra={"expected": "a Base64 text"},
    ),
]
# In a form, a contentEncoding would make it a part of bytes.
BASE64_FIELD = {"type": "string", "description": _BASE64_WORDS, "format": "byte", "minLength": 1}
Url = Annotated[str, Meta(description="the URL of the image", extra_json_schema={"format": "uri"})]

# Numbers.
Probability = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Pixels = Annotated[int, Meta(ge=1, description="upright")]
Milliseconds = Annotated[float, Meta(ge=0)]
Probabilities = Annotated[
    dict[str, Probability],
    Meta(extra_json_schema={"$ref": "#/components/schemas/Probabilities"}),
]
TopK = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_TOP_K,
        description="how many classes to answer with, the most probable first (all)",
    ),
]
Threshold = Annotated[
    float,
    Meta(
        ge=0,
        le=1,
        description="below this probability the fallback class is answered (as the model says)",
    ),
]
Frames = Annotated[
    int,
    Meta(
        ge=1,
        description="how many frames of an animation to look at; the riskiest of them counts",
        extra_json_schema={"x-limit": "max_frames"},
    ),
]


class RequestSchema(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent; nothing else may be in it."""


class AnswerSchema(msgspec.Struct):
    """What is answered; later versions may answer more."""


# Requests.


class BatchOptions(RequestSchema):
    """How the images of a batch are to be classified."""

    top_k: TopK | UnsetType = UNSET
    threshold: Threshold | UnsetType = UNSET
    frames: Frames = 1


class PredictOptions(BatchOptions):
    """How an image is to be classified."""

    data_id: DataId | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check what no pattern can say."""
        check_printable("data_id", self.data_id)


class ExplainOptions(RequestSchema):
    """What is to be explained of an image: a class, the most probable one by default."""

    label: ClassName | UnsetType = UNSET


class BatchItem(RequestSchema):
    """One image of a batch; exactly one of `image` and `url`."""

    image: Base64 | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    data_id: DataId | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check what no pattern can say."""
        check_printable("data_id", self.data_id)


class BatchBody(BatchOptions, kw_only=True):
    """A batch of images as JSON, and the options for all of them."""

    images: Annotated[
        list[BatchItem],
        Meta(
            extra_json_schema={"minItems": 1, "x-limit": "max_batch_images"},
            extra={"sentence": 'The JSON body must be {{"images": [{{"image": "<Base64>"}}, …]}}.'},
        ),
    ]


class Correction(RequestSchema):
    """What an image really is: a class, or with `reject` none."""

    id: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_ID_CHARS,
                description="of the prediction",
                extra={"expected": "the id that came with the prediction"},
            ),
        ]
        | UnsetType
    ) = UNSET
    sha256: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9a-fA-F]{64}$",
                max_length=64,
                description="of the encoded image",
                extra={"expected": "64 hexadecimal digits"},
            ),
        ]
        | UnsetType
    ) = UNSET
    label: ClassName | UnsetType = UNSET
    reject: Annotated[
        bool, Meta(description="true: it belongs to no class; keep it out of the training")
    ] = False
    note: (
        Annotated[
            str,
            Meta(
                max_length=MAX_NOTE_CHARS,
                description="your words",
                extra_json_schema=_PRINTABLE_LINES,
            ),
        ]
        | UnsetType
    ) = UNSET
    reviewer: (
        Annotated[
            str,
            Meta(
                max_length=MAX_REVIEWER_CHARS,
                description="your name",
                extra_json_schema=_PRINTABLE,
            ),
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        """Check what no pattern can say."""
        check_printable("note", self.note, _LINE_BREAKS)
        check_printable("reviewer", self.reviewer)


class ReviewOptions(RequestSchema):
    """How many images to answer with."""

    limit: Annotated[
        int, Meta(ge=1, le=MAX_REVIEW, description="how many images to answer with at most")
    ] = DEFAULT_REVIEW


class Nothing(RequestSchema):
    """An empty object."""


class Activation(RequestSchema):
    """Which version of the model to serve."""

    version: Annotated[
        str,
        Meta(
            min_length=1,
            description="a folder's name, or `sha256:` and a digest",
            extra={"expected": "a version's folder name or sha256: and its digest"},
        ),
    ]
    allow_other_classes: Annotated[
        bool, Meta(description="accept a version whose classes differ from those served")
    ] = False


class LegacyFields(RequestSchema):
    """What the first generation takes in the query; other fields are ignored."""

    imageBase64String: (  # noqa: N815
        Annotated[str, Meta(description="the image as Base64, where the body has none")] | UnsetType
    ) = UNSET


# The Open Inference Protocol.

Parameters = Annotated[
    dict[str, Any],
    Meta(description="none has a meaning here"),
]
TensorText = Annotated[
    Base64 | Annotated[list[Base64], Meta(min_length=1, max_length=1)],
    Meta(extra={"sentence": "data[{index}]: this is no Base64 text"}),
]


class OipInput(RequestSchema):
    """The tensor of images."""

    called: ClassVar[str] = "The input"

    name: Annotated[Literal["image"], Meta(extra={"sentence": "The input must be named image."})]
    shape: Annotated[
        Any,  # compared with the data
        Meta(
            description="[n] or [n, 1], as many as there are texts in `data`",
            extra_json_schema={
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": 1, "x-limit": "max_batch_images"},
                    {"const": 1},
                ],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
    ]
    datatype: Annotated[
        Literal["BYTES"],
        Meta(extra={"sentence": "The datatype of image must be BYTES: Base64 texts."}),
    ]
    data: Annotated[
        list[TensorText],
        Meta(
            min_length=1,
            extra_json_schema={"x-limit": "max_batch_images"},
            extra={"sentence": "The data of image must be a list of Base64 texts."},
        ),
    ]
    parameters: Parameters | UnsetType = UNSET


class OipRequestedOutput(RequestSchema):
    """A tensor that is asked for."""

    called: ClassVar[str] = "An output"

    name: Annotated[
        Literal["label", "probabilities", "decision"],
        Meta(extra={"sentence": "There is no output {value}: use label, probabilities, decision."}),
    ]
    parameters: Parameters | UnsetType = UNSET


class OipRequest(RequestSchema):
    """One tensor of images, and what to answer of them."""

    called: ClassVar[str] = "The body"

    inputs: Annotated[
        list[OipInput],
        Meta(min_length=1, max_length=1, extra={"expected": "a list of one tensor, named image"}),
    ]
    id: (
        Annotated[str, Meta(max_length=MAX_REQUEST_ID_CHARS, description="repeated in the answer")]
        | UnsetType
    ) = UNSET
    outputs: Annotated[
        list[OipRequestedOutput],
        Meta(
            max_length=3,
            description="what to answer (all)",
            extra={"expected": "a list of at most 3 tensors"},
        ),
    ] = []
    parameters: Parameters | UnsetType = UNSET


class OipServer(AnswerSchema):
    """What the server is."""

    name: str
    version: str
    extensions: Annotated[list[str], Meta(max_length=0)] = []


class OipTensor(AnswerSchema):
    """What a tensor looks like."""

    name: str
    datatype: str
    shape: Annotated[list[int], Meta(description="-1: any number")]


class OipModel(AnswerSchema):
    """What goes into a model and what comes out."""

    name: str
    versions: list[Digest]
    platform: str
    inputs: list[OipTensor]
    outputs: list[OipTensor]
    classes: Annotated[list[ClassName], Meta(description="in the order of `probabilities`")]


class OipLive(AnswerSchema):
    """The process answers."""

    live: bool


class OipReady(AnswerSchema):
    """A model can be asked."""

    ready: bool


class OipModelReady(AnswerSchema):
    """This model can be asked."""

    name: str
    ready: bool


class OipLabels(AnswerSchema):
    """The most probable class of each image."""

    name: Literal["label"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[int], Meta(min_length=1, max_length=1, description="images")]
    data: Annotated[list[ClassName], Meta(min_length=1)]


class OipProbabilities(AnswerSchema):
    """The probability of each class for each image, row by row."""

    name: Literal["probabilities"]
    datatype: Literal["FP32"]
    shape: Annotated[list[int], Meta(min_length=2, max_length=2, description="images, classes")]
    data: Annotated[list[Probability], Meta(min_length=1)]


class OipDecisions(AnswerSchema):
    """The decision on each image."""

    name: Literal["decision"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[int], Meta(min_length=1, max_length=1, description="images")]
    data: Annotated[list[Decision], Meta(min_length=1)]


class OipAnswer(AnswerSchema, kw_only=True):
    """The tensors that were asked for, in that order."""

    model_name: Annotated[str, Meta(description="as it was asked for")]
    model_version: Digest
    id: Annotated[str, Meta(description="of the request, as it was sent")] | UnsetType = UNSET
    outputs: Annotated[
        list[
            Annotated[
                Any,
                Meta(
                    extra_json_schema={
                        "oneOf": [
                            {"$ref": "#/components/schemas/OipLabels"},
                            {"$ref": "#/components/schemas/OipProbabilities"},
                            {"$ref": "#/components/schemas/OipDecisions"},
                        ]
                    }
                ),
            ]
        ],
        Meta(min_length=1),
    ]


class OipError(AnswerSchema):
    """What was wrong."""

    error: str


# Answers.


class Problem(AnswerSchema):
    """A problem document, RFC 9457."""

    type: Annotated[
        str,
        Meta(
            description="which kind of problem",
            extra_json_schema={"$ref": "#/components/schemas/ProblemType"},
        ),
    ]
    title: Annotated[str, Meta(description="the same for each kind")]
    status: Annotated[int, Meta(ge=400, le=599, description="of HTTP")]
    detail: Annotated[str, Meta(description="what was wrong this time")]
    instance: Annotated[
        str, Meta(pattern="^urn:", description="the request, as it stands in the server's log")
    ]
    retry_after: (
        Annotated[int, Meta(ge=1, description="seconds to wait before trying again")] | UnsetType
    ) = UNSET


class Status(AnswerSchema):
    """The state of the service."""

    status: Literal["ok", "ready"]


class DecisionPolicy(AnswerSchema):
    """How a decision is made from the probabilities."""

    kind: Literal["argmax", "confident"]
    min_confidence: Probability | UnsetType = UNSET
    fallback_class: str | UnsetType = UNSET


class ModelName(AnswerSchema):
    """A version of the model."""

    name: str
    digest: Digest


class ServedModel(ModelName):
    """The version of the model that made a prediction, and what ran it."""

    engine: str


class ImageInfo(AnswerSchema):
    """An image that was classified."""

    format: Literal["JPEG", "PNG", "GIF", "WEBP", "BMP"]
    width: Pixels
    height: Pixels
    orientation: Annotated[int, Meta(ge=1, le=8, description="EXIF's, which was applied")]
    frames: Annotated[int, Meta(ge=1, description="how many were looked at")]
    sha256: Sha256
    truncated: Annotated[bool, Meta(description="whether it ends early")] = False


class TimingMs(AnswerSchema):
    """Milliseconds that each stage took."""

    queue: Milliseconds
    decode: Milliseconds
    infer: Milliseconds
    total: Milliseconds


class Prediction(AnswerSchema, kw_only=True):
    """What the model says of an image."""

    id: Annotated[
        str, Meta(min_length=1, description="of this prediction: a correction may name it")
    ]
    data_id: DataId | UnsetType = UNSET
    label: ClassName
    probability: Annotated[float, Meta(ge=0, le=1, description="of the label")]
    probabilities: Probabilities
    decision: Decision
    decision_policy: DecisionPolicy
    flags: Annotated[
        list[Literal["unsure"]], Meta(description="`unsure`: the decision is not the label")
    ]
    model: ServedModel
    image: ImageInfo
    timing_ms: TimingMs
    cached: Annotated[
        bool,
        Meta(description="whether these bytes were classified before, and the model not asked"),
    ]
    held: Annotated[bool, Meta(description="whether the image can be corrected by its id alone")]


class Failure(AnswerSchema):
    """What was wrong with one image of a batch."""

    error: Problem
    data_id: DataId | UnsetType = UNSET


class Batch(AnswerSchema):
    """A prediction or a problem for each image."""

    id: Annotated[str, Meta(description="of this request", extra_json_schema={"format": "uuid"})]
    results: Annotated[
        list[
            Annotated[
                Any,
                Meta(
                    extra_json_schema={
                        "anyOf": [
                            {"$ref": "#/components/schemas/Prediction"},
                            {"$ref": "#/components/schemas/Failure"},
                        ]
                    }
                ),
            ]
        ],
        Meta(min_length=1, description="in the order sent"),
    ]
    ok: Annotated[int, Meta(ge=0, description="how many were classified")]
    failed: Annotated[int, Meta(ge=0, description="how many were not")]


class Size(AnswerSchema):
    """Pixels of the model's input."""

    height: Annotated[int, Meta(ge=1)]
    width: Annotated[int, Meta(ge=1)]


class Model(ModelName):
    """The version of the model that is served."""

    created: Time
    classes: Annotated[
        list[str], Meta(min_length=1, description="in the order of the model's answers")
    ]
    backbone: str
    image_size: Size
    pixel_contract: Annotated[str, Meta(description="how images become pixels")]
    engine: Annotated[str, Meta(description="what runs the model, and in which precision")]
    streams: Annotated[int, Meta(ge=1, description="images classified at once")]
    decision_policy: DecisionPolicy
    temperature: Annotated[float, Meta(description="that calibrates the probabilities")]
    metrics: Annotated[dict[str, Any], Meta(description="what testing it gave")]


class ListedModel(AnswerSchema):
    """A version of the model on disk."""

    name: str
    digest: Digest | None
    current: Annotated[bool, Meta(description="whether it is served now")]
    created: Time | None
    classes: list[str]
    damaged: Annotated[bool, Meta(description="there only where it is true")] | UnsetType = UNSET


class Models(AnswerSchema):
    """The versions on disk, by name."""

    models: list[ListedModel]


class ModelChange(AnswerSchema):
    """Which version is served now."""

    model: Model
    previous: Annotated[ModelName | None, Meta(description="what a rollback would bring back")]
    changed: Annotated[bool, Meta(description="whether another version was served before")]


class Corrected(AnswerSchema):
    """What holds now of an image."""

    sha256: Sha256
    label: Annotated[str | None, Meta(description="what holds now")]
    rejected: Annotated[bool, Meta(description="whether it belongs to no class")]
    previous: Annotated[str | None, Meta(description="the label that held before")]
    stored: Annotated[str | None, Meta(description="where the image lies in the feedback folder")]


class ReviewImage(AnswerSchema):
    """An image of the review queue; a model with other classes may have classified it."""

    sha256: Sha256
    id: Annotated[str, Meta(description="of its last prediction")]
    label: str
    probability: Probability
    probabilities: dict[str, Probability]
    decision: str
    reason: Annotated[
        Literal["uncertain", "audit", "recent"], Meta(description="why it should be looked at")
    ]
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
    waiting: Annotated[int, Meta(ge=0, description="how many ask for a look")]
    corrected: Annotated[int, Meta(ge=0, description="how many were corrected or rejected")]
    classes: Annotated[list[str], Meta(description="that an image can be corrected to")]
    audit: Audit | None


class LegacySuccess(AnswerSchema):
    """The first generation's answer for an image."""

    code: Literal["00"]
    message: str
    predictedClass: Decision  # noqa: N815
    probability: Annotated[str, Meta(pattern=r"^[0-9.e-]+$", description="a number as text")]


class LegacyFailure(AnswerSchema):
    """The first generation's answer when something was wrong."""

    code: Literal["98"]
    message: Annotated[str, Meta(description="what was wrong; its first part is Chinese")]


def check_printable(
    name: str, value: str | UnsetType, allowed: frozenset[str] = frozenset()
) -> None:
    """Raise ValueError when a text has characters that cannot be printed or encoded."""
    # Cc: control characters; Cs: halves of a character, which are no text that could be encoded.
    if value and any(
        unicodedata.category(sign) in ("Cc", "Cs") for sign in value if sign not in allowed
    ):
        raise ValueError(f"{name} has characters that cannot be printed.")
