"""What an address of the service is: path, method, view, whose key it asks for, how it refuses."""

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from typing import Any

import flask

BATCH_PATH = "/v1/predict/batch"  # known to the HTTP server, which lets larger bodies through


class Scope(enum.StrEnum):
    """What a key may allow its holder."""

    PREDICT = "predict"
    FEEDBACK = "feedback"
    ADMIN = "admin"


class Style(enum.Enum):
    """How an address tells what was wrong."""

    PROBLEM = "problem"  # RFC 9457
    LEGACY = "legacy"  # the first generation's code and message
    OIP = "oip"  # {"error": text}, of the Open Inference Protocol


@dataclasses.dataclass(frozen=True)
class Route:
    """One address with one method.

    Attributes:
        path: a rule of Flask's, such as `/v1/feedback/<sha256>`.
        method: GET, POST or DELETE.
        view: gives the answer, or raises an error that `problems` has a row for.
        scope: what the caller's key must allow; None is open to everybody.
        style: how errors are told.
    """

    path: str
    method: str
    view: Callable[..., flask.Response]
    scope: Scope | None = None
    style: Style = Style.PROBLEM

    @property
    def endpoint(self) -> str:
        """Flask's name of it."""
        return f"{self.method} {self.path}".replace(".", "_")  # dots mean blueprints to Flask


def json_answer(value: Mapping[str, Any], status: int = 200) -> flask.Response:
    """Give an answer of JSON values."""
    return text_answer(json.dumps(value), status)


def text_answer(
    text: str | bytes, status: int = 200, media_type: str = "application/json"
) -> flask.Response:
    """Give an answer of a text that is ready."""
    return flask.Response(text, status, mimetype=media_type)


def milliseconds(seconds: float) -> float:
    """Give milliseconds for an answer or a log line."""
    return round(seconds * 1000, 2)
