"""The API's description, OpenAPI 3.1, with the real classes, limits and addresses in it."""

import dataclasses
import enum
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import flask
from werkzeug import exceptions as http

import imagesieve
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.serving import errors, legacy
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import UnavailableError
from imagesieve.serving.forms import JSON
from imagesieve.serving.openapi import answers, operations, requests, upkeep
from imagesieve.serving.openapi.operations import FROM_URL, Operation
from imagesieve.serving.openapi.words import Facts, Json, content, ref, text, whole
from imagesieve.serving.service import current_service, json_response, needed_scope

PATH = "/openapi.json"

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {**operations.FOR_PROGRAMS, **upkeep.FOR_PEOPLE}
)

_DESCRIPTION = """\
Judges images with the model that was trained for it, and learns from corrections.

What goes wrong is told as a problem document (`application/problem+json`, RFC 9457) with the \
status of HTTP, a `type` that stays the same, and a `detail` for people. Wrong addresses get \
`not-found`, and wrong methods `method-not-allowed`. Every answer carries an `X-Request-Id`, under \
which the server's log has the request."""
_KEYS = """

Send your key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."""
_NO_KEYS = """

This server has no keys: everybody may judge and correct, and nobody may administrate."""

_TAGS: Mapping[str, str] = MappingProxyType(
    {
        operations.JUDGE: "Images in, classes out.",
        operations.CORRECT: "What the model got wrong, and what it was unsure of.",
        operations.MODELS: "Which version of the model is served.",
        operations.WATCH: "For whatever watches over the service.",
        operations.OIP: "Version 2, as clients of KServe, Triton and MLServer speak it.",
        operations.FIRST: "The addresses of the first generation, for its callers.",
        operations.PAGES: "For people.",
    }
)
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_HEADERS = {
    "RequestId": {
        "description": "names the request in the server's log",
        "schema": text(format="uuid"),
    },
    "RetryAfter": {
        "description": "seconds to wait before trying again",
        "schema": whole(minimum=1),
    },
}
_FROM_THE_SERVER = (http.RequestTimeout, http.RequestHeaderFieldsTooLarge, http.NotImplemented)


blueprint = flask.Blueprint("openapi", __name__)


class Style(enum.Enum):
    """How a route answers errors."""

    PROBLEM = "problem"  # RFC 9457
    LEGACY = "legacy"  # the first generation's code and message
    OIP = "oip"  # {"error": text}, of the Open Inference Protocol


@dataclasses.dataclass(frozen=True)
class Route:
    """One URL rule with one method."""

    path: str
    method: str
    scope: Scope | None
    style: Style


@blueprint.get(PATH)
def description() -> flask.Response:
    """Return the description, with the classes as soon as the model is loaded."""
    return json_response(document(list(_routes(flask.current_app)), _facts()))


def _routes(app: flask.Flask) -> Iterator[Route]:
    access = current_service().access
    for rule in app.url_map.iter_rules():
        scope = needed_scope(app.view_functions[rule.endpoint], access)
        style = Style.LEGACY if rule.rule == legacy.PATH else Style.PROBLEM
        if rule.endpoint.startswith("oip."):
            style = Style.OIP
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if rule.endpoint != "static":
                yield Route(rule.rule, method, scope, style)


def _facts() -> Facts:
    service = current_service()
    address = flask.request.host_url.rstrip("/")
    given = service.limits, service.access.has_keys, service.fetch is not None, address
    try:
        described = service.predictor().describe()
    except UnavailableError:
        return Facts(*given)
    classes = tuple(described["classes"])
    # A caller's own threshold brings it in, whatever the policy.
    fallback = DecisionPolicy.from_json(described["decision_policy"]).fallback_class
    decisions = classes if fallback in classes else (*classes, fallback)
    return Facts(*given, classes, decisions, described["name"])


def document(routes: Sequence[Route], facts: Facts) -> Json:
    """Give the description of some addresses.

    Raises:
        KeyError: `OPERATIONS` has no row for one of them.
    """
    paths: dict[str, Json] = {}
    for route in routes:
        path = re.sub("<(.+?)>", "{\\1}", route.path)
        operation = OPERATIONS[f"{route.method} {path}"]
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, operation, facts)
    used = {operation["tags"][0] for item in paths.values() for operation in item.values()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image sorter",
            "version": imagesieve.__version__,
            "description": _DESCRIPTION + (_KEYS if facts.has_keys else _NO_KEYS),
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": description}
            for name, description in _TAGS.items()
            if name in used
        ],
        "paths": paths,
        "components": {
            "schemas": answers.schemas(facts) | requests.schemas(facts),
            "parameters": requests.parameters(facts),
            "requestBodies": requests.bodies(facts),
            "headers": _HEADERS,
            **({"securitySchemes": _SECURITY_SCHEMES} if facts.has_keys else {}),
        },
    }


def _operation(route: Route, path: str, operation: Operation, facts: Facts) -> Json:
    value: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        value["description"] = operation.description
    if operation.parameters:
        value["parameters"] = [ref(name, "parameters") for name in operation.parameters]
    if operation.body:
        value["requestBody"] = ref(operation.body, "requestBodies")
    value["responses"] = _responses(route, operation, facts)
    if route.scope and facts.has_keys:
        value["security"] = [{name: [route.scope.value]} for name in _SECURITY_SCHEMES]
    return {**value, "x-curl": _curl(route, path, operation, facts)}


def _curl(route: Route, path: str, operation: Operation, facts: Facts) -> str:
    key = "-H 'X-API-Key: KEY'" if route.scope and facts.has_keys else ""
    address = facts.address + (operation.example or path)
    quoted = f"'{address}'" if "?" in address else address
    parts = (operation.piped, "curl", key, operation.curl, quoted)
    return " ".join(part for part in parts if part)


def _responses(route: Route, operation: Operation, facts: Facts) -> Json:
    good = {
        str(status): {**answer, "headers": {**_headers(status), **answer.get("headers", {})}}
        for status, answer in operation.answers.items()
    }
    return {**good, **_refusals(route, _errors(route, operation, facts))}


def _errors(route: Route, operation: Operation, facts: Facts) -> list[type[Exception]]:
    """Give all that may go wrong at an address."""
    found = [*operation.errors, errors.BadHostError, http.BadRequest, *_FROM_THE_SERVER]
    found.append(Exception)
    if operation.takes_urls and facts.takes_urls:
        found += FROM_URL
    if route.method != "GET" or route.scope is Scope.ADMIN:
        found.append(errors.ForbiddenError)
    if route.scope:
        found.append(errors.RateLimitedError)
        found += (errors.UnauthorizedError, errors.ForbiddenError) if facts.has_keys else ()
    return found


def _refusals(route: Route, kinds: Sequence[type[Exception]]) -> Json:
    """Give the answers when something is wrong, by status."""
    rows = sorted({_row(kind) for kind in kinds})
    refusals: Json = {}
    for status, group in itertools.groupby(rows, key=lambda row: row[0]):
        named = [(slug, title) for _, slug, title in group]
        if route.style is Style.LEGACY and status not in legacy.TOLD_BY_STATUS:
            continue
        refusals[str(status)] = {
            "description": "; ".join(f"`{slug}`: {title}" for slug, title in named),
            "headers": _headers(status),
            "content": _refusal_content(route.style, status),
        }
    return refusals


def _row(kind: type[Exception]) -> tuple[int, str, str]:
    row = errors.PROBLEMS[kind]
    return row.status, row.slug, row.title[:1].lower() + row.title[1:]


def _headers(status: int) -> Json:
    waits = {"Retry-After": ref("RetryAfter", "headers")} if status in (429, 503) else {}
    return {"X-Request-Id": ref("RequestId", "headers"), **waits}


def _refusal_content(style: Style, status: int) -> Json:
    problem = content(errors.MEDIA_TYPE, ref("Problem"))
    match style:
        case Style.LEGACY:
            return content(JSON, ref("FirstFailure"))
        case Style.OIP:
            # The HTTP server has refusals of its own, before it is known whose address it is.
            own = content(JSON, ref("OipError"))
            return own | problem if status in (400, 413, 431, 501) else own
        case Style.PROBLEM:
            return problem
