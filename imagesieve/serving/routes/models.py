"""Which model is served: what there is, and how an administrator changes it."""

from collections.abc import Mapping
from typing import Any

import flask

from imagesieve.serving.errors import BadParameterError
from imagesieve.serving.models import Change
from imagesieve.serving.requests import read_object
from imagesieve.serving.routing import Route, Scope, json_answer
from imagesieve.serving.service import Service


class AdminViews:
    """The views about models."""

    def __init__(self, service: Service) -> None:
        self._models = service.models
        self._limits = service.limits

    def routes(self) -> list[Route]:
        """Give the addresses."""
        return [
            Route("/v1/models", "GET", self.list_models, Scope.PREDICT),
            Route("/v1/admin/reload", "POST", self.reload, Scope.ADMIN),
            Route("/v1/admin/activate", "POST", self.activate, Scope.ADMIN),
            Route("/v1/admin/rollback", "POST", self.rollback, Scope.ADMIN),
        ]

    def list_models(self) -> flask.Response:
        """Answer with the versions that there are."""
        return json_answer({"models": self._models.describe_all()})

    def reload(self) -> flask.Response:
        """Serve what `current.json` names."""
        self._read()
        return _answer(self._models.reload())

    def activate(self) -> flask.Response:
        """Serve the version that the body names."""
        fields = self._read("version", "allow_other_classes")
        version, allow = fields.get("version"), fields.get("allow_other_classes", False)
        if not isinstance(version, str) or not version:
            raise BadParameterError(
                "The field version must be a version's folder name or sha256: and its digest."
            )
        if not isinstance(allow, bool):
            raise BadParameterError("The field allow_other_classes must be true or false.")
        return _answer(self._models.activate(version, allow_other_classes=allow))

    def rollback(self) -> flask.Response:
        """Serve what was served before."""
        self._read()
        return _answer(self._models.rollback())

    def _read(self, *names: str) -> Mapping[str, Any]:
        return read_object(flask.request, self._limits, names)


def _answer(change: Change) -> flask.Response:
    return json_answer(change.to_json())
