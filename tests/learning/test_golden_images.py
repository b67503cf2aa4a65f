"""Which images become golden, and that every saved version has them."""

from typing import Any

import numpy as np
import pytest

from imagesieve import images
from imagesieve.learning.export import version_writer
from imagesieve.model import golden


def test_classes_take_turns_and_each_gives_its_clearest_first() -> None:
    probabilities = np.array(
        [[0.6, 0.4, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0], [0.1, 0.9, 0], [0.9, 0.1, 0]]
    )
    assert version_writer.choose_golden(probabilities) == [1, 4, 5, 2, 3, 0]


def test_no_more_than_eight_are_chosen_and_no_class_is_left_out() -> None:
    labels = np.repeat([0, 1, 2], [100, 2, 1])
    chosen = version_writer.choose_golden(np.eye(3)[labels])
    assert len(chosen) == len(set(chosen)) == golden.MAX_IMAGES == 8
    assert [int(labels[number]) for number in chosen] == [0, 1, 2, 0, 1, 0, 0, 0]


def test_a_saved_version_has_golden_images_with_the_answers_of_keras(tiny_run: Any) -> None:
    found = golden.read(tiny_run.version)
    assert found is not None
    validation, probabilities = tiny_run.dataset.validation, tiny_run.trained.probabilities
    chosen = version_writer.choose_golden(probabilities)
    assert len(chosen) == 8
    model = tiny_run.trained.network.model
    for number, pixels, answers in zip(chosen, found.pixels, found.probabilities, strict=True):
        decoded = images.decode(validation[number].path, image_size=(48, 48)).pixels
        assert np.array_equal(pixels, decoded)
        single = np.asarray(model(decoded[np.newaxis].astype(np.float32), training=False))[0]
        assert answers == pytest.approx(single, abs=1e-5)
