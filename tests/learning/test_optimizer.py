import keras
import numpy as np
import pytest

from imagesieve.learning.training.optimizer import (
    LayerwiseAdamW,
    rates_by_depth,
    warm_up_and_cosine,
)


def trained(optimizer: keras.optimizers.Optimizer, steps: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.normal(size=(4, 3)), name="a"), keras.Variable([1.0, 2.0])]
    optimizer.build(variables)
    for _ in range(steps):
        gradients = [random.normal(size=variable.shape) for variable in variables]
        optimizer.apply([keras.ops.cast(x, "float32") for x in gradients], variables)
    return [variable.numpy() for variable in variables]


def test_at_equal_rates_it_is_keras_s_adamw() -> None:
    ours = trained(LayerwiseAdamW(warm_up_and_cosine(5, 0.1, 0.2), 0.3, [1.0, 1.0]))
    theirs = trained(keras.optimizers.AdamW(warm_up_and_cosine(5, 0.1, 0.2), weight_decay=0.3))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


def test_each_variable_learns_and_decays_at_its_own_rate() -> None:
    ours = trained(LayerwiseAdamW(0.1, 0.3, [0.25, 2.0]))
    quarter = trained(keras.optimizers.AdamW(0.025, weight_decay=0.3))
    double = trained(keras.optimizers.AdamW(0.2, weight_decay=0.3))
    np.testing.assert_allclose(ours[0], quarter[0], atol=3e-5)
    np.testing.assert_allclose(ours[1], double[1], atol=3e-5)


def test_the_rate_rises_and_falls() -> None:
    schedule = warm_up_and_cosine(100, 0.5, 0.1)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == pytest.approx(0.5)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-6)


def test_deep_layers_learn_slowly_and_the_head_at_the_full_rate() -> None:
    pixels = keras.Input((4,))
    tensor = pixels
    for name in ("first", "second", "third"):
        tensor = keras.layers.Dense(4, name=name)(tensor)
        tensor = keras.layers.BatchNormalization(trainable=False)(tensor)
    frozen = keras.layers.Dense(4, name="frozen", trainable=False)(tensor)
    part = keras.Model(pixels, keras.layers.Dense(2, name="head_probabilities")(frozen))
    rates = rates_by_depth(part, 0.1, 0.001)
    assert [variable.path.split("/")[0] for variable in part.trainable_variables] == [
        *["first"] * 2, *["second"] * 2, *["third"] * 2, *["head_probabilities"] * 2
    ]  # fmt: skip
    assert rates == pytest.approx([0.001, 0.001, 0.01, 0.01, 0.1, 0.1, 1, 1])
