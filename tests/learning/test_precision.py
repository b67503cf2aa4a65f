from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from imagesieve.learning.data.dataset import Dataset
from imagesieve.learning.data.generator import ImageDataGenerator, ImageIterator
from imagesieve.learning.networks import backbones
from imagesieve.learning.networks.network import Network
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training.checkpoints import Checkpoint
from imagesieve.learning.training.fit import FitSettings


@pytest.fixture(scope="module")
def tiny() -> Callable[[], Network]:
    """Return a function that builds a network of a few layers that has all a large one has."""

    def make() -> Network:
        keras.utils.set_random_seed(0)
        pixels = keras.Input((24, 24, 3), name="pixels")
        tensor = keras.layers.Rescaling(1 / 127.5, -1.0, name="scale_pixels")(pixels)
        for filters in (8, 16):
            tensor = keras.layers.Conv2D(filters, 3, strides=2)(tensor)
            tensor = keras.layers.BatchNormalization()(tensor)
            tensor = keras.ops.relu(tensor)  # an operation that is no layer, as in MobileNetV3
        tensor = keras.layers.GlobalAveragePooling2D()(tensor)
        tensor = keras.layers.Dropout(0.2, name="head_dropout")(tensor)
        tensor = keras.layers.Dense(3, activation="softmax", name="head_probabilities")(tensor)
        return Network.of(backbones.find("MobileNetV2"), keras.Model(pixels, tensor))

    return make


def images(colours: Dataset, *, is_training: bool) -> ImageIterator:
    return ImageDataGenerator(horizontal_flip=True).flow_from_samples(
        colours.train if is_training else colours.validation,
        colours.classes,
        image_size=(24, 24),
        batch_size=8,
        shuffle=is_training,
        seed=0,
        augment=is_training,
    )


def settings(folder: Path, **changes: Any) -> FitSettings:
    return FitSettings(
        **({"epochs": 3, "learning_rate": 0.05, "batch_size": 8, "seed": 0} | changes),
        log_folder=folder / "log",
    )


def test_a_network_in_mixed_precision_has_its_weights_and_what_must_be_exact_in_float32(
    tiny: Callable[[], Network],
) -> None:
    model = tiny().model
    images = np.random.default_rng(0).uniform(0, 255, (4, 24, 24, 3)).astype(np.float32)
    exact = np.asarray(model(images))
    with fine_tuning._computing_in(model, "mixed_bfloat16"):
        assert {weight.dtype for weight in model.get_weights()} == {np.dtype(np.float32)}
        computed = {layer.name: layer.compute_dtype for layer in model.layers if layer.weights}
        assert computed.pop("head_probabilities") == "float32"
        assert set(computed.values()) == {"bfloat16"}
        assert model.get_layer("scale_pixels").compute_dtype == "float32"
        found = np.asarray(model(images))
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert not np.array_equal(found, exact)  # it did compute in half precision
    np.testing.assert_array_equal(model(images), exact)  # and does no longer


def test_the_probe_measures_both_and_leaves_the_network_alone(
    tiny: Callable[[], Network], colours: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny().model
    before = [variable.numpy() for variable in model.variables]
    with caplog.at_level("INFO"):
        chosen = fine_tuning.choose_precision(model, *images(colours, is_training=True)[0])
    assert chosen in ("float32", "mixed_bfloat16")
    assert f"training in {chosen}" in caplog.text
    assert "times as fast" in caplog.text
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize(
    ("seconds", "loss", "chosen"),
    [
        (0.5, 1.01, "mixed_bfloat16"),
        (0.95, 1.01, "float32"),  # hardly quicker
        (1.8, 1.01, "float32"),
        (0.5, 1.3, "float32"),
        (0.5, np.nan, "float32"),
    ],
)
def test_mixed_precision_is_taken_if_it_is_quicker_and_right(
    seconds: float, loss: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"float32": (1.0, 1.0), "mixed_bfloat16": (seconds, loss)}
    monkeypatch.setattr(fine_tuning, "_try", lambda model, policy, *batch: measured[policy])
    assert fine_tuning.choose_precision(None, np.zeros(0), np.zeros(0)) == chosen


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_all_layers_are_trained_on_pixels(
    policy: str,
    tiny: Callable[[], Network],
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine_tuning, "choose_precision", lambda *arguments: policy)
    built = tiny()
    train, validation = (images(colours, is_training=x) for x in (True, False))
    norms = [x for x in built.model.layers if isinstance(x, keras.layers.BatchNormalization)]
    statistics = [weight for norm in norms for weight in norm.get_weights()]
    start = built.model.get_weights()
    fit = fine_tuning.fine_tune_all(built, train, validation, settings(tmp_path))
    assert (fit.stage, fit.precision) == ("full fine-tuning", policy)
    assert fit.best_epoch >= 1
    found = np.asarray(built.model(np.stack([validation.image(n, 0) for n in range(12)])))
    right = found[np.arange(12), validation.classes]
    assert fit.validation_loss == pytest.approx(float(-np.log(right).mean()), rel=1e-3)
    after = [weight for norm in norms for weight in norm.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(statistics, after, strict=True))
    kernels = [x for x in built.model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(kernels) == 2
    changed = [
        not np.array_equal(a, b) for a, b in zip(start, built.model.get_weights(), strict=True)
    ]
    assert sum(changed) == 6  # kernel and bias of two convolutions and of the head


def test_training_that_only_harms_is_undone_in_mixed_precision_too(
    tiny: Callable[[], Network],
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine_tuning, "choose_precision", lambda *arguments: "mixed_bfloat16")
    built = tiny()
    train, validation = (images(colours, is_training=x) for x in (True, False))
    before = built.model.get_weights()
    train.classes[:] = (train.classes + 1) % 3
    fit = fine_tuning.fine_tune_all(built, train, validation, settings(tmp_path, epochs=1))
    assert fit.best_epoch == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, built.model.get_weights(), strict=True))


def test_a_resumed_fit_keeps_its_precision(
    tiny: Callable[[], Network],
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, validation = (images(colours, is_training=x) for x in (True, False))
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    monkeypatch.setattr(fine_tuning, "choose_precision", lambda *arguments: "mixed_bfloat16")
    first = fine_tuning.fine_tune_all(
        tiny(), train, validation, settings(tmp_path, epochs=1, checkpoint=checkpoint)
    )
    monkeypatch.setattr(fine_tuning, "choose_precision", lambda *arguments: "float32")
    built = tiny()
    again = fine_tuning.fine_tune_all(
        built, train, validation, settings(tmp_path, epochs=1, checkpoint=checkpoint)
    )
    assert again == first
    assert again.precision == "mixed_bfloat16"
