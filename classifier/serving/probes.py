"""What watches the service: is it alive, is it ready, what does it count."""

import contextlib
from collections.abc import Callable

import flask

from classifier.serving.desk import Desk
from classifier.serving.metrics import MEDIA_TYPE, Metrics
from classifier.serving.models import Judge
from classifier.serving.problems import OverloadedError, UnavailableError
from classifier.serving.routes import Route, Scope, json_answer


class Probes:
    """Answers probes; they need no place among the requests in flight."""

    def __init__(
        self,
        current: Callable[[], Judge],
        desk: Desk,
        metrics: Metrics,
        *,
        metrics_need_key: bool,
    ) -> None:
        self._current = current
        self._desk = desk
        self._metrics = metrics
        self._metrics_scope = Scope.ADMIN if metrics_need_key else None

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route("/healthz", "GET", self.health),
            Route("/livez", "GET", self.health),
            Route("/readyz", "GET", self.readiness),
            Route("/metrics", "GET", self.metrics, self._metrics_scope),
        ]

    def health(self) -> flask.Response:
        """The process answers."""
        return json_answer({"status": "ok"})

    def readiness(self) -> flask.Response:
        """The model is loaded, has judged a picture, and its engine does not hang."""
        check_ready(self._desk, self._current())
        return json_answer({"status": "ready"})

    def metrics(self) -> flask.Response:
        """Give all figures in Prometheus's text format."""
        with contextlib.suppress(UnavailableError):  # while it loads there are other figures
            self._metrics.note_model(self._current().describe())
        return flask.Response(self._metrics.text(), content_type=MEDIA_TYPE)


def check_ready(desk: Desk, judge: Judge) -> None:
    """Go on only when a picture could be judged now.

    Raises:
        OverloadedError: the engine hangs.
    """
    if desk.is_wedged(judge):
        raise OverloadedError("The engine does not answer: every one of its runs is overdue.")
