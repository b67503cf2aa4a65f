"""The views of the API proper: judge one image or a batch, and tell about the model."""

import concurrent.futures
import json
import time
from typing import Any

import flask

from imagesieve.errors import ClassifierError
from imagesieve.serving import errors
from imagesieve.serving.answers import answer
from imagesieve.serving.models import Judge, threads_for
from imagesieve.serving.pipeline import Turn
from imagesieve.serving.requests import ImageRequest, read_image, read_images
from imagesieve.serving.routing import BATCH_PATH, Route, Scope, json_answer
from imagesieve.serving.service import Service


class Api:
    """Judges images over HTTP."""

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
        """Judge one image."""
        with self._service.admission.place():
            judge = self._service.current()
            asked = read_image(flask.request, self._service.limits)
            turn = self._service.turn()
            value = self._judged(judge, asked, turn, flask.g.request_id)
        flask.g.label = value["label"]
        return json_answer(value)

    def predict_batch(self) -> flask.Response:
        """Judge up to 32 images; what is wrong with one says nothing about the others."""
        with self._service.admission.place(), self._service.admission.batch_place():
            judge = self._service.current()
            asked = read_images(flask.request, self._service.limits)
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
        self, judge: Judge, asked: ImageRequest, turn: Turn, image_id: str
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        judged = self._service.desk.judge(judge, asked, turn)
        is_held = self._service.keeper.note(image_id, judged)
        spent = time.perf_counter() - begun
        return answer(image_id, judged, asked.wanted, spent, is_held=is_held)

    def _judged_or_refused(
        self, judge: Judge, asked: ImageRequest, turn: Turn, image_id: str
    ) -> dict[str, Any]:
        try:
            return self._judged(judge, asked, turn, image_id)
        except (ClassifierError, MemoryError) as error:
            problem = self._service.note(error, image_id)
            detail = errors.detail_of(error, image_id)
            refusal: dict[str, Any] = {
                "error": json.loads(errors.document(problem, detail, image_id))
            }
            if asked.wanted.data_id is not None:
                refusal["data_id"] = asked.wanted.data_id
            return refusal
