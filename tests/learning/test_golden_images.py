"""Which images become golden, and that every saved version has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesieve import images
from imagesieve.errors import EngineError
from imagesieve.learning.export import version_writer
from imagesieve.learning.openvino import precision_check
from imagesieve.model import engines, golden


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


def test_every_engine_that_may_serve_the_version_agrees_on_them(tiny_run: Any) -> None:
    found = golden.read(tiny_run.version)
    assert found is not None
    for engine in ("keras", "openvino"):
        opened = engines.open_engine(tiny_run.version, engine, "f32")
        assert golden.difference(opened, found) <= 1e-3
    for precision in ("bf16", "int8"):
        if tiny_run.version.manifest.engines[f"openvino-{precision}"]["passed"]:
            opened = engines.open_engine(tiny_run.version, "openvino", precision)
            assert golden.mismatch(opened, found) is None


def test_an_ir_that_does_not_answer_them_is_refused(tiny_run: Any, tmp_path: Path) -> None:
    right = golden.read(tiny_run.version)
    assert right is not None
    wrong = golden.Golden(right.pixels, right.probabilities[:, ::-1])
    network, store = tiny_run.trained.network, tiny_run.store
    check = precision_check.PrecisionCheck(
        network, tiny_run.dataset, store, wrong, tmp_path / "model.xml"
    )
    with pytest.raises(EngineError, match="on its golden images openvino-f32 differs"):
        check.run(None)
