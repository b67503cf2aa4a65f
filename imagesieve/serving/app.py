"""The HTTP edge: every request that comes so far is named, checked, counted, and told its faults.

`create_app` gives a plain WSGI application. The addresses come from rooms, each with its own views.
"""

import json
import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable

from imagesieve.serving import errors, legacy
from imagesieve.serving.openapi.document import OpenApi
from imagesieve.serving.routes.health import Probes
from imagesieve.serving.routes.legacy import LegacyViews
from imagesieve.serving.routes.oip import OpenInference
from imagesieve.serving.routes.pages import Pages
from imagesieve.serving.routes.predict import Api
from imagesieve.serving.routing import Route, Style, milliseconds, text_answer
from imagesieve.serving.service import Room, Service

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
_NO_ROUTE = "none"  # in metrics, for paths that lead nowhere


def create_app(service: Service, more: Sequence[Room] = ()) -> flask.Flask:
    """Give the application.

    Args:
        service: what its rooms share.
        more: rooms besides those that every service has.
    """
    openapi = OpenApi(service)
    rooms: list[Room] = [
        Api(service),
        LegacyViews(service),
        OpenInference(service),
        Probes(service),
        Pages(),
        openapi,
        *more,
    ]
    app = flask.Flask(__name__)
    edge = _Edge(service)
    routes = [route for room in rooms for route in room.routes()]
    openapi.tell_of(routes)
    for route in routes:
        edge.add(app, route)
    app.before_request(edge.start)
    app.after_request(edge.finish)
    app.register_error_handler(Exception, edge.fail)
    return app


class _Edge:
    """What happens before and after every view."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._routes: dict[str, Route] = {}
        self._methods: dict[str, set[str]] = {}  # by path

    def add(self, app: flask.Flask, route: Route) -> None:
        self._routes[route.endpoint] = route
        methods = {route.method, "HEAD"} if route.method == "GET" else {route.method}
        self._methods.setdefault(route.path, set()).update(methods)
        app.add_url_rule(
            route.path,
            route.endpoint,
            route.view,
            methods=[route.method],
            provide_automatic_options=False,
        )

    def start(self) -> flask.Response | None:
        """Name the request, and let it pass or refuse it."""
        flask.g.started = time.monotonic()
        flask.g.request_id = str(uuid.uuid4())
        access, request = self._service.access, flask.request
        preflight = access.preflight(request)
        if preflight is not None:
            return preflight
        route = self._route()
        if route and route.path != request.path and request.path in self._methods:
            # DELETE /v1/feedback/export: that is an address of its own, and no image's name.
            access.check(request, None)
            raise MethodNotAllowed()
        flask.g.caller = access.check(request, route.scope if route else None)
        return None

    def finish(self, response: flask.Response) -> flask.Response:
        """Put the headers on, count, and write one line."""
        request, route = flask.request, self._route()
        response.headers.update(_HEADERS)
        response.headers.update(self._service.access.cors_headers(request))
        response.headers["X-Request-Id"] = flask.g.request_id
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        spent = time.monotonic() - flask.g.started
        path = route.path if route else request.endpoint or _NO_ROUTE
        method = request.method if request.method in _METHODS else "other"
        self._service.metrics.note_request(path, method, response.status_code, spent)
        _log_request(response, spent)
        return response

    def fail(self, error: Exception) -> flask.Response | HTTPException:
        """Turn any error into the answer that its address promises."""
        if isinstance(error, HTTPException) and (error.code or 500) < 400:
            return error  # a redirect
        problem = self._service.note(error, flask.g.request_id)
        flask.g.problem = problem.slug
        response = self._refusal(problem, error)
        if isinstance(error, errors.AccessError):
            response.headers.update(error.headers)
        if isinstance(error, RequestedRangeNotSatisfiable):
            response.headers["Content-Range"] = f"bytes */{error.length}"
        if isinstance(error, MethodNotAllowed):
            methods = self._methods.get(flask.request.path) or error.valid_methods or ()
            response.headers["Allow"] = ", ".join(sorted(methods))
        return response

    def _refusal(self, problem: errors.Problem, error: Exception) -> flask.Response:
        detail = errors.detail_of(error, flask.g.request_id)
        seconds = getattr(error, "retry_after", None)
        if seconds is None and problem.status == 503:
            seconds = self._service.admission.retry_after()
        route = self._route()
        match route.style if route else Style.PROBLEM:
            case Style.LEGACY:
                status = problem.status if problem.status in legacy.TOLD_BY_STATUS else 200
                response = text_answer(legacy.failure(detail), status)
            case Style.OIP:
                response = text_answer(json.dumps({"error": detail}), problem.status)
            case Style.PROBLEM:
                text = errors.document(problem, detail, flask.g.request_id, seconds)
                response = text_answer(text, problem.status, errors.MEDIA_TYPE)
        if seconds is not None:
            response.headers["Retry-After"] = str(seconds)
        return response

    def _route(self) -> Route | None:
        return self._routes.get(flask.request.endpoint or "")


_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


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
