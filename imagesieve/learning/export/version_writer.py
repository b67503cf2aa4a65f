"""A trained network -> a model version: Keras file, OpenVINO IR, other formats, report."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from imagesieve.errors import EngineError, OutputError
from imagesieve.files import new_folder
from imagesieve.learning.data.dataset import Dataset, Sample
from imagesieve.learning.export import other_formats, report
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks.network import Network
from imagesieve.learning.openvino import precision_check
from imagesieve.model import golden, versions
from imagesieve.model.decisions import DecisionPolicy

if TYPE_CHECKING:
    from imagesieve.learning.train_run import Trained

_LIBRARIES = ("keras", "tensorflow", "openvino", "nncf", "numpy", "pillow")
_SPARE_BYTES = 50_000_000  # report, manifest, and what the file system itself needs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What a version holds besides the Keras model and the OpenVINO IR."""

    int8_max_drop: float | None = 0.005  # of the validation accuracy, 0 to 1; None for no int8
    formats: tuple[str, ...] = ()  # of `other_formats.FORMATS`


DEFAULT_EXPORT = ExportSettings()


def check_space(model_dir: Path, network: Network, export: ExportSettings = DEFAULT_EXPORT) -> None:
    """Raise an OutputError before the training when its result cannot be stored."""
    bytes_of_a_parameter = 4 * (2 + len(export.formats)) + (export.int8_max_drop is not None)
    wanted = bytes_of_a_parameter * network.model.count_params() + _SPARE_BYTES
    existing = next(
        folder for folder in [model_dir, *model_dir.resolve().parents] if folder.exists()
    )
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        trouble = "may not be written to" if existing.is_dir() else "is a file, not a folder"
        raise OutputError(f"Cannot write to {model_dir}: {existing} {trouble}.")
    free = shutil.disk_usage(existing).free
    if free < wanted:
        raise OutputError(
            f"A model version needs about {wanted / 1e6:.0f} MB in {model_dir}, where "
            f"{free / 1e6:.0f} MB are free: free some space or name another --model-dir."
        )


def save_version(
    trained: "Trained",
    dataset: Dataset,
    policy: DecisionPolicy,
    settings: Mapping[str, Any],
    path: Path,
    *,
    store: FeatureStore,
    parent: versions.ModelVersion | None = None,
    export: ExportSettings = DEFAULT_EXPORT,
) -> versions.ModelVersion:
    """Write a version; it is not made the current one.

    An IR or an export that is not as good as the Keras model is left out, is warned of, and has its
    reason in the manifest's `engines`: the training is worth more than the form it is stored in.

    Args:
        trained: the network, its answers to the validation images and its metrics on them.
        dataset: what it was trained and measured on.
        policy: how its label is chosen.
        settings: of the training, JSON values for the manifest.
        path: the version's folder; must not exist.
        store: has the converted base and features, or will have them.
        parent: the version that was trained further.
        export: what else the version holds.

    Raises:
        DataError: a validation image changed since the data folder was checked.
        OutputError: it could not be written; nothing is left behind.
    """
    _log.info("Writing %s and checking that every engine gives the same answers.", path)
    network = trained.network
    height, width = network.model.input_shape[1:3]
    # A fresh model around the same layers: nothing of the training's state is saved.
    model = keras.Model(network.model.input, network.model.output)
    images = take_golden(model, dataset.validation, trained.probabilities)
    with new_folder(path) as partial:
        golden.write(partial / versions.GOLDEN, images)
        with _disk_errors(path):
            model.save(partial / versions.KERAS_MODEL)
            xml = partial / versions.OPENVINO_MODEL
            check = precision_check.PrecisionCheck(network, dataset, store, images, xml)
            measured = _write_ir(check, export.int8_max_drop)
            measured |= _write_exports(model, partial, dataset, export.formats)
        manifest = versions.Manifest(
            dataset.classes,
            network.backbone.name,
            (height, width),
            policy,
            metrics=trained.metrics.to_json(),
            engines=measured,
            settings=settings,
            data=_describe(dataset),
            libraries=library_versions(),
            parent=parent.name if parent else None,
        )
        report.write(partial / versions.REPORT, path.name, manifest, trained, dataset)
        versions.seal(partial, manifest)
    return versions.load(path)


def take_golden(model: Any, samples: Sequence[Sample], probabilities: np.ndarray) -> golden.Golden:
    """Return the golden images of a version with their answers; see `imagesieve.model.golden`.

    Args:
        model: Keras model from float32 pixels (batch, height, width, 3), 0 to 255.
        samples: for validation.
        probabilities: (samples, classes) of the training, in the order of the samples, to choose
            by. They may come from features in half precision, so the model is asked itself.

    Raises:
        ImageError: an image changed since it was checked.
    """
    chosen = [samples[number] for number in choose_golden(probabilities)]
    pixels = np.stack(precision_check.decode_samples(chosen, model.input_shape[1:3]))
    # Called as it is: a compiled function would take longer to make than it saves. Two at a time,
    # since all that lies between the layers stays in memory until the end of a call.
    answers = [
        np.asarray(model(pixels[start : start + 2].astype(np.float32), training=False))
        for start in range(0, len(pixels), 2)
    ]
    return golden.Golden(pixels, np.concatenate(answers).astype(np.float32))


def choose_golden(probabilities: np.ndarray, count: int = golden.MAX_IMAGES) -> list[int]:
    """Return the numbers of up to `count` images with clear answers, from each class in turn.

    An unclear answer may tip over between two precisions of a sound model; a clear one may not.

    Args:
        probabilities: (images, classes).
        count: how many, if there are as many.
    """
    called = probabilities.argmax(axis=1)
    clearest_first = np.argsort(-probabilities.max(axis=1), kind="stable")
    ranked = [
        (rank, class_index, int(number))
        for class_index in range(probabilities.shape[1])
        for rank, number in enumerate(clearest_first[called[clearest_first] == class_index])
    ]
    return [number for _, _, number in sorted(ranked)[:count]]


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    # HDF5 and OpenVINO report a full disk in exceptions of their own.
    try:
        yield
    except OutputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if shutil.disk_usage(path.parent).free < _SPARE_BYTES:
            raise OutputError(
                f"Cannot write {path}: no space is left on the disk: free some and try again."
            ) from error
        raise


def _write_ir(check: precision_check.PrecisionCheck, int8_max_drop: float | None) -> dict[str, Any]:
    """Write and measure the IR of each precision; leave OpenVINO out if f32 is wrong."""
    try:
        return check.run(int8_max_drop)
    except EngineError as error:
        shutil.rmtree(check.xml.parent, ignore_errors=True)
        _log.warning("The version is without OpenVINO and will be slower to serve: %s", error)
        return {"openvino": {"passed": False, "reason": str(error)}}


def _write_exports(
    model: Any, folder: Path, dataset: Dataset, formats: Sequence[str]
) -> dict[str, Any]:
    """Write each format and compare it with Keras; leave out those that are wrong."""
    if not formats:
        return {}
    samples = dataset.validation[: precision_check.NUM_COMPARED]
    images = np.stack(precision_check.decode_samples(samples, model.input_shape[1:3]))
    measured: dict[str, Any] = {}
    for name in formats:
        try:
            found = other_formats.export(model, folder / versions.EXPORTS, name, images)
            measured[f"export-{name}"] = found
        except EngineError as error:
            _log.warning("The version is without its export: %s", error)
            measured[f"export-{name}"] = {"passed": False, "reason": str(error)}
    return measured


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": dataset.fingerprint(),
        "train": _by_class(dataset, dataset.train),
        "corrections": _by_class(dataset, dataset.corrections),  # which "train" includes
        "validation": _by_class(dataset, dataset.validation),
        "validation_taken_from_train": dataset.split_by_content,
        "left_out": [
            {"path": str(reject.path), "reason": reject.reason} for reject in dataset.rejects
        ],
    }


def _by_class(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, int]:
    return dict(zip(dataset.classes, dataset.counts(samples), strict=True))


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a model is made with."""
    libraries = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return libraries
