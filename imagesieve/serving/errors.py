"""Errors of the service, and the one table that turns errors into HTTP responses (RFC 9457).

ClassifierError
├── RequestError                     the request is wrong; nothing was predicted
│   ├── MissingImageError            no image in it
│   ├── SeveralImagesError           more than one
│   ├── BadBase64Error               text that is not Base64
│   ├── MalformedBodyError           not the JSON or form that it says it is
│   ├── BadParameterError            an unknown option, or a value out of range
│   ├── BodyTooLargeError            more bytes than are read
│   ├── TooManyFieldsError           more form fields than are read
│   ├── TooManyImagesError           more images than a batch may have
│   ├── UnsupportedMediaTypeError    a Content-Type that cannot carry an image
│   ├── UrlNotAllowedError           a URL that is not fetched
│   ├── UnknownImageError          an image that is unknown, or was never corrected
│   ├── UnknownLabelError            a class that the model does not have
│   └── AccessError                  this caller may not; carries headers for the answer
│       ├── BadHostError             it is for another host
│       ├── UnauthorizedError        no key, or an unknown one
│       ├── ForbiddenError           a key without the scope, or a page of another site
│       └── RateLimitedError         too often; carries the seconds to wait
├── ModelChangeError                 another model was requested; the old one keeps serving
│   ├── UnknownModelError            there is no such version
│   ├── ModelRefusedError            it does not fit what is served, or cannot be changed to now
│   └── ModelUnusableError           it is damaged, or no engine can run it
├── ExplainingUnavailableError       this installation or this model can explain nothing
├── DeadlineExceededError            it took too long
├── ClientGoneError                  the client has disconnected
└── UnavailableError                 try again later
    ├── OverloadedError              all places are taken
    ├── FetchFailedError             a URL gave no image
    ├── ModelLoadingError            the model is not there yet
    ├── FeedbackUnavailableError     corrections cannot be written or read
    ├── FeedbackFullError            the limit of corrections is reached
    └── ShuttingDownError            the server is about to leave
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import UNSET
from werkzeug import exceptions as http

from imagesieve import errors
from imagesieve.errors import ClassifierError
from imagesieve.serving import schemas

MEDIA_TYPE = "application/problem+json"


class RequestError(ClassifierError):
    """The request can never work as it stands."""


class MissingImageError(RequestError):
    """No image was sent."""


class SeveralImagesError(RequestError):
    """More than one image was sent."""


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


class TooManyImagesError(RequestError):
    """A batch has more images than the limit."""


class UnsupportedMediaTypeError(RequestError):
    """The Content-Type is none that carries an image."""


class UnknownImageError(RequestError):
    """The image is unknown by now, or there is no correction of it."""


class UnknownLabelError(RequestError):
    """The model has no such class."""


class UrlNotAllowedError(RequestError):
    """Images are not fetched from this URL."""


class AccessError(RequestError):
    """This caller may not do this.

    Attributes:
        headers: names and values that belong to the answer.
    """

    headers: Mapping[str, str] = MappingProxyType({})


class BadHostError(AccessError):
    """The request is for a host that the service is not."""


class UnauthorizedError(AccessError):
    """The key is missing, unknown or sent in a wrong way."""

    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForbiddenError(AccessError):
    """The key does not allow it, or a page of another site sent it."""


class RateLimitedError(AccessError):
    """The caller has used up its share.

    Attributes:
        retry_after: whole seconds until it has some again, at least 1.
    """

    def __init__(self, sentence: str, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class ModelChangeError(ClassifierError):
    """The model was not changed: what was served before is served still."""


class UnknownModelError(ModelChangeError):
    """The folder of versions has no such version."""


class ModelRefusedError(ModelChangeError):
    """The version does not fit what is served, or this is not the time or place for a change."""


class ModelUnusableError(ModelChangeError):
    """The version is damaged, or no engine can run it."""


class ModelChangeFailedError(ModelChangeError):
    """The server could not write down which version is served."""


class ExplainingUnavailableError(ClassifierError):
    """Keras, or what it needs of the model, is missing: no image can be explained."""


class DeadlineExceededError(ClassifierError):
    """The answer was not ready in time."""


class ClientGoneError(ClassifierError):
    """The caller has hung up."""


class UnavailableError(ClassifierError):
    """The server cannot predict right now; the same request may work later."""


class OverloadedError(UnavailableError):
    """As many requests as allowed are being worked on."""


class FetchFailedError(UnavailableError):
    """The URL of an image gave none."""


class ModelLoadingError(UnavailableError):
    """The model is still loading."""


class FeedbackUnavailableError(UnavailableError):
    """Corrections cannot be written or read now; nothing was changed."""


class FeedbackFullError(UnavailableError):
    """The limit of corrections is reached; nothing was changed."""


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
        MissingImageError: Problem(400, "missing-image", "No image was sent"),
        SeveralImagesError: Problem(400, "several-images", "More than one image was sent"),
        BadBase64Error: Problem(400, "bad-base64", "The text is not Base64"),
        MalformedBodyError: Problem(400, "malformed-body", "The body cannot be read"),
        BadParameterError: Problem(400, "bad-parameter", "An option is wrong"),
        UnknownLabelError: Problem(400, "unknown-label", "There is no such class"),
        errors.EmptyImageError: Problem(400, errors.EmptyImageError.slug, "The image is empty"),
        http.BadRequest: Problem(400, "malformed-request", "The request cannot be read"),
        BadHostError: Problem(400, "bad-host", "The request is for another host"),
        UnauthorizedError: Problem(401, "unauthorized", "A key is needed"),
        ForbiddenError: Problem(403, "forbidden", "This is not allowed"),
        http.NotFound: Problem(404, "not-found", "There is nothing at this address"),
        UnknownModelError: Problem(404, "unknown-model", "There is no such model version"),
        UnknownImageError: Problem(404, "unknown-picture", "The image is not known"),
        http.RequestTimeout: Problem(408, "too-slow", "The request came too slowly"),
        http.MethodNotAllowed: Problem(
            405, "method-not-allowed", "This address does not take that method"
        ),
        ModelRefusedError: Problem(409, "model-refused", "The model version is refused"),
        BodyTooLargeError: Problem(413, "body-too-large", "The request is too large"),
        http.RequestEntityTooLarge: Problem(413, "body-too-large", "The request is too large"),
        TooManyFieldsError: Problem(413, "too-many-fields", "The form has too many fields"),
        TooManyImagesError: Problem(413, "too-many-images", "The batch has too many images"),
        errors.ImageTooLargeError: Problem(
            413, errors.ImageTooLargeError.slug, "The image is too large"
        ),
        UnsupportedMediaTypeError: Problem(
            415, "unsupported-media-type", "This Content-Type carries no image"
        ),
        errors.UnsupportedImageFormatError: Problem(
            415, errors.UnsupportedImageFormatError.slug, "This is no accepted image format"
        ),
        errors.TooManyPixelsError: Problem(
            422, errors.TooManyPixelsError.slug, "The image is too big"
        ),
        errors.ImageTooSmallError: Problem(
            422, errors.ImageTooSmallError.slug, "The image is too small"
        ),
        errors.TruncatedImageError: Problem(
            422, errors.TruncatedImageError.slug, "The image ends early"
        ),
        errors.UnreadableImageError: Problem(
            422, errors.UnreadableImageError.slug, "The file cannot be opened"
        ),
        ModelUnusableError: Problem(422, "model-damaged", "The model version cannot be used"),
        UrlNotAllowedError: Problem(422, "url-not-allowed", "This address is not fetched"),
        errors.ImageError: Problem(422, errors.ImageError.slug, "The image is damaged"),
        RateLimitedError: Problem(429, "rate-limited", "Too many requests"),
        http.RequestedRangeNotSatisfiable: Problem(
            416, "range-not-satisfiable", "The file has no such part"
        ),
        http.RequestHeaderFieldsTooLarge: Problem(
            431, "headers-too-large", "The request headers are too large"
        ),
        Exception: Problem(500, "internal", "The server failed"),
        http.NotImplemented: Problem(501, "not-implemented", "The server does not know this"),
        ExplainingUnavailableError: Problem(
            501, "explaining-unavailable", "This server cannot explain its answers"
        ),
        OverloadedError: Problem(503, "overloaded", "The server is busy"),
        http.ServiceUnavailable: Problem(503, "overloaded", "The server is busy"),
        MemoryError: Problem(503, "overloaded", "The server is busy"),
        FetchFailedError: Problem(502, "fetch-failed", "The address gave no image"),
        DeadlineExceededError: Problem(504, "deadline-exceeded", "The answer took too long"),
        ClientGoneError: Problem(499, "client-gone", "The caller has hung up"),
        ModelChangeFailedError: Problem(
            503, "model-change-failed", "The change of the model cannot be kept"
        ),
        ModelLoadingError: Problem(503, "model-loading", "The model is loading"),
        FeedbackUnavailableError: Problem(
            503, "feedback-unavailable", "Corrections are not available"
        ),
        FeedbackFullError: Problem(507, "feedback-full", "There is no room for more corrections"),
        ShuttingDownError: Problem(503, "shutting-down", "The server is stopping"),
    }
)


def problem_for(error: Exception) -> Problem:
    """Return the table's row for an error: that of its class, or of the nearest parent."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def detail_of(error: Exception, request_id: str) -> str:
    """Return what was wrong this time; of the server's own faults only the request's id."""
    if isinstance(error, errors.ImageError):
        return error.reason
    if isinstance(error, RequestError | UnavailableError | DeadlineExceededError | ClientGoneError):
        return str(error)
    if isinstance(error, ModelChangeError | ExplainingUnavailableError):
        return str(error)
    if isinstance(error, http.HTTPException):
        return error.description or error.name
    return f"The server failed; its log has the details under request {request_id}."


def headers_of(error: Exception) -> Mapping[str, str]:
    """Return the headers that belong to the response to an error."""
    if isinstance(error, AccessError):
        return error.headers
    if isinstance(error, http.RequestedRangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.length}"}
    return {}


def is_own_fault(error: Exception) -> bool:
    """Return whether the server failed, so that `detail_of` only says where to look."""
    return problem_for(error).status == 500 or isinstance(error, MemoryError)


def document(
    problem: Problem, detail: str, request_id: str, retry_after_seconds: int | None = None
) -> schemas.Problem:
    """Return the problem document, to be sent as `MEDIA_TYPE`."""
    return schemas.Problem(
        f"/problems/{problem.slug}",
        problem.title,
        problem.status,
        detail,
        f"urn:request:{request_id}",
        UNSET if retry_after_seconds is None else retry_after_seconds,
    )
