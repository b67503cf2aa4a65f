"""Errors of the service, and the one table that turns errors into HTTP answers (RFC 9457).

ClassifierError
├── RequestError                     the request is wrong; nothing was judged
│   ├── MissingImageError            no picture in it
│   ├── SeveralImagesError           more than one
│   ├── BadBase64Error               text that is not Base64
│   ├── MalformedBodyError           not the JSON or form that it says it is
│   ├── BadParameterError            an unknown option, or a value out of range
│   ├── BodyTooLargeError            more bytes than are read
│   ├── TooManyFieldsError           more form fields than are read
│   └── UnsupportedMediaTypeError    a Content-Type that cannot carry a picture
└── UnavailableError                 try again later
    ├── OverloadedError              all places are taken
    ├── ModelLoadingError            the model is not there yet
    └── ShuttingDownError            the server is about to leave
"""

import dataclasses
import json
from collections.abc import Mapping
from types import MappingProxyType

from werkzeug import exceptions as http

from classifier import errors
from classifier.errors import ClassifierError

MEDIA_TYPE = "application/problem+json"


class RequestError(ClassifierError):
    """The request can never work as it stands."""


class MissingImageError(RequestError):
    """No picture was sent."""


class SeveralImagesError(RequestError):
    """More than one picture was sent."""


class BadBase64Error(RequestError):
    """A text is not Base64, even after the usual repairs."""


class MalformedBodyError(RequestError):
    """The body is not what its Content-Type says."""


class BadParameterError(RequestError):
    """An option is unknown or its value is out of range."""


class BodyTooLargeError(RequestError):
    """The body has more bytes than the limit."""


class TooManyFieldsError(RequestError):
    """The form has more fields than the limit."""


class UnsupportedMediaTypeError(RequestError):
    """The Content-Type is none that carries a picture."""


class UnavailableError(ClassifierError):
    """The server cannot judge right now; the same request may work later."""


class OverloadedError(UnavailableError):
    """As many requests as allowed are being worked on."""


class ModelLoadingError(UnavailableError):
    """The model is still loading."""


class ShuttingDownError(UnavailableError):
    """The server finishes what it has and takes nothing new."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One kind of problem: HTTP status, the end of its type URI, and its constant title."""

    status: int
    slug: str
    title: str


PROBLEMS: Mapping[type[Exception], Problem] = MappingProxyType(
    {
        MissingImageError: Problem(400, "missing-image", "No picture was sent"),
        SeveralImagesError: Problem(400, "several-images", "More than one picture was sent"),
        BadBase64Error: Problem(400, "bad-base64", "The text is not Base64"),
        MalformedBodyError: Problem(400, "malformed-body", "The body cannot be read"),
        BadParameterError: Problem(400, "bad-parameter", "An option is wrong"),
        errors.EmptyImageError: Problem(400, "empty-image", "The picture is empty"),
        http.BadRequest: Problem(400, "malformed-request", "The request cannot be read"),
        http.NotFound: Problem(404, "not-found", "There is nothing at this address"),
        http.MethodNotAllowed: Problem(
            405, "method-not-allowed", "This address does not take that method"
        ),
        BodyTooLargeError: Problem(413, "body-too-large", "The request is too large"),
        http.RequestEntityTooLarge: Problem(413, "body-too-large", "The request is too large"),
        TooManyFieldsError: Problem(413, "too-many-fields", "The form has too many fields"),
        errors.ImageTooLargeError: Problem(413, "image-too-large", "The picture is too large"),
        UnsupportedMediaTypeError: Problem(
            415, "unsupported-media-type", "This Content-Type carries no picture"
        ),
        errors.UnsupportedImageFormatError: Problem(
            415, "unsupported-image-format", "This is no accepted picture format"
        ),
        errors.TooManyPixelsError: Problem(422, "too-many-pixels", "The picture is too big"),
        errors.ImageTooSmallError: Problem(422, "image-too-small", "The picture is too small"),
        errors.TruncatedImageError: Problem(422, "truncated-image", "The picture ends early"),
        errors.UnreadableImageError: Problem(422, "unreadable-file", "The file cannot be opened"),
        errors.ImageError: Problem(422, "undecodable-image", "The picture is damaged"),
        http.RequestHeaderFieldsTooLarge: Problem(
            431, "headers-too-large", "The request headers are too large"
        ),
        Exception: Problem(500, "internal", "The server failed"),
        http.NotImplemented: Problem(501, "not-implemented", "The server does not know this"),
        OverloadedError: Problem(503, "overloaded", "The server is busy"),
        MemoryError: Problem(503, "overloaded", "The server is busy"),
        ModelLoadingError: Problem(503, "model-loading", "The model is loading"),
        ShuttingDownError: Problem(503, "shutting-down", "The server is stopping"),
    }
)


def problem_for(error: Exception) -> Problem:
    """Give the table's row for an error: that of its class, or of the nearest parent."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def detail_of(error: Exception, request_id: str) -> str:
    """Say what was wrong this time; of the server's own faults only the request's id is told."""
    if isinstance(error, errors.ImageError):
        return error.reason
    if isinstance(error, RequestError | UnavailableError):
        return str(error)
    if isinstance(error, http.HTTPException):
        return error.description or error.name
    return f"The server failed; its log has the details under request {request_id}."


def document(
    problem: Problem, detail: str, request_id: str, retry_after_seconds: int | None = None
) -> str:
    """Give the problem as `application/problem+json` text."""
    value: dict[str, object] = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "instance": f"urn:request:{request_id}",
    }
    if retry_after_seconds is not None:
        value["retry_after"] = retry_after_seconds
    return json.dumps(value)
