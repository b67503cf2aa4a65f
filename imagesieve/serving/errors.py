"""Errors of the service, and the problem (RFC 9457) that each error of the program becomes.

Each error of the service is a row below; tables have the problems of all others. The message is the
problem's detail, save where the server itself failed.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, TypeVar

from werkzeug import exceptions as http

from imagesieve import errors
from imagesieve.errors import ClassifierError
from imagesieve.serving import schemas

MEDIA_TYPE = "application/problem+json"


@dataclasses.dataclass(frozen=True)
class ProblemKind:
    """One kind of problem: HTTP status, the end of its type URI, and its constant title."""

    status: int
    slug: str
    title: str


_BUSY = ProblemKind(503, "overloaded", "The server is busy")
_UNKNOWN = (404, "unknown-picture", "The image is not known")
_TOO_LARGE = ProblemKind(413, "body-too-large", "The request is too large")

_OF_IMAGES: Mapping[type[errors.ImageError], tuple[int, str]] = {
    errors.EmptyImageError: (400, "The image is empty"),
    errors.TooManyBytesError: (413, "The image is too large"),
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
PROBLEMS: dict[type[Exception], ProblemKind] = {  # `_kind` adds the service's own
    Exception: ProblemKind(500, "internal", "The server failed"),
    MemoryError: _BUSY,
    **{kind: ProblemKind(status, kind.slug, title) for kind, (status, title) in _OF_IMAGES.items()},
    **{kind: ProblemKind(kind.code or 500, *words) for kind, words in _OF_HTTP.items()},
}


class ServiceError(ClassifierError):
    """Base of the service's own errors."""

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})  # of the answer

    def __init__(self, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after  # whole seconds, at least 1


class RequestError(ServiceError):
    """The request can never work as it stands."""


class ModelChangeError(ServiceError):
    """The model was not changed: what was served before is served still."""


class UnavailableError(ServiceError):
    """The server cannot do it right now; the same request may work later."""


_Base = TypeVar("_Base", bound=ServiceError)


def _kind(
    base: type[_Base], status: int, slug: str, title: str, name: str | None = None
) -> type[_Base]:
    """Return a child of `base` that becomes this problem, named BadHostError for `bad-host`."""
    name = name or f"{slug.title().replace('-', '')}Error"
    kind = type(name, (base,), {"__module__": __name__})
    PROBLEMS[kind] = ProblemKind(status, slug, title)
    return kind


_request_error = functools.partial(_kind, RequestError)
_change_error = functools.partial(_kind, ModelChangeError)
_unavailable = functools.partial(_kind, UnavailableError)

MissingImageError = _request_error(400, "missing-image", "No image was sent")
SeveralImagesError = _request_error(400, "several-images", "More than one image was sent")
BadBase64Error = _request_error(400, "bad-base64", "The text is not Base64")
MalformedBodyError = _request_error(400, "malformed-body", "The body cannot be read")
BadParameterError = _request_error(400, "bad-parameter", "An option is wrong")
UnknownLabelError = _request_error(400, "unknown-label", "There is no such class")
BadHostError = _request_error(400, "bad-host", "The request is for another host")
UnauthorizedError = _request_error(401, "unauthorized", "A key is needed")
UnauthorizedError.headers = MappingProxyType({"WWW-Authenticate": "Bearer"})
ForbiddenError = _request_error(403, "forbidden", "This is not allowed")
UnknownImageError = _request_error(*_UNKNOWN, "UnknownImageError")
ImageNeededError = _kind(UnknownImageError, *_UNKNOWN, "ImageNeededError")
BodyTooLargeError = _request_error(413, _TOO_LARGE.slug, _TOO_LARGE.title)
TooManyFieldsError = _request_error(413, "too-many-fields", "The form has too many fields")
TooManyImagesError = _request_error(413, "too-many-images", "The batch has too many images")
UnsupportedMediaTypeError = _request_error(
    415, "unsupported-media-type", "This Content-Type carries no image"
)
UrlNotAllowedError = _request_error(422, "url-not-allowed", "This address is not fetched")
RateLimitedError = _request_error(429, "rate-limited", "Too many requests")

UnknownModelError = _change_error(404, "unknown-model", "There is no such model version")
ModelRefusedError = _change_error(409, "model-refused", "The model version is refused")
ModelUnusableError = _change_error(
    422, "model-damaged", "The model version cannot be used", "ModelUnusableError"
)
ModelChangeFailedError = _change_error(
    503, "model-change-failed", "The change of the model cannot be kept"
)

OverloadedError = _unavailable(503, _BUSY.slug, _BUSY.title)
FetchFailedError = _unavailable(502, "fetch-failed", "The address gave no image")
ModelLoadingError = _unavailable(503, "model-loading", "The model is loading")
ShuttingDownError = _unavailable(503, "shutting-down", "The server is stopping")
FeedbackUnavailableError = _unavailable(
    503, "feedback-unavailable", "Corrections are not available"
)
FeedbackFullError = _unavailable(507, "feedback-full", "There is no room for more corrections")

ExplainingUnavailableError = _kind(
    ServiceError, 501, "explaining-unavailable", "This server cannot explain its answers"
)
DeadlineExceededError = _kind(ServiceError, 504, "deadline-exceeded", "The answer took too long")
ClientGoneError = _kind(ServiceError, 499, "client-gone", "The caller has hung up")


def problem_for(error: Exception) -> ProblemKind:
    """Return the problem that an error becomes: that of its class, or of the nearest parent."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def detail_of(error: Exception, request_id: str) -> str:
    """Return what was wrong; of the server's own faults only the request's id."""
    if isinstance(error, errors.ImageError):
        return error.reason
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, http.HTTPException):
        return error.description or error.name
    return f"The server failed; its log has the details under request {request_id}."


def headers_of(error: Exception) -> Mapping[str, str]:
    if isinstance(error, http.RequestedRangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.length}"}
    if isinstance(error, http.MethodNotAllowed):
        return {"Allow": ", ".join(sorted(error.valid_methods or ()))}
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
