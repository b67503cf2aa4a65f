"""Which places of an image speak for its label: explained by a child process on demand.

Explanations need Keras, and a process that has loaded TensorFlow is several times as large as this
one. So a child is started by the first question, answers those that follow, and ends when nobody
asks any more.
"""

import importlib.util
import json
import threading

from imagesieve import images
from imagesieve.errors import EngineError
from imagesieve.model import versions
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.errors import (
    ExplainingUnavailableError,
    OverloadedError,
    ShuttingDownError,
)
from imagesieve.serving.explain_child import Child

LONGEST_SIDE = 512  # pixels of an explanation; the network saw fewer than that


class Explainer:
    """Explains one image at a time; safe to call from many threads."""

    def __init__(self, idle_seconds: float = 60, deadline_seconds: float = 60) -> None:
        """Start nothing yet.

        Args:
            idle_seconds: how long the child outlives its last answer.
            deadline_seconds: for one answer, the start of the child included.
        """
        self._idle_seconds = idle_seconds
        self._deadline_seconds = deadline_seconds
        self._busy = threading.Lock()  # its holder alone starts, asks and drops the child
        self._child: Child | None = None
        self._idle: threading.Timer | None = None
        self._closed = False

    def check(self, version: versions.ModelVersion) -> None:
        """Find out whether images can be explained at all; this is quick.

        Raises:
            ExplainingUnavailableError: Keras is not installed, or the version has no Keras model.
        """
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
        """Show which places of an image speak for a class.

        Args:
            predictor: whose model is asked.
            image: from `predictor.decode`.
            label: one of the predictor's classes.

        Returns:
            A PNG in the shape of the original, its longer side `LONGEST_SIDE`: the image as the
            model saw it, and the stronger a place speaks for the class, the brighter its colour.

        Raises:
            ExplainingUnavailableError: see `check`, or this kind of network has no maps.
            OverloadedError: another image is being explained.
            DeadlineExceededError: it took too long.
            EngineError: the child died, or the model could not be loaded or explained.
            ShuttingDownError: the explainer was closed.
        """
        self.check(predictor.version)
        asked = {
            "digest": predictor.version.digest,
            "class_index": predictor.classes.index(label),
            "size": _size(image),
        }
        request = json.dumps(asked).encode() + b"\n" + image.pixels.tobytes()
        if not self._busy.acquire(blocking=False):
            raise OverloadedError("Another image is being explained: try again in a moment.")
        try:
            return _png(self._ask(predictor.version, request))
        finally:
            self._busy.release()

    def end_if_idle(self) -> None:
        """End the child unless it explains an image right now."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            child, self._child = self._child, None
        finally:
            self._busy.release()
        if child:
            child.end()

    def close(self) -> None:
        """End the child whatever it does, and start none any more."""
        self._closed = True
        if child := self._child:
            child.kill()  # whoever waits for it gets an error and lets go of the lock
        with self._busy:
            self._drop()

    def _ask(self, version: versions.ModelVersion, request: bytes) -> bytes:
        if self._idle:
            self._idle.cancel()
        child = self._child_for(version)
        try:
            answer = child.ask(request, self._deadline_seconds)
        except BaseException as error:
            self._drop()
            if self._closed:
                raise ShuttingDownError("The server is stopping.") from error
            raise
        self._idle = threading.Timer(self._idle_seconds, self.end_if_idle)
        self._idle.daemon = True
        self._idle.start()
        return answer

    def _child_for(self, version: versions.ModelVersion) -> Child:
        if self._child and (self._child.digest != version.digest or not self._child.is_alive):
            self._drop()
        if self._child is None:
            self._child = Child(version)
        if self._closed:  # looked at after the child can be seen, so `close` or this ends it
            self._drop()
            raise ShuttingDownError("The server is stopping.")
        return self._child

    def _drop(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._child:
            self._child.end()
        self._child = None


def _size(image: images.DecodedImage) -> tuple[int, int]:
    """Give (width, height) in the original's shape."""
    scale = LONGEST_SIDE / max(image.width, image.height)
    return max(1, round(scale * image.width)), max(1, round(scale * image.height))


def _png(answer: bytes) -> bytes:
    line, _, png = answer.partition(b"\n")
    value = json.loads(line)
    if value["status"] == "unavailable":
        raise ExplainingUnavailableError(value["detail"])
    if value["status"] != "ok":
        raise EngineError(f"The image cannot be explained: {value['detail']}")
    return png
