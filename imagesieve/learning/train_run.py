"""A whole run, a first training or a retraining: network, head, fine-tuning, the new version."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import ModelDamagedError
from imagesieve.learning import options
from imagesieve.learning.data.dataset import Dataset, Sample, decode_samples
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features import extraction
from imagesieve.learning.features.store import Features, FeatureStore
from imagesieve.learning.networks import backbones, network, random_weights
from imagesieve.learning.networks import weights as weights_files
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import evaluation, fine_tuning
from imagesieve.learning.training import head as logistic_head
from imagesieve.learning.training.checkpoints import Checkpoint, FitProgress
from imagesieve.learning.training.fit import Batches, FitSettings, fit, in_order, probabilities
from imagesieve.model import engines, versions

_BATCH_NORM_IMAGES = 256  # enough for steady statistics; more only takes longer
_BATCH_NORM_BATCH = 32  # twice as many would take 3 GB with InceptionV3

# Corrections are the hardest images: a network that learned from them is less sure of all others.
# That may cost this much log loss if it costs no label.
_CORRECTED_LOSS = 1.1

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Options of a training; all are stored in the manifest."""

    epochs: int = 20  # at most, of a dense head (or of a network without pretrained part)
    fine_tune_epochs: int = 0  # at most, of the layers below; 0 leaves the backbone frozen
    learning_rate: float = 1e-3  # peak of the schedule of a dense head and of fine-tuning
    batch_size: int = 32  # images in a step
    views: int = 2  # how each image enters the training: 1 as it is, more with augmented views
    seed: int = 0  # of everything that chance decides
    is_further: bool = False  # was the network trained before? Its standardisation is then kept
    # `top` for the blocks above the backbone's cut, `all` for the whole network.
    fine_tune_layers: str = options.TOP
    # `logistic` or `dense` (512 units, as in the first generation); a network that was trained
    # before keeps its kind.
    head: str = options.LOGISTIC


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network after its training, with its metrics on the validation images."""

    network: Network
    probabilities: np.ndarray  # (validation images, classes)
    metrics: evaluation.Metrics
    before: evaluation.Metrics  # the same before the training
    fits: list[FitProgress]
    # (training images, classes) of a logistic head; see `LogisticHead`.
    out_of_fold: np.ndarray | None = None


def build_network(
    dataset: Dataset,
    backbone: backbones.Backbone,
    weights: str,
    image_size: tuple[int, int],
    seed: int,
) -> Network:
    """Build a backbone with an untrained head for the classes of a dataset.

    For `weights` see `find_weights`, which raises a WeightsError; random ones are fitted to the
    dataset's images.
    """
    weights_path = weights_files.find_weights(backbone, weights) if backbone.pretrained else None
    _log.info("Building %s for images of %d×%d.", backbone.name, *image_size)
    built = network.build(
        backbone, len(dataset.classes), image_size, weights_path=weights_path, seed=seed
    )
    if backbone.pretrained and weights_path is None:
        _log.info("The weights are random: expect a good deal less than from ImageNet weights.")
        samples = np.random.default_rng(seed).permutation(len(dataset.train))[:_BATCH_NORM_IMAGES]
        _fit_random_weights(built, [dataset.train[number] for number in samples])
    return built


def train(
    built: Network,
    dataset: Dataset,
    settings: TrainSettings,
    log_folder: Path,
    *,
    store: FeatureStore,
    checkpoint: Checkpoint | None = None,
    quiet: bool = False,
) -> Trained:
    """Train a network's head and, if asked for, its top blocks or all of it, in place.

    A network without pretrained weights is trained from pixels on all its layers. TensorBoard
    events go to `log_folder`, features into the store; the one long fit goes on from `checkpoint`.

    Raises:
        DataError: an image changed since it was checked.
        EngineError: no engine can run the frozen part.
        WeightsError: the frozen part gives numbers that are not finite.
        OutputError: features or checkpoints cannot be kept.
    """
    run = _Run(built, dataset, settings, log_folder, checkpoint)
    if not built.backbone.pretrained:
        return _train_from_scratch(run)
    images, validation_images = run.images(dataset.train), run.images(dataset.validation)
    fit_settings = run.fit_settings(settings.fine_tune_epochs)
    with extraction.opened(built, store, images, quiet=quiet) as extractor:
        if settings.fine_tune_epochs and settings.fine_tune_layers == options.TOP:
            maps, pooled = extractor.maps(images, settings.views)
            validation_maps, validation = extractor.maps(validation_images, 1)
            head = _train_head(run, pooled, validation)
            tuned = fine_tuning.fine_tune(head.network, maps, validation_maps, fit_settings)
            return _better(run, head, tuned, head.network.upper(), in_order(validation_maps))
        pooled = extractor.pooled(images, settings.views, from_maps=True)
        head = _train_head(run, pooled, extractor.pooled(validation_images, 1))
    if not settings.fine_tune_epochs:
        return head
    images = run.images(dataset.train, augment=True)
    tuned = fine_tuning.fine_tune_all(head.network, images, validation_images, fit_settings)
    return _better(run, head, tuned, head.network.model, validation_images)


def open_network(version: versions.ModelVersion) -> Network:
    """Load the Keras model of a checked version for further training."""
    path = version.file(versions.KERAS_MODEL)
    if path is None:
        raise ModelDamagedError(f"The model version {version.path} has no {versions.KERAS_MODEL}.")
    return Network.of(backbones.find(version.manifest.backbone), engines.load_keras_model(path))


def is_not_worse(
    new: evaluation.Metrics, old: evaluation.Metrics, *, with_corrections: bool = False
) -> bool:
    """Return whether new metrics may replace old ones that were taken on the same images.

    More right labels decide; with equally many, a log loss that is not higher, or hardly higher
    where corrections were learned from; see `_CORRECTED_LOSS`.
    """
    if new.accuracy != old.accuracy:
        return new.accuracy > old.accuracy
    return new.log_loss <= old.log_loss * (_CORRECTED_LOSS if with_corrections else 1)


def _fit_random_weights(built: Network, samples: Sequence[Sample]) -> None:
    step = min(_BATCH_NORM_BATCH, len(samples))
    starts = range(0, len(samples) - len(samples) % step, step)
    batches = (decode_samples(samples[start : start + step], built.image_size) for start in starts)
    random_weights.prepare(built.base, map(np.stack, batches))


@dataclasses.dataclass(frozen=True)
class _Run:
    """The arguments of `train` that its steps share."""

    built: Network
    dataset: Dataset
    settings: TrainSettings
    log_folder: Path
    checkpoint: Checkpoint | None

    def images(self, samples: Sequence[Sample], *, augment: bool = False) -> ImageIterator:
        """Feed samples, augmented and shuffled as in the first generation or as they are."""
        return ImageIterator(
            ImageDataGenerator(**FIRST_GENERATION),
            samples,
            self.dataset.classes,
            image_size=self.built.image_size,
            batch_size=self.settings.batch_size,
            shuffle=augment,
            seed=self.settings.seed,
            augment=augment,
        )

    def fit_settings(self, epochs: int) -> FitSettings:
        values = (self.settings.learning_rate, self.settings.batch_size, self.settings.seed)
        return FitSettings(epochs, *values, self.log_folder, self.checkpoint)

    def measured(
        self,
        trained: Network,
        part: Any,
        validation: Batches,
        before: evaluation.Metrics | None = None,
        fits: Sequence[FitProgress] = (),
    ) -> Trained:
        """Evaluate a network by what a part of it gives for the validation images."""
        found = probabilities(part, validation)
        metrics = evaluation.evaluate(self.dataset.classes, validation.labels, found)
        return Trained(trained, found, metrics, before or metrics, list(fits))


def _train_head(run: _Run, pooled: Features, validation: Features) -> Trained:
    """Train the head on pooled features; a logistic one comes in a network of its own."""
    built, settings = run.built, run.settings
    before = run.measured(built, built.head, in_order(validation))
    if not settings.is_further:
        built.standardise(np.asarray(pooled.values, dtype=np.float32))
    if built.is_logistic if settings.is_further else settings.head == options.LOGISTIC:
        return _regress(run, pooled, validation, before)
    # It takes seconds, which is less than keeping its state would.
    fit_settings = dataclasses.replace(run.fit_settings(settings.epochs), checkpoint=None)
    outcome = fine_tuning.train_dense_head(built, pooled, validation, fit_settings)
    return run.measured(built, built.head, in_order(validation), before.metrics, [outcome])


def _regress(run: _Run, pooled: Features, validation: Features, before: Trained) -> Trained:
    regressed, head = logistic_head.train_head(
        run.built, pooled, seed=run.settings.seed, groups=run.dataset.groups
    )
    _log.info(
        "head: logistic regression, L2 strength %g, out-of-fold log loss %.4f, %.1f s",
        *(head.l2, head.log_losses[head.l2], head.seconds),
    )
    after = run.measured(regressed, regressed.head, in_order(validation), before.metrics)
    history = {
        "l2": list(head.log_losses),
        "out_of_fold_loss": list(head.log_losses.values()),
        "chosen_l2": [head.l2],
        "val_loss": [after.metrics.log_loss],
        "val_accuracy": [after.metrics.accuracy],
    }
    # A retraining without anything new ends in the same regression as before.
    is_better = not run.settings.is_further or _is_better(
        after.metrics, before.metrics, run.dataset
    )
    if not is_better:
        losses = (before.metrics.log_loss, after.metrics.log_loss)
        _log.info("head: stays as it was (loss %.4f); the regression (%.4f) is no better", *losses)
    chosen = dataclasses.replace(after, out_of_fold=head.out_of_fold) if is_better else before
    outcome = FitProgress("head", history, int(is_better), chosen.metrics.log_loss, [head.seconds])
    return dataclasses.replace(chosen, fits=[outcome])


def _train_from_scratch(run: _Run) -> Trained:
    """Train every layer on pixels, with a fresh augmentation of each image in each epoch."""
    images = run.images(run.dataset.train, augment=True)
    validation = run.images(run.dataset.validation)
    before = run.measured(run.built, run.built.model, validation)
    settings = run.fit_settings(run.settings.epochs)
    outcome = fit("network", run.built.model, images, validation, settings)
    return run.measured(run.built, run.built.model, validation, before.metrics, [outcome])


def _is_better(after: evaluation.Metrics, before: evaluation.Metrics, dataset: Dataset) -> bool:
    """Return whether a regression replaces the head that was trained before.

    Where there are corrections, right labels decide, as they do for promotion.
    """
    if not dataset.corrections:
        return after.log_loss < before.log_loss
    # The same corrections once more end in the same regression, which is not better.
    return after != before and is_not_worse(after, before, with_corrections=True)


def _better(
    run: _Run, head: Trained, tuned: FitProgress, part: Any, validation: Batches
) -> Trained:
    """Evaluate the fine-tuned network, which is the head's if fine-tuning was in vain."""
    _log.info(
        "Fine-tuning %s the validation loss, which was %.4f with the head alone (%.4f at best): "
        "%s is kept.",
        "lowered" if tuned.best_epoch else "did not lower",
        head.fits[-1].validation_loss,
        tuned.validation_loss if tuned.best_epoch else min(tuned.history["val_loss"]),
        "it" if tuned.best_epoch else "the head alone",
    )
    return run.measured(head.network, part, validation, head.before, [*head.fits, tuned])
