from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny_backbone import TINY

from imagesieve.errors import EngineError
from imagesieve.learning.networks import network, random_weights
from imagesieve.learning.openvino import convert
from imagesieve.model import engines

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def dense() -> network.Network:
    """Return a network with a dense head, none of whose weights is zero."""
    built = network.build(TINY, 3, (32, 32), weights_path=None, seed=0)
    pixels = IMAGES.astype(np.float32)
    random_weights.prepare(built.base, [pixels])
    built.standardise(np.asarray(built.base(pixels, training=False)))
    random = np.random.default_rng(1)
    for name in ("head_hidden", "head_probabilities"):
        layer = built.model.get_layer(name)
        layer.set_weights([random.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    return built


@pytest.fixture(scope="module")
def logistic(dense: network.Network) -> network.Network:
    random = np.random.default_rng(2)
    return network.with_logistic_head(dense, random.normal(0, 5, (24, 3)), random.normal(0, 1, 3))


@pytest.fixture(scope="module")
def base(dense: network.Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the base as `frozen` does: maps first, pooled features last."""
    xml = tmp_path_factory.mktemp("base") / "base.xml"
    convert.write_ir(keras.Model(dense.base.input, [dense.lower().output, dense.base.output]), xml)
    return xml


@pytest.mark.parametrize("head", ["dense", "logistic"])
def test_a_head_set_on_a_converted_base_is_the_whole_model(
    head: str, base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    built = request.getfixturevalue(head)
    xml = tmp_path / "new/model.xml"
    convert.write_with_head(convert.read(base), built.head, xml)
    (found,) = engines.OpenVINOEngine(xml, "f32").run_all(IMAGES)
    expected = np.asarray(built.model(IMAGES.astype(np.float32), training=False))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.2  # the images are told apart
    assert expected.max() < 0.9999  # and no softmax is flat


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(3, activation="tanh", name="odd"),
        keras.layers.LayerNormalization(name="odd"),
        keras.layers.BatchNormalization(name="odd"),  # whose scale and offset would be lost
    ],
    ids=["activation", "layer", "learned normalisation"],
)
def test_a_head_of_unknown_layers_is_refused(layer: Any, base: Path, tmp_path: Path) -> None:
    features = keras.Input((24,))
    head = keras.Model(features, layer(features))
    with pytest.raises(EngineError, match="the head's layer odd has no counterpart"):
        convert.write_with_head(convert.read(base), head, tmp_path / "model.xml")
    assert not (tmp_path / "model.xml").exists()


def test_an_operation_that_openvino_does_not_know_is_told(tmp_path: Path) -> None:
    import tensorflow as tf

    class Odd(keras.layers.Layer):  # type: ignore[misc]
        def call(self, features: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(np.sort, [features], tf.float32), (None, 4))

    features = keras.Input((4,))
    model = keras.Model(features, Odd()(features))
    with pytest.raises(EngineError, match="OpenVINO cannot read the network"):
        convert.write_ir(model, tmp_path / "model.xml")
    assert list(tmp_path.iterdir()) == []
