"""What the service counts and times, for Prometheus.

Label values come from the service alone (its own routes, problem slugs, the model's classes), so
that no caller can make series without end.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import prometheus_client as prometheus
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram

from imagesieve.prediction.predictor import Prediction
from imagesieve.serving.schemas import ServedModel

MEDIA_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)

        common: dict[str, Any] = {"namespace": "classifier", "registry": self._registry}
        counter: Callable[..., Counter] = functools.partial(Counter, **common)
        seconds: Callable[..., Histogram] = functools.partial(Histogram, **common, buckets=_SECONDS)
        shares: Callable[..., Histogram] = functools.partial(
            Histogram, **common, buckets=_PROBABILITIES
        )
        self._requests = counter("requests", "Requests answered", ["route", "method", "code"])
        self._request_seconds = seconds("request_seconds", "Time of a request", ["route"])
        self._stage_seconds = seconds("stage_seconds", "Time of a stage", ["stage"])
        self._problems = counter("problems", "Requests refused or failed", ["problem"])
        self._predictions = counter("predictions", "Images predicted", ["label", "decision"])
        self._probability = shares("probability", "Of the label", ["label"])
        self._cache_hits = counter("cache_hits", "Images whose prediction was cached")
        self._feedback = counter("corrections", "Corrections taken", ["action"])
        self._model = prometheus.Info("classifier_model", "Now serving", registry=self._registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a figure that is looked up for each scrape."""
        gauge = prometheus.Gauge(f"classifier_{name}", text, registry=self._registry)
        gauge.set_function(value)

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a response; `route` is the rule, never the path that was requested."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def note_problem(self, slug: str) -> None:
        self._problems.labels(slug).inc()

    def note_prediction(self, prediction: Prediction, seconds: Mapping[str, float] | None) -> None:
        """Count a predicted image and the seconds of its stages; None when it was cached."""
        self._predictions.labels(prediction.label, prediction.decision).inc()
        self._probability.labels(prediction.label).observe(prediction.probability)
        if seconds is None:
            self._cache_hits.inc()
        for stage, duration in (seconds or {}).items():
            self._stage_seconds.labels(stage).observe(duration)

    def note_correction(self, action: str) -> None:
        self._feedback.labels(action).inc()

    def note_model(self, model: ServedModel) -> None:
        self._model.info({"name": model.name, "digest": model.digest, "engine": model.engine})

    def text(self) -> bytes:
        return prometheus.generate_latest(self._registry)
