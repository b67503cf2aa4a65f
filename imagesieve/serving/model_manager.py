"""The model that is served, and how another takes its place while requests run.

A new version is loaded, verified, run once and compared with its golden images beside the old
one. Only then does the next request get it; those that have the old one finish with it. Whatever
speaks against the new version, the old one keeps serving.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec import UNSET

from imagesieve import files
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
from imagesieve.serving import schemas
from imagesieve.serving.errors import (
    ModelChangeError,
    ModelChangeFailedError,
    ModelLoadingError,
    ModelRefusedError,
    ModelUnusableError,
    ShuttingDownError,
    UnknownModelError,
)

_MAX_WAIT = 10.0  # seconds for another change to end, which mostly takes two or three
_DIGEST_PREFIX = "sha256:"
_MAX_LISTED = 20
_ONE_VERSION = "The server serves one version: start it with --model and the folder of versions."
_NOT_FOUND = (
    "The model version is not there any more, or no version is the current one: activate one of "
    "/v1/models."
)
_CANNOT_RUN = "The engine of this server cannot run the model version: its log says why."

_log = logging.getLogger(__name__)


class ModelManager:
    """The predictor for requests, and what changes it; safe to call from many threads."""

    def __init__(
        self,
        path: Path,
        *,
        engine: str = "auto",
        precision: str = "auto",
        policy: DecisionPolicy | None = None,
        watch_seconds: float = 2.0,
    ) -> None:
        """Load nothing yet. `path` is a folder of versions, whose current one is served, or one.

        Every `watch_seconds`, `current.json` is looked at.
        """
        self._path = path
        self._engine = engine
        self._precision = precision
        self._policy = policy
        self._watch_seconds = watch_seconds
        self._current: Predictor | None = None
        self._previous: versions.ModelVersion | None = None
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def get(self) -> Predictor:
        """Return the predictor; raise UnavailableError while it loads or the server stops."""
        if self._closed.is_set():
            raise ShuttingDownError("The server is stopping: try again when it is back.")
        if self._current is None:
            raise ModelLoadingError("The model is still loading: try again in a moment.")
        return self._current

    def load_in_background(
        self, loaded: Callable[[Predictor], None], failed: Callable[[Exception], None]
    ) -> None:
        """Load in a thread, which calls `loaded` or `failed`, and then watches until `close`."""
        # No daemon: a process that ends in the middle of OpenVINO's compiling is aborted, so the
        # interpreter has to wait for this thread.
        self._thread = threading.Thread(target=self._work, args=(loaded, failed), name="model")
        self._thread.start()

    def close(self) -> None:
        """Refuse the predictor from now on; requests that have it finish."""
        self._closed.set()

    def join(self) -> None:
        """Wait, after `close`, for the thread to end."""
        if self._thread:
            self._thread.join()

    def reload(self) -> schemas.ModelChange:
        """Serve what `current.json` names by now, or the one version as it is on disk by now.

        A ModelChangeError says why the server keeps what it has.
        """
        with self._one_change():
            return self._replace(self._path)

    def activate(
        self, name_or_digest: str, *, allow_other_classes: bool = False
    ) -> schemas.ModelChange:
        """Serve a version of the folder, and make it the current one for the next start too.

        It is named by its folder, or by `sha256:` and the 64 digits of its manifest's SHA-256.
        """
        with self._one_change():
            path = self._find(name_or_digest)
            return self._replace(path, allow_other_classes=allow_other_classes, promote=True)

    def rollback(self) -> schemas.ModelChange:
        """Serve what was served before, whatever its classes, and make it the current one."""
        with self._one_change():
            self._require_versions()
            former = self._previous
            if former is None:
                raise UnknownModelError("This server has served no other model version before.")
            return self._replace(
                former.path, digest=former.digest, allow_other_classes=True, promote=True
            )

    def describe_all(self) -> list[schemas.ListedModel]:
        """Return all versions by name, from their manifests alone."""
        served = self.get().version  # is current, whatever `current.json` says by now
        folders = self._versions() if self._has_versions else [self._path]
        return [_describe(folder, served) for folder in folders]

    @property
    def _has_versions(self) -> bool:
        """Whether `--model` is a folder of versions, not one version."""
        return not (self._path / versions.MANIFEST).exists()

    def _require_versions(self) -> None:
        if not self._has_versions:
            raise ModelRefusedError(_ONE_VERSION)

    def _versions(self) -> list[Path]:
        # An unfinished version has a hidden name.
        manifests = self._path.glob(f"[!.]*/{versions.MANIFEST}")
        return sorted(path.parent for path in manifests if path.is_file())

    def _find(self, name_or_digest: str) -> Path:
        """Return the folder of a version; the name is looked up among those that are there."""
        self._require_versions()
        for folder in self._versions():
            if name_or_digest == folder.name or (
                name_or_digest.startswith(_DIGEST_PREFIX)
                and name_or_digest.lower() == _digest_of(folder)
            ):
                return folder
        raise UnknownModelError(
            f"There is no model version {name_or_digest[:100]!r}: /v1/models lists those there are."
        )

    def _mark(self) -> tuple[int, int, int] | None:
        """Return what differs after each change of `current.json`; None without one."""
        try:
            found = (self._path / versions.CURRENT).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

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
    ) -> schemas.ModelChange:
        """Serve a version, or raise a ModelChangeError, without the server's paths."""
        current = self.get()
        # Not in a context manager: since Python 3.12 one that raises another error keeps what the
        # frames below it hold, here a model, until garbage is collected.
        try:
            predictor = self._accepted(path, current, digest, allow_other_classes)
            if promote:  # before the change: one that a restart would undo is none
                if predictor is current:
                    versions.verify(current.version)
                versions.promote(predictor.version)
        # ImportError: a version without an IR, where Keras is not installed.
        except (ClassifierError, ImportError) as error:
            reason = " ".join(str(error).split())
            _log.warning("Still serving %s: %s", current.version.name, reason)
            self._refuse(error)
        if predictor is not current:
            self._previous, self._current = current.version, predictor
            names = predictor.version.name, predictor.engine.name, current.version.name
            _log.info("Now serving %s with %s (before: %s)", *names)
        former = self._previous
        previous = schemas.ModelName(former.name, _prefixed(former.digest)) if former else None
        return schemas.ModelChange(describe(predictor), previous, predictor is not current)

    def _accepted(
        self, path: Path, served: Predictor, digest: str | None, allow_other_classes: bool
    ) -> Predictor:
        """Return the predictor of a checked version; `served` when it is of that one."""
        version = versions.read_manifest(path)
        if digest not in (None, version.digest):
            altered = f"The model version {version.path} was altered since it was served"
            raise ModelDamagedError(f"{altered}: choose another, or activate it by its name.")
        if _is_same(version, served.version):
            return served
        if not allow_other_classes and version.manifest.classes != served.version.manifest.classes:
            names = listed(version.manifest.classes), listed(served.classes)
            raise ModelRefusedError(
                f"The model version {version.name} has other classes ({names[0]}) than the one "
                f"served ({names[1]}): activate it with allow_other_classes if callers know them."
            )
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

    def _refuse(self, error: Exception) -> NoReturn:
        """Raise the ModelChangeError for an error, without the server's paths."""
        folder = self._path if self._has_versions else self._path.parent
        reason = str(error).replace(f"{folder}/", "")
        match error:
            case ModelChangeError():
                raise type(error)(reason) from error
            case ModelNotFoundError():
                raise UnknownModelError(_NOT_FOUND) from error
            case ModelError():
                raise ModelUnusableError(reason) from error
            case OutputError():
                raise ModelChangeFailedError(reason) from error
            case EngineError() | ImportError():
                raise ModelUnusableError(_CANNOT_RUN) from error
        raise ModelRefusedError(reason) from error  # it does not have the precision

    def _work(
        self, loaded: Callable[[Predictor], None], failed: Callable[[Exception], None]
    ) -> None:
        mark = self._mark()
        try:
            self._current = self._open(versions.load(self._path))
            if not self._closed.is_set():
                loaded(self._current)
        except Exception as error:
            _log.debug("the model could not be loaded", exc_info=True)
            failed(error)
            return
        while self._has_versions and not self._closed.wait(self._watch_seconds):
            if mark != (mark := self._mark()):
                self._follow()

    def _follow(self) -> None:
        """Serve what was made current; a version that is refused is tried once."""
        try:
            with self._changing:
                self._replace(self._path)
        except (ModelChangeError, ShuttingDownError) as error:  # the first is in the log already
            _log.debug("current.json was not followed: %s", error)
        except Exception as error:  # such as a lack of memory: what is served must go on
            _log.warning("The model was not changed: %s: %s", type(error).__name__, error)
            _log.debug("what happened", exc_info=True)


def served_model(predictor: Predictor) -> schemas.ServedModel:
    version = predictor.version
    return schemas.ServedModel(version.name, _prefixed(version.digest), predictor.engine.name)


def describe(predictor: Predictor) -> schemas.Model:
    manifest = predictor.version.manifest
    return schemas.Model(
        **msgspec.structs.asdict(served_model(predictor)),
        created=manifest.created,
        classes=list(manifest.classes),
        backbone=manifest.backbone,
        image_size=schemas.Size(*manifest.image_size),
        pixel_contract=manifest.pixel_contract,
        streams=predictor.engine.num_streams,
        decision_policy=schemas.DecisionPolicy(**predictor.policy.to_json()),
        temperature=manifest.temperature,
        metrics=dict(manifest.metrics),
    )


def _describe(folder: Path, served: versions.ModelVersion) -> schemas.ListedModel:
    try:
        version = versions.read_manifest(folder)
    except ModelError:
        return schemas.ListedModel(folder.name, _digest_of(folder), False, None, [], damaged=True)
    return schemas.ListedModel(
        name=version.name,
        digest=_prefixed(version.digest),
        current=_is_same(version, served),
        created=version.manifest.created,
        classes=list(version.manifest.classes),
        damaged=UNSET if _has_all_files(version) else True,
    )


def _is_same(version: versions.ModelVersion, other: versions.ModelVersion) -> bool:
    return (version.name, version.digest) == (other.name, other.digest)


def _has_all_files(version: versions.ModelVersion) -> bool:
    try:
        return all(
            (version.path / relative).stat().st_size == entry["bytes"]
            for relative, entry in version.manifest.files.items()
        )
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _digest_of(folder: Path) -> str | None:
    try:
        return _prefixed(files.sha256_of(folder / versions.MANIFEST))
    except OSError:
        return None


def _prefixed(digest: str) -> str:
    return f"{_DIGEST_PREFIX}{digest}"


def listed(classes: Sequence[str]) -> str:
    """Return the names of classes for a message, of many the first ones."""
    shown = ", ".join(classes[:_MAX_LISTED])
    return f"{shown}, …" if len(classes) > _MAX_LISTED else shown
