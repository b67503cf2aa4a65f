"""Heat maps: a network whose reasons are known shows them, whichever head it has."""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny_backbone import NUM_FEATURES, TINY

from imagesieve import files
from imagesieve.errors import EngineError, UsageError
from imagesieve.explaining import grad_cam
from imagesieve.learning.networks import backbones, network
from imagesieve.model import versions
from imagesieve.model.decisions import DecisionPolicy

SIZE = (64, 48)
SQUARES = {0: (8, 8), 1: (40, 24)}  # class -> top and left of its square, 16×16
CLASS_WITHOUT_SQUARE = 2


def colour_network() -> network.Network:
    """Return a network whose first three features are how red, green and blue an image is."""
    built = network.build(TINY, 3, SIZE, weights_path=None, seed=0)
    excess = 1.5 * np.eye(3) - 0.5  # of one channel over the other two
    for name, num_inputs, weights in (("stem", 3, excess), ("last", 8, np.eye(3))):
        kernel = np.zeros((3, 3, num_inputs, built.model.get_layer(name).filters), np.float32)
        kernel[1, 1, :3, :3] = weights
        built.model.get_layer(name).set_weights([kernel, np.zeros(kernel.shape[-1])])
    return built


@functools.cache
def with_dense_head(sureness: float) -> Any:
    built = colour_network()
    hidden = np.zeros((NUM_FEATURES, network.HIDDEN_UNITS), np.float32)
    hidden[:3, :3] = np.eye(3)
    built.model.get_layer("head_hidden").set_weights([hidden, np.zeros(network.HIDDEN_UNITS)])
    kernel = np.zeros((network.HIDDEN_UNITS, 3), np.float32)
    kernel[:3] = sureness * np.eye(3)
    built.model.get_layer("head_probabilities").set_weights([kernel, np.zeros(3)])
    return built.model


@functools.cache
def with_logistic_head(sureness: float, shift: float = 0.0) -> Any:
    kernel = np.zeros((NUM_FEATURES, 3), np.float32)
    kernel[:3] = sureness * np.eye(3) + shift
    return network.with_logistic_head(colour_network(), kernel, np.zeros(3)).model


def image() -> np.ndarray:
    """Return a grey image with a red and a green square; the green one is not quite whole."""
    pixels = np.full((*SIZE, 3), 90, np.uint8)
    for channel, (top, left) in SQUARES.items():
        pixels[top : top + 16, left : left + 16] = 20
        pixels[top : top + 16, left : left + 16, channel] = 230
    pixels[40:44, 24:40] = 90
    return pixels


def hottest(heat: np.ndarray) -> tuple[float, float]:
    """Return the place of the maximum in pixels of the image."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return (row + 0.5) * SIZE[0] / heat.shape[0], (column + 0.5) * SIZE[1] / heat.shape[1]


@pytest.mark.parametrize("sureness", [10.0, 1e6])
@pytest.mark.parametrize("head", [with_dense_head, with_logistic_head])
def test_the_square_that_speaks_for_a_class_is_hottest(head: Any, sureness: float) -> None:
    explained = grad_cam.GradCam(head(sureness))
    for class_index, (top, left) in SQUARES.items():
        heat = explained.heat_map(image(), class_index)
        row, column = hottest(heat)
        assert top <= row <= top + 16
        assert left <= column <= left + 16
        assert heat.dtype == np.float32
        assert heat.shape == (15, 11)
        assert heat.min() == 0
        assert heat.max() == 1
        other_top, other_left = SQUARES[1 - class_index]
        beyond = heat[other_top * 15 // 64 + 1, other_left * 11 // 48 + 1]
        assert beyond == 0  # what speaks for the other class speaks against this one


def test_what_a_softmax_does_not_notice_changes_nothing() -> None:
    plain = grad_cam.GradCam(with_logistic_head(10)).heat_map(image(), 0)
    shifted = grad_cam.GradCam(with_logistic_head(10, shift=300)).heat_map(image(), 0)
    np.testing.assert_allclose(shifted, plain, atol=1e-3)


def test_a_class_that_nothing_speaks_for_stays_cold() -> None:
    heat = grad_cam.GradCam(with_logistic_head(10)).heat_map(image(), CLASS_WITHOUT_SQUARE)
    assert not heat.any()


@pytest.mark.parametrize(("name", "shape"), [("SmallCNN", (6, 6)), ("MobileNetV2", (2, 2))])
def test_the_last_maps_of_a_backbone_are_found(name: str, shape: tuple[int, int]) -> None:
    built = network.build(backbones.find(name), 2, (64, 64), weights_path=None, seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    heats = [grad_cam.GradCam(built.model).heat_map(pixels, index) for index in (0, 1)]
    assert {heat.shape for heat in heats} == {shape}
    assert max(heat.max() for heat in heats) == 1  # of two classes one has the better odds


def test_maps_that_no_layer_made_are_found() -> None:
    """ConvNeXt ends so, and takes seconds to build."""
    pixels = keras.Input((*SIZE, 3))
    trunk = keras.layers.Conv2D(4, 3, strides=2)(pixels)
    branch = keras.layers.Conv2D(4, 1, name="branch")(trunk)
    pooled = keras.layers.GlobalAveragePooling2D()(trunk + branch)
    features = keras.layers.LayerNormalization()(pooled)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(features))
    assert grad_cam.GradCam(model).heat_map(image(), 0).shape == (31, 23)


def test_a_network_that_sees_a_single_place_says_so() -> None:
    pixels = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(4, SIZE)(pixels)
    answer = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(maps))
    with pytest.raises(UsageError, match=r"single place.*--image-size"):
        grad_cam.GradCam(keras.Model(pixels, answer))


@pytest.mark.parametrize("kind", ["without a softmax", "sequential"])
def test_a_network_that_this_program_did_not_make_says_so(kind: str) -> None:
    foreign = colour_network().base
    if kind == "sequential":
        foreign = keras.Sequential([foreign, keras.layers.Dense(3, activation="softmax")])
    with pytest.raises(UsageError, match="trained by this program"):
        grad_cam.GradCam(foreign)


def test_a_network_of_broken_numbers_is_no_explanation() -> None:
    model = with_logistic_head(float("nan"))
    with pytest.raises(EngineError, match="not finite"):
        grad_cam.GradCam(model).heat_map(image(), 0)


def test_a_class_index_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(EngineError):
        grad_cam.GradCam(with_logistic_head(10)).heat_map(image(), 7)


def test_a_version_without_a_keras_model_cannot_be_explained(version_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.keras"):
        grad_cam.load(versions.load(version_path))


def test_a_saved_network_explains_as_it_did(tmp_path: Path) -> None:
    model = with_logistic_head(10)
    manifest = versions.Manifest(("a", "b", "c"), "Tiny", SIZE, DecisionPolicy())
    with files.new_folder(tmp_path / "version") as partial:
        model.save(partial / versions.KERAS_MODEL)
        versions.seal(partial, manifest)
    loaded = grad_cam.load(versions.load(tmp_path / "version"))
    expected = grad_cam.GradCam(model).heat_map(image(), 1)
    np.testing.assert_allclose(loaded.heat_map(image(), 1), expected, atol=1e-5)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_overlay_is_brightest_where_the_heat_is(grey: int) -> None:
    heat = np.zeros((4, 6), np.float32)
    heat[1, 4] = 1
    pixels = np.full((*SIZE, 3), grey, np.uint8)
    overlay = grad_cam.overlay(pixels, heat, (300, 200))
    assert overlay.size == (300, 200)
    assert overlay.mode == "RGB"
    lightness = np.asarray(overlay.convert("L"), np.int32)
    row, column = np.unravel_index(lightness.argmax(), lightness.shape)
    assert 50 <= row < 100
    assert 200 <= column < 250
    assert lightness.max() - lightness[180, 20] > 60


def test_a_cold_overlay_still_shows_the_image() -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, 24:] = 255
    overlay = grad_cam.overlay(pixels, np.zeros((4, 4), np.float32), (48, 64))
    lightness = np.asarray(overlay.convert("L"), np.int32)
    assert lightness[32, 40] - lightness[32, 8] > 120
