"""A tiny fine-tuning or training from pixels that can be killed; run by `test_fitting`."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from classifier.learning import backbones, network, training
from classifier.learning.checkpoints import Checkpoint
from classifier.learning.dataset import read_dataset
from classifier.learning.features import Features
from classifier.learning.generator import FIRST_GENERATION, ImageDataGenerator


def maps(built: network.Network, num_views: int, count: int, seed: int) -> Features:
    """Give maps at the cut in which two classes, of unequal size, lie apart."""
    shape = built.lower().output_shape[1:]
    random = np.random.default_rng(seed)
    labels = np.minimum(np.arange(count, dtype=np.int32) % 3, 1)
    values = labels[:, None, None, None] + random.normal(0, 1, (num_views, count, *shape))
    return Features(values.astype(np.float16), labels)


def fine_tune(settings: training.FitSettings) -> tuple[training.Fit, network.Network]:
    """Fine-tune MobileNetV2 on maps in two views, with dropout."""
    built = network.build(
        backbones.find("MobileNetV2"), 2, (32, 32), weights_path=None, seed=settings.seed
    )
    train, validation = maps(built, 2, 60, 1), maps(built, 1, 12, 3)
    return training.fine_tune(built, train, validation, settings), built


def from_pixels(data: Path, settings: training.FitSettings) -> tuple[training.Fit, network.Network]:
    """Train SmallCNN on augmented pictures; every fourth validation picture has a wrong label."""
    dataset = read_dataset(data)
    judged = [
        dataclasses.replace(sample, class_index=(sample.class_index + (number % 4 == 0)) % 3)
        for number, sample in enumerate(dataset.validation)
    ]
    generator = ImageDataGenerator(**FIRST_GENERATION)
    train, validation = (
        generator.flow_from_samples(
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
    return training.train_from_scratch(built, train, validation, settings), built


def run(kind: str, data: Path, folder: Path) -> tuple[training.Fit, network.Network]:
    """Run one fit whose state is kept in a folder."""
    training.make_reproducible(3)
    settings = training.FitSettings(
        epochs=8,
        learning_rate=3e-3,
        batch_size=8,
        seed=3,
        log_folder=folder / "log",
        checkpoint=Checkpoint(folder / "checkpoint", kind),
    )
    return fine_tune(settings) if kind == "fine-tuning" else from_pixels(data, settings)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
