"""Probes and metrics: is the process alive, can it predict, what has it counted."""

import contextlib

import flask

from imagesieve.serving.access.keys import Scope
from imagesieve.serving.errors import UnavailableError
from imagesieve.serving.metrics import MEDIA_TYPE
from imagesieve.serving.service import current_service, json_response, requires

blueprint = flask.Blueprint("health", __name__)


@blueprint.get("/healthz")
@blueprint.get("/livez")
def health() -> flask.Response:
    """The process answers."""
    return json_response({"status": "ok"})


@blueprint.get("/readyz")
def readiness() -> flask.Response:
    """The model is loaded, has predicted an image, and its engine does not hang."""
    service = current_service()
    service.pipeline.check_ready(service.predictor())
    return json_response({"status": "ready"})


@blueprint.get("/metrics")
@requires(Scope.ADMIN, only_with_keys=True)
def metrics() -> flask.Response:
    """Return all figures in Prometheus's text format."""
    service = current_service()
    with contextlib.suppress(UnavailableError):  # while it loads there are other figures
        service.metrics.note_model(service.predictor().describe())
    return flask.Response(service.metrics.text(), content_type=MEDIA_TYPE)
