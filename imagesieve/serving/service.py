"""One running service: what its rooms share."""

import dataclasses
import logging
from typing import Protocol

import flask

from imagesieve.serving import errors
from imagesieve.serving.access.checks import Access
from imagesieve.serving.limits import Admission, ServingLimits
from imagesieve.serving.metrics import Metrics
from imagesieve.serving.models import Judge, Models
from imagesieve.serving.pipeline import Desk, Judged, Turn
from imagesieve.serving.requests import Fetch
from imagesieve.serving.routing import Route

_log = logging.getLogger(__name__)


class Room(Protocol):
    """A part of the service with addresses of its own."""

    def routes(self) -> list[Route]:
        """Give the addresses."""


class Keeper(Protocol):
    """Keeps judged images for a while, so that they can be corrected."""

    def note(self, image_id: str, judged: Judged) -> bool:
        """Take note of a judged image; tell whether it can be corrected by its id alone."""


class KeepNothing:
    """The keeper of a service that takes no corrections."""

    def note(self, _image_id: str, _judged: Judged) -> bool:
        """Give False."""
        return False


@dataclasses.dataclass(eq=False)
class Service:
    """What the rooms of a service share.

    Attributes:
        models: gives the predictor in use.
        admission: hands out the places for requests.
        access: who may do what.
        fetch: gets an image from an address; None where addresses are not taken.
        keeper: keeps images for corrections.
        metrics: counts.
        desk: where images are judged.
    """

    models: Models
    admission: Admission = dataclasses.field(default_factory=Admission)
    access: Access = dataclasses.field(default_factory=Access)
    fetch: Fetch | None = None
    keeper: Keeper = dataclasses.field(default_factory=KeepNothing)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    desk: Desk = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Make the desk, and have the requests in flight counted."""
        self.desk = Desk(self.admission, self.metrics, self.fetch)
        in_flight = "Requests being worked on"
        self.metrics.watch("in_flight", in_flight, lambda: self.admission.in_flight)

    @property
    def limits(self) -> ServingLimits:
        """What requests may cost."""
        return self.admission.limits

    def current(self) -> Judge:
        """Give the predictor in use.

        Raises:
            UnavailableError: it is still loading, or could not be loaded.
        """
        return self.models.get()

    def note(self, error: Exception, request_id: str) -> errors.Problem:
        """Count what went wrong with a request or with one image of it; give the table's row.

        What is the server's own fault goes to the log, where the answer points to.
        """
        problem = errors.problem_for(error)
        self.metrics.note_problem(problem.slug)
        if errors.is_own_fault(error):
            _log.error("Request %s failed: %s.", request_id, type(error).__name__)
            _log.debug("what happened in request %s", request_id, exc_info=error)
        return problem

    def turn(self, *, is_batch: bool = False) -> Turn:
        """Give how long the sender of Flask's request waits, from the request's arrival."""
        limits = self.limits
        seconds = limits.batch_deadline_seconds if is_batch else limits.deadline_seconds
        is_gone = flask.request.environ.get("waitress.client_disconnected", lambda: False)
        return Turn(flask.g.started + seconds, is_gone)
