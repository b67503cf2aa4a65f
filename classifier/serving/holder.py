"""A place for a predictor that may still be loading."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from classifier import images
from classifier.serving.predictor import Prediction
from classifier.serving.problems import ModelLoadingError, ShuttingDownError

_log = logging.getLogger(__name__)


class Judge(Protocol):
    """What the service needs of a predictor."""

    def decode(self, source: bytes, limits: images.Limits = ...) -> images.DecodedImage:
        """Decode to the model's input size."""

    def judge(self, image: images.DecodedImage) -> Prediction:
        """Judge a decoded picture."""

    def describe(self) -> Mapping[str, Any]:
        """Tell name, digest, classes, engine and decision policy."""


class PredictorHolder:
    """Gives the predictor to requests: not before it is loaded, not after `close`."""

    def __init__(self, predictor: Judge | None = None) -> None:
        self._predictor = predictor
        self._closed = False

    def get(self) -> Judge:
        """Give the predictor.

        Raises:
            ModelLoadingError: it is still loading.
            ShuttingDownError: the server is stopping.
        """
        if self._closed:
            raise ShuttingDownError("The server is stopping: try again when it is back.")
        if self._predictor is None:
            raise ModelLoadingError("The model is still loading: try again in a moment.")
        return self._predictor

    def close(self) -> None:
        """Give the predictor to no further request; those that have it finish."""
        self._closed = True

    def load_in_background(
        self,
        load: Callable[[], Judge],
        loaded: Callable[[Judge], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Call `load` in a thread, then `loaded` with what it gave or `failed` with its error."""

        def work() -> None:
            try:
                predictor = load()
                self._predictor = predictor
                if not self._closed:
                    loaded(predictor)
            except Exception as error:
                _log.debug("the model could not be loaded", exc_info=True)
                failed(error)

        # No daemon: a process that ends in the middle of OpenVINO's compiling is aborted, so the
        # interpreter has to wait for this thread.
        threading.Thread(target=work, name="load-model").start()
