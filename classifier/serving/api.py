"""The views of the API proper: judge one picture or a batch, and tell about the model."""

import concurrent.futures
import json
import time
from typing import Any

import flask

from classifier.errors import ClassifierError
from classifier.serving import problems
from classifier.serving.answers import answer
from classifier.serving.desk import Turn
from classifier.serving.models import Judge, threads_for
from classifier.serving.requests import PictureRequest, read_picture, read_pictures
from classifier.serving.routes import BATCH_PATH, Route, Scope, json_answer
from classifier.serving.service import Service


class Api:
    """Judges pictures over HTTP."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route("/v1/predict", "POST", self.predict, Scope.PREDICT),
            Route(BATCH_PATH, "POST", self.predict_batch, Scope.PREDICT),
            Route("/v1/model", "GET", self.model, Scope.PREDICT),
        ]

    def predict(self) -> flask.Response:
        """Judge one picture."""
        with self._service.admission.place():
            judge = self._service.current()
            asked = read_picture(flask.request, self._service.limits)
            turn = self._service.turn()
            value = self._judged(judge, asked, turn, flask.g.request_id)
        flask.g.label = value["label"]
        return json_answer(value)

    def predict_batch(self) -> flask.Response:
        """Judge up to 32 pictures; what is wrong with one says nothing about the others."""
        with self._service.admission.place(), self._service.admission.batch_place():
            judge = self._service.current()
            asked = read_pictures(flask.request, self._service.limits)
            self._service.access.take(flask.g.caller, len(asked) - 1)
            turn = self._service.turn(is_batch=True)
            request_id = flask.g.request_id
            num_threads = threads_for(judge)
            if any(one.sent.is_url for one in asked):  # more would be refused, and not wait
                num_threads = min(num_threads, self._service.limits.max_fetches)
            # Threads do not know Flask's request, so they are told what they need of it.
            with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
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
        return json_answer(self._service.current().describe())

    def _judged(
        self, judge: Judge, asked: PictureRequest, turn: Turn, picture_id: str
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        judged = self._service.desk.judge(judge, asked, turn)
        is_held = self._service.keeper.note(picture_id, judged)
        spent = time.perf_counter() - begun
        return answer(picture_id, judged, asked.wanted, spent, is_held=is_held)

    def _judged_or_refused(
        self, judge: Judge, asked: PictureRequest, turn: Turn, picture_id: str
    ) -> dict[str, Any]:
        try:
            return self._judged(judge, asked, turn, picture_id)
        except (ClassifierError, MemoryError) as error:
            problem = self._service.note(error, picture_id)
            detail = problems.detail_of(error, picture_id)
            refusal: dict[str, Any] = {
                "error": json.loads(problems.document(problem, detail, picture_id))
            }
            if asked.wanted.data_id is not None:
                refusal["data_id"] = asked.wanted.data_id
            return refusal
