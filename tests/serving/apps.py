"""Applications around a predictor, for tests that need no process of their own."""

from typing import Any

import flask

from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.app import Service, create_app
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.model_manager import ModelManager


def app_of(
    predictor: Predictor | ModelManager, limits: ServingLimits | None = None, **parts: Any
) -> flask.Flask:
    """Return the application of one predictor, or of models; `parts` are those of the service."""
    return create_app(service_of(predictor, limits, **parts))


def models_of(predictor: Predictor) -> ModelManager:
    """Return the models of a server that has loaded its only one already."""
    models = ModelManager(predictor.version.path)
    models._current = predictor
    return models


def service_of(
    predictor: Predictor | ModelManager, limits: ServingLimits | None = None, **parts: Any
) -> Service:
    models = predictor if isinstance(predictor, ModelManager) else models_of(predictor)
    if limits:
        parts["admission"] = Admission(limits)
    return Service(models, **parts)
