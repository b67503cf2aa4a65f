"""What the views share: the components of the service, scopes of keys, and how errors are answered.

A view finds them with `current_service()`, as Flask's own extensions are found.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import flask
import msgspec

from imagesieve.serving import errors
from imagesieve.serving.access.checks import Access
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.models import Models
from imagesieve.serving.pipeline import Deadline, Pipeline, PredictionResult
from imagesieve.serving.requests import Fetch

if TYPE_CHECKING:  # their modules import this one
    from imagesieve.serving.routes.explain import Explainer
    from imagesieve.serving.routes.feedback import Corrections

DECIMALS = 9  # of a probability: a thousand of them still sum to 1 within a millionth

EXTENSION = "imagesieve"  # of Flask: where `current_service` finds it

_log = logging.getLogger(__name__)

_View = TypeVar("_View", bound=Callable[..., flask.Response])


@dataclasses.dataclass(eq=False)
class Service:
    """The components of one service."""

    models: Models
    admission: Admission = dataclasses.field(default_factory=Admission)
    access: Access = dataclasses.field(default_factory=Access)
    fetch: Fetch | None = None  # None where URLs are not accepted
    corrections: "Corrections | None" = None  # None where none are accepted
    explainer: "Explainer | None" = None  # None where images are not explained
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    pipeline: Pipeline = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(self.admission, self.metrics, self.fetch)
        in_flight = "Requests being worked on"
        self.metrics.watch("in_flight", in_flight, lambda: self.admission.in_flight)

    @property
    def limits(self) -> ServingLimits:
        """What requests may cost."""
        return self.admission.limits

    def remember(self, image_id: str, result: PredictionResult) -> bool:
        """Keep a predicted image for corrections; return whether its id is enough for one."""
        return self.corrections is not None and self.corrections.note(image_id, result)

    def deadline(self, *, is_batch: bool = False) -> Deadline:
        """Return how long the client of the current request waits, from the request's arrival."""
        limits = self.limits
        seconds = limits.batch_deadline_seconds if is_batch else limits.deadline_seconds
        is_gone = flask.request.environ.get("waitress.client_disconnected", lambda: False)
        return Deadline(flask.g.started + seconds, is_gone)

    def note(self, error: Exception, request_id: str) -> errors.Problem:
        """Count what went wrong with a request or with one image of it; return the table's row.

        What is the server's own fault goes to the log, where the response points to.
        """
        problem = errors.problem_for(error)
        self.metrics.note_problem(problem.slug)
        if errors.is_own_fault(error):
            _log.error("Request %s failed: %s.", request_id, type(error).__name__)
            _log.debug("what happened in request %s", request_id, exc_info=error)
        return problem


def current_service() -> Service:
    """Return the service of the application that handles the current request."""
    service: Service = flask.current_app.extensions[EXTENSION]
    return service


def requires(scope: Scope, *, only_with_keys: bool = False) -> Callable[[_View], _View]:
    """Return a decorator of views: the caller's key must have the scope.

    Each request takes a token of the caller's rate. The caller is `flask.g.caller` in the view.
    With `only_with_keys`, the view is open to everyone while the service has no keys.
    """

    def decorate(view: _View) -> _View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> flask.Response:
            access = current_service().access
            if needed_scope(guarded, access):
                flask.g.caller = access.identify(flask.request, scope)
            return view(*args, **kwargs)

        guarded.__dict__.update(scope=scope, only_with_keys=only_with_keys)
        return guarded  # type: ignore[return-value]  # it has the view's own signature

    return decorate


def needed_scope(view: Callable[..., Any], access: Access) -> Scope | None:
    """Return the scope that a view requires; None if it is open to everyone."""
    scope: Scope | None = getattr(view, "scope", None)
    return None if getattr(view, "only_with_keys", False) and not access.has_keys else scope


def json_response(value: msgspec.Struct | Mapping[str, Any], status: int = 200) -> flask.Response:
    """Return a response of JSON values."""
    return response_of(msgspec.json.encode(value), status)


def response_of(
    text: str | bytes, status: int = 200, media_type: str = "application/json"
) -> flask.Response:
    """Return a response of a text that is ready."""
    return flask.Response(text, status, mimetype=media_type)


def error_response(
    error: Exception, render: Callable[[errors.Problem, str, int | None], flask.Response]
) -> flask.Response:
    """Count an error and return its response, with the headers that belong to it.

    `render` gets the problem, the detail, and the seconds after which to try again, or None.
    """
    service, request_id = current_service(), flask.g.request_id
    problem = service.note(error, request_id)
    flask.g.problem = problem.slug
    seconds = getattr(error, "retry_after", None)
    if seconds is None and problem.status == 503:
        seconds = service.admission.retry_after()
    response = render(problem, errors.detail_of(error, request_id), seconds)
    response.headers.update(errors.headers_of(error))
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    return response


def problem_response(error: Exception) -> flask.Response:
    """Return an error as a problem document (RFC 9457)."""

    def render(problem: errors.Problem, detail: str, seconds: int | None) -> flask.Response:
        document = errors.document(problem, detail, flask.g.request_id, seconds)
        return response_of(msgspec.json.encode(document), problem.status, errors.MEDIA_TYPE)

    return error_response(error, render)


def milliseconds(seconds: float) -> float:
    """Return milliseconds as responses and log lines show them."""
    return round(seconds * 1000, 2)
