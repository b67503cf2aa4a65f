"""The views of the API proper: judge one picture or a batch, and tell about the model."""

import concurrent.futures
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import flask

from classifier.errors import ClassifierError
from classifier.serving import problems
from classifier.serving.access import Access
from classifier.serving.answers import answer
from classifier.serving.desk import Desk, Judged, Turn
from classifier.serving.limits import Admission, ServingLimits
from classifier.serving.models import Judge
from classifier.serving.requests import PictureRequest, read_picture, read_pictures
from classifier.serving.routes import BATCH_PATH, Route, Scope, json_answer


class Keeper(Protocol):
    """Keeps judged pictures for a while, so that they can be corrected."""

    def note(self, picture_id: str, judged: Judged) -> bool:
        """Take note of a judged picture; tell whether it can be corrected by its id alone."""


class KeepNothing:
    """The keeper of a service that takes no corrections."""

    def note(self, _picture_id: str, _judged: Judged) -> bool:
        """Give False."""
        return False


class Api:
    """Judges pictures over HTTP."""

    def __init__(
        self,
        current: Callable[[], Judge],
        desk: Desk,
        admission: Admission,
        limits: ServingLimits,
        access: Access,
        keeper: Keeper,
    ) -> None:
        self._current = current
        self._desk = desk
        self._admission = admission
        self._limits = limits
        self._access = access
        self._keeper = keeper

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route("/v1/predict", "POST", self.predict, Scope.PREDICT),
            Route(BATCH_PATH, "POST", self.predict_batch, Scope.PREDICT),
            Route("/v1/model", "GET", self.model, Scope.PREDICT),
        ]

    def predict(self) -> flask.Response:
        """Judge one picture."""
        with self._admission.place():
            judge = self._current()
            asked = read_picture(flask.request, self._limits)
            turn = turn_of(flask.request, self._limits.deadline_seconds)
            value = self._judged(judge, asked, turn, flask.g.request_id)
        flask.g.label = value["label"]
        return json_answer(value)

    def predict_batch(self) -> flask.Response:
        """Judge up to 32 pictures; what is wrong with one says nothing about the others."""
        with self._admission.place(), self._admission.batch_place():
            judge = self._current()
            asked = read_pictures(flask.request, self._limits)
            self._access.take(flask.g.caller, len(asked) - 1)
            turn = turn_of(flask.request, self._limits.batch_deadline_seconds)
            request_id = flask.g.request_id
            # Threads do not know Flask's request, so they are told what they need of it.
            with concurrent.futures.ThreadPoolExecutor(threads_for(judge)) as pool:
                futures = [
                    pool.submit(self._judged_or_refused, judge, one, turn, f"{request_id}-{number}")
                    for number, one in enumerate(asked)
                ]
                results = [future.result() for future in futures]
        failed = sum("error" in result for result in results)
        return json_answer(
            {
                "id": request_id,
                "results": results,
                "ok": len(results) - failed,
                "failed": failed,
            }
        )

    def model(self) -> flask.Response:
        """Tell about the model that is served."""
        return json_answer(self._current().describe())

    def _judged(
        self, judge: Judge, asked: PictureRequest, turn: Turn, picture_id: str
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        judged = self._desk.judge(judge, asked, turn)
        is_held = self._keeper.note(picture_id, judged)
        spent = time.perf_counter() - begun
        return answer(picture_id, judged, asked.wanted, spent, is_held=is_held)

    def _judged_or_refused(
        self, judge: Judge, asked: PictureRequest, turn: Turn, picture_id: str
    ) -> dict[str, Any]:
        try:
            return self._judged(judge, asked, turn, picture_id)
        except (ClassifierError, MemoryError) as error:
            problem = problems.problem_for(error)
            detail = problems.detail_of(error, picture_id)
            refusal: dict[str, Any] = {
                "error": json.loads(problems.document(problem, detail, picture_id))
            }
            if asked.wanted.data_id is not None:
                refusal["data_id"] = asked.wanted.data_id
            return refusal


def turn_of(request: flask.Request, seconds: float) -> Turn:
    """Give how long the sender of a request waits."""
    is_gone = request.environ.get("waitress.client_disconnected", lambda: False)
    return Turn(time.monotonic() + seconds, is_gone)


def threads_for(judge: Judge) -> int:
    """Give how many threads judge the pictures of one request."""
    # One more than the engine has places, so that one picture is decoded meanwhile.
    return int(judge.describe().get("streams", 1)) + 1
