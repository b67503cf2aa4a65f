"""A trained network -> a model version: Keras file, OpenVINO IR, proof that they agree, report."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from classifier import bundle, engines, images
from classifier.errors import EngineError, OutputError
from classifier.files import new_folder
from classifier.learning import evaluation, report
from classifier.learning.dataset import Dataset, Sample
from classifier.learning.network import Network

MAX_DIFFERENCE = 1e-3  # of a probability, between Keras and OpenVINO in f32
MAX_ACCURACY_DROP = 0.005  # of bf16 against f32
_NUM_COMPARED = 16  # pictures that Keras judges too
_MAX_GATE_IMAGES = 500  # more would not change the verdict and cost minutes on a large network
_LIBRARIES = ("keras", "tensorflow", "openvino", "numpy", "pillow")
_SPARE_BYTES = 50_000_000  # report, manifest, and what the file system itself needs

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a version comes from; all of it goes into the manifest.

    Attributes:
        settings: the options of the training.
        fits: one entry for each fit, as JSON values.
        parent: the version that was trained further, or None.
        comparison: old and new metrics on the same pictures, for a retraining.
    """

    settings: Mapping[str, Any]
    fits: Sequence[Mapping[str, Any]]
    parent: str | None = None
    comparison: Mapping[str, Any] | None = None


def check_space(model_dir: Path, network: Network) -> None:
    """Fail before the training when its result cannot be kept.

    Raises:
        OutputError: the disk has too little space left, or the folder cannot be written to.
    """
    wanted = 2 * 4 * network.model.count_params() + _SPARE_BYTES
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
    manifest: bundle.Manifest,
    origin: Origin,
    path: Path,
) -> bundle.ModelVersion:
    """Write a version; it is not made the current one.

    Args:
        network: the trained network.
        dataset: what it was trained and measured on.
        metrics: on `dataset.validation`.
        probabilities: (validation pictures, classes), of Keras, in the order of the samples.
        manifest: classes, backbone, image size and policy; the rest is filled in here.
        origin: settings and history.
        path: the version's folder; must not exist.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    with new_folder(path) as partial:
        # A fresh model around the same layers: nothing of the training's state is saved.
        model = keras.Model(network.model.input, network.model.output)
        with _disk_errors(path):
            model.save(partial / bundle.KERAS_MODEL)
            measured = _export(model, partial, dataset.validation)
        complete = dataclasses.replace(
            manifest,
            metrics=metrics.to_json(),
            engines=measured,
            settings=dict(origin.settings),
            data=_describe(dataset),
            libraries=_library_versions(),
            parent=origin.parent,
        )
        report.write(partial / bundle.REPORT, path.name, complete, origin, dataset, probabilities)
        bundle.seal(partial, complete)
    return bundle.load(path)


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


def _export(model: Any, folder: Path, validation: Sequence[Sample]) -> dict[str, Any]:
    """Write the IR and measure each precision against Keras; leave the IR out if it is wrong."""
    xml = folder / bundle.OPENVINO_MODEL
    try:
        write_ir(model, xml)
        chosen = np.linspace(0, len(validation) - 1, min(len(validation), _MAX_GATE_IMAGES))
        numbers = np.unique(chosen.astype(int))
        return _measure(model, xml, [validation[number] for number in numbers])
    except EngineError as error:
        shutil.rmtree(xml.parent, ignore_errors=True)
        _log.warning("The version is without OpenVINO and will be slower to serve: %s", error)
        return {"openvino": {"passed": False, "reason": str(error)}}


def write_ir(model: Any, xml: Path) -> None:
    """Write a Keras model as OpenVINO IR, weights in single precision.

    By way of a SavedModel: what Keras calls its OpenVINO export goes through a converter that, in
    OpenVINO 2026.4, fails on Python 3.13 (it deletes a name that `exec` no longer leaves behind).

    Args:
        model: any Keras model.
        xml: the file to write; its `.bin` comes beside it. The folder is made.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    openvino = engines.import_openvino()
    xml.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saved-model-", dir=xml.parent) as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        # `save_model` would halve the weights' precision unless told not to.
        openvino.save_model(openvino.Core().read_model(folder), xml, compress_to_fp16=False)


def _measure(model: Any, xml: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    f32 = _probabilities(engines.OpenVINOEngine(xml, "f32"), samples)
    keras_too = _probabilities(engines.KerasEngine(model), samples[:_NUM_COMPARED])
    difference = float(np.abs(f32[:_NUM_COMPARED] - keras_too).max())
    if not difference <= MAX_DIFFERENCE:
        raise EngineError(
            f"OpenVINO's probabilities differ from Keras's by up to {difference:.4f}, more than "
            f"{MAX_DIFFERENCE}"
        )
    measured: dict[str, Any] = {
        "openvino-f32": {"passed": True, "max_difference_to_keras": difference}
    }
    if engines.cpu_has_bf16():
        measured["openvino-bf16"] = _gate_bf16(xml, samples, f32)
    else:
        measured["openvino-bf16"] = {"passed": False, "reason": "this CPU has no bfloat16"}
    return measured


def _gate_bf16(xml: Path, samples: Sequence[Sample], f32: np.ndarray) -> dict[str, Any]:
    labels = np.array([sample.class_index for sample in samples])
    bf16 = _probabilities(engines.OpenVINOEngine(xml, "bf16"), samples)
    drop = float((f32.argmax(1) == labels).mean() - (bf16.argmax(1) == labels).mean())
    result: dict[str, Any] = {
        "passed": drop <= MAX_ACCURACY_DROP,
        "accuracy_drop": drop,
        "agreement": float((f32.argmax(1) == bf16.argmax(1)).mean()),
        "max_difference_to_f32": float(np.abs(bf16 - f32).max()),
        "num_images": len(samples),
    }
    if not result["passed"]:
        result["reason"] = f"it loses {100 * drop:.1f} points of accuracy"
    return result


def _probabilities(engine: engines.Engine, samples: Sequence[Sample]) -> np.ndarray:
    def judge(sample: Sample) -> np.ndarray:
        pixels = images.decode(sample.path, image_size=engine.image_size).pixels
        return np.asarray(engine.run(pixels[np.newaxis])[0])

    with concurrent.futures.ThreadPoolExecutor(engine.num_streams + 1) as pool:
        return np.stack(list(pool.map(judge, samples)))


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": dataset.fingerprint(),
        "train": dict(zip(dataset.classes, dataset.counts(dataset.train), strict=True)),
        "validation": dict(zip(dataset.classes, dataset.counts(dataset.validation), strict=True)),
        "validation_taken_from_train": dataset.split_by_content,
        "left_out": [
            {"path": str(reject.path), "reason": reject.reason} for reject in dataset.rejects
        ],
    }


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
