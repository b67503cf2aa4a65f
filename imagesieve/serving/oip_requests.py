"""A request of the Open Inference Protocol -> its images, every field checked."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from flask import Request

from imagesieve.serving.errors import (
    BadParameterError,
    MalformedBodyError,
    MissingImageError,
    TooManyImagesError,
    UnsupportedMediaTypeError,
)
from imagesieve.serving.forms import JSON, parse_json, read_body
from imagesieve.serving.limits import ServingLimits

INPUT = "image"
BYTES = "BYTES"
LABEL, PROBABILITIES, DECISION = OUTPUTS = ("label", "probabilities", "decision")

MAX_REQUEST_ID_CHARS = 128

_MARKS_AN_ITEM = 8  # of each sign in the JSON, for each image that may be in it


@dataclasses.dataclass(frozen=True)
class Inference:
    """What is to be judged.

    Attributes:
        images: Base64 texts, at least one.
        outputs: names from `OUTPUTS`, in the order asked for.
        id: the caller's own name for the request.
    """

    images: Sequence[str]
    outputs: Sequence[str] = OUTPUTS
    id: str | None = None


def read_inference(request: Request, limits: ServingLimits) -> Inference:
    """Read the body of `infer`.

    `parameters` may stand where the protocol has them; none has a meaning here.

    Raises:
        RequestError: a child of it that says what is wrong.
    """
    body = read_body(request, limits.max_body_bytes)
    if not body:
        raise MissingImageError("No image was sent: post JSON with one tensor under inputs.")
    if request.mimetype not in ("", JSON):  # Triton's own client names no type
        raise UnsupportedMediaTypeError(
            f"Send {JSON}, not {request.mimetype[:100]!r}: tensors in binary are not taken."
        )
    value = parse_json(body, limits, _MARKS_AN_ITEM * (limits.max_batch_images + 1))
    fields = _fields(value, "The body", ("inputs",), ("id", "outputs"))
    inputs = fields["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise BadParameterError(f"inputs must be a list of one tensor, named {INPUT}.")
    return Inference(
        _images(inputs[0], limits.max_batch_images),
        _outputs(fields.get("outputs", [])) or OUTPUTS,
        _id(fields["id"]) if "id" in fields else None,
    )


def _fields(
    value: object, what: str, needed: Collection[str], others: Collection[str] = ()
) -> dict[str, Any]:
    """Give an object, which has all that is needed and nothing that is not known."""
    if not isinstance(value, dict):
        raise MalformedBodyError(f"{what} must be an object.")
    for name in needed:
        if name not in value:
            raise MalformedBodyError(f"{what} has no {name}.")
    for name in value:
        if name not in (*needed, *others, "parameters"):
            raise BadParameterError(f"{what} has a field {name[:100]!r}, which means nothing.")
    if not isinstance(value.get("parameters", {}), dict):
        raise BadParameterError(f"{what} has parameters that are no object.")
    return value


def _images(value: object, most: int) -> list[str]:
    tensor = _fields(value, "The input", ("name", "shape", "datatype", "data"))
    if tensor["name"] != INPUT:
        raise BadParameterError(f"The input must be named {INPUT}.")
    if tensor["datatype"] != BYTES:
        raise BadParameterError(f"The datatype of {INPUT} must be {BYTES}: Base64 texts.")
    data = tensor["data"]
    if not isinstance(data, list) or not data:
        raise BadParameterError(f"The data of {INPUT} must be a list of Base64 texts.")
    if len(data) > most:
        raise TooManyImagesError(f"{len(data)} images were sent: send at most {most}.")
    _check_shape(tensor["shape"], len(data))
    return [_text(item, number) for number, item in enumerate(data)]


def _check_shape(shape: object, num_images: int) -> None:
    # 1.0 is as good as 1: JSON knows one kind of number. But `True` is none.
    numbers = isinstance(shape, list) and all(type(size) in (int, float) for size in shape)
    if not numbers or shape not in ([num_images], [num_images, 1]):
        raise BadParameterError(
            f"The shape of {INPUT} must be [{num_images}] or [{num_images}, 1], as there are "
            f"{num_images} texts in its data."
        )


def _text(item: object, number: int) -> str:
    if isinstance(item, list) and len(item) == 1:  # a row of a tensor with the shape [n, 1]
        (item,) = item
    if not isinstance(item, str):
        raise BadParameterError(f"data[{number}]: this is no Base64 text")
    return item


def _outputs(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > len(OUTPUTS):
        raise BadParameterError(f"outputs must be a list of at most {len(OUTPUTS)} tensors.")
    names = [_fields(item, "An output", ("name",))["name"] for item in value]
    for name in names:
        if name not in OUTPUTS:
            raise BadParameterError(
                f"There is no output {str(name)[:100]!r}: use {', '.join(OUTPUTS)}."
            )
    return list(dict.fromkeys(names))


def _id(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_REQUEST_ID_CHARS:
        raise BadParameterError(f"id must be a text of at most {MAX_REQUEST_ID_CHARS} characters.")
    return value
