"""The Flask application: its blueprints, and what happens before and after every view."""

import json
import logging
import time
import uuid
from typing import Any

import flask
from werkzeug.exceptions import MethodNotAllowed

from imagesieve.serving.routes import explain, health, legacy, models, oip, pages, predict
from imagesieve.serving.service import (
    EXTENSION,
    Service,
    current_service,
    milliseconds,
    problem_response,
)

_log = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_STATIC = "static"  # the endpoint of Flask's own view of files
_NO_ROUTE = "none"  # in metrics, for paths that lead nowhere


def create_app(service: Service) -> flask.Flask:
    """Return the application of a service; without corrections, say, it has no routes for them."""
    app = flask.Flask(__name__)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions[EXTENSION] = service
    for module in (predict, models, health, pages, oip, legacy):
        app.register_blueprint(module.blueprint)
    if service.explainer:
        app.register_blueprint(explain.blueprint)
    if service.corrections:
        app.register_blueprint(service.corrections.blueprint())
    app.before_request(_start_request)
    app.after_request(_finish_response)
    app.register_error_handler(Exception, problem_response)
    app.register_error_handler(MethodNotAllowed, _method_not_allowed)
    return app


def _start_request() -> flask.Response | None:
    """Assign the request an id; refuse those for other hosts or from pages of other sites."""
    flask.g.started = time.monotonic()
    flask.g.request_id = str(uuid.uuid4())
    access, request = current_service().access, flask.request
    preflight = access.preflight(request)
    if preflight is not None:
        return preflight
    access.check_site(request)
    rule = request.url_rule
    if rule and rule.rule != request.path and (methods := _methods_of(request.path)):
        # DELETE /v1/feedback/export: that is a URL of its own, not an image's name.
        raise MethodNotAllowed(sorted(methods))
    return None


def _finish_response(response: flask.Response) -> flask.Response:
    """Add the headers that every response has, count it, and write one line to the log."""
    service, request, rule = current_service(), flask.request, flask.request.url_rule
    for name, value in _HEADERS.items():  # `/docs` has a policy of its own
        response.headers.setdefault(name, value)
    response.headers.update(service.access.cors_headers(request))
    response.headers["X-Request-Id"] = flask.g.request_id
    route = rule.rule if rule else _NO_ROUTE
    if request.endpoint == _STATIC:
        route = _STATIC
    response.headers.setdefault("Cache-Control", "no-store")  # files have one of their own
    seconds = time.monotonic() - flask.g.started
    method = request.method if request.method in _METHODS else "other"
    service.metrics.note_request(route, method, response.status_code, seconds)
    _log_request(response, seconds)
    return response


def _method_not_allowed(error: MethodNotAllowed) -> flask.Response:
    response = problem_response(error)
    methods = _methods_of(flask.request.path) or error.valid_methods or ()
    response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods_of(path: str) -> set[str]:
    """Return the methods of the rules that are this very path, without variables."""
    rules = flask.current_app.url_map.iter_rules()
    return {method for rule in rules if rule.rule == path for method in rule.methods or ()}


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
    _log.debug(
        "%s", json.dumps({name: value for name, value in entry.items() if value is not None})
    )
