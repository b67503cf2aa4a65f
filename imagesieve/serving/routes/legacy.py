"""The first generation's addresses."""

import flask

from imagesieve.serving import legacy
from imagesieve.serving.predict_options import Wanted
from imagesieve.serving.requests import ImageRequest, Sent, read_legacy_image
from imagesieve.serving.routing import Route, Scope, Style, text_answer
from imagesieve.serving.service import Service


class LegacyViews:
    """Answers old callers in the shapes they know."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route(legacy.PATH, "POST", self.detect, Scope.PREDICT, Style.LEGACY),
            Route("/helloWorld", "GET", self.greet),
        ]

    def detect(self) -> flask.Response:
        """Judge the image of the one field."""
        with self._service.admission.place():
            judge = self._service.current()
            data = read_legacy_image(flask.request, self._service.limits)
            if data is None:
                return text_answer(legacy.missing())
            turn = self._service.turn()
            judged = self._service.desk.judge(judge, ImageRequest(Sent(data), Wanted()), turn)
        flask.g.label = judged.prediction.label
        return text_answer(legacy.success(judged.prediction, judged.policy))

    def greet(self) -> flask.Response:
        """Say hello."""
        return text_answer(legacy.GREETING, media_type="text/plain")
