"""The stages of a training: the head, then the top blocks or the whole network."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imagesieve import console
from imagesieve.learning import options
from imagesieve.learning.data.dataset import Dataset, Sample
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features.batches import Features, extract
from imagesieve.learning.features.extraction import Extractor
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import evaluation, fine_tuning
from imagesieve.learning.training import head as logistic_head
from imagesieve.learning.training.checkpoints import Checkpoint

# Corrections are the hardest of all images: who learned from them is less sure of everything.
# That may cost this much log loss where no label is lost by it.
CORRECTED_LOSS = 1.1

Extracted = TypeVar("Extracted")
Checkpoints = Callable[[str], Checkpoint | None]  # the name of a fit -> where its state is kept

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
    """A network after its training, with what it says of the validation images.

    Attributes:
        network: the trained network.
        probabilities: (validation images, classes).
        metrics: on the validation images.
        before: the same before the training.
        fits: what came of each fit.
    """

    network: Network
    probabilities: np.ndarray
    metrics: evaluation.Metrics
    before: evaluation.Metrics
    fits: list[fine_tuning.Fit]


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same for all stages of a training."""

    dataset: Dataset
    settings: TrainSettings
    log_folder: Path
    checkpoints: Checkpoints
    quiet: bool

    def images(
        self, built: Network, samples: tuple[Sample, ...], *, augment: bool = False
    ) -> ImageIterator:
        """Feed samples at the size of the network."""
        return images_of(
            samples, self.dataset, built.model.input_shape[1:3], self.settings, augment=augment
        )

    def pooled(self, built: Network, extractor: Extractor) -> tuple[Features, Features]:
        """Give pooled features of training and validation images."""
        known_maps_will_do = functools.partial(extractor.pooled, from_maps=True)
        train, validation = self._splits()
        return (
            self._with_progress(known_maps_will_do, built, *train),
            self._with_progress(extractor.pooled, built, *validation),
        )

    def maps(
        self, built: Network, extractor: Extractor
    ) -> tuple[tuple[Features, Features], tuple[Features, Features]]:
        """Give (maps, pooled features) of training and of validation images."""
        found = [
            self._with_progress(extractor.maps, built, samples, views)
            for samples, views in self._splits()
        ]
        return found[0], found[1]

    def fit_settings(self, stage: str, epochs: int) -> fine_tuning.FitSettings:
        """Give the settings of one fit."""
        return fine_tuning.FitSettings(
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
        extract: Callable[[ImageIterator, int, Callable[[int], None]], Extracted],
        built: Network,
        samples: tuple[Sample, ...],
        views: int,
    ) -> Extracted:
        what = f"features of {len(samples)} images" + (f" in {views} views" if views > 1 else "")
        with console.progress(what, views * len(samples), quiet=self.quiet) as advance:
            return extract(self.images(built, samples), views, advance)


def train_head(built: Network, run: Run, pooled: Features, validation: Features) -> Trained:
    """Train the head on pooled features; a logistic one comes in a network of its own."""
    before = _judge(built.head, run.dataset, validation)
    if not run.settings.is_further:
        built.standardise(np.asarray(pooled.values, dtype=np.float32))
    is_logistic = (
        built.is_logistic if run.settings.is_further else run.settings.head == options.LOGISTIC
    )
    if not is_logistic:
        fit = fine_tuning.train_head(
            built, pooled, validation, run.fit_settings("head", run.settings.epochs)
        )
        return _trained(built, built.head, run, validation, before, [fit])
    regressed, regression = logistic_head.train_head(
        built, pooled, seed=run.settings.seed, groups=run.dataset.groups
    )
    _log.info(
        "head: logistic regression, L2 strength %g, out-of-fold log loss %.4f, %.1f s",
        regression.l2,
        regression.log_losses[regression.l2],
        regression.seconds,
    )
    after = _trained(regressed, regressed.head, run, validation, before, [])
    history = {
        "l2": list(regression.log_losses),
        "out_of_fold_loss": list(regression.log_losses.values()),
        "chosen_l2": [regression.l2],
        "val_loss": [after.metrics.log_loss],
        "val_accuracy": [after.metrics.accuracy],
    }
    # In a retraining without anything new it comes to the same regression as before.
    is_better = not run.settings.is_further or _is_better(after.metrics, before, run.dataset)
    kept = after if is_better else _trained(built, built.head, run, validation, before, [])
    if not is_better:
        _log.info(
            "head: the regression is no better on validation (loss %.4f, accuracy %.2f %%; before "
            "%.4f, %.2f %%): the head stays as it was",
            after.metrics.log_loss,
            100 * after.metrics.accuracy,
            before.log_loss,
            100 * before.accuracy,
        )
    fit = fine_tuning.Fit(
        "head", history, int(is_better), kept.metrics.log_loss, [regression.seconds]
    )
    return dataclasses.replace(kept, fits=[fit])


def train_top(built: Network, run: Run, extractor: Extractor) -> Trained:
    """Train the head, then the blocks above the cut; the better of the two is kept."""
    (maps, pooled), (validation_maps, validation) = run.maps(built, extractor)
    head = train_head(built, run, pooled, validation)
    built = head.network
    fit = fine_tuning.fine_tune(
        built, maps, validation_maps, run.fit_settings("top", run.settings.fine_tune_epochs)
    )
    _log.info("%s", _verdict(head.fits[-1], fit))
    fits = [*head.fits, fit]
    return _trained(built, built.upper(), run, validation_maps, head.before, fits)


def train_all(built: Network, run: Run, pooled: Features, validation: Features) -> Trained:
    """Train the head, then the whole network on pixels; the better of the two is kept."""
    head = train_head(built, run, pooled, validation)
    built = head.network
    images = run.images(built, run.dataset.train, augment=True)
    validation_images = run.images(built, run.dataset.validation)
    fit = fine_tuning.fine_tune_all(
        built,
        images,
        validation_images,
        run.fit_settings("all", run.settings.fine_tune_epochs),
    )
    _log.info("%s", _verdict(head.fits[-1], fit))
    metrics, probabilities = _judge_images(built, run.dataset, validation_images)
    return Trained(built, probabilities, metrics, head.before, [*head.fits, fit])


def train_from_scratch(built: Network, run: Run) -> Trained:
    """Train a network without pretrained weights on pixels."""
    images = run.images(built, run.dataset.train, augment=True)
    validation = run.images(built, run.dataset.validation)
    before = _judge_images(built, run.dataset, validation)[0]
    fit = fine_tuning.train_from_scratch(
        built, images, validation, run.fit_settings("network", run.settings.epochs)
    )
    metrics, probabilities = _judge_images(built, run.dataset, validation)
    return Trained(built, probabilities, metrics, before, [fit])


def images_of(
    samples: tuple[Sample, ...],
    dataset: Dataset,
    image_size: tuple[int, int],
    settings: TrainSettings,
    *,
    augment: bool,
) -> ImageIterator:
    """Feed samples, augmented as the first generation did or as they are."""
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
    """Tell whether a regression replaces the head that was trained before.

    Where there are corrections, right labels decide, as they do for promotion.
    """
    if not dataset.corrections:
        return after.log_loss < before.log_loss
    if after.accuracy != before.accuracy:
        return after.accuracy > before.accuracy
    is_other = after.log_loss != before.log_loss  # the same corrections once more bring nothing
    return is_other and after.log_loss <= CORRECTED_LOSS * before.log_loss


def _judge(head: Any, dataset: Dataset, validation: Features) -> evaluation.Metrics:
    found = fine_tuning.probabilities(head, validation)
    return evaluation.evaluate(dataset.classes, validation.labels, found)


def _judge_images(
    built: Network, dataset: Dataset, images: ImageIterator
) -> tuple[evaluation.Metrics, np.ndarray]:
    found = extract(built.model, images)
    return evaluation.evaluate(dataset.classes, images.classes, found), found


def _trained(
    built: Network,
    part: Any,
    run: Run,
    validation: Features,
    before: evaluation.Metrics,
    fits: list[fine_tuning.Fit],
) -> Trained:
    found = fine_tuning.probabilities(part, validation)
    metrics = evaluation.evaluate(run.dataset.classes, validation.labels, found)
    return Trained(built, found, metrics, before, fits)


def _verdict(head: fine_tuning.Fit, top: fine_tuning.Fit) -> str:
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
