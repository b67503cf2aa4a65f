"""Probes and metrics: is the process alive, can it predict, what has it counted."""

import contextlib

import flask

from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import current_service, json_response, requires
from imagesieve.serving.errors import UnavailableError
from imagesieve.serving.metrics import MEDIA_TYPE
from imagesieve.serving.model_manager import served_model

_LIVES = "the process answers"
_READY = "the model is loaded and its engine answers"

blueprint = flask.Blueprint("health", __name__)


@blueprint.get("/healthz")
@openapi.operation("health", openapi.MONITORING, _LIVES, schemas.Status)
def health() -> flask.Response:
    """Return whether the process answers."""
    return json_response({"status": "ok"})


@blueprint.get("/livez")
@openapi.operation("liveness", openapi.MONITORING, _LIVES, schemas.Status)
def liveness() -> flask.Response:
    """Return whether the process answers, under the name that Kubernetes uses."""
    return health()


@blueprint.get("/readyz")
@openapi.operation("readiness", openapi.MONITORING, _READY, schemas.Status)
def readiness() -> flask.Response:
    """Return whether images can be classified."""
    service = current_service()
    service.pipeline.check_ready(service.models.get())
    return json_response({"status": "ready"})


@blueprint.get("/metrics")
@requires(Scope.ADMIN, only_with_keys=True)
@openapi.operation(
    "metrics",
    openapi.MONITORING,
    "in the text format of Prometheus",
    openapi.TEXT,
    media_type="text/plain",
)
def metrics() -> flask.Response:
    """Return all metrics."""
    service = current_service()
    with contextlib.suppress(UnavailableError):  # while it loads there are other figures
        service.metrics.note_model(served_model(service.models.get()))
    return flask.Response(service.metrics.text(), content_type=MEDIA_TYPE)
