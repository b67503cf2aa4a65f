"""Errors of the service, and the problem (RFC 9457) that each error of the program becomes.

An error of the service names its own; tables have those of all other errors. The message is the
problem's detail, save where the server itself failed.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from werkzeug import exceptions as http

from imagesieve import errors
from imagesieve.errors import ClassifierError
from imagesieve.serving import schemas

MEDIA_TYPE = "application/problem+json"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One kind of problem: HTTP status, the end of its type URI, and its constant title."""

    status: int
    slug: str
    title: str


_BUSY = Problem(503, "overloaded", "The server is busy")
_TOO_LARGE = Problem(413, "body-too-large", "The request is too large")

_OF_IMAGES: Mapping[type[errors.ImageError], tuple[int, str]] = {
    errors.EmptyImageError: (400, "The image is empty"),
    errors.ImageTooLargeError: (413, "The image is too large"),
    errors.UnsupportedImageFormatError: (415, "This is no accepted image format"),
    errors.TooManyPixelsError: (422, "The image is too big"),
    errors.ImageTooSmallError: (422, "The image is too small"),
    errors.TruncatedImageError: (422, "The image ends early"),
    errors.UnreadableImageError: (422, "The file cannot be opened"),
    errors.ImageError: (422, "The image is damaged"),
}
_OF_HTTP: Mapping[type[http.HTTPException], tuple[str, str]] = {
    http.BadRequest: ("malformed-request", "The request cannot be read"),
    http.NotFound: ("not-found", "There is nothing at this address"),
    http.MethodNotAllowed: ("method-not-allowed", "This address does not take that method"),
    http.RequestTimeout: ("too-slow", "The request came too slowly"),
    http.RequestEntityTooLarge: (_TOO_LARGE.slug, _TOO_LARGE.title),
    http.RequestedRangeNotSatisfiable: ("range-not-satisfiable", "The file has no such part"),
    http.RequestHeaderFieldsTooLarge: ("headers-too-large", "The request headers are too large"),
    http.NotImplemented: ("not-implemented", "The server does not know this"),
    http.ServiceUnavailable: (_BUSY.slug, _BUSY.title),
}
PROBLEMS: dict[type[Exception], Problem] = {  # each class below adds itself
    Exception: Problem(500, "internal", "The server failed"),
    MemoryError: _BUSY,
    **{kind: Problem(status, kind.slug, title) for kind, (status, title) in _OF_IMAGES.items()},
    **{kind: Problem(kind.code or 500, *words) for kind, words in _OF_HTTP.items()},
}


class ServiceError(ClassifierError):
    """Base of the service's own errors."""

    problem: ClassVar[Problem]  # what it becomes; bases have none
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})  # of the answer

    def __init_subclass__(cls) -> None:
        if "problem" in vars(cls):
            PROBLEMS[cls] = cls.problem


class RequestError(ServiceError):
    """The request can never work as it stands."""


class MissingImageError(RequestError):
    problem = Problem(400, "missing-image", "No image was sent")


class SeveralImagesError(RequestError):
    problem = Problem(400, "several-images", "More than one image was sent")


class BadBase64Error(RequestError):
    problem = Problem(400, "bad-base64", "The text is not Base64")


class MalformedBodyError(RequestError):
    problem = Problem(400, "malformed-body", "The body cannot be read")


class BadParameterError(RequestError):
    problem = Problem(400, "bad-parameter", "An option is wrong")


class UnknownLabelError(RequestError):
    problem = Problem(400, "unknown-label", "There is no such class")


class BadHostError(RequestError):
    problem = Problem(400, "bad-host", "The request is for another host")


class UnauthorizedError(RequestError):
    problem = Problem(401, "unauthorized", "A key is needed")
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForbiddenError(RequestError):
    problem = Problem(403, "forbidden", "This is not allowed")


class UnknownImageError(RequestError):
    problem = Problem(404, "unknown-picture", "The image is not known")


class BodyTooLargeError(RequestError):
    problem = _TOO_LARGE


class TooManyFieldsError(RequestError):
    problem = Problem(413, "too-many-fields", "The form has too many fields")


class TooManyImagesError(RequestError):
    problem = Problem(413, "too-many-images", "The batch has too many images")


class UnsupportedMediaTypeError(RequestError):
    problem = Problem(415, "unsupported-media-type", "This Content-Type carries no image")


class UrlNotAllowedError(RequestError):
    problem = Problem(422, "url-not-allowed", "This address is not fetched")


class RateLimitedError(RequestError):
    problem = Problem(429, "rate-limited", "Too many requests")

    def __init__(self, sentence: str, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after  # whole seconds, at least 1


class ModelChangeError(ServiceError):
    """The model was not changed: what was served before is served still."""


class UnknownModelError(ModelChangeError):
    problem = Problem(404, "unknown-model", "There is no such model version")


class ModelRefusedError(ModelChangeError):
    problem = Problem(409, "model-refused", "The model version is refused")


class ModelUnusableError(ModelChangeError):
    problem = Problem(422, "model-damaged", "The model version cannot be used")


class ModelChangeFailedError(ModelChangeError):
    problem = Problem(503, "model-change-failed", "The change of the model cannot be kept")


class ExplainingUnavailableError(ServiceError):
    problem = Problem(501, "explaining-unavailable", "This server cannot explain its answers")


class DeadlineExceededError(ServiceError):
    problem = Problem(504, "deadline-exceeded", "The answer took too long")


class ClientGoneError(ServiceError):
    problem = Problem(499, "client-gone", "The caller has hung up")


class UnavailableError(ServiceError):
    """The server cannot do it right now; the same request may work later."""


class OverloadedError(UnavailableError):
    problem = _BUSY


class FetchFailedError(UnavailableError):
    problem = Problem(502, "fetch-failed", "The address gave no image")


class ModelLoadingError(UnavailableError):
    problem = Problem(503, "model-loading", "The model is loading")


class ShuttingDownError(UnavailableError):
    problem = Problem(503, "shutting-down", "The server is stopping")


class FeedbackUnavailableError(UnavailableError):
    problem = Problem(503, "feedback-unavailable", "Corrections are not available")


class FeedbackFullError(UnavailableError):
    problem = Problem(507, "feedback-full", "There is no room for more corrections")


def problem_for(error: Exception) -> Problem:
    """Return the problem that an error becomes: that of its class, or of the nearest parent."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def detail_of(error: Exception, request_id: str) -> str:
    """Return what was wrong this time; of the server's own faults only the request's id."""
    if isinstance(error, errors.ImageError):
        return error.reason
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, http.HTTPException):
        return error.description or error.name
    return f"The server failed; its log has the details under request {request_id}."


def headers_of(error: Exception) -> Mapping[str, str]:
    """Return the headers that belong to the response to an error."""
    if isinstance(error, http.RequestedRangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.length}"}
    return error.headers if isinstance(error, ServiceError) else {}


def document(error: Exception, request_id: str) -> schemas.Problem:
    """Return the problem document of an error, to be sent as `MEDIA_TYPE`."""
    problem = problem_for(error)
    return schemas.Problem(
        f"/problems/{problem.slug}",
        problem.title,
        problem.status,
        detail_of(error, request_id),
        f"urn:request:{request_id}",
    )
