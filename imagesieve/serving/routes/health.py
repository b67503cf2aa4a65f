"""What watches the service: is it alive, is it ready, what does it count."""

import contextlib

import flask

from imagesieve.serving.errors import OverloadedError, UnavailableError
from imagesieve.serving.metrics import MEDIA_TYPE
from imagesieve.serving.models import Judge
from imagesieve.serving.pipeline import Desk
from imagesieve.serving.routing import Route, Scope, json_answer
from imagesieve.serving.service import Service


class Probes:
    """Answers probes; they need no place among the requests in flight."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Give the addresses."""
        metrics_scope = Scope.ADMIN if self._service.access.has_keys else None
        return [
            Route("/healthz", "GET", self.health),
            Route("/livez", "GET", self.health),
            Route("/readyz", "GET", self.readiness),
            Route("/metrics", "GET", self.metrics, metrics_scope),
        ]

    def health(self) -> flask.Response:
        """The process answers."""
        return json_answer({"status": "ok"})

    def readiness(self) -> flask.Response:
        """The model is loaded, has judged an image, and its engine does not hang."""
        check_ready(self._service.desk, self._service.current())
        return json_answer({"status": "ready"})

    def metrics(self) -> flask.Response:
        """Give all figures in Prometheus's text format."""
        with contextlib.suppress(UnavailableError):  # while it loads there are other figures
            self._service.metrics.note_model(self._service.current().describe())
        return flask.Response(self._service.metrics.text(), content_type=MEDIA_TYPE)


def check_ready(desk: Desk, judge: Judge) -> None:
    """Go on only when an image could be judged now.

    Raises:
        OverloadedError: the engine hangs.
    """
    if desk.is_wedged(judge):
        raise OverloadedError("The engine does not answer: every one of its runs is overdue.")
