"""One running service: what its rooms share."""

import dataclasses
import functools
import time
from typing import Protocol

import flask

from classifier.serving.access.checks import Access
from classifier.serving.desk import Desk, Judged, Turn
from classifier.serving.limits import Admission, ServingLimits
from classifier.serving.metrics import Metrics
from classifier.serving.models import Judge, Models
from classifier.serving.requests import Fetch
from classifier.serving.routes import Route


class Room(Protocol):
    """A part of the service with addresses of its own."""

    def routes(self) -> list[Route]:
        """Give the addresses."""


class Keeper(Protocol):
    """Keeps judged pictures for a while, so that they can be corrected."""

    def note(self, picture_id: str, judged: Judged) -> bool:
        """Take note of a judged picture; tell whether it can be corrected by its id alone."""


class KeepNothing:
    """The keeper of a service that takes no corrections."""

    def note(self, _picture_id: str, _judged: Judged) -> bool:
        """Give False."""
        return False


@dataclasses.dataclass(frozen=True, eq=False)
class Service:
    """What the rooms of a service share.

    Attributes:
        models: gives the predictor in use.
        limits: what requests may cost.
        access: who may do what.
        fetch: gets a picture from an address; None where addresses are not taken.
        keeper: keeps pictures for corrections.
        metrics: counts.
    """

    models: Models
    limits: ServingLimits = dataclasses.field(default_factory=ServingLimits)
    access: Access = dataclasses.field(default_factory=Access)
    fetch: Fetch | None = None
    keeper: Keeper = dataclasses.field(default_factory=KeepNothing)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)

    @functools.cached_property
    def admission(self) -> Admission:
        """The places for requests."""
        admission = Admission(self.limits)
        self.metrics.watch("in_flight", "Requests being worked on", lambda: admission.in_flight)
        return admission

    @functools.cached_property
    def desk(self) -> Desk:
        """Where pictures are judged."""
        return Desk(self.limits, self.admission, self.metrics, self.fetch)

    def current(self) -> Judge:
        """Give the predictor in use.

        Raises:
            UnavailableError: it is still loading, or could not be loaded.
        """
        return self.models.get()

    def turn(self, *, is_batch: bool = False) -> Turn:
        """Give how long the sender of Flask's request waits."""
        limits = self.limits
        seconds = limits.batch_deadline_seconds if is_batch else limits.deadline_seconds
        is_gone = flask.request.environ.get("waitress.client_disconnected", lambda: False)
        return Turn(time.monotonic() + seconds, is_gone)
