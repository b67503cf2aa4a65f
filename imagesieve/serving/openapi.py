"""The API's description, OpenAPI 3.1, made from the views, their structs and the running service.

The decorator `operation` describes a view; the first line of its docstring is the summary, the rest
the description. Paths and keys come from the routes themselves, schemas from the structs in
`schemas`, the table of problems from `errors`.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flask
import msgspec

import imagesieve
from imagesieve.serving import errors, schemas
from imagesieve.serving.access import Access
from imagesieve.serving.app import Service, needed_scope, route_of
from imagesieve.serving.requests import FILE_FIELDS, JSON, MULTIPART, TEXT_FIELDS, URLENCODED

Json = dict[str, Any]
Schema = type[msgspec.Struct] | Mapping[str, Any]  # a struct or a JSON Schema
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
# What their routes answer to what is wrong; all others answer with a problem document.
_FAILURES: dict[str, type[msgspec.Struct]] = {
    OIP: schemas.OipError,
    FIRST_GENERATION: schemas.LegacyFailure,
}

BINARY: Json = {"type": "string", "format": "binary"}
TEXT: Json = {"type": "string"}
_IMAGE: Json = {**BINARY, "contentMediaType": "image/*", "description": "the image, as a file"}
_BY_URL = {"required": ["url"]}
_ONE_SOURCE = [{"required": ["image"]}, _BY_URL]
_REF = "#/components/schemas/{name}"


def operation(
    name: str,  # what programs made from the description call it
    tag: str,
    says: str,  # what the answer says, with status 200
    answer: Schema,
    *,
    media_type: str = JSON,  # of the answer
    created: str = "",  # what it says with status 201
    query: Schema | None = None,  # has the options as properties
    body: Json | None = None,  # made by one of the functions below
    example: str = "",  # CURL stands for curl with its key, URL for the service's URL
    **more: Any,
) -> Callable[[View], View]:
    """Describe a view for `/openapi.json`; `more` are other members of its answer: links, say."""
    refusal = ref(_FAILURES.get(tag, schemas.Problem).__name__, "responses")
    answers: Json = {"200": content(says, {media_type: answer}, **more)}
    if created:
        answers["201"] = {**answers["200"], "description": created}
    options = _properties(query) if query else {}

    def attach(view: View) -> View:
        summary, _, description = (inspect.getdoc(view) or "").partition("\n\n")
        described: Json = {
            "operationId": name,
            "tags": [tag],
            "summary": " ".join(summary.split()).rstrip("."),
            "description": description,
            "parameters": [_parameter(option, "query", options[option]) for option in options],
            "responses": {**answers, "4XX": refusal, "5XX": refusal},
            **({"requestBody": body} if body else {}),
        }
        view.__dict__.update(operation=described, example=example)
        return view

    return attach


def link(operation_id: str, **details: Any) -> Json:
    """Return the link of an answer to another operation, with its parameters or its body."""
    return {operation_id: {"operationId": operation_id, **details}}


def content(description: str, media_types: Mapping[str, Schema], **more: Any) -> Json:
    """Return the description of a body or an answer; `more` are other members, such as links."""
    described = {
        name: {"schema": dict(schema) if isinstance(schema, Mapping) else ref(schema.__name__)}
        for name, schema in media_types.items()
    }
    return {"description": description, "content": described, **more}


def json_body(description: str, schema: type[msgspec.Struct], *, required: bool = True) -> Json:
    return content(description, {JSON: schema}, required=required)


def image_body(options: type[msgspec.Struct]) -> Json:
    """Return the description of a body with one image, in all its forms, and options."""
    fields, image_fields = _properties(options), _properties(schemas.BatchItem)
    others = ", ".join(f"`{name}`" for name in FILE_FIELDS if name != "image")
    file = {**_IMAGE, "description": f"the image; its field may also be named {others}"}
    texts = dict.fromkeys(TEXT_FIELDS, schemas.BASE64_FIELD)
    base64, url = image_fields["image"], image_fields["url"]
    ways = [*({"required": [name]} for name in texts), _BY_URL]
    return content(
        "exactly one image, in any of these forms; options here or in the query",
        {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            MULTIPART: _form({"image": file, **fields}, required=["image"]),
            URLENCODED: _form({**texts, "url": url, **fields}, oneOf=ways),
            JSON: _form({"image": base64, "url": url, **fields}, oneOf=_ONE_SOURCE),
        },
        required=True,
    )


def batch_body() -> Json:
    images = _properties(schemas.BatchBody)["images"]
    files = {**images, "items": _IMAGE, "description": "the images, as files of one field"}
    form = _form({"image": files, **_properties(schemas.ImageOptions)}, required=["image"])
    return content("one image or more", {MULTIPART: form, JSON: schemas.BatchBody}, required=True)


def correction_body() -> Json:
    fields = _properties(schemas.Correction)
    form = _form(
        {"image": _IMAGE, **{name: fields[name] for name in ("label", "note", "reviewer")}},
        required=["image", "label"],
        description="A field `reject` with the text `true` may stand instead of `label`.",
    )
    return content(
        "which image (`id` or `sha256`, or the image itself), and what it is of (`label`, or "
        "`reject`)",
        {JSON: schemas.Correction, MULTIPART: form},
        required=True,
    )


def document(app: flask.Flask, service: Service, url: str) -> Json:
    """Return the description of all routes whose views have one, with examples for a `url`."""
    paths: dict[str, Json] = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if hasattr(view, "operation"):
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            path = route_of(rule).replace("<", "{").replace(">", "}")
            described = _operation(method, path, view, service.access, url)
            paths.setdefault(path, {})[method.lower()] = described
    used = {tag for item in paths.values() for one in item.values() for tag in one["tags"]}
    has_keys = service.access.has_keys
    value: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Image sorter",
            "version": imagesieve.__version__,
            "description": "".join((_DESCRIPTION, _KEYS if has_keys else _NO_KEYS, _PROBLEMS)),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": _TAGS[name]} for name in _TAGS if name in used],
        "paths": paths,
        "components": {
            "schemas": _schemas(service),
            "responses": _RESPONSES,
            **({"securitySchemes": _SECURITY_SCHEMES} if has_keys else {}),
        },
    }
    return value if service.fetch else _without_urls(value)


def _operation(method: str, path: str, view: Any, access: Access, url: str) -> Json:
    """Return the description of a view, with what depends on the service."""
    scope = needed_scope(view, access)
    needs_key = scope is not None and access.has_keys
    curl = "curl -H 'X-API-Key: KEY'" if needs_key else "curl"
    example = view.example or f"CURL {'' if method == 'GET' else f'-X {method} '}URL{path}"
    command = example.replace("CURL", curl).replace("URL", url)
    described: Json = view.operation
    in_path = [
        _parameter(name, "path", _PATH_PARAMETERS[name], required=True)
        for name in re.findall("{(.+?)}", path)
    ]
    return {
        **described,
        "description": f"{described['description']}\n\n```sh\n{command}\n```".strip(),
        "parameters": in_path + described["parameters"],
        **({"security": [{name: [scope]} for name in _SECURITY_SCHEMES]} if needs_key else {}),
    }


def _schemas(service: Service) -> Json:
    """Return the schemas of all structs, and those that depend on the model in use."""
    structs = [
        kind
        for kind in vars(schemas).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    components["BatchItem"]["oneOf"] = _ONE_SOURCE
    components["Correction"]["allOf"] = _CORRECTION_RULES
    classes, models = {}, {}  # any text, before the model is loaded
    with contextlib.suppress(errors.UnavailableError):
        model = service.models.get()
        classes = {"enum": list(model.classes)}
        models = {"enum": [schemas.MODEL_ALIAS, model.version.name]}
    return {
        **components,
        "ClassName": {**TEXT, "description": "a class of the model", **classes},
        "ModelAlias": {**TEXT, **models},
        "ProblemType": {**TEXT, "enum": [f"/problems/{row.slug}" for row in _ROWS]},
    }


def _without_urls(value: Any) -> Any:
    """Leave out the ways to send an image by URL, where none is fetched."""
    if isinstance(value, list):
        return [_without_urls(one) for one in value if one != _BY_URL]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_urls(one)
        for name, one in value.items()
        if name != "url" or isinstance(one, str)  # of the server itself
    }


def _parameter(name: str, place: str, schema: Json, **more: bool) -> Json:
    # Without its default: Swagger UI would send it beside that of a form, hence twice.
    bare = {key: value for key, value in schema.items() if key not in ("description", "default")}
    words = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": place, **words, "schema": bare, **more}


def ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _properties(schema: Schema) -> Json:
    if isinstance(schema, Mapping):
        return dict(schema["properties"])
    _, components = msgspec.json.schema_components([schema], ref_template=_REF)
    properties: Json = components[schema.__name__]["properties"]
    return properties


def _form(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


_DESCRIPTION = """\
Classifies images with the model that was trained for it, and learns from corrections.

Every answer carries an `X-Request-Id`, under which the server's log has the request."""
_KEYS = "\n\nSend your key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."
_NO_KEYS = "\n\nThis server has no keys: all may predict and correct, and none may administrate."
# Without that of a caller who has hung up: nobody reads it.
_ROWS = sorted(
    set(errors.PROBLEMS.values()) - {errors.PROBLEMS[errors.ClientGoneError]},
    key=lambda row: (row.status, row.slug),
)
_PROBLEMS = """

Errors are problem documents (`application/problem+json`, RFC 9457) with the status of HTTP, a \
`type` that stays the same, and a `detail` for people.

<details>
<summary>All types of problems</summary>

| Status | Type | Title |
|---|---|---|
{}

</details>
""".format("\n".join(f"| {row.status} | `/problems/{row.slug}` | {row.title} |" for row in _ROWS))
_RETRY_AFTER = {
    "description": "seconds to wait before trying again, with 429 and 503",
    "schema": {"type": "integer", "minimum": 1},
}


def _refusal(own: Mapping[str, Schema]) -> Json:
    # The HTTP server itself may refuse a request for any route, with a problem document.
    return content(
        "what was wrong; the table of problems says why",
        {**own, errors.MEDIA_TYPE: schemas.Problem},
        headers={"Retry-After": _RETRY_AFTER},
    )


_RESPONSES = {
    "Problem": _refusal({}),
    **{failure.__name__: _refusal({JSON: failure}) for failure in _FAILURES.values()},
}
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_PATH_PARAMETERS: Json = {
    "sha256": _properties(schemas.ImageInfo)["sha256"],
    "name": {
        **ref("ModelAlias"),
        "description": f"`{schemas.MODEL_ALIAS}`, or the name of the version that is served",
    },
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
