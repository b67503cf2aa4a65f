"""The Flask application of a service: its components, and what all of its views share.

A view finds the components with `current_service()`, as Flask's own extensions are found.
"""

import dataclasses
import functools
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import flask
import msgspec
from msgspec import UNSET
from werkzeug.routing import Rule

from imagesieve.explaining.worker import Explainer
from imagesieve.serving import errors, schemas
from imagesieve.serving.access import Access, Scope
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.model_manager import ModelManager
from imagesieve.serving.pipeline import Deadline, Pipeline, PredictionResult
from imagesieve.serving.requests import JSON, Fetch

if TYPE_CHECKING:  # that module imports this one
    from imagesieve.serving.feedback.review import Corrections

DECIMALS = 9  # of a probability: a thousand of them still sum to 1 within a millionth

_EXTENSION = "imagesieve"  # of Flask: where `current_service` finds it
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_STATIC = "static"  # the endpoint of Flask's own view of files
_NO_ROUTE = "none"  # in metrics, for paths that lead nowhere

_log = logging.getLogger(__name__)

_View = TypeVar("_View", bound=Callable[..., flask.Response])


@dataclasses.dataclass(eq=False)
class Service:
    models: ModelManager
    admission: Admission = dataclasses.field(default_factory=Admission)
    access: Access = dataclasses.field(default_factory=Access)
    fetch: Fetch | None = None  # None where URLs are not accepted
    corrections: "Corrections | None" = None  # None where none are accepted
    explainer: Explainer | None = None  # None where images are not explained
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    pipeline: Pipeline = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(self.admission, self.metrics)
        in_flight = "Requests being worked on"
        self.metrics.watch("in_flight", in_flight, lambda: self.admission.in_flight)

    @property
    def limits(self) -> ServingLimits:
        return self.admission.limits

    def hold(self, image_id: str, result: PredictionResult) -> bool:
        """Return whether the image can be corrected by its id from now on."""
        return self.corrections is not None and self.corrections.hold(image_id, result)

    def deadline(self, *, is_batch: bool = False) -> Deadline:
        """Return how long the client of the current request waits, from the request's arrival."""
        limits = self.limits
        seconds = limits.batch_deadline_seconds if is_batch else limits.deadline_seconds
        is_gone = flask.request.environ.get("waitress.client_disconnected", lambda: False)
        return Deadline(flask.g.started + seconds, is_gone)

    def refuse(self, error: Exception, request_id: str) -> schemas.Problem:
        """Count what went wrong with a request or with one image of it; return its document.

        What is the server's own fault goes to the log, where the document points to.
        """
        problem = errors.problem_for(error)
        self.metrics.note_problem(problem.slug)
        if problem.status == 500 or isinstance(error, MemoryError):
            _log.error("Request %s failed: %s.", request_id, type(error).__name__)
            _log.debug("what happened in request %s", request_id, exc_info=error)
        return errors.document(error, request_id)


def create_app(service: Service) -> flask.Flask:
    """Return the application of a service; without corrections, say, it has no routes for them."""
    from imagesieve.serving.routes import (
        explain,
        feedback,
        health,
        legacy,
        models,
        oip,
        pages,
        predict,
    )

    app = flask.Flask(__name__)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions[_EXTENSION] = service
    for module in (predict, models, health, pages, oip, legacy):
        app.register_blueprint(module.blueprint)
    if service.explainer:
        app.register_blueprint(explain.blueprint)
    if service.corrections:
        app.register_blueprint(feedback.blueprint)
    app.before_request(_start_request)
    app.after_request(_finish_response)
    app.register_error_handler(Exception, problem_response)
    return app


def current_service() -> Service:
    """Return the service of the application that handles the current request."""
    service: Service = flask.current_app.extensions[_EXTENSION]
    return service


def requires(scope: Scope, *, only_with_keys: bool = False) -> Callable[[_View], _View]:
    """Return a decorator of views: the caller's key must have the scope, and its rate is counted.

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


def json_response(
    value: msgspec.Struct | Mapping[str, Any], status: int = 200, media_type: str = JSON
) -> flask.Response:
    return flask.Response(msgspec.json.encode(value), status, mimetype=media_type)


def error_response(
    error: Exception, render: Callable[[schemas.Problem], flask.Response]
) -> flask.Response:
    """Count an error and return its response, with the headers that belong to it."""
    service = current_service()
    document = service.refuse(error, flask.g.request_id)
    flask.g.problem = document.type.rpartition("/")[2]
    seconds = getattr(error, "retry_after", None)
    if seconds is None and document.status == 503:
        seconds = service.admission.retry_after()
    document.retry_after = seconds or UNSET
    response = render(document)
    response.headers.update(errors.headers_of(error))
    if seconds:
        response.headers["Retry-After"] = str(seconds)
    return response


def problem_response(error: Exception) -> flask.Response:
    """Return an error as a problem document (RFC 9457)."""
    return error_response(
        error, lambda document: json_response(document, document.status, errors.MEDIA_TYPE)
    )


def route_of(rule: Rule) -> str:
    """Return the path of a rule, its variables as `<name>` alone."""
    return re.sub("<[^>]*:", "<", rule.rule)


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _start_request() -> flask.Response | None:
    """Assign the request an id; refuse those for other hosts or from pages of other sites."""
    flask.g.started = time.monotonic()
    flask.g.request_id = str(uuid.uuid4())
    access, request = current_service().access, flask.request
    if preflight := access.preflight(request):
        return preflight
    access.check_site(request)
    return None


def _finish_response(response: flask.Response) -> flask.Response:
    """Add the headers that every response has, count it, and write one line to the log."""
    service, request, rule = current_service(), flask.request, flask.request.url_rule
    for name, value in _HEADERS.items():  # `/docs` has a policy of its own, files are cached
        response.headers.setdefault(name, value)
    response.headers.update(service.access.cors_headers(request))
    response.headers["X-Request-Id"] = flask.g.request_id
    route = _STATIC if request.endpoint == _STATIC else route_of(rule) if rule else _NO_ROUTE
    seconds = time.monotonic() - flask.g.started
    method = request.method if request.method in _METHODS else "other"
    service.metrics.note_request(route, method, response.status_code, seconds)
    _log_request(response, seconds)
    return response


def _log_request(response: flask.Response, seconds: float) -> None:
    """Write one line of JSON; DEBUG keeps it to the log file. No image, no file name."""
    request = flask.request
    caller = flask.g.get("caller")
    entry: dict[str, Any] = {
        "id": flask.g.request_id,
        "from": request.remote_addr,
        "key": caller.name if caller else None,
        "method": request.method[:16],
        "path": request.path[:200],
        "bytes": request.content_length or 0,
        "status": response.status_code,
        "problem": flask.g.get("problem"),
        "label": flask.g.get("label"),
        "ms": milliseconds(seconds),
    }
    known = {name: value for name, value in entry.items() if value is not None}
    _log.debug("%s", json.dumps(known))
