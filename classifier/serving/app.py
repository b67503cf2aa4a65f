"""The HTTP edge: reads a request, asks the predictor, shapes the answer.

`create_app` gives a plain WSGI application. It knows a predictor by `decode`, `judge` and
`describe` alone.
"""

import dataclasses
import json
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from classifier import images
from classifier.decisions import DecisionPolicy
from classifier.serving import legacy, problems
from classifier.serving.holder import Judge, PredictorHolder
from classifier.serving.limits import Admission, ServingLimits
from classifier.serving.predictor import Prediction
from classifier.serving.requests import PictureRequest, read_legacy_picture, read_picture

_log = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_DECIMALS = 9  # of a probability: a thousand of them still sum to 1 within a millionth


@dataclasses.dataclass(frozen=True)
class _Judged:
    """A picture, what the model says of it, and the milliseconds both steps took."""

    image: images.DecodedImage
    prediction: Prediction
    decode_ms: float
    infer_ms: float


def create_app(
    predictor: Judge | PredictorHolder, limits: ServingLimits | None = None
) -> flask.Flask:
    """Give the application.

    Args:
        predictor: a predictor, or a holder of one that is still loading.
        limits: what a request may cost; the defaults of `ServingLimits` when None.
    """
    holder = predictor if isinstance(predictor, PredictorHolder) else PredictorHolder(predictor)
    service = _Service(holder, limits or ServingLimits())
    app = flask.Flask(__name__)
    for path, method, view in (
        ("/", "GET", service.page),
        ("/v1/predict", "POST", service.predict),
        ("/v1/model", "GET", service.model),
        ("/healthz", "GET", service.health),
        ("/readyz", "GET", service.readiness),
        (legacy.PATH, "POST", service.detect),
        ("/helloWorld", "GET", service.greet),
    ):
        app.add_url_rule(path, view.__name__, view, methods=[method])
    app.before_request(_start)
    app.after_request(_finish)
    app.register_error_handler(Exception, service.fail)
    return app


class _Service:
    """The views, and what they share."""

    def __init__(self, holder: PredictorHolder, limits: ServingLimits) -> None:
        self._holder = holder
        self._limits = limits
        self._admission = Admission(limits)

    def page(self) -> str:
        return flask.render_template("index.html")

    def predict(self) -> flask.Response:
        with self._admission.place():
            predictor = self._holder.get()
            asked = read_picture(flask.request, self._limits)
            judged = self._judge(predictor, asked.data)
        return _json(_answer(asked, judged, predictor.describe()))

    def model(self) -> flask.Response:
        return _json(self._holder.get().describe())

    def health(self) -> flask.Response:
        return _json({"status": "ok"})

    def readiness(self) -> flask.Response:
        self._holder.get()
        return _json({"status": "ready"})

    def detect(self) -> flask.Response:
        with self._admission.place():
            predictor = self._holder.get()
            data = read_legacy_picture(flask.request, self._limits)
            if data is None:
                return _json_text(legacy.missing())
            prediction = self._judge(predictor, data).prediction
        policy = DecisionPolicy.from_json(predictor.describe()["decision_policy"])
        return _json_text(legacy.success(prediction, policy))

    def greet(self) -> flask.Response:
        return flask.Response(legacy.GREETING, mimetype="text/plain")

    def fail(self, error: Exception) -> flask.Response | HTTPException:
        """Turn any error into the answer that its address promises."""
        if isinstance(error, HTTPException) and (error.code or 500) < 400:
            return error  # a redirect
        problem = problems.problem_for(error)
        if problem.status == 500:
            _log.error("Request %s failed: %s.", flask.g.request_id, type(error).__name__)
            _log.debug("what happened in request %s", flask.g.request_id, exc_info=error)
        flask.g.problem = problem.slug
        detail = problems.detail_of(error, flask.g.request_id)
        response = self._refusal(problem, detail)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    def _refusal(self, problem: problems.Problem, detail: str) -> flask.Response:
        seconds = self._limits.retry_after_seconds if problem.status == 503 else None
        if flask.request.endpoint == "detect":
            response = _json_text(legacy.failure(detail), 200 if seconds is None else 503)
        else:
            text = problems.document(problem, detail, flask.g.request_id, seconds)
            response = flask.Response(text, problem.status, mimetype=problems.MEDIA_TYPE)
        if seconds is not None:
            response.headers["Retry-After"] = str(seconds)
        return response

    def _judge(self, predictor: Judge, data: bytes) -> _Judged:
        with self._admission.decoding(data):
            start = time.perf_counter()
            image = predictor.decode(data, self._limits.pictures)
        decoded = time.perf_counter()
        prediction = predictor.judge(image)
        judged = time.perf_counter()
        flask.g.label = prediction.label
        return _Judged(image, prediction, _ms(decoded - start), _ms(judged - decoded))


def _answer(asked: PictureRequest, judged: _Judged, described: Mapping[str, Any]) -> dict[str, Any]:
    prediction, image = judged.prediction, judged.image
    return {
        "id": flask.g.request_id,
        **({"data_id": asked.data_id} if asked.data_id is not None else {}),
        "label": prediction.label,
        "probability": round(prediction.probability, _DECIMALS),
        "probabilities": _most_probable(prediction.probabilities, asked.top_k),
        "decision": prediction.decision,
        "decision_policy": described["decision_policy"],
        "model": {name: described[name] for name in ("name", "digest", "engine")},
        "image": {
            name: getattr(image, name)
            for name in ("format", "width", "height", "orientation", "sha256")
        },
        "timing_ms": {
            "decode": judged.decode_ms,
            "infer": judged.infer_ms,
            "total": _ms(time.perf_counter() - flask.g.started),
        },
    }


def _most_probable(probabilities: Mapping[str, float], top_k: int | None) -> dict[str, float]:
    """Give all in the model's order, or the `top_k` most probable, best first."""
    names = list(probabilities)
    if top_k is not None:
        names = sorted(names, key=lambda name: -probabilities[name])[:top_k]
    return {name: round(probabilities[name], _DECIMALS) for name in names}


def _start() -> None:
    flask.g.started = time.perf_counter()
    flask.g.request_id = str(uuid.uuid4())


def _finish(response: flask.Response) -> flask.Response:
    response.headers.update(_HEADERS)
    response.headers["X-Request-Id"] = flask.g.request_id
    if flask.request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    _log_request(response)
    return response


def _log_request(response: flask.Response) -> None:
    """Write one line of JSON; DEBUG keeps it to the log file. No picture, no file name."""
    request = flask.request
    entry = {
        "id": flask.g.request_id,
        "from": request.remote_addr,
        "method": request.method,
        "path": request.path[:200],
        "bytes": request.content_length or 0,
        "status": response.status_code,
        "problem": flask.g.get("problem"),
        "label": flask.g.get("label"),
        "ms": _ms(time.perf_counter() - flask.g.started),
    }
    known = {name: value for name, value in entry.items() if value is not None}
    _log.debug("%s", json.dumps(known))


def _json(value: Mapping[str, Any]) -> flask.Response:
    return _json_text(json.dumps(value))


def _json_text(text: str, status: int = 200) -> flask.Response:
    return flask.Response(text, status, mimetype="application/json")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
