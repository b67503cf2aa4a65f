"""AdamW with a learning rate for each layer, and its schedule."""

from collections.abc import Sequence
from typing import Any

import keras

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults for Adam


class LayerwiseAdamW(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """AdamW (Loshchilov and Hutter 2019) with a learning rate for each variable.

    Moments and weights are updated by TensorFlow's fused operation, one pass over memory instead
    of Keras's dozen; for a head of a million weights on a CPU those cost as much as its gradient.
    """

    def __init__(self, learning_rate: Any, weight_decay: float, rates: Sequence[float]) -> None:
        """Take a number or a schedule, and its factors in the order of the variables built with.

        `weight_decay` is the share of a weight that a step at rate 1 takes away.
        """
        super().__init__(learning_rate, name="layerwise_adamw")
        self._decay = weight_decay  # Keras's own decay has one rate for all
        self._rates = tuple(rates)
        self._state: dict[Any, tuple[float, Any, Any]] = {}

    def build(self, variables: Sequence[Any]) -> None:
        """Create the moments of the variables."""
        if self.built:
            return
        super().build(variables)
        for variable, rate in zip(variables, self._rates, strict=True):
            moments = [
                self.add_variable_from_reference(variable, name) for name in ("mean", "square")
            ]
            self._state[variable.value.ref()] = (rate, *(moment.value for moment in moments))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one `tf.Variable`, which Keras hands over without its own wrapping."""
        import tensorflow as tf

        factor, mean, square = self._state[variable.ref()]
        rate = tf.cast(learning_rate, variable.dtype) * factor
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        variable.assign_sub(variable * (rate * self._decay))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=tf.pow(tf.constant(_BETA_1, variable.dtype), step),
            beta2_power=tf.pow(tf.constant(_BETA_2, variable.dtype), step),
            lr=rate,
            beta1=_BETA_1,
            beta2=_BETA_2,
            epsilon=_EPSILON,
            grad=tf.cast(gradient, variable.dtype),
        )


def warm_up_and_cosine(steps: int, learning_rate: float, warm_up: float) -> Any:
    """Return a schedule that rises from zero in a share of the steps, then falls to zero."""
    warm_up_steps = int(steps * warm_up)  # none in a fit of a few steps: its first is at rate 0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warm_up_steps),
        warmup_target=learning_rate,
        warmup_steps=warm_up_steps,
    )


def rates_by_depth(part: Any, nearest: float, farthest: float) -> list[float]:
    """Return a factor of the rate for each trainable variable, by the depth of its layer.

    The head learns at the full rate. The other layers of the flat model `part` that are trainable
    are taken in the order of the graph: the last before the head gets `nearest`, the first
    `farthest` (above 0), and each between them the same share of the next one's rate (Howard and
    Ruder 2018, discriminative fine-tuning). What lies deep is of use for any image and should
    change least.
    """
    learning = [
        layer
        for layer in part.layers
        if layer.trainable_variables and not layer.name.startswith("head_")
    ]
    rates = {}
    for place, layer in enumerate(learning):
        depth = 1 - place / max(1, len(learning) - 1)
        for variable in layer.trainable_variables:
            rates[variable.path] = nearest * (farthest / nearest) ** depth
    return [rates.get(variable.path, 1.0) for variable in part.trainable_variables]
