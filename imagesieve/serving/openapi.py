"""The API's description, OpenAPI 3.1, made from the views, their structs and the running service.

A view carries its `Operation`, set by the decorator of that name; the first line of its docstring
is the summary, the rest the description. Paths, keys and the errors of every route come from the
routes themselves, schemas from the structs in `schemas`.
"""

import contextlib
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flask
import msgspec
from werkzeug import exceptions as http

import imagesieve
from imagesieve import errors as base_errors
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import errors, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.forms import JSON, MULTIPART, TEXT_FIELDS, URLENCODED
from imagesieve.serving.requests import FILE_FIELDS
from imagesieve.serving.service import Service, needed_scope

Json = dict[str, Any]
Schema = type[msgspec.Struct] | Mapping[str, Any]  # a struct or a JSON Schema
Errors = tuple[type[Exception], ...]
View = TypeVar("View", bound=Callable[..., Any])

PREDICT, FEEDBACK, MODELS, MONITORING = "Predict", "Feedback", "Models", "Monitoring"
OIP, FIRST_GENERATION, PAGES = "Open Inference Protocol", "First generation", "Pages"
_TAGS = {
    PREDICT: "Images in, classes out.",
    FEEDBACK: "What the model got wrong, and what it was unsure of.",
    MODELS: "Which version of the model is served.",
    MONITORING: "For probes and dashboards.",
    OIP: "Version 2, as clients of KServe, Triton and MLServer speak it.",
    FIRST_GENERATION: "The routes of the first generation, for its callers.",
    PAGES: "For people.",
}


def _family(parent: type[Exception]) -> Errors:
    """Return an error and its children that have a row of their own."""
    return tuple(kind for kind in errors.PROBLEMS if issubclass(kind, parent))


# Errors that views raise; those of a query, a body and every route are added by `_errors`.
LOADING: Errors = (errors.ModelLoadingError, errors.ShuttingDownError)
BUSY: Errors = (*LOADING, errors.OverloadedError, errors.DeadlineExceededError)
IMAGE_ERRORS = tuple(
    kind
    for kind in _family(base_errors.ImageError)
    if kind is not base_errors.UnreadableImageError  # of files
)
MODEL_CHANGE_ERRORS: Errors = (*_family(errors.ModelChangeError), *LOADING)
_FIELD_ERRORS: Errors = (errors.BadParameterError, errors.MalformedBodyError)
_BODY_ERRORS: Errors = (
    *_FIELD_ERRORS,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
)
_URL_ERRORS: Errors = (errors.UrlNotAllowedError, errors.FetchFailedError)
_ONE_IMAGE_ERRORS: Errors = (
    errors.MissingImageError,
    errors.SeveralImagesError,
    errors.BadBase64Error,
    *IMAGE_ERRORS,
    *BUSY,
    *_URL_ERRORS,  # left out where no URLs are fetched
)
_HTTP_SERVER_ERRORS: Errors = (
    http.BadRequest,
    http.RequestTimeout,
    http.RequestHeaderFieldsTooLarge,
    http.NotImplemented,
)

BINARY: Json = {"type": "string", "format": "binary"}
TEXT: Json = {"type": "string"}
_IMAGE: Json = {**BINARY, "contentMediaType": "image/*", "description": "the image, as a file"}
_ONE_SOURCE = [{"required": ["image"]}, {"required": ["url"]}]


@dataclasses.dataclass(frozen=True)
class Content:
    """A body or an answer, in one or more media types."""

    description: str
    media_types: Mapping[str, Schema]
    # Other members that OpenAPI has for it, such as `links` or `headers`.
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    errors: Errors = ()  # that reading it may raise


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a view does, besides what its route and its docstring say."""

    name: str  # what programs made from the description call it
    tag: str
    answer: Content  # with status 200
    created: Content | None = None  # with status 201
    query: Schema | None = None  # has its options as properties
    body: Content | None = None
    errors: Errors = ()  # that the view itself may raise
    example: str = ""  # CURL stands for curl with its key, URL for the service's URL


def operation(name: str, tag: str, answer: Content, **details: Any) -> Callable[[View], View]:
    """Describe a view for `/openapi.json`; `details` are other fields of `Operation`."""

    def attach(view: View) -> View:
        view.operation = Operation(name, tag, answer, **details)  # type: ignore[attr-defined]
        return view

    return attach


def json_content(description: str, schema: Schema, **more: Any) -> Content:
    """Return the description of an answer in JSON."""
    return Content(description, {JSON: schema}, more)


def json_body(description: str, schema: Schema, *, required: bool = True) -> Content:
    """Return the description of a JSON body."""
    return Content(description, {JSON: schema}, {"required": required}, _BODY_ERRORS)


def image_body(options: type[msgspec.Struct]) -> Content:
    """Return the description of a body with one image, in all its forms, and options."""
    fields, image_fields = _properties(options), _properties(schemas.BatchItem)
    others = ", ".join(f"`{name}`" for name in FILE_FIELDS if name != "image")
    file = {**_IMAGE, "description": f"the image; its field may also be named {others}"}
    texts = dict.fromkeys(TEXT_FIELDS, schemas.BASE64_FIELD)
    base64, url = image_fields["image"], image_fields["url"]
    ways = [{"required": [name]} for name in (*texts, "url")]
    return Content(
        "exactly one image, in any of these forms; options here or in the query",
        {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            MULTIPART: _form({"image": file, **fields}, required=["image"]),
            URLENCODED: _form({**texts, "url": url, **fields}, oneOf=ways),
            JSON: _form({"image": base64, "url": url, **fields}, oneOf=_ONE_SOURCE),
        },
        {"required": True},
        (*_BODY_ERRORS, *_ONE_IMAGE_ERRORS),
    )


def batch_body() -> Content:
    """Return the description of a body with a batch of images."""
    images = _properties(schemas.BatchBody)["images"]
    files = {**images, "items": _IMAGE, "description": "the images, as files of one field"}
    form = _form({"image": files, **_properties(schemas.BatchOptions)}, required=["image"])
    return Content(
        "one image or more",
        {MULTIPART: form, JSON: schemas.BatchBody},
        {"required": True},
        (*_BODY_ERRORS, errors.MissingImageError, errors.TooManyImagesError, *BUSY),
    )


def correction_body() -> Content:
    """Return the description of a correction."""
    fields = _properties(schemas.Correction)
    form = _form(
        {"image": _IMAGE, **{name: fields[name] for name in ("label", "note", "reviewer")}},
        required=["image", "label"],
        description="A field `reject` with the text `true` may stand instead of `label`.",
    )
    return Content(
        "which image (`id` or `sha256`, or the image itself), and what it is of (`label`, or "
        "`reject`)",
        {JSON: schemas.Correction, MULTIPART: form},
        {"required": True},
        (*_BODY_ERRORS, errors.SeveralImagesError, *IMAGE_ERRORS, *LOADING),
    )


class _Route(NamedTuple):
    """One URL rule with one method, and its view."""

    path: str
    method: str
    endpoint: str
    view: Callable[..., Any]
    scope: Scope | None  # that the key must have; None where there is no key

    @property
    def operation(self) -> Operation:
        described: Operation = self.view.operation  # type: ignore[attr-defined]
        return described


def document(app: flask.Flask, service: Service, url: str) -> Json:
    """Return the description of all routes whose views have an `Operation`.

    The examples have the service's `url`, which has no slash at its end.
    """
    has_keys = service.access.has_keys
    model = _served(service)
    paths: dict[str, Json] = {}
    routes = _routes(app, service)
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route, service, model, url)
    tags = {route.operation.tag for route in routes}
    value = {
        "openapi": "3.1.0",
        "info": {
            "title": "Image sorter",
            "version": imagesieve.__version__,
            "description": _DESCRIPTION + (_KEYS if has_keys else _NO_KEYS),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": _TAGS[name]} for name in _TAGS if name in tags],
        "paths": paths,
        "components": {
            "schemas": _components(model),
            "headers": _HEADERS,
            **({"securitySchemes": _SECURITY_SCHEMES} if has_keys else {}),
        },
    }
    fitted: Json = _fit(value, service)
    return fitted


_DESCRIPTION = """\
Classifies images with the model that was trained for it, and learns from corrections.

Errors are problem documents (`application/problem+json`, RFC 9457) with the status of HTTP, a \
`type` that stays the same, and a `detail` for people. Unknown paths get `not-found`, and wrong \
methods `method-not-allowed`. Every answer carries an `X-Request-Id`, under which the server's log \
has the request."""
_KEYS = """

Send your key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."""
_NO_KEYS = """

This server has no keys: every caller may predict and correct, and none may administrate."""
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_HEADERS = {
    "RequestId": {
        "description": "names the request in the server's log",
        "schema": {"type": "string", "format": "uuid"},
    },
    "RetryAfter": {
        "description": "seconds to wait before trying again",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def _served(service: Service) -> Predictor | None:
    with contextlib.suppress(errors.UnavailableError):
        return service.models.get()
    return None


def _routes(app: flask.Flask, service: Service) -> list[_Route]:
    routes = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if hasattr(view, "operation"):
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            path = re.sub("<(.+?)>", "{\\1}", rule.rule)
            scope = needed_scope(view, service.access)
            routes.append(_Route(path, method.lower(), rule.endpoint, view, scope))
    return routes


def _operation(route: _Route, service: Service, model: Predictor | None, url: str) -> Json:
    described = route.operation
    needs_key = route.scope is not None and service.access.has_keys
    curl = "curl -H 'X-API-Key: KEY'" if needs_key else "curl"
    example = described.example or f"CURL URL{route.path}"
    command = example.replace("CURL", curl).replace("URL", url)
    summary, _, description = (inspect.getdoc(route.view) or "").partition("\n\n")
    value: Json = {
        "operationId": described.name,
        "tags": [described.tag],
        "summary": " ".join(summary.split()).rstrip("."),
        "description": f"{description}\n\n```sh\n{command}\n```".strip(),
        "parameters": _parameters(route, model),
        "responses": _responses(route, service),
    }
    if described.body:
        value["requestBody"] = _content(described.body)
    if route.scope and needs_key:
        value["security"] = [{name: [route.scope.value]} for name in _SECURITY_SCHEMES]
    return value


def _parameters(route: _Route, model: Predictor | None) -> list[Json]:
    names = [schemas.MODEL_ALIAS, *([model.version.name] if model else [])]
    alias = f"`{schemas.MODEL_ALIAS}`, or the name of the version that is served"
    in_path: Json = {
        "sha256": _properties(schemas.ImageInfo)["sha256"],
        "name": {**_one_of(names if model else ()), "description": alias},
    }
    query = _properties(route.operation.query) if route.operation.query else {}
    return [
        *(
            _parameter(name, "path", in_path[name], required=True)
            for name in re.findall("{(.+?)}", route.path)
        ),
        *(_parameter(name, "query", schema) for name, schema in query.items()),
    ]


def _parameter(name: str, place: str, schema: Json, **more: bool) -> Json:
    # Without its default: Swagger UI would send it beside that of a form, hence twice.
    bare = {key: value for key, value in schema.items() if key not in ("description", "default")}
    words = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": place, **words, "schema": bare, **more}


def _content(content: Content) -> Json:
    media_types = {
        name: {"schema": dict(schema) if isinstance(schema, Mapping) else _ref(schema.__name__)}
        for name, schema in content.media_types.items()
    }
    return {"description": content.description, "content": media_types, **content.more}


def _responses(route: _Route, service: Service) -> Json:
    answers = {"200": route.operation.answer, "201": route.operation.created}
    good = {
        status: {
            **_content(answer),
            "headers": {**_headers(int(status)), **answer.more.get("headers", {})},
        }
        for status, answer in answers.items()
        if answer
    }
    return {**good, **_refusals(route, _errors(route, service))}


def _errors(route: _Route, service: Service) -> set[type[Exception]]:
    """Return all that may go wrong at a route."""
    described = route.operation
    found = {*described.errors, errors.BadHostError, *_HTTP_SERVER_ERRORS, Exception}
    if described.query:
        found |= {*_FIELD_ERRORS, errors.TooManyFieldsError}
    if described.body:
        found |= set(described.body.errors)
        if MULTIPART in described.body.media_types:
            found.add(errors.TooManyFieldsError)
    if not service.fetch:
        found -= set(_URL_ERRORS)
    if route.method != "get" or route.scope is Scope.ADMIN:
        found.add(errors.ForbiddenError)
    if route.scope:
        found.add(errors.RateLimitedError)
        if service.access.has_keys:
            found |= {errors.UnauthorizedError, errors.ForbiddenError}
    return found


def _refusals(route: _Route, kinds: set[type[Exception]]) -> Json:
    """Return the answers when something is wrong, by status."""
    problems = {errors.PROBLEMS[kind] for kind in kinds}
    rows = sorted((row.status, row.slug, row.title[:1].lower() + row.title[1:]) for row in problems)
    if route.endpoint == "legacy.detect":
        rows = [row for row in rows if row[0] in schemas.LEGACY_STATUSES]
    return {
        str(status): {
            "description": "; ".join(f"`{slug}`: {title}" for _, slug, title in group),
            "headers": _headers(status),
            "content": {
                name: {"schema": _ref(schema.__name__)}
                for name, schema in _refusal_schemas(route, status).items()
            },
        }
        for status, group in itertools.groupby(rows, key=lambda row: row[0])
    }


def _refusal_schemas(route: _Route, status: int) -> dict[str, type[msgspec.Struct]]:
    problem: dict[str, type[msgspec.Struct]] = {errors.MEDIA_TYPE: schemas.Problem}
    if route.endpoint == "legacy.detect":
        return {JSON: schemas.LegacyFailure}
    if route.endpoint.startswith("oip."):
        # The HTTP server refuses some requests before it is known which route they are for.
        return {JSON: schemas.OipError, **(problem if status in (400, 413, 431, 501) else {})}
    return problem


def _headers(status: int) -> Json:
    waits = {"Retry-After": _ref("RetryAfter", "headers")} if status in (429, 503) else {}
    return {"X-Request-Id": _ref("RequestId", "headers"), **waits}


def _components(model: Predictor | None) -> Json:
    """Return the schemas of all structs, and those that depend on the model in use."""
    structs = [
        kind
        for kind in vars(schemas).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    components["BatchItem"]["oneOf"] = _ONE_SOURCE
    components["Correction"]["allOf"] = _CORRECTION_RULES
    classes = model.classes if model else ()
    # A caller's own threshold may bring the fallback class in, whatever the policy.
    fallback = (model.policy.fallback_class,) if model else ()
    share: Json = {"type": "number", "minimum": 0, "maximum": 1}
    each: Json = {"properties": dict.fromkeys(classes, share), "minProperties": 1}
    slugs = {
        f"/problems/{row.slug}"
        for kind, row in errors.PROBLEMS.items()
        if kind is not errors.ClientGoneError  # has no reader
    }
    return {
        **components,
        "ClassName": {"description": "a class of the model", **_one_of(classes)},
        "Decision": {
            "description": "a class, or the fallback class of the policy",
            **_one_of(list(dict.fromkeys((*classes, *fallback)))),
        },
        "Probabilities": {
            "type": "object",
            "description": "class -> probability; those of all classes sum to 1",
            **(each if model else {}),
            "additionalProperties": False if model else share,
        },
        "ProblemType": _one_of(sorted(slugs)),
    }


# Which image is meant: exactly one of two names. What it is: a class, or none with `reject`.
_CORRECTION_RULES = [
    {"oneOf": [{"required": ["id"]}, {"required": ["sha256"]}]},
    {
        "oneOf": [
            {"required": ["label"], "properties": {"reject": {"const": False}}},
            {"required": ["reject"], "properties": {"reject": {"const": True}, "label": False}},
        ]
    },
]


def _fit(value: Any, service: Service) -> Any:
    """Fill limits in, and leave `url` out where no URLs are fetched."""
    if isinstance(value, list):
        return [_fit(one, service) for one in value]
    if not isinstance(value, Mapping):
        return value
    if "$ref" in value:  # the type beside it says nothing more
        return {name: value[name] for name in ("$ref", "description") if name in value}
    fitted = {name: _fit(one, service) for name, one in value.items() if name != "x-limit"}
    if "x-limit" in value:
        bound = "maxItems" if value["type"] == "array" else "maximum"
        fitted[bound] = getattr(service.limits, value["x-limit"])
    if isinstance(pattern := value.get("pattern"), str):
        # Python's own signs, which regular expressions of JSON Schema do not have.
        bare = pattern.replace(schemas.SURROGATES, "").replace("[^]", "[\\s\\S]")
        fitted["pattern"] = bare.replace(r"\A", "^").replace(r"\Z", "$")
    if "url" in fitted.get("properties", ()) and not service.fetch:
        fitted["properties"].pop("url")
        ways = [one for one in fitted.pop("oneOf") if one["required"] != ["url"]]
        fitted |= {"oneOf": ways} if len(ways) > 1 else ways[0]
    return fitted


_REF = "#/components/schemas/{name}"


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _one_of(names: Sequence[str]) -> Json:
    """Return the schema of one of some texts; of any text where they are not known yet."""
    return {"type": "string", **({"enum": list(names)} if names else {})}


def _properties(schema: Schema) -> Json:
    if isinstance(schema, Mapping):
        return dict(schema["properties"])
    _, components = msgspec.json.schema_components([schema], ref_template=_REF)
    properties: Json = components[schema.__name__]["properties"]
    return properties


def _form(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}
