"""The two whole runs: a first training, and a retraining that has to prove itself."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifier import bundle, console
from classifier.decisions import DecisionPolicy
from classifier.errors import EngineError, ModelDamagedError
from classifier.learning import backbones, evaluation, network, random_weights, saving, training
from classifier.learning import weights as weights_files
from classifier.learning.dataset import Dataset, Sample
from classifier.learning.features import Features, extract
from classifier.learning.generator import FIRST_GENERATION, ImageDataGenerator, PictureIterator
from classifier.learning.network import Network

_BATCH_NORM_IMAGES = 256  # enough for steady statistics; more only takes longer
_FINE_TUNE_RATE = 0.1  # of the head's learning rate: the top blocks must not forget

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Options of a training; all are stored in the manifest.

    Attributes:
        epochs: at most, of the head (or of the whole network when it has no pretrained part).
        fine_tune_epochs: at most, of the blocks above the backbone's cut; 0 leaves them frozen.
        learning_rate: peak of the head's schedule.
        batch_size: pictures in a step.
        views: how each picture enters the training: 1 as it is, more with augmented views.
        seed: of everything that chance decides.
        is_further: whether the network was trained before; its standardisation is then kept.
    """

    epochs: int = 20
    fine_tune_epochs: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 32
    views: int = 2
    seed: int = 0
    is_further: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network after its training, with what it says of the validation pictures.

    Attributes:
        network: the trained network.
        probabilities: (validation pictures, classes).
        metrics: on the validation pictures.
        before: the same before the training.
        fits: what came of each fit.
    """

    network: Network
    probabilities: np.ndarray
    metrics: evaluation.Metrics
    before: evaluation.Metrics
    fits: list[training.Fit]


def build_network(
    dataset: Dataset,
    backbone: backbones.Backbone,
    weights: str,
    image_size: tuple[int, int],
    settings: TrainSettings,
) -> Network:
    """Build a backbone with an untrained head for the classes of a dataset.

    Args:
        dataset: what it will be trained on.
        backbone: a row of the table.
        weights: `imagenet`, `random`, or a file.
        image_size: (height, width) in pixels.
        settings: the seed is used.

    Raises:
        WeightsError: the weights cannot be had or are not for this backbone.
    """
    weights_path = weights_files.find_weights(backbone, weights) if backbone.pretrained else None
    _log.info("Building %s for pictures of %d×%d.", backbone.name, *image_size)
    built = network.build(
        backbone, len(dataset.classes), image_size, weights_path=weights_path, seed=settings.seed
    )
    if backbone.pretrained and weights_path is None:
        _log.info(
            "The weights are random, fitted to your pictures in mean and deviation only: expect "
            "clearly less than with ImageNet weights."
        )
        pictures = _pictures(dataset.train, dataset, image_size, settings, augment=False)
        random_weights.prepare(built.base, _some_batches(pictures, settings.seed))
    return built


def train(
    built: Network, dataset: Dataset, settings: TrainSettings, log_folder: Path, *, quiet: bool
) -> Trained:
    """Train a network's head and, if asked for, its top blocks.

    A network without pretrained weights is trained from pixels on all its layers.

    Raises:
        DataError: a picture changed since it was checked.
    """
    if not built.backbone.pretrained:
        return _train_from_scratch(built, dataset, settings, log_folder)
    if settings.fine_tune_epochs:
        return _train_top(built, dataset, settings, log_folder, quiet=quiet)
    train_features = _extract(built.base, dataset.train, dataset, settings, quiet=quiet)
    validation = _extract(built.base, dataset.validation, dataset, settings, quiet=quiet, views=1)
    return _train_head(built, dataset, train_features, validation, settings, log_folder)


def save(
    trained: Trained,
    dataset: Dataset,
    policy: DecisionPolicy,
    options: Mapping[str, Any],
    path: Path,
    *,
    parent: bundle.ModelVersion | None = None,
) -> bundle.ModelVersion:
    """Write a version of a trained network; it is not made the current one.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    _log.info("Writing %s and checking that every engine gives the same answers.", path)
    height, width = trained.network.model.input_shape[1:3]
    comparison = {"before": trained.before.to_json(), "after": trained.metrics.to_json()}
    return saving.save_version(
        trained.network,
        dataset,
        trained.metrics,
        trained.probabilities,
        bundle.Manifest(dataset.classes, trained.network.backbone.name, (height, width), policy),
        saving.Origin(
            options,
            [dataclasses.asdict(fit) for fit in trained.fits],
            parent.name if parent else None,
            comparison if parent else None,
        ),
        path,
    )


def open_network(version: bundle.ModelVersion) -> Network:
    """Load the Keras model of a checked version for further training.

    Raises:
        EngineError: Keras cannot read it.
        ModelDamagedError: it has no Keras model, or none made by this program.
    """
    import keras

    path = version.file(bundle.KERAS_MODEL)
    if path is None:
        raise ModelDamagedError(f"The model version {version.path} has no {bundle.KERAS_MODEL}.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers and HDF5 raise
        raise EngineError(f"Keras cannot load {path}: {error}") from error
    return Network.of(backbones.find(version.manifest.backbone), model)


def is_not_worse(new: evaluation.Metrics, old: evaluation.Metrics) -> bool:
    """Tell whether new metrics may replace old ones that were taken on the same pictures.

    More right labels decide; with equally many, a log loss that is not higher.
    """
    if new.accuracy != old.accuracy:
        return new.accuracy > old.accuracy
    return new.log_loss <= old.log_loss


def _train_head(
    built: Network,
    dataset: Dataset,
    train_features: Features,
    validation: Features,
    settings: TrainSettings,
    log_folder: Path,
) -> Trained:
    before = _judge(built.head, dataset, validation)
    if not settings.is_further:
        built.standardise(np.asarray(train_features.values))
    fit = training.train_head(
        built, train_features, validation, _fit_settings(settings, log_folder)
    )
    return _trained(built, built.head, dataset, validation, before, [fit])


def _train_top(
    built: Network, dataset: Dataset, settings: TrainSettings, log_folder: Path, *, quiet: bool
) -> Trained:
    lower, upper_base = built.lower(), built.upper_base()
    maps = _extract(lower, dataset.train, dataset, settings, quiet=quiet, scratch=log_folder)
    validation_maps = _extract(
        lower, dataset.validation, dataset, settings, quiet=quiet, views=1, scratch=log_folder
    )
    # The pooled features come from the maps, so the frozen blocks below run only once.
    pooled = _pool(upper_base, maps)
    validation = _pool(upper_base, validation_maps)
    head = _train_head(built, dataset, pooled, validation, settings, log_folder)
    fit_settings = dataclasses.replace(
        _fit_settings(settings, log_folder),
        epochs=settings.fine_tune_epochs,
        learning_rate=settings.learning_rate * _FINE_TUNE_RATE,
    )
    fit = training.fine_tune(built, maps, validation_maps, fit_settings)
    _log.info(_verdict(head.fits[0], fit))
    fits = [*head.fits, fit]
    return _trained(built, built.upper(), dataset, validation_maps, head.before, fits)


def _train_from_scratch(
    built: Network, dataset: Dataset, settings: TrainSettings, log_folder: Path
) -> Trained:
    size = built.model.input_shape[1:3]
    train_pictures = _pictures(dataset.train, dataset, size, settings, augment=True)
    validation = _pictures(dataset.validation, dataset, size, settings, augment=False)
    before = _judge_pictures(built, dataset, validation)[0]
    fit = training.train_from_scratch(
        built, train_pictures, validation, _fit_settings(settings, log_folder)
    )
    metrics, probabilities = _judge_pictures(built, dataset, validation)
    return Trained(built, probabilities, metrics, before, [fit])


def _extract(
    part: Any,
    samples: tuple[Sample, ...],
    dataset: Dataset,
    settings: TrainSettings,
    *,
    quiet: bool,
    views: int | None = None,
    scratch: Path | None = None,
) -> Features:
    pictures = _pictures(samples, dataset, part.input_shape[1:3], settings, augment=False)
    views = settings.views if views is None else views
    what = f"features of {pictures.n} pictures" + (f" in {views} views" if views > 1 else "")
    with console.progress(what, views * pictures.n, quiet=quiet) as advance:
        return extract(part, pictures, views, advance=advance, scratch=scratch)


def _pictures(
    samples: tuple[Sample, ...],
    dataset: Dataset,
    image_size: tuple[int, int],
    settings: TrainSettings,
    *,
    augment: bool,
) -> PictureIterator:
    return ImageDataGenerator(**FIRST_GENERATION).flow_from_samples(
        samples,
        dataset.classes,
        image_size=image_size,
        batch_size=settings.batch_size,
        shuffle=augment,
        seed=settings.seed,
        augment=augment,
    )


def _some_batches(pictures: PictureIterator, seed: int) -> list[np.ndarray]:
    chosen = np.random.default_rng(seed).permutation(pictures.n)[:_BATCH_NORM_IMAGES]
    step = min(64, len(chosen))
    return [
        np.stack([pictures.picture(int(number), 0) for number in chosen[start : start + step]])
        for start in range(0, len(chosen) - len(chosen) % step, step)
    ]


def _pool(upper_base: Any, maps: Features) -> Features:
    values = [training.probabilities(upper_base, maps, view) for view in range(maps.num_views)]
    return Features(np.stack(values), maps.labels)


def _fit_settings(settings: TrainSettings, log_folder: Path) -> training.FitSettings:
    return training.FitSettings(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=settings.seed,
        log_folder=log_folder,
    )


def _judge(head: Any, dataset: Dataset, validation: Features) -> evaluation.Metrics:
    found = training.probabilities(head, validation)
    return evaluation.evaluate(dataset.classes, validation.labels, found)


def _judge_pictures(
    built: Network, dataset: Dataset, pictures: PictureIterator
) -> tuple[evaluation.Metrics, np.ndarray]:
    found = np.asarray(extract(built.model, pictures, 1).values)[0]
    return evaluation.evaluate(dataset.classes, pictures.classes, found), found


def _trained(
    built: Network,
    part: Any,
    dataset: Dataset,
    validation: Features,
    before: evaluation.Metrics,
    fits: list[training.Fit],
) -> Trained:
    found = training.probabilities(part, validation)
    metrics = evaluation.evaluate(dataset.classes, validation.labels, found)
    return Trained(built, found, metrics, before, fits)


def _verdict(head: training.Fit, top: training.Fit) -> str:
    if top.best_epoch == 0:
        return "Fine-tuning brought no lower validation loss: the head alone is kept."
    return (
        f"Fine-tuning lowered the validation loss from {head.validation_loss:.4f} to "
        f"{top.validation_loss:.4f}: it is kept."
    )
