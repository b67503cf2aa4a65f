"""The two whole runs: a first training, and a retraining that has to prove itself."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import ModelDamagedError
from imagesieve.images import PIXEL_CONTRACT
from imagesieve.learning import options
from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.export import version_writer
from imagesieve.learning.features import frozen_base
from imagesieve.learning.features.extraction import Extractor
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones, network, random_weights
from imagesieve.learning.networks import weights as weights_files
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import evaluation, stages
from imagesieve.learning.training.stages import Checkpoints, Trained, TrainSettings
from imagesieve.model import engines, versions
from imagesieve.model.decisions import DecisionPolicy

__all__ = [
    "TrainSettings",
    "Trained",
    "build_network",
    "is_not_worse",
    "open_network",
    "save",
    "train",
]

_BATCH_NORM_IMAGES = 256  # enough for steady statistics; more only takes longer
_BATCH_NORM_BATCH = 32  # twice as many would take 3 GB with InceptionV3

_log = logging.getLogger(__name__)


def build_network(
    dataset: Dataset,
    backbone: backbones.Backbone,
    weights: str,
    image_size: tuple[int, int],
    settings: TrainSettings,
    store: FeatureStore,
) -> Network:
    """Build a backbone with an untrained head for the classes of a dataset.

    Args:
        dataset: what it will be trained on.
        backbone: a row of the table.
        weights: `imagenet`, `random`, or a file.
        image_size: (height, width) in pixels.
        settings: the seed is used.
        store: keeps what random weights were fitted to.

    Raises:
        WeightsError: the weights cannot be had or are not for this backbone.
    """
    weights_path = weights_files.find_weights(backbone, weights) if backbone.pretrained else None
    _log.info("Building %s for images of %d×%d.", backbone.name, *image_size)
    built = network.build(
        backbone, len(dataset.classes), image_size, weights_path=weights_path, seed=settings.seed
    )
    if backbone.pretrained and weights_path is None:
        _log.info(
            "The weights are random, fitted to your images in mean and deviation only: expect "
            "a good deal less than from ImageNet weights."
        )
        _fit_random_weights(built, dataset, settings, store)
    return built


def train(
    built: Network,
    dataset: Dataset,
    settings: TrainSettings,
    log_folder: Path,
    *,
    store: FeatureStore,
    checkpoints: Checkpoints = lambda stage: None,
    quiet: bool = False,
) -> Trained:
    """Train a network's head and, if asked for, its top blocks or all of it.

    A network without pretrained weights is trained from pixels on all its layers.

    Args:
        built: the network; what is trained of it is changed in place.
        dataset: what to train and measure on.
        settings: see there.
        log_folder: TensorBoard events go here.
        store: features are taken from it and kept in it.
        checkpoints: give each long fit the file from which it can go on.
        quiet: no progress bar.

    Raises:
        DataError: an image changed since it was checked.
        EngineError: no engine can run the frozen part.
        WeightsError: the frozen part gives numbers that are not finite.
        OutputError: features or checkpoints cannot be kept.
    """
    run = stages.Run(dataset, settings, log_folder, checkpoints, quiet)
    if not built.backbone.pretrained:
        return stages.train_from_scratch(built, run)
    with Extractor(built, store) as extractor:
        extractor.open(run.images(built, dataset.train))
        if not settings.fine_tune_epochs:
            return stages.train_head(built, run, *run.pooled(built, extractor))
        if settings.fine_tune_layers == options.ALL:
            return stages.train_all(built, run, *run.pooled(built, extractor))
        return stages.train_top(built, run, extractor)


def save(
    trained: Trained,
    dataset: Dataset,
    policy: DecisionPolicy,
    options: Mapping[str, Any],
    path: Path,
    *,
    store: FeatureStore,
    parent: versions.ModelVersion | None = None,
    export: version_writer.ExportSettings = version_writer.DEFAULT_EXPORT,
) -> versions.ModelVersion:
    """Write a version of a trained network; it is not made the current one.

    Args:
        trained: what to write.
        dataset: what it was trained and measured on.
        policy: how its label is chosen.
        options: of the script, for the manifest.
        path: of the version; must not exist.
        store: of the training, so that a frozen base is not converted and run again.
        parent: the version that was trained further.
        export: what it holds besides.

    Raises:
        DataError: a validation image changed since the data folder was checked.
        OutputError: it could not be written; nothing is left behind.
    """
    _log.info("Writing %s and checking that every engine gives the same answers.", path)
    height, width = trained.network.model.input_shape[1:3]
    comparison = {"before": trained.before.to_json(), "after": trained.metrics.to_json()}
    return version_writer.save_version(
        trained,
        dataset,
        versions.Manifest(dataset.classes, trained.network.backbone.name, (height, width), policy),
        version_writer.Provenance(
            options,
            [dataclasses.asdict(fit) for fit in trained.fits],
            parent.name if parent else None,
            comparison if parent else None,
        ),
        path,
        store,
        export,
    )


def open_network(version: versions.ModelVersion) -> Network:
    """Load the Keras model of a checked version for further training.

    Raises:
        EngineError: Keras cannot read it.
        ModelDamagedError: it has no Keras model, or none made by this program.
    """
    path = version.file(versions.KERAS_MODEL)
    if path is None:
        raise ModelDamagedError(f"The model version {version.path} has no {versions.KERAS_MODEL}.")
    return Network.of(backbones.find(version.manifest.backbone), engines.load_keras_model(path))


def is_not_worse(
    new: evaluation.Metrics, old: evaluation.Metrics, *, with_corrections: bool = False
) -> bool:
    """Tell whether new metrics may replace old ones that were taken on the same images.

    More right labels decide; with equally many, a log loss that is not higher, or hardly higher
    where corrections were learned from; see `stages.CORRECTED_LOSS`.
    """
    if new.accuracy != old.accuracy:
        return new.accuracy > old.accuracy
    return new.log_loss <= old.log_loss * (stages.CORRECTED_LOSS if with_corrections else 1)


def _fit_random_weights(
    built: Network, dataset: Dataset, settings: TrainSettings, store: FeatureStore
) -> None:
    images = stages.images_of(
        dataset.train, dataset, built.model.input_shape[1:3], settings, augment=False
    )
    chosen = np.random.default_rng(settings.seed).permutation(images.n)[:_BATCH_NORM_IMAGES]
    about = {
        "backbone": built.backbone.name,
        "image_size": list(built.model.input_shape[1:3]),
        "holds": "fitted statistics of random weights",
        "seed": settings.seed,
        "images": _digest([images.sha256s[number] for number in chosen]),
        "pixels": PIXEL_CONTRACT,
        "batch_size": _BATCH_NORM_BATCH,
        "network": frozen_base.network_digest(built.base),
    }
    with store.place(about) as folder:
        random_weights.prepare(built.base, _some_batches(images, chosen), folder)


def _some_batches(images: ImageIterator, chosen: np.ndarray) -> Iterator[np.ndarray]:
    step = min(_BATCH_NORM_BATCH, len(chosen))
    for start in range(0, len(chosen) - len(chosen) % step, step):
        yield np.stack([images.image(int(number), 0) for number in chosen[start : start + step]])


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
