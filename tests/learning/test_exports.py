import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesieve.errors import EngineError, UsageError
from imagesieve.learning.export import other_formats
from imagesieve.model import engines

SIZE = (24, 32)
FILES = {"onnx": "model.onnx", "saved_model": "saved_model", "litert": "model.tflite"}


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3)).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", other_formats.FORMATS)
def test_an_export_opens_again_and_answers_like_keras(
    name: str, model: Any, images: np.ndarray, tmp_path: Path
) -> None:
    found = other_formats.export(model, tmp_path / "export", name, images)
    assert [path.name for path in (tmp_path / "export").iterdir()] == [FILES[name]]
    path = tmp_path / "export" / FILES[name]
    assert found["passed"] is True
    assert found["max_difference_to_keras"] <= 1e-3
    assert found["bytes"] > 0
    expected = engines.KerasEngine(model).run(images)
    for batch in (images, images[:1]):  # of any length, not only that of the proof
        answers = other_formats.FORMATS[name].read(path, batch)
        np.testing.assert_allclose(answers, expected[: len(batch)], atol=1e-3)


def test_a_converter_that_fails_is_an_error_with_the_format_s_name(
    images: np.ndarray, tmp_path: Path
) -> None:
    import keras
    import tensorflow as tf

    class InPython(keras.layers.Layer):
        def call(self, values: Any) -> Any:
            doubled = tf.numpy_function(lambda array: 2 * array, [values], tf.float32)
            return tf.ensure_shape(doubled, values.shape)

    pixels = keras.Input((*SIZE, 3))
    averages = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, InPython()(averages))  # Python code is in no exported file
    with pytest.raises(EngineError, match="export to litert failed: "):
        other_formats.export(model, tmp_path, "litert", images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["tf2onnx", "onnx"])
def test_a_missing_package_is_told_before_the_training(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != missing or None)
    other_formats.check(["saved_model", "litert"])
    with pytest.raises(UsageError, match=r"run `pip install tf2onnx onnx`\."):
        other_formats.check(["onnx"])
