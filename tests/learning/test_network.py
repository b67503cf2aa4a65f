from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from imagesieve.errors import DataError, ModelDamagedError
from imagesieve.learning.networks import backbones, network
from imagesieve.learning.networks.network import FEATURE_DEVIATION, Network, with_classes


@pytest.fixture
def built(make_network: Callable[..., Any]) -> Network:
    return make_network()


def pixels(count: int = 2) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 32, 32, 3)).astype(np.float32)


def test_the_model_is_flat_from_pixels_to_probabilities(built: Network) -> None:
    assert not [layer for layer in built.model.layers if isinstance(layer, keras.Model)]
    assert built.model.input_shape == (None, 32, 32, 3)
    found = np.asarray(built.model(pixels(5)))
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found >= 0).all()


def test_each_pair_of_parts_is_the_whole(built: Network) -> None:
    images = pixels()
    whole = np.asarray(built.model(images))
    np.testing.assert_allclose(built.head(built.base(images)), whole, atol=1e-6)
    np.testing.assert_allclose(built.upper()(built.lower()(images)), whole, atol=1e-6)
    pooled = np.asarray(built.base(images))
    np.testing.assert_allclose(built.upper_base()(built.lower()(images)), pooled, atol=1e-6)
    mine = {id(layer) for layer in built.model.layers}
    for part in (built.base, built.head, built.lower(), built.upper(), built.upper_base()):
        ours = [layer for layer in part.layers if not isinstance(layer, keras.layers.InputLayer)]
        assert {id(layer) for layer in ours} <= mine


def test_a_network_without_pretrained_weights_has_a_plain_head() -> None:
    built = network.build(backbones.find("SmallCNN"), 3, (48, 48), weights_path=None, seed=0)
    assert [layer.name for layer in built.model.layers if layer.name.startswith("head_")] == [
        "head_probabilities"
    ]


def test_a_saved_network_is_taken_apart_again(
    tmp_path: Path, make_network: Callable[..., Any]
) -> None:
    built = make_network()
    built.model.save(tmp_path / "model.keras")
    found = Network.of(built.backbone, keras.saving.load_model(tmp_path / "model.keras"))
    images = pixels()
    np.testing.assert_allclose(found.head(found.base(images)), built.model(images), atol=1e-6)
    np.testing.assert_allclose(found.upper()(found.lower()(images)), built.model(images), atol=1e-6)
    assert not found.model.get_layer("head_standardise").trainable


def test_a_stranger_s_model_is_refused() -> None:
    images = keras.Input((32, 32, 3))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    with pytest.raises(ModelDamagedError, match="cannot be trained further"):
        Network.of(backbones.find("MobileNetV2"), model)


def test_new_classes_leave_what_was_known_of_the_old_ones(make_network: Callable[..., Any]) -> None:
    built = make_network()
    logits = keras.Model(built.model.input, built.model.get_layer("head_probabilities").input)
    images = pixels()
    old_kernel, old_bias = built.model.get_layer("head_probabilities").get_weights()
    old_bias[:] = (0.1, 0.2, 0.3)
    built.model.get_layer("head_probabilities").set_weights([old_kernel, old_bias])
    old = np.asarray(built.model(images))

    grown = with_classes(built, ("cat", "dog", "emu"), ("ape", "cat", "dog", "eel", "emu"), seed=0)
    kernel, bias = grown.model.get_layer("head_probabilities").get_weights()
    np.testing.assert_array_equal(kernel[:, [1, 2, 4]], old_kernel)
    np.testing.assert_array_equal(bias[[1, 2, 4]], old_bias)
    assert np.abs(kernel[:, [0, 3]]).max() > 0
    known = np.asarray(grown.model(images))[:, [1, 2, 4]]
    np.testing.assert_allclose(known / known.sum(axis=1, keepdims=True), old, atol=1e-5)
    np.testing.assert_array_equal(
        logits(images), keras.Model(grown.model.input, logits.output)(images)
    )
    np.testing.assert_allclose(grown.head(grown.base(images)), grown.model(images), atol=1e-6)


def test_the_same_classes_give_the_same_network(built: Network) -> None:
    assert with_classes(built, ("a", "b", "c"), ("a", "b", "c"), seed=0) is built


def test_a_class_that_is_gone_is_refused_by_name(built: Network) -> None:
    with pytest.raises(DataError, match=r"knows the classes b, c, which the data folder lacks"):
        with_classes(built, ("a", "b", "c"), ("a", "d"), seed=0)


def standardised(built: Network, features: np.ndarray) -> np.ndarray:
    layer = built.model.get_layer("head_standardise")
    return np.asarray(layer(features.astype(np.float32), training=False))


def test_standardised_features_have_mean_0_and_the_wanted_deviation(
    make_network: Callable[..., Any],
) -> None:
    built = make_network()
    random = np.random.default_rng(0)
    features = random.normal(random.normal(0, 9, 24), random.uniform(1, 5, 24), (2, 300, 24))
    built.standardise(features)
    found = standardised(built, features.reshape(-1, 24))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), FEATURE_DEVIATION, rtol=1e-3)


def test_features_that_hardly_vary_do_not_become_huge(make_network: Callable[..., Any]) -> None:
    built = make_network()
    built.standardise(np.full((10, 24), 2.0))
    np.testing.assert_allclose(standardised(built, np.full((1, 24), 2.0)), 0, atol=1e-3)
    features = np.random.default_rng(0).normal(0, 1, (300, 24))
    features[:, 7] = 3.0
    built.standardise(features)
    unseen = np.zeros((1, 24))
    unseen[0, 7] = 4.0
    # One unit away, at a twentieth of the mean deviation of about 23 / 24.
    assert standardised(built, unseen)[0, 7] == pytest.approx(
        20 * FEATURE_DEVIATION * 24 / 23, rel=0.02
    )
