"""What there is to say of the addresses for those who look after the service, and of its pages."""

from collections.abc import Mapping
from types import MappingProxyType

from imagesieve.serving import errors
from imagesieve.serving.openapi.operations import (
    CHANGE,
    CORRECT,
    FEEDBACK,
    FORM,
    JUDGE,
    LOADING,
    MODELS,
    OPTION,
    PAGES,
    UNUSABLE,
    WATCH,
    Operation,
    gives,
)
from imagesieve.serving.openapi.words import Json, content, text

_UNDO_LINK: Json = {
    "undo": {
        "operationId": "undo_correction",
        "parameters": {"sha256": "$response.body#/sha256"},
        "description": "take it back",
    }
}
_ACTIVATE_LINK: Json = {
    "activate": {
        "operationId": "activate",
        "requestBody": {"version": "$response.body#/models/0/name"},
        "description": "serve the first of them",
    }
}
_IMAGE_LINK: Json = {
    "image": {
        "operationId": "review_image",
        "parameters": {"sha256": "$response.body#/images/0/sha256"},
        "description": "look at the first image",
    }
}

_CORRECTING = {
    "POST /v1/feedback": Operation(
        "correct",
        CORRECT,
        "Say what an image really is",
        {
            201: {**gives("it is stored", "Corrected"), "links": _UNDO_LINK},
            200: {
                **gives("it is what was said before, or instead of it", "Corrected"),
                "links": _UNDO_LINK,
            },
        },
        "By the id of a prediction or by the image's SHA-256 as long as it is held, or with the "
        "image itself. The next training learns from it.",
        body="Correction",
        errors=(
            errors.UnknownImageError,
            errors.UnknownLabelError,
            errors.SeveralImagesError,
            errors.FeedbackFullError,
            *FEEDBACK,
            *FORM,
            *UNUSABLE,
            *LOADING,
            errors.OverloadedError,
        ),
        curl='--json \'{"id": "ID-OF-THE-PREDICTION", "label": "CLASS"}\'',
    ),
    "DELETE /v1/feedback/{sha256}": Operation(
        "undo_correction",
        CORRECT,
        "Take back the last correction of an image",
        {200: gives("what holds now", "Corrected")},
        parameters=("sha256",),
        errors=(
            errors.UnknownImageError,
            errors.FeedbackFullError,
            *FEEDBACK,
            *OPTION,
            *UNUSABLE,
            errors.OverloadedError,
        ),
        curl="-X DELETE",
        example="/v1/feedback/SHA256-OF-THE-IMAGE",
    ),
    "GET /v1/feedback/export": Operation(
        "export_corrections",
        CORRECT,
        "Give the journal of all corrections",
        {
            200: {
                "description": "one JSON object a line",
                "content": content("application/x-ndjson", text()),
            }
        },
        errors=(*OPTION, *FEEDBACK),
        curl="-o feedback.jsonl",
    ),
    "GET /v1/review": Operation(
        "review",
        CORRECT,
        "Tell which images should be looked at",
        {200: {**gives("the queue", "Review"), "links": _IMAGE_LINK}},
        parameters=("limit",),
        errors=(*OPTION, *LOADING),
        example="/v1/review?limit=5",
    ),
    "GET /v1/review/{sha256}/image": Operation(
        "review_image",
        CORRECT,
        "Give an image that should be looked at",
        {
            200: {
                "description": "the image, encoded anew",
                "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        parameters=("sha256",),
        errors=(
            errors.UnknownImageError,
            *OPTION,
            *UNUSABLE,
            *FEEDBACK,
            errors.OverloadedError,
        ),
        curl="-o image.jpg",
        example="/v1/review/SHA256-OF-THE-IMAGE/image",
    ),
}

_MODELS = {
    "GET /v1/model": Operation(
        "model",
        JUDGE,
        "Tell about the model that is served",
        {200: gives("the model", "Model")},
        errors=LOADING,
    ),
    "GET /v1/models": Operation(
        "models",
        MODELS,
        "List the versions that there are",
        {200: {**gives("the versions, by name", "Models"), "links": _ACTIVATE_LINK}},
        errors=LOADING,
    ),
    "POST /v1/admin/reload": Operation(
        "reload",
        MODELS,
        "Serve the version that is current on disk",
        {200: gives("what is served now", "ModelChange")},
        "Whatever speaks against it, the version that is served now stays.",
        body="Nothing",
        errors=CHANGE,
        curl="-X POST",
    ),
    "POST /v1/admin/activate": Operation(
        "activate",
        MODELS,
        "Serve another version",
        {200: gives("what is served now", "ModelChange")},
        "It becomes the current one for the next start, too. Whatever speaks against it, the "
        "version that is served now stays.",
        body="Activation",
        errors=CHANGE,
        curl='--json \'{"version": "NAME-OR-DIGEST"}\'',
    ),
    "POST /v1/admin/rollback": Operation(
        "rollback",
        MODELS,
        "Serve the version that was served before",
        {200: gives("what is served now", "ModelChange")},
        body="Nothing",
        errors=CHANGE,
        curl="-X POST",
    ),
}

_ALIVE = {200: gives("it does", "Status")}
_WATCHING = {
    "GET /healthz": Operation("health", WATCH, "Tell whether the process answers", _ALIVE),
    "GET /livez": Operation("liveness", WATCH, "Tell whether the process answers", _ALIVE),
    "GET /readyz": Operation(
        "readiness",
        WATCH,
        "Tell whether images can be judged",
        {200: gives("the model is loaded and its engine answers", "Status")},
        errors=(*LOADING, errors.OverloadedError),
    ),
    "GET /metrics": Operation(
        "metrics",
        WATCH,
        "Give all figures",
        {
            200: {
                "description": "in the text format of Prometheus",
                "content": content("text/plain", text()),
            }
        },
    ),
    "GET /openapi.json": Operation(
        "openapi",
        WATCH,
        "Give this description",
        {
            200: {
                "description": "OpenAPI 3.1",
                "content": content("application/json", {"type": "object", "required": ["openapi"]}),
            }
        },
    ),
}


def _page(name: str, summary: str) -> Operation:
    answer = {"description": "a page for people", "content": content("text/html", text())}
    return Operation(name, PAGES, summary, {200: answer})


_PAGES = {
    "GET /": _page("page", "Try the model"),
    "GET /review": _page("review_page", "Correct what the model was unsure of"),
    "GET /docs": _page("docs_page", "Read this description"),
}

FOR_PEOPLE: Mapping[str, Operation] = MappingProxyType(_CORRECTING | _MODELS | _WATCHING | _PAGES)
