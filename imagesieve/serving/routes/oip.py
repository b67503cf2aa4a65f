"""The Open Inference Protocol, version 2, which clients of KServe, Triton and MLServer speak.

Images go in as one tensor of Base64 texts, as the protocol's JSON has no bytes. It knows no
errors of single images either: one that cannot be judged fails the whole request.
"""

import concurrent.futures
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flask

import imagesieve
from imagesieve.errors import ImageError
from imagesieve.serving import errors, oip_requests
from imagesieve.serving.answers import DECIMALS
from imagesieve.serving.errors import BadParameterError, RequestError, UnknownModelError
from imagesieve.serving.models import Judge, threads_for
from imagesieve.serving.oip_requests import BYTES, DECISION, INPUT, LABEL, PROBABILITIES, Inference
from imagesieve.serving.pipeline import Judged, Turn
from imagesieve.serving.predict_options import Wanted
from imagesieve.serving.requests import ImageRequest, Sent
from imagesieve.serving.routes.health import check_ready
from imagesieve.serving.routing import Route, Scope, Style, json_answer
from imagesieve.serving.service import Service

SERVER_NAME = "imagesieve"
ALIAS = "default"  # the model in use, whatever its name
PLATFORM = "image-classifier"
FLOAT = "FP32"


class OpenInference:
    """Answers clients of the protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Give the addresses."""
        model, key = "/v2/models/<name>", Scope.PREDICT
        return [
            Route("/v2", "GET", self.server, key, Style.OIP),
            Route("/v2/health/live", "GET", self.live, None, Style.OIP),
            Route("/v2/health/ready", "GET", self.ready, None, Style.OIP),
            Route(model, "GET", self.model, key, Style.OIP),
            Route(f"{model}/ready", "GET", self.model_ready, key, Style.OIP),
            Route(f"{model}/infer", "POST", self.infer, key, Style.OIP),
        ]

    def server(self) -> flask.Response:
        """Tell what this server is."""
        version = imagesieve.__version__
        return json_answer({"name": SERVER_NAME, "version": version, "extensions": []})

    def live(self) -> flask.Response:
        """The process answers."""
        return json_answer({"live": True})

    def ready(self) -> flask.Response:
        """A model can be asked."""
        check_ready(self._service.desk, self._service.current())
        return json_answer({"ready": True})

    def model(self, name: str) -> flask.Response:
        """Tell what goes into a model and what comes out."""
        described = self._find(name).describe()
        return json_answer(
            {
                "name": name,
                "versions": [described["digest"]],
                "platform": PLATFORM,
                "inputs": [_about(INPUT, BYTES, -1)],
                "outputs": [
                    _about(LABEL, BYTES, -1),
                    _about(PROBABILITIES, FLOAT, -1, len(described["classes"])),
                    _about(DECISION, BYTES, -1),
                ],
                "classes": list(described["classes"]),  # in the order of `probabilities`
            }
        )

    def model_ready(self, name: str) -> flask.Response:
        """This model can be asked."""
        check_ready(self._service.desk, self._find(name))
        return json_answer({"name": name, "ready": True})

    def infer(self, name: str) -> flask.Response:
        """Judge one image or some."""
        with contextlib.ExitStack() as places:
            places.enter_context(self._service.admission.place())
            judge = self._find(name)
            asked = oip_requests.read_inference(flask.request, self._service.limits)
            if len(asked.images) > 1:
                places.enter_context(self._service.admission.batch_place())
            self._service.access.take(flask.g.caller, len(asked.images) - 1)
            judged = self._judge(judge, asked.images)
        return json_answer(_answer(name, asked, judged))

    def _find(self, name: str) -> Judge:
        judge = self._service.current()
        served = judge.describe()["name"]
        if name not in (ALIAS, served):
            raise UnknownModelError(
                f"There is no model {name[:100]!r} here: use {ALIAS} or {served}."
            )
        return judge

    def _judge(self, judge: Judge, images: Sequence[str]) -> list[Judged]:
        """Judge images, given as Base64; the first that cannot be judged ends it."""
        request_id = flask.g.request_id
        turn = self._service.turn(is_batch=len(images) > 1)

        def judge_one(number: int) -> Judged:
            judged = self._judge_one(judge, images[number], turn, number)
            self._service.keeper.note(f"{request_id}-{number}", judged)
            return judged

        with concurrent.futures.ThreadPoolExecutor(threads_for(judge)) as pool:
            # Once the answer of one that failed is due, those not begun yet never are.
            return list(pool.map(judge_one, range(len(images))))

    def _judge_one(self, judge: Judge, image: str, turn: Turn, number: int) -> Judged:
        try:
            return self._service.desk.judge(judge, ImageRequest(Sent(image), Wanted()), turn)
        except (ImageError, RequestError) as error:
            detail = errors.detail_of(error, "")
            raise BadParameterError(f"data[{number}]: {detail}") from error


def _about(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _answer(name: str, asked: Inference, judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "model_name": name,
        "model_version": judged[0].described["digest"],
        **({"id": asked.id} if asked.id is not None else {}),
        "outputs": [_OUTPUTS[output](judged) for output in asked.outputs],
    }


def _labels(judged: Sequence[Judged]) -> dict[str, Any]:
    labels = [one.prediction.label for one in judged]
    return {**_about(LABEL, BYTES, len(labels)), "data": labels}


def _decisions(judged: Sequence[Judged]) -> dict[str, Any]:
    decisions = [one.prediction.decision for one in judged]
    return {**_about(DECISION, BYTES, len(decisions)), "data": decisions}


def _probabilities(judged: Sequence[Judged]) -> dict[str, Any]:
    rows = [list(one.prediction.probabilities.values()) for one in judged]
    data = [round(probability, DECIMALS) for row in rows for probability in row]
    return {**_about(PROBABILITIES, FLOAT, len(rows), len(rows[0])), "data": data}


_OUTPUTS: Mapping[str, Callable[[Sequence[Judged]], dict[str, Any]]] = {
    LABEL: _labels,
    PROBABILITIES: _probabilities,
    DECISION: _decisions,
}
