"""Optimisers beyond those of Keras: AdamW as one kernel per weight, and optimisers with averaged weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor, fused_adam, has_fused_adam


@keras.saving.register_keras_serializable(package="voxlift")
class FusedAdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` that runs through TensorFlow's fused Adam kernel.

    Arguments, slots, configuration and formula are those of the Keras optimiser; only rounding differs. With
    `amsgrad` and on other backends it is the Keras optimiser. An embedding's gradient, which TensorFlow
    passes row by row, is summed per row before it is squared, as the formula requires and Keras does not.

    Source:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Decay one weight and update it and its two moments.

        Args:
            gradient: Of the weight, in its shape.
            variable: The weight.
            learning_rate: Scalar.
        """
        if not self._is_fused:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        fused_adam(
            variable,
            gradient,
            first_moment=self._momentums[index].value,
            second_moment=self._velocities[index].value,
            learning_rate=learning_rate,
            decay=self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0,
            betas=(self.beta_1, self.beta_2),
            powers=self._powers,
            epsilon=self.epsilon,
        )

    @property
    def _is_fused(self) -> bool:
        return has_fused_adam() and not self.amsgrad

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        if not self._is_fused:  # the fused step decays each weight itself
            super()._apply_weight_decay(variables)

    def _backend_update_step(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable], learning_rate: Tensor
    ) -> None:
        # Once per step, not once per weight: a deep network has hundreds.
        step = ops.cast(self.iterations + 1, "float32")
        self._powers = (ops.power(self.beta_1, step), ops.power(self.beta_2, step))
        super()._backend_update_step(grads, trainable_variables, learning_rate)


class WeightAveragingMixin:
    """An optimiser that keeps an exponential moving average of the weights as part of its state.

    The momentum grows with the steps taken, min(momentum, (1 + n) / (10 + n)), so that the initial weights do
    not dominate a short training. Keras's own `use_ema` has no such warm-up and averages at every batch, also
    while gradients are accumulated.

    Source:
        Tarvainen and Valpola (2017), Mean teachers are better role models, arXiv:1703.01780.
    """

    average_momentum: float
    averages: list[Any]

    def build(self, variables: list[Any]) -> None:
        """Create the averages, equal to the weights at first.

        Args:
            variables: The trainable weights.
        """
        super().build(variables)  # type: ignore[misc]
        self.averages = [
            self.add_variable_from_reference(variable, name="average")  # type: ignore[attr-defined]
            for variable in variables
        ]
        for average, variable in zip(self.averages, variables, strict=True):
            average.assign(ops.copy(variable))  # a step on JAX donates arrays: the two must not share one

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Make a step of the optimiser, then one of the averages unless gradients are only accumulated.

        Args:
            grads: One per weight.
            trainable_variables: The weights, as Keras passes them.
        """
        microbatches = self.gradient_accumulation_steps or 1  # type: ignore[attr-defined]
        count = self._iterations + 1  # type: ignore[attr-defined]  # as it will be after the step
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        steps = ops.cast(count // microbatches, "float32")
        momentum = ops.minimum(self.average_momentum, (1.0 + steps) / (10.0 + steps))
        momentum = ops.where(ops.equal(count % microbatches, 0), momentum, 1.0)
        for average, variable in zip(self.averages, self._trainable_variables, strict=True):  # type: ignore[attr-defined]
            average.assign(average * momentum + variable * (1.0 - momentum))


def add_weight_averaging(optimizer_class: type) -> type:
    """Return the optimiser class with averaged weights; set `average_momentum` before it is built."""
    return type(f"Averaged{optimizer_class.__name__}", (WeightAveragingMixin, optimizer_class), {})


@contextmanager
def averaged_weights(network: Any) -> Iterator[None]:  # noqa: ANN401 - untyped Keras
    """Give the network its averaged weights inside a `with` block, where its optimiser keeps them.

    Moving statistics of batch normalisation are averages already and stay.

    Args:
        network: A compiled network.
    """
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    pairs = list(zip(getattr(optimizer, "averages", ()), optimizer._trainable_variables, strict=False))  # noqa: SLF001 - the order of the averages
    trained = [ops.convert_to_numpy(variable) for _, variable in pairs]
    for average, variable in pairs:
        variable.assign(ops.copy(average))  # as above: scoring on JAX donates the array
    try:
        yield
    finally:
        for value, (_, variable) in zip(trained, pairs, strict=True):
            variable.assign(value)
