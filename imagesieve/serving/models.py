"""The model that is served, and how another takes its place while requests run.

A new version is loaded, verified, run once and compared with its golden images beside the old
one. Only then does the next request get it; those that have the old one finish with it. Whatever
speaks against the new version, the old one keeps serving.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imagesieve.errors import (
    ClassifierError,
    EngineError,
    ModelDamagedError,
    ModelError,
    ModelNotFoundError,
    OutputError,
)
from imagesieve.model import engines, golden, versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.predictor import Predictor
from imagesieve.serving.errors import (
    ModelChangeError,
    ModelChangeFailedError,
    ModelLoadingError,
    ModelRefusedError,
    ModelUnusableError,
    ShuttingDownError,
    UnknownModelError,
)
from imagesieve.serving.model_folder import ModelFolder

_MAX_WAIT = 10.0  # seconds for another change to end, which mostly takes two or three

_log = logging.getLogger(__name__)


def streams_of(predictor: Predictor) -> int:
    """Return how many runs of its engine are worth having at once."""
    return int(predictor.describe()["streams"])


def threads_for(predictor: Predictor) -> int:
    """Return how many threads predict the images of one request."""
    return streams_of(predictor) + 1  # one image is decoded meanwhile


@dataclasses.dataclass(frozen=True)
class Change:
    """What came of asking for another model.

    Attributes:
        model: what is served now; see `Predictor.describe`.
        previous: what `rollback` would bring back.
        changed: whether something else was served before.
    """

    model: Mapping[str, Any]
    previous: versions.ModelVersion | None
    changed: bool

    def to_json(self) -> dict[str, Any]:
        """Give the change as JSON values."""
        former = self.previous
        previous = former and {"name": former.name, "digest": f"sha256:{former.digest}"}
        return {"model": dict(self.model), "previous": previous, "changed": self.changed}


class Models:
    """Gives the predictor to requests, and changes it; safe to call from many threads."""

    def __init__(
        self,
        path: Path,
        *,
        engine: str = "auto",
        precision: str = "auto",
        policy: DecisionPolicy | None = None,
        watch_seconds: float = 2.0,
    ) -> None:
        """Nothing is loaded yet: see `load_in_background`.

        Args:
            path: a folder of versions, whose current one is taken, or one version.
            engine: for each version; see `engines.open_engine`.
            precision: for each version; see `engines.open_engine`.
            policy: the decision policy for each version; the version's own when None.
            watch_seconds: how often to look whether `current.json` has changed.
        """
        self._folder = ModelFolder(path)
        self._engine = engine
        self._precision = precision
        self._policy = policy
        self._watch_seconds = watch_seconds
        self._current: Predictor | None = None
        self._previous: versions.ModelVersion | None = None
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, predictor: Predictor) -> "Models":
        """Give the models of a server that has loaded its only one already."""
        models = cls(predictor.version.path)
        models._current = predictor
        return models

    def get(self) -> Predictor:
        """Give the predictor.

        Raises:
            ModelLoadingError: it is still loading.
            ShuttingDownError: the server is stopping.
        """
        if self._closed.is_set():
            raise ShuttingDownError("The server is stopping: try again when it is back.")
        if self._current is None:
            raise ModelLoadingError("The model is still loading: try again in a moment.")
        return self._current

    def load_in_background(
        self, loaded: Callable[[Predictor], None], failed: Callable[[Exception], None]
    ) -> None:
        """Load in a thread, which then watches a folder of versions until `close`.

        Args:
            loaded: called with the predictor, from that thread.
            failed: called with the error instead.
        """
        # No daemon: a process that ends in the middle of OpenVINO's compiling is aborted, so the
        # interpreter has to wait for this thread.
        self._thread = threading.Thread(target=self._work, args=(loaded, failed), name="model")
        self._thread.start()

    def close(self) -> None:
        """Give the predictor to no further request; those that have it finish."""
        self._closed.set()

    def join(self) -> None:
        """Wait, after `close`, for the thread to end."""
        if self._thread:
            self._thread.join()

    def reload(self) -> Change:
        """Serve what `current.json` names by now, or the one version as it lies there by now.

        Raises:
            ModelChangeError: a child of it that says why everything stays as it is.
            UnavailableError: nothing is served yet, or no longer.
        """
        with self._one_change():
            return self._replace(self._folder.path)

    def activate(self, name_or_digest: str, *, allow_other_classes: bool = False) -> Change:
        """Serve a version of the folder, and make it the current one for the next start too.

        Args:
            name_or_digest: see `ModelFolder.find`.
            allow_other_classes: whether its class list may differ from that of the one served.

        Raises:
            ModelChangeError: a child of it that says why everything stays as it is.
            UnavailableError: nothing is served yet, or no longer.
        """
        with self._one_change():
            path = self._folder.find(name_or_digest)
            return self._replace(path, allow_other_classes=allow_other_classes, promote=True)

    def rollback(self) -> Change:
        """Serve what was served before, whatever its classes, and make it the current one.

        Raises:
            ModelChangeError: a child of it that says why everything stays as it is.
            UnavailableError: nothing is served yet, or no longer.
        """
        with self._one_change():
            self._folder.require_versions()
            former = self._previous
            if former is None:
                raise UnknownModelError("This server has served no other model version before.")
            return self._replace(
                former.path, digest=former.digest, allow_other_classes=True, promote=True
            )

    def describe_all(self) -> list[dict[str, Any]]:
        """List the versions that there are; see `ModelFolder.describe`.

        Raises:
            UnavailableError: nothing is served yet, or no longer.
        """
        return self._folder.describe(self.get().version)

    @contextlib.contextmanager
    def _one_change(self) -> Iterator[None]:
        self.get()
        if not self._changing.acquire(timeout=_MAX_WAIT):
            raise ModelRefusedError("The model is just being changed: try again when that is done.")
        try:
            yield
        finally:
            self._changing.release()

    def _replace(
        self,
        path: Path,
        *,
        digest: str | None = None,
        allow_other_classes: bool = False,
        promote: bool = False,
    ) -> Change:
        """Serve a version, or tell the caller, without the server's paths, what speaks against it.

        Raises:
            ModelChangeError: instead of any other error of this program.
        """
        current = self.get()
        # Not in a context manager: since Python 3.12 one that raises another error keeps what the
        # frames below it hold, here a model, until garbage is collected.
        try:
            predictor = self._accepted(path, current.version, digest, allow_other_classes)
            if promote:  # before the change: one that a restart would undo is none
                if predictor is None:
                    versions.verify(current.version)
                versions.promote((predictor or current).version)
        # ImportError: a version without an IR, where Keras is not installed.
        except (ClassifierError, ImportError) as error:
            reason = " ".join(str(error).split())
            _log.warning("Still serving %s: %s", current.version.name, reason)
            raise self._refusal(error) from error
        if predictor is None:
            return Change(current.describe(), self._previous, False)
        self._previous, self._current = current.version, predictor
        _log.info(
            "Now serving %s with %s (before: %s)",
            predictor.version.name,
            predictor.engine.name,
            current.version.name,
        )
        return Change(predictor.describe(), self._previous, True)

    def _accepted(
        self,
        path: Path,
        served: versions.ModelVersion,
        digest: str | None,
        allow_other_classes: bool,
    ) -> Predictor | None:
        """Check a version and give its predictor, or None when it is the one that is served."""
        version = versions.read_manifest(path)
        if digest not in (None, version.digest):
            raise ModelDamagedError(
                f"The model version {version.path} was altered since it was served: choose another "
                "version, or activate it by its name."
            )
        is_served = (version.name, version.digest) == (served.name, served.digest)
        if is_served:
            return None
        if not allow_other_classes:
            _check_classes(version, served)
        versions.verify(version)
        return self._open(version)

    def _open(self, version: versions.ModelVersion) -> Predictor:
        engine = engines.open_engine(version, self._engine, self._precision)
        predictor = Predictor(version, engine, self._policy)
        predictor.warm_up()
        images = golden.read(version)
        if images is None:
            _log.info("%s has no golden images to compare its answers with.", version.name)
        elif fault := golden.mismatch(engine, images):
            raise ModelRefusedError(
                f"The model version {version.name} is not what was trained, or this machine runs "
                f"it wrongly: {fault}. Choose another version, or start with --precision f32."
            )
        return predictor

    def _refusal(self, error: Exception) -> ModelChangeError:
        folder = self._folder.path if self._folder.has_versions else self._folder.path.parent
        told = str(error).replace(f"{folder}/", "")
        match error:
            case ModelChangeError():
                return type(error)(told)
            case ModelNotFoundError():
                return UnknownModelError(
                    "The model version is not there any more, or no version is the current one: "
                    "activate one that /v1/models lists."
                )
            case ModelError():
                return ModelUnusableError(told)
            case OutputError():
                return ModelChangeFailedError(told)
            case EngineError() | ImportError():
                return ModelUnusableError(
                    "The engine of this server cannot run the model version: the server's log says "
                    "why."
                )
        return ModelRefusedError(told)  # a precision that it does not have

    def _work(
        self, loaded: Callable[[Predictor], None], failed: Callable[[Exception], None]
    ) -> None:
        mark = self._folder.mark()
        try:
            self._current = self._open(versions.load(self._folder.path))
            if not self._closed.is_set():
                loaded(self._current)
        except Exception as error:
            _log.debug("the model could not be loaded", exc_info=True)
            failed(error)
            return
        while self._folder.has_versions and not self._closed.wait(self._watch_seconds):
            if mark != (mark := self._folder.mark()):
                self._follow()

    def _follow(self) -> None:
        """Serve what was made current; a version that is refused is tried once."""
        try:
            with self._changing:
                self._replace(self._folder.path)
        except (ModelChangeError, ShuttingDownError) as error:  # the first is in the log already
            _log.debug("current.json was not followed: %s", error)
        except Exception as error:  # no memory, say: what is served must go on
            _log.warning("The model was not changed: %s: %s", type(error).__name__, error)
            _log.debug("what happened", exc_info=True)


def _check_classes(version: versions.ModelVersion, served: versions.ModelVersion) -> None:
    if version.manifest.classes != served.manifest.classes:
        raise ModelRefusedError(
            f"The model version {version.name} has other classes "
            f"({_listed(version.manifest.classes)}) than the one served "
            f"({_listed(served.manifest.classes)}): callers would get labels that they do not "
            "know. Activate it with allow_other_classes if they do."
        )


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:10])
    return f"{shown}, …" if len(classes) > 10 else shown
