"""A request -> the correction that it asks for."""

import dataclasses
import re
from collections.abc import Sequence

import msgspec
from flask import Request
from msgspec import UNSET

from imagesieve.errors import EmptyImageError
from imagesieve.serving import schemas
from imagesieve.serving.errors import BadParameterError, SeveralImagesError
from imagesieve.serving.forms import MULTIPART, read_body, read_form
from imagesieve.serving.limits import ServingLimits
from imagesieve.serving.requests import read_object, read_options
from imagesieve.serving.validation import check, unique, with_numbers

IMAGE_FIELD = "image"

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class CorrectionRequest:
    """What an image really is, and which image is meant.

    Attributes:
        id: of its prediction.
        sha256: of the encoded image.
        image: the encoded image itself, at least one byte.
        label: its class, as sent; None with `reject`.
        reject: whether it belongs to no class.
        note: the reviewer's words.
        reviewer: the reviewer's name.
    """

    id: str | None = None
    sha256: str | None = None
    image: bytes | None = None
    label: str | None = None
    reject: bool = False
    note: str | None = None
    reviewer: str | None = None


def is_sha256(text: str) -> bool:
    """Return whether a text is 64 hexadecimal digits, in lower case."""
    return _SHA256.fullmatch(text) is not None


def read_correction(request: Request, limits: ServingLimits) -> CorrectionRequest:
    """Read a correction, as JSON or as a form with the image itself.

    Raises:
        RequestError: a child of it that says what is wrong.
        EmptyImageError: the image has no bytes.
    """
    refuse_options(request, limits)
    image = None
    if request.mimetype == MULTIPART:
        form = read_form(request, read_body(request, limits.max_body_bytes), limits)
        fields = unique(with_numbers(form.fields, schemas.Correction))
        image = _image(form.files)
        asked = check(fields, schemas.Correction, limits)
    else:
        asked = read_object(request, limits, schemas.Correction)
    if (asked.label is not UNSET) == asked.reject:
        raise BadParameterError("Give either label or reject, to say what the image is.")
    if image is None and (asked.id is UNSET) == (asked.sha256 is UNSET):
        raise BadParameterError(
            "Say which image is meant: by id, by sha256, or by the image itself as a file "
            f"named {IMAGE_FIELD}."
        )
    given = {
        name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET
    }
    if asked.sha256 is not UNSET:
        given["sha256"] = asked.sha256.lower()
    return CorrectionRequest(image=image, **given)


def read_limit(request: Request, limits: ServingLimits) -> int:
    """Read how many images to return for review.

    Raises:
        RequestError: an option is unknown or wrong.
    """
    return read_options(request, limits, schemas.ReviewOptions).limit


def refuse_options(request: Request, limits: ServingLimits) -> None:
    """Refuse options in the query where there are none.

    Raises:
        RequestError: there is one.
    """
    read_options(request, limits, schemas.Nothing)


def _image(files: Sequence[tuple[str, bytes]]) -> bytes | None:
    for name, _ in files:
        if name != IMAGE_FIELD:
            raise BadParameterError(f"There is no file field {name[:100]!r}: use {IMAGE_FIELD}.")
    if len(files) > 1:
        raise SeveralImagesError(f"{len(files)} images were sent: correct one at a time.")
    if files and not files[0][1]:
        raise EmptyImageError("the image is empty (0 bytes)")
    return files[0][1] if files else None
