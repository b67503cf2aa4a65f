"""AdamW whose rate differs from layer to layer, and the schedule of its rate."""

from collections.abc import Sequence
from typing import Any

import keras

_HEAD_PREFIX = "head_"


class LayerwiseAdamW(keras.optimizers.Adam):  # type: ignore[misc]  # Keras has no types
    """AdamW (Loshchilov and Hutter 2019) with a rate of its own for each variable.

    Moments and weights are updated by TensorFlow's fused operation, one pass over memory instead
    of Keras's dozen; for a head of a million weights on a CPU those cost as much as its gradient.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: share of a weight that a step at rate 1 takes away.
        rates: what the rate of each variable is multiplied by, in the order of the variables that
            the optimizer is built with. Decay is multiplied too.
    """

    def __init__(self, learning_rate: Any, weight_decay: float, rates: Sequence[float]) -> None:
        super().__init__(learning_rate)  # Keras's own decay would know only one rate
        self._decay = weight_decay
        self._rates = tuple(rates)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one `tf.Variable`, which Keras hands over without its own wrapping."""
        import tensorflow as tf

        index = self._get_variable_index(variable)
        rate = tf.cast(learning_rate, variable.dtype) * self._rates[index]
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        variable.assign_sub(variable * (rate * self._decay))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


def warm_up_and_cosine(steps: int, learning_rate: float, warm_up: float) -> Any:
    """Give a schedule that rises from zero in a share of the steps, then falls to zero."""
    warm_up_steps = int(steps * warm_up)  # none in a fit of a few steps: its first is at rate 0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up_steps),
        warmup_target=learning_rate,
        warmup_steps=warm_up_steps,
    )


def rates_by_depth(part: Any, nearest: float, farthest: float) -> list[float]:
    """Give what the rate of each trainable variable is multiplied by, by the depth of its layer.

    The head learns at the full rate. The other layers that learn are taken in the order of the
    graph: the last before the head gets `nearest`, the first `farthest`, and each between them the
    same share of the next one's rate (Howard and Ruder 2018, discriminative fine-tuning). What lies
    deep is of use for any image and should change least.

    Args:
        part: a flat model that ends in a head, with `trainable` set on its layers.
        nearest: above 0.
        farthest: above 0.
    """
    learning = [
        layer
        for layer in part.layers
        if layer.trainable_variables and not layer.name.startswith(_HEAD_PREFIX)
    ]
    rates = {}
    for place, layer in enumerate(learning):
        depth = 1 - place / max(1, len(learning) - 1)
        for variable in layer.trainable_variables:
            rates[variable.path] = nearest * (farthest / nearest) ** depth
    return [rates.get(variable.path, 1.0) for variable in part.trainable_variables]
