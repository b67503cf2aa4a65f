"""Applications around a predictor, for tests that need no process of their own."""

from collections.abc import Sequence
from typing import Any

import flask

from imagesieve.serving.app import create_app
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.models import Judge, Models
from imagesieve.serving.service import Room, Service


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
