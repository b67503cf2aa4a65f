"""Applications around a predictor, for tests that need no process of their own."""

from collections.abc import Sequence
from typing import Any

import flask

from classifier.serving.app import create_app
from classifier.serving.limits import Admission, ServingLimits
from classifier.serving.models import Judge, Models
from classifier.serving.service import Room, Service


def app_of(
    judge: Judge | Models,
    limits: ServingLimits | None = None,
    rooms: Sequence[Room] = (),
    **parts: Any,
) -> flask.Flask:
    """Give the application of one predictor, or of models; `parts` are those of the service."""
    return create_app(service_of(judge, limits, **parts), rooms)


def service_of(judge: Judge | Models, limits: ServingLimits | None = None, **parts: Any) -> Service:
    models = judge if isinstance(judge, Models) else Models.of(judge)
    if limits:
        parts["admission"] = Admission(limits)
    return Service(models, **parts)
