"""The first generation's addresses."""

from collections.abc import Callable

import flask

from classifier.decisions import DecisionPolicy
from classifier.serving import legacy
from classifier.serving.api import turn_of
from classifier.serving.desk import Desk
from classifier.serving.limits import Admission, ServingLimits
from classifier.serving.models import Judge
from classifier.serving.requests import PictureRequest, Sent, read_legacy_picture
from classifier.serving.routes import Route, Scope, Style, text_answer
from classifier.serving.wanted import Wanted


class LegacyViews:
    """Answers old callers in the shapes they know."""

    def __init__(
        self, current: Callable[[], Judge], desk: Desk, admission: Admission, limits: ServingLimits
    ) -> None:
        self._current = current
        self._desk = desk
        self._admission = admission
        self._limits = limits

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route(legacy.PATH, "POST", self.detect, Scope.PREDICT, Style.LEGACY),
            Route("/helloWorld", "GET", self.greet),
        ]

    def detect(self) -> flask.Response:
        """Judge the picture of the one field."""
        with self._admission.place():
            judge = self._current()
            data = read_legacy_picture(flask.request, self._limits)
            if data is None:
                return text_answer(legacy.missing())
            turn = turn_of(flask.request, self._limits.deadline_seconds)
            judged = self._desk.judge(judge, PictureRequest(Sent(data), Wanted()), turn)
        flask.g.label = judged.prediction.label
        policy = DecisionPolicy.from_json(judged.described["decision_policy"])
        return text_answer(legacy.success(judged.prediction, policy))

    def greet(self) -> flask.Response:
        """Say hello."""
        return text_answer(legacy.GREETING, media_type="text/plain")
