"""A trained network -> a model version: Keras file, OpenVINO IR, proof that they agree, report."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagesieve.errors import EngineError, OutputError
from imagesieve.files import new_folder
from imagesieve.learning.data.dataset import Dataset, Sample
from imagesieve.learning.export import golden_images, other_formats, report
from imagesieve.learning.networks.network import Network
from imagesieve.learning.openvino import convert, precision_check
from imagesieve.learning.training import evaluation
from imagesieve.model import golden as golden_files
from imagesieve.model import versions

_LIBRARIES = ("keras", "tensorflow", "openvino", "nncf", "numpy", "pillow")
_SPARE_BYTES = 50_000_000  # report, manifest, and what the file system itself needs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a version comes from; all of it goes into the manifest.

    Attributes:
        settings: the options of the training.
        fits: one entry for each fit, as JSON values.
        parent: the version that was trained further, or None.
        comparison: old and new metrics on the same images, for a retraining.
    """

    settings: Mapping[str, Any]
    fits: Sequence[Mapping[str, Any]]
    parent: str | None = None
    comparison: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What a version holds besides the Keras model and the OpenVINO IR.

    Attributes:
        int8_max_drop: of the validation accuracy, 0 to 1, for int8 to be served; None for no int8.
        formats: of `other_formats.FORMATS`; see `other_formats.check`.
    """

    int8_max_drop: float | None = 0.005
    formats: tuple[str, ...] = ()


DEFAULT_EXPORT = ExportSettings()


def check_space(model_dir: Path, network: Network, export: ExportSettings = DEFAULT_EXPORT) -> None:
    """Fail before the training when its result cannot be kept.

    Raises:
        OutputError: the disk has too little space left, or the folder cannot be written to.
    """
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
    network: Network,
    dataset: Dataset,
    metrics: evaluation.Metrics,
    probabilities: np.ndarray,
    manifest: versions.Manifest,
    origin: Origin,
    path: Path,
    export: ExportSettings = DEFAULT_EXPORT,
    prepared: precision_check.Prepared | None = None,
) -> versions.ModelVersion:
    """Write a version; it is not made the current one.

    Args:
        network: the trained network.
        dataset: what it was trained and measured on.
        metrics: on `dataset.validation`.
        probabilities: (validation images, classes), of Keras, in the order of the samples.
        manifest: classes, backbone, image size and policy; the rest is filled in here.
        origin: settings and history.
        path: the version's folder; must not exist.
        export: what else it holds. An IR or an export that is not as good as the Keras model is
            left out, is warned of, and has its reason in the manifest's `engines`: the training is
            worth more than the form it is kept in.
        prepared: what is known of the IR already; without it the whole network is converted.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    # A fresh model around the same layers: nothing of the training's state is saved.
    model = keras.Model(network.model.input, network.model.output)
    images = golden_images.take(model, dataset.validation, probabilities)
    with new_folder(path) as partial:
        golden_files.write(partial / versions.GOLDEN, images)
        with _disk_errors(path):
            model.save(partial / versions.KERAS_MODEL)
            measured = _write_ir_and_measure(
                model, partial, dataset, export.int8_max_drop, prepared, images
            )
            measured |= _write_exports(model, partial, dataset, export.formats)
        complete = dataclasses.replace(
            manifest,
            metrics=metrics.to_json(),
            engines=measured,
            settings=dict(origin.settings),
            data=_describe(dataset),
            libraries=library_versions(),
            parent=origin.parent,
        )
        report.write(partial / versions.REPORT, path.name, complete, origin, dataset, probabilities)
        versions.seal(partial, complete)
    return versions.load(path)


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


def _write_ir_and_measure(
    model: Any,
    folder: Path,
    dataset: Dataset,
    int8_max_drop: float | None,
    prepared: precision_check.Prepared | None,
    images: golden_files.Golden,
) -> dict[str, Any]:
    """Write the IR and measure each precision against Keras; leave the IR out if it is wrong."""
    xml = folder / versions.OPENVINO_MODEL
    try:
        if prepared:
            convert.write_with_head(prepared.f32, prepared.head, xml)
        else:
            convert.write_ir(model, xml)
        return precision_check.measure(
            images, xml, dataset.validation, dataset.train, int8_max_drop, prepared
        )
    except EngineError as error:
        shutil.rmtree(xml.parent, ignore_errors=True)
        _log.warning("The version is without OpenVINO and will be slower to serve: %s", error)
        return {"openvino": {"passed": False, "reason": str(error)}}


def _write_exports(
    model: Any, folder: Path, dataset: Dataset, formats: Sequence[str]
) -> dict[str, Any]:
    """Write each format and prove it against Keras; leave out those that are wrong."""
    if not formats:
        return {}
    samples = dataset.validation[: precision_check.NUM_COMPARED]
    images = np.stack(precision_check.decode_samples(samples, model.input_shape[1:3]))
    measured: dict[str, Any] = {}
    for name in formats:
        try:
            found = other_formats.export(model, folder / versions.EXPORTS, [name], images)
            measured[f"export-{name}"] = found[name]
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
    """Give the versions of the libraries that a model is made with."""
    libraries = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return libraries
