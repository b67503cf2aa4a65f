"""A tiny fine-tuning or training from pixels, whole or killed in mid-epoch; run by `test_fit`."""

import dataclasses
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tiny_backbone import TINY

from imagesieve.learning.data.dataset import read_dataset
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator
from imagesieve.learning.features.store import Features
from imagesieve.learning.networks import backbones, network
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training.checkpoints import Checkpoint, FitProgress
from imagesieve.learning.training.fit import FitSettings, fit


def maps(built: network.Network, num_views: int, count: int, seed: int) -> Features:
    """Return maps at the cut in which two classes, of unequal size, lie apart."""
    shape = built.lower().output_shape[1:]
    random = np.random.default_rng(seed)
    labels = np.minimum(np.arange(count, dtype=np.int32) % 3, 1)
    values = labels[:, None, None, None] + random.normal(0, 1, (num_views, count, *shape))
    return Features(values.astype(np.float16), labels)


def fine_tune(settings: FitSettings) -> tuple[FitProgress, network.Network]:
    """Fine-tune on maps in two views, with dropout."""
    built = network.build(TINY, 2, (32, 32), weights_path=None, seed=settings.seed)
    train, validation = maps(built, 2, 60, 1), maps(built, 1, 12, 3)
    return fine_tuning.fine_tune(built, train, validation, settings), built


def from_pixels(data: Path, settings: FitSettings) -> tuple[FitProgress, network.Network]:
    """Train SmallCNN on augmented images; every fourth validation image has a wrong label."""
    dataset = read_dataset(data)
    judged = [
        dataclasses.replace(sample, class_index=(sample.class_index + (number % 4 == 0)) % 3)
        for number, sample in enumerate(dataset.validation)
    ]
    generator = ImageDataGenerator(**FIRST_GENERATION)
    train, validation = (
        ImageIterator(
            generator,
            samples,
            dataset.classes,
            image_size=(48, 48),
            batch_size=settings.batch_size,
            shuffle=augment,
            seed=settings.seed,
            augment=augment,
        )
        for samples, augment in ((dataset.train, True), (judged, False))
    )
    built = network.build(
        backbones.find("SmallCNN"), 3, (48, 48), weights_path=None, seed=settings.seed
    )
    return fit("network", built.model, train, validation, settings), built


@dataclasses.dataclass(frozen=True)
class Killing(Checkpoint):
    """A checkpoint in whose third writing the process is killed, when the first array is out."""

    def save(self, fit: FitProgress, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        def then_kill() -> Iterable[tuple[str, np.ndarray]]:
            yield next(iter(arrays))
            os.kill(os.getpid(), signal.SIGKILL)

        super().save(fit, then_kill() if fit.epochs > KILLED_AFTER else arrays)


KILLED_AFTER = 2  # whole epochs


def run(
    kind: str, data: Path, folder: Path, checkpoint: type[Checkpoint] = Checkpoint
) -> tuple[FitProgress, network.Network]:
    """Run one fit whose state is kept in a folder."""
    fine_tuning.make_reproducible(3)
    settings = FitSettings(
        epochs=8,
        learning_rate=3e-3,
        batch_size=8,
        seed=3,
        log_folder=folder / "log",
        checkpoint=checkpoint(folder / "checkpoint", kind),
    )
    return fine_tune(settings) if kind == "fine-tuning" else from_pixels(data, settings)
