"""A whole run, a first training or a retraining: network, head, fine-tuning, the new version."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imagesieve import console
from imagesieve.errors import ModelDamagedError
from imagesieve.images import PIXEL_CONTRACT
from imagesieve.learning import options
from imagesieve.learning.data.dataset import Dataset, Sample
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features import frozen_base
from imagesieve.learning.features.batches import Features, extract
from imagesieve.learning.features.extraction import Extractor
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks import backbones, network, random_weights
from imagesieve.learning.networks import weights as weights_files
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import evaluation, fine_tuning
from imagesieve.learning.training import head as logistic_head
from imagesieve.learning.training.checkpoints import Checkpoint
from imagesieve.learning.training.fit import Fit, FitSettings
from imagesieve.model import engines, versions

_BATCH_NORM_IMAGES = 256  # enough for steady statistics; more only takes longer
_BATCH_NORM_BATCH = 32  # twice as many would take 3 GB with InceptionV3

# Corrections are the hardest images: a network that learned from them is less sure of all others.
# That may cost this much log loss if it costs no label.
_CORRECTED_LOSS = 1.1

Checkpoints = Callable[[str], Checkpoint | None]  # the name of a fit -> where its state is saved
_Extracted = TypeVar("_Extracted")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Options of a training; all are stored in the manifest.

    Attributes:
        epochs: at most, of a dense head (or of a network without pretrained part).
        fine_tune_epochs: at most, of the blocks above the backbone's cut; 0 leaves them frozen.
        learning_rate: peak of the schedule of a dense head and of fine-tuning.
        batch_size: images in a step.
        views: how each image enters the training: 1 as it is, more with augmented views.
        seed: of everything that chance decides.
        is_further: whether the network was trained before; its standardisation is then kept.
        head: `logistic` (regression, which converges) or `dense` (512 units, as in the first
            generation); a network that was trained before keeps its kind.
        fine_tune_layers: `top` for the blocks above the cut, `all` for the whole network.
    """

    epochs: int = 20
    fine_tune_epochs: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 32
    views: int = 2
    seed: int = 0
    is_further: bool = False
    fine_tune_layers: str = options.TOP
    head: str = options.LOGISTIC


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network after its training, with its metrics on the validation images.

    Attributes:
        network: the trained network.
        probabilities: (validation images, classes).
        metrics: on the validation images.
        before: the same before the training.
        fits: the outcome of each fit.
        out_of_fold: (training images, classes) of a logistic head; see `LogisticHead`.
    """

    network: Network
    probabilities: np.ndarray
    metrics: evaluation.Metrics
    before: evaluation.Metrics
    fits: list[Fit]
    out_of_fold: np.ndarray | None = None


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
    run = _Run(dataset, settings, log_folder, checkpoints, quiet)
    if not built.backbone.pretrained:
        return _train_from_scratch(built, run)
    with Extractor(built, store, run.images(built, dataset.train)) as extractor:
        if not settings.fine_tune_epochs:
            return _train_head(built, run, *run.pooled(built, extractor))
        if settings.fine_tune_layers == options.ALL:
            return _train_all(built, run, *run.pooled(built, extractor))
        return _train_top(built, run, extractor)


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
    """Return whether new metrics may replace old ones that were taken on the same images.

    More right labels decide; with equally many, a log loss that is not higher, or hardly higher
    where corrections were learned from; see `_CORRECTED_LOSS`.
    """
    if new.accuracy != old.accuracy:
        return new.accuracy > old.accuracy
    return new.log_loss <= old.log_loss * (_CORRECTED_LOSS if with_corrections else 1)


def _fit_random_weights(
    built: Network, dataset: Dataset, settings: TrainSettings, store: FeatureStore
) -> None:
    images = _images_of(
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


@dataclasses.dataclass(frozen=True)
class _Run:
    """The arguments of `train` that its steps share."""

    dataset: Dataset
    settings: TrainSettings
    log_folder: Path
    checkpoints: Checkpoints
    quiet: bool

    def images(
        self, built: Network, samples: tuple[Sample, ...], *, augment: bool = False
    ) -> ImageIterator:
        """Feed samples at the size of the network."""
        return _images_of(
            samples, self.dataset, built.model.input_shape[1:3], self.settings, augment=augment
        )

    def pooled(self, built: Network, extractor: Extractor) -> tuple[Features, Features]:
        """Return pooled features of training and validation images."""
        from_known_maps = functools.partial(extractor.pooled, from_maps=True)
        train, validation = self._splits()
        return (
            self._with_progress(from_known_maps, built, *train),
            self._with_progress(extractor.pooled, built, *validation),
        )

    def maps(
        self, built: Network, extractor: Extractor
    ) -> tuple[tuple[Features, Features], tuple[Features, Features]]:
        """Return (maps, pooled features) of training and of validation images."""
        found = [
            self._with_progress(extractor.maps, built, samples, views)
            for samples, views in self._splits()
        ]
        return found[0], found[1]

    def fit_settings(self, stage: str, epochs: int) -> FitSettings:
        """Return the settings of one fit."""
        return FitSettings(
            epochs=epochs,
            learning_rate=self.settings.learning_rate,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            log_folder=self.log_folder,
            # A head on features takes seconds, which is less than keeping its state would.
            checkpoint=None if stage == "head" else self.checkpoints(stage),
        )

    def _splits(self) -> list[tuple[tuple[Sample, ...], int]]:
        return [(self.dataset.train, self.settings.views), (self.dataset.validation, 1)]

    def _with_progress(
        self,
        extract: Callable[[ImageIterator, int, Callable[[int], None]], _Extracted],
        built: Network,
        samples: tuple[Sample, ...],
        views: int,
    ) -> _Extracted:
        what = f"features of {len(samples)} images" + (f" in {views} views" if views > 1 else "")
        with console.progress(what, views * len(samples), quiet=self.quiet) as advance:
            return extract(self.images(built, samples), views, advance)


def _train_head(built: Network, run: _Run, pooled: Features, validation: Features) -> Trained:
    """Train the head on pooled features; a logistic one comes in a network of its own."""
    is_further = run.settings.is_further
    before = _measure(built, built.head, run, validation)
    if not is_further:
        built.standardise(np.asarray(pooled.values, dtype=np.float32))
    is_logistic = built.is_logistic if is_further else run.settings.head == options.LOGISTIC
    if not is_logistic:
        settings = run.fit_settings("head", run.settings.epochs)
        fit = fine_tuning.train_head(built, pooled, validation, settings)
        return _measure(built, built.head, run, validation, before.metrics, [fit])
    regressed, head = logistic_head.train_head(
        built, pooled, seed=run.settings.seed, groups=run.dataset.groups
    )
    _log.info(
        "head: logistic regression, L2 strength %g, out-of-fold log loss %.4f, %.1f s",
        head.l2,
        head.log_losses[head.l2],
        head.seconds,
    )
    after = _measure(regressed, regressed.head, run, validation, before.metrics)
    history = {
        "l2": list(head.log_losses),
        "out_of_fold_loss": list(head.log_losses.values()),
        "chosen_l2": [head.l2],
        "val_loss": [after.metrics.log_loss],
        "val_accuracy": [after.metrics.accuracy],
    }
    # A retraining without anything new ends in the same regression as before.
    is_better = not is_further or _is_better(after.metrics, before.metrics, run.dataset)
    if not is_better:
        _log.info(
            "head: the regression is no better on validation (loss %.4f, accuracy %.2f %%; before "
            "%.4f, %.2f %%): the head stays as it was",
            after.metrics.log_loss,
            100 * after.metrics.accuracy,
            before.metrics.log_loss,
            100 * before.metrics.accuracy,
        )
    chosen = dataclasses.replace(after, out_of_fold=head.out_of_fold) if is_better else before
    fit = Fit("head", history, int(is_better), chosen.metrics.log_loss, [head.seconds])
    return dataclasses.replace(chosen, fits=[fit])


def _train_top(built: Network, run: _Run, extractor: Extractor) -> Trained:
    """Train the head, then the blocks above the cut, and use the better of the two."""
    (maps, pooled), (validation_maps, validation) = run.maps(built, extractor)
    head = _train_head(built, run, pooled, validation)
    settings = run.fit_settings("top", run.settings.fine_tune_epochs)
    fit = fine_tuning.fine_tune(head.network, maps, validation_maps, settings)
    _log.info("%s", _describe_gain(head.fits[-1], fit))
    part = head.network.upper()
    return _measure(head.network, part, run, validation_maps, head.before, [*head.fits, fit])


def _train_all(built: Network, run: _Run, pooled: Features, validation: Features) -> Trained:
    """Train the head, then the whole network on pixels, and use the better of the two."""
    head = _train_head(built, run, pooled, validation)
    images = run.images(built, run.dataset.train, augment=True)
    validation_images = run.images(built, run.dataset.validation)
    settings = run.fit_settings("all", run.settings.fine_tune_epochs)
    fit = fine_tuning.fine_tune_all(head.network, images, validation_images, settings)
    _log.info("%s", _describe_gain(head.fits[-1], fit))
    return _measure_images(head.network, run, head.before, [*head.fits, fit])


def _train_from_scratch(built: Network, run: _Run) -> Trained:
    """Train a network without pretrained weights on pixels."""
    images = run.images(built, run.dataset.train, augment=True)
    validation = run.images(built, run.dataset.validation)
    before = _measure_images(built, run)
    settings = run.fit_settings("network", run.settings.epochs)
    fit = fine_tuning.train_from_scratch(built, images, validation, settings)
    return _measure_images(built, run, before.metrics, [fit])


def _measure(
    built: Network,
    part: Any,
    run: _Run,
    validation: Features,
    before: evaluation.Metrics | None = None,
    fits: Sequence[Fit] = (),
) -> Trained:
    """Evaluate a part of a network on features of the validation images."""
    found = fine_tuning.probabilities(part, validation)
    metrics = evaluation.evaluate(run.dataset.classes, validation.labels, found)
    return Trained(built, found, metrics, before or metrics, list(fits))


def _measure_images(
    built: Network, run: _Run, before: evaluation.Metrics | None = None, fits: Sequence[Fit] = ()
) -> Trained:
    """Evaluate a whole network on the validation images."""
    images = run.images(built, run.dataset.validation)
    found = extract(built.model, images)
    metrics = evaluation.evaluate(run.dataset.classes, images.classes, found)
    return Trained(built, found, metrics, before or metrics, list(fits))


def _images_of(
    samples: tuple[Sample, ...],
    dataset: Dataset,
    image_size: tuple[int, int],
    settings: TrainSettings,
    *,
    augment: bool,
) -> ImageIterator:
    """Return batches of samples, augmented as in the first generation or as they are."""
    return ImageDataGenerator(**FIRST_GENERATION).flow_from_samples(
        samples,
        dataset.classes,
        image_size=image_size,
        batch_size=settings.batch_size,
        shuffle=augment,
        seed=settings.seed,
        augment=augment,
    )


def _is_better(after: evaluation.Metrics, before: evaluation.Metrics, dataset: Dataset) -> bool:
    """Return whether a regression replaces the head that was trained before.

    Where there are corrections, right labels decide, as they do for promotion.
    """
    if not dataset.corrections:
        return after.log_loss < before.log_loss
    # The same corrections once more end in the same regression, which is not better.
    is_other = (after.accuracy, after.log_loss) != (before.accuracy, before.log_loss)
    return is_other and is_not_worse(after, before, with_corrections=True)


def _describe_gain(head: Fit, top: Fit) -> str:
    if top.best_epoch == 0:
        lowest = min(top.history["val_loss"])
        return (
            f"Fine-tuning brought no lower validation loss ({lowest:.4f}) than the head alone "
            f"({head.validation_loss:.4f}): the head alone is kept."
        )
    gain = head.validation_loss - top.validation_loss
    return (
        f"Fine-tuning lowered the validation loss by {gain:.4f}, from {head.validation_loss:.4f} "
        f"to {top.validation_loss:.4f}: it is kept."
    )
