"""A request -> the correction that it asks for, every field checked."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flask import Request

from imagesieve.errors import EmptyImageError
from imagesieve.serving.errors import BadParameterError, SeveralImagesError
from imagesieve.serving.forms import MULTIPART, parse_form, read_body, read_form
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.requests import read_object

IMAGE_FIELD = "image"

MAX_ID_CHARS = 100
MAX_NOTE_CHARS = 500
MAX_REVIEWER_CHARS = 64

MAX_REVIEW = 100
DEFAULT_REVIEW = 20

_SHA256 = re.compile("[0-9a-f]{64}")
_LINE_BREAKS = frozenset("\n\r\t")


@dataclasses.dataclass(frozen=True)
class CorrectionRequest:
    """What somebody says of an image.

    Attributes:
        id: of its prediction.
        sha256: of the encoded image.
        image: the encoded image itself, at least one byte.
        label: what it is of, as was sent; None with `reject`.
        reject: whether it belongs to no class.
        note: their words.
        reviewer: their name.
    """

    id: str | None = None
    sha256: str | None = None
    image: bytes | None = None
    label: str | None = None
    reject: bool = False
    note: str | None = None
    reviewer: str | None = None


def is_sha256(text: str) -> bool:
    """Tell whether a text is 64 hexadecimal digits, in lower case."""
    return _SHA256.fullmatch(text) is not None


def read_correction(request: Request, limits: ServingLimits) -> CorrectionRequest:
    """Read a correction, as JSON or as a form with the image itself.

    Raises:
        RequestError: a child of it that says what is wrong.
        EmptyImageError: the image has no bytes.
    """
    refuse_options(request, limits)
    if request.mimetype == MULTIPART:
        asked = _read_form(request, limits)
    else:
        asked = CorrectionRequest(**_checked(read_object(request, limits, tuple(_FIELDS))))
    if (asked.label is not None) == asked.reject:
        raise BadParameterError("Give either label or reject, to say what the image is.")
    if asked.image is None and (asked.id is None) == (asked.sha256 is None):
        raise BadParameterError(
            "Say which image is meant: by id, by sha256, or by the image itself as a file "
            f"named {IMAGE_FIELD}."
        )
    return asked


def read_limit(request: Request, limits: ServingLimits) -> int:
    """Read how many images to give for review.

    Raises:
        RequestError: an option is unknown or wrong.
    """
    limit = DEFAULT_REVIEW
    for name, value in parse_form(request.query_string, limits):
        if name != "limit":
            raise BadParameterError(f"There is no option {name[:100]!r}: use limit.")
        if not re.fullmatch("[0-9]{1,9}", value) or not 1 <= int(value) <= MAX_REVIEW:
            raise BadParameterError(f"limit must be a whole number from 1 to {MAX_REVIEW}.")
        limit = int(value)
    return limit


def refuse_options(request: Request, limits: ServingLimits) -> None:
    """Refuse options in the query where there are none.

    Raises:
        RequestError: there is one.
    """
    for name, _ in parse_form(request.query_string, limits):
        raise BadParameterError(f"There is no option {name[:100]!r} here.")


def _read_form(request: Request, limits: ServingLimits) -> CorrectionRequest:
    form = read_form(request, read_body(request, limits.max_body_bytes), limits)
    fields: dict[str, Any] = {}
    for name, value in form.fields:
        if name not in _FIELDS:
            names = ", ".join(_FIELDS)
            raise BadParameterError(f"There is no field {name[:100]!r}: use {names}.")
        if name in fields:
            raise BadParameterError(f"The field {name} was given twice.")
        fields[name] = {"true": True, "false": False}.get(value) if name == "reject" else value
    return CorrectionRequest(image=_image(form.files), **_checked(fields))


def _image(files: Sequence[tuple[str, bytes]]) -> bytes | None:
    for name, _ in files:
        if name != IMAGE_FIELD:
            raise BadParameterError(f"There is no file field {name[:100]!r}: use {IMAGE_FIELD}.")
    if len(files) > 1:
        raise SeveralImagesError(f"{len(files)} images were sent: correct one at a time.")
    if files and not files[0][1]:
        raise EmptyImageError("the image is empty (0 bytes)")
    return files[0][1] if files else None


def _checked(fields: Mapping[str, object]) -> dict[str, Any]:
    return {name: _FIELDS[name](value) for name, value in fields.items()}


def _id(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARS:
        raise BadParameterError("id must be the id that came with the prediction.")
    return value


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not is_sha256(value.lower()):
        raise BadParameterError("sha256 must be 64 hexadecimal digits.")
    return value.lower()


def _label(value: object) -> str:
    if not isinstance(value, str):
        raise BadParameterError("label must be the name of a class.")
    return value


def _reject(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadParameterError("reject must be true or false.")
    return value


def _note(value: object) -> str:
    return _text("note", value, MAX_NOTE_CHARS, _LINE_BREAKS)


def _reviewer(value: object) -> str:
    return _text("reviewer", value, MAX_REVIEWER_CHARS, frozenset())


def _text(name: str, value: object, max_chars: int, allowed: frozenset[str]) -> str:
    if not isinstance(value, str) or len(value) > max_chars:
        raise BadParameterError(f"{name} must be a text of at most {max_chars} characters.")
    # Cc: control characters; Cs: halves of a character, which are no text that could be encoded.
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in value if sign not in allowed):
        raise BadParameterError(f"{name} has characters that cannot be printed.")
    return value


_FIELDS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "id": _id,
        "sha256": _sha256,
        "label": _label,
        "reject": _reject,
        "note": _note,
        "reviewer": _reviewer,
    }
)
