"""A trained network -> a model version: Keras file, OpenVINO IR, other formats, report."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
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
from imagesieve.learning.data.dataset import Dataset, Sample, decode_samples
from imagesieve.learning.export import other_formats, report
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks.network import Network
from imagesieve.learning.openvino import precision_check
from imagesieve.learning.train_run import Trained
from imagesieve.model import golden, versions
from imagesieve.model.decisions import DecisionPolicy

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
    existing = next(x for x in [model_dir, *model_dir.resolve().parents] if x.exists())
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
    trained: Trained,
    dataset: Dataset,
    policy: DecisionPolicy,
    settings: Mapping[str, Any],
    path: Path,
    *,
    store: FeatureStore,
    parent: versions.ModelVersion | None = None,
    export: ExportSettings = DEFAULT_EXPORT,
) -> versions.ModelVersion:
    """Write a version, which must not exist; it is not made the current one.

    An IR or an export that is not as good as the Keras model is left out, is warned of, and has its
    reason in the manifest's `engines`: the training is worth more than the form it is stored in.
    The settings of the training are JSON values for the manifest. An OutputError is raised if it
    could not be written; nothing is left behind.
    """
    _log.info("Writing %s and checking that every engine gives the same answers.", path)
    network = trained.network
    # A fresh model around the same layers: nothing of the training's state is saved.
    model = keras.Model(network.model.input, network.model.output)
    golden_images = _golden_images(model, dataset.validation, trained.probabilities)
    with new_folder(path) as partial:
        golden.write(partial / versions.GOLDEN, golden_images)
        with _disk_errors(path):
            model.save(partial / versions.KERAS_MODEL)
            xml = partial / versions.OPENVINO_MODEL
            check = precision_check.PrecisionCheck(network, dataset, store, golden_images, xml)
            measured = _write_ir(check, export.int8_max_drop)
            measured |= _write_exports(model, partial, golden_images.pixels, export.formats)
        manifest = versions.Manifest(
            dataset.classes,
            network.backbone.name,
            model.input_shape[1:3],
            policy,
            metrics=dataclasses.asdict(trained.metrics),
            engines=measured,
            settings=settings,
            data=_describe(dataset),
            libraries=library_versions(),
            parent=parent.name if parent else None,
        )
        report.write(partial / versions.REPORT, path.name, manifest, trained, dataset)
        versions.seal(partial, manifest)
    return versions.load(path)


def _golden_images(
    model: Any, samples: Sequence[Sample], probabilities: np.ndarray
) -> golden.Golden:
    """Return images to check every engine with, chosen by the training's `probabilities`."""
    # Those may come from features in half precision, so the model is asked itself.
    chosen = [samples[number] for number in choose_golden(probabilities)]
    pixels = np.stack(decode_samples(chosen, model.input_shape[1:3]))
    # Called as it is: a compiled function would take longer to make than it saves. Two at a time,
    # since all that lies between the layers stays in memory until the end of a call.
    answers = [
        np.asarray(model(pixels[start : start + 2].astype(np.float32), training=False))
        for start in range(0, len(pixels), 2)
    ]
    return golden.Golden(pixels, np.concatenate(answers).astype(np.float32))


def choose_golden(probabilities: np.ndarray) -> list[int]:
    """Return the numbers of up to `MAX_IMAGES` images with clear answers, of each class in turn.

    An unclear answer may tip over between two precisions of a sound model; a clear one may not.
    `probabilities` are (images, classes).
    """
    called = probabilities.argmax(axis=1)
    clearest_first = np.argsort(-probabilities.max(axis=1), kind="stable")
    by_class = [clearest_first[called[clearest_first] == index] for index in np.unique(called)]
    turns = itertools.chain(*itertools.zip_longest(*by_class))
    return [int(number) for number in turns if number is not None][: golden.MAX_IMAGES]


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    # HDF5 and OpenVINO report a full disk in exceptions of their own.
    try:
        yield
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
    model: Any, folder: Path, images: np.ndarray, formats: Sequence[str]
) -> dict[str, Any]:
    """Write each format and compare it with Keras; leave out those that are wrong."""
    measured: dict[str, Any] = {}
    for name in formats:
        try:
            found = other_formats.export(model, folder / versions.EXPORTS, name, images)
        except EngineError as error:
            _log.warning("The version is without its export: %s", error)
            found = {"passed": False, "reason": str(error)}
        measured[f"export-{name}"] = found
    return measured


def _describe(dataset: Dataset) -> dict[str, Any]:
    def by_class(samples: Sequence[Sample]) -> dict[str, int]:
        return dict(zip(dataset.classes, dataset.counts(samples), strict=True))

    return {
        "fingerprint": dataset.digest(),
        "train": by_class(dataset.train),
        "corrections": by_class(dataset.corrections),  # which "train" includes
        "validation": by_class(dataset.validation),
        "validation_taken_from_train": dataset.split_by_content,
        "left_out": [{"path": str(x), "reason": reason} for x, reason in dataset.rejects.items()],
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a model is made with."""
    libraries = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return libraries
