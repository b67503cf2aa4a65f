"""POST /v1/explain: which places of an image speak for its class, by another process, on demand.

Explanations need Keras, and a process that has loaded TensorFlow is several times as large as this
one. So a process is started by the first request, explains the images that follow, and ends when
no more come.
"""

import contextlib
import importlib.util
import threading
import urllib.parse
from collections.abc import Iterator

import flask
from msgspec import UNSET

from imagesieve import images
from imagesieve.errors import ClassifierError, EngineError, UsageError
from imagesieve.explaining.worker import ExplainingProcess, Question
from imagesieve.model import versions
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.app import current_service, requires, response_of
from imagesieve.serving.errors import (
    BadParameterError,
    DeadlineExceededError,
    ExplainingUnavailableError,
    OverloadedError,
    ShuttingDownError,
)
from imagesieve.serving.requests import ImageInput, ImageRequest, read_image

LONGEST_SIDE = 512  # pixels of an explanation; the network saw fewer than that

_LABEL_HEADER = {
    "description": "the class that it is about, percent-encoded UTF-8",
    "schema": openapi.TEXT,
}

blueprint = flask.Blueprint("explain", __name__)


@blueprint.post("/v1/explain")
@requires(Scope.PREDICT)
@openapi.operation(
    "explain",
    openapi.PREDICT,
    "the image with a heat map",
    openapi.BINARY,
    media_type="image/png",
    headers={"X-Label": _LABEL_HEADER},
    query=schemas.ExplainOptions,
    body=openapi.image_body(schemas.ExplainOptions),
    example="CURL --data-binary @image.jpg -o explanation.png URL/v1/explain",
)
def explain() -> flask.Response:
    """Show which places of an image speak for a class.

    It takes some seconds, and one image at a time. The class is the most probable one unless
    `label` names another.
    """
    service = current_service()
    explainer: Explainer = service.explainer  # type: ignore[assignment]  # or it has no such route
    # Only until the image is decoded: an explanation takes seconds, during which predictions shall
    # have every place. There is never more than one.
    with service.admission.place():
        predictor = service.models.get()
        explainer.check(predictor.version)
        sent, options = read_image(flask.request, schemas.ExplainOptions)
        deadline = service.deadline()
        data = sent.read(service.fetch)
        label = options.label
        if label is UNSET:
            # A URL is fetched only once.
            asked = ImageRequest(ImageInput(data))
            label = service.pipeline.predict(predictor, asked, deadline).prediction.label
        elif label not in predictor.classes:
            raise BadParameterError(f"The model has no class {label[:100]!r}.")
        deadline.check()
        at_once = service.admission.decoding(deadline.at)
        decoded = predictor.decode(data, service.limits.images, at_once=at_once)
        deadline.check()
    flask.g.label = label
    response = response_of(explainer.explain(predictor, decoded, label), media_type="image/png")
    # Percent-encoded UTF-8, as a header cannot hold other alphabets.
    response.headers["X-Label"] = urllib.parse.quote(label, safe=" ")
    return response


class Explainer:
    """Explains one image at a time; safe to call from many threads."""

    def __init__(self, idle_seconds: float = 60, deadline_seconds: float = 60) -> None:
        self._idle_seconds = idle_seconds  # that the process outlives its last answer
        self._deadline_seconds = deadline_seconds  # for an answer and the start of the process
        self._busy = threading.Lock()  # its holder alone starts, asks and ends the process
        self._process: ExplainingProcess | None = None
        self._idle: threading.Timer | None = None
        self._closed = False

    def check(self, version: versions.ModelVersion) -> None:
        """Raise ExplainingUnavailableError unless images can be explained at all; it is quick."""
        if not all(map(importlib.util.find_spec, ("keras", "tensorflow"))):
            raise ExplainingUnavailableError(
                "Explanations need Keras and TensorFlow, which this server runs without: install "
                "requirements.txt to have them."
            )
        if version.file(versions.KERAS_MODEL) is None:
            raise ExplainingUnavailableError(
                f"Explanations need a Keras model, and {version.name} has no "
                f"{versions.KERAS_MODEL}."
            )

    def explain(self, predictor: Predictor, image: images.DecodedImage, label: str) -> bytes:
        """Return an image that shows which places speak for a class.

        Returns:
            A PNG in the shape of the original, its longer side `LONGEST_SIDE`: the image as the
            model saw it, and the stronger a place speaks for the class, the brighter its colour.

        Raises:
            ExplainingUnavailableError: see `check`, or this kind of network has no maps.
            OverloadedError: another image is being explained.
            DeadlineExceededError: it took too long.
            EngineError: the process ended, or the model could not be loaded or explained.
            ShuttingDownError: the explainer was closed.
        """
        self.check(predictor.version)
        question = Question(image.pixels, predictor.classes.index(label), _size(image))
        with self._only_one():
            return self._ask(predictor.version, question)

    def end_if_idle(self) -> None:
        """End the process unless it explains an image right now."""
        with contextlib.suppress(OverloadedError), self._only_one():
            self._end()

    def close(self) -> None:
        """End the process whatever it does, and start none any more."""
        self._closed = True
        if process := self._process:
            process.process.kill()  # the thread that waits for it gets an error: it frees the lock
        with self._busy:
            self._end()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise OverloadedError("Another image is being explained: try again in a moment.")
        try:
            yield
        finally:
            self._busy.release()

    def _ask(self, version: versions.ModelVersion, question: Question) -> bytes:
        if self._idle:
            self._idle.cancel()
        process = self._process_for(version)
        try:
            return process.ask(question, self._deadline_seconds)
        except UsageError as error:
            raise ExplainingUnavailableError(str(error)) from error
        except (OSError, EOFError) as error:
            self._end()
            raise self._failure(error) from error
        finally:
            if self._process:
                self._idle = threading.Timer(self._idle_seconds, self.end_if_idle)
                self._idle.daemon = True
                self._idle.start()

    def _failure(self, error: Exception) -> ClassifierError:
        if self._closed:
            return ShuttingDownError("The server is stopping.")
        if isinstance(error, TimeoutError):
            return DeadlineExceededError(
                f"The image was not explained within {self._deadline_seconds:g} seconds."
            )
        return EngineError("The process that explains images ended; the log has its last words.")

    def _process_for(self, version: versions.ModelVersion) -> ExplainingProcess:
        if self._process and (self._process.digest != version.digest or not self._process.is_alive):
            self._end()
        if self._process is None:
            self._process = ExplainingProcess(version)
        if self._closed:  # checked when `close` can see the process, so `close` or this ends it
            self._end()
            raise ShuttingDownError("The server is stopping.")
        return self._process

    def _end(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._process:
            self._process.end()
        self._process = None


def _size(image: images.DecodedImage) -> tuple[int, int]:
    """Return (width, height) in the original's shape."""
    scale = LONGEST_SIDE / max(image.width, image.height)
    return max(1, round(scale * image.width)), max(1, round(scale * image.height))
