"""An exponential moving average of the weights, kept by the optimiser as part of its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras import ops


class AverageMixin:
    """Makes an optimiser keep, after each step, an average of the weights it moves.

    The share of the past grows with the steps taken, min(momentum, (1 + n) / (10 + n)), so that a short
    training is not ruled by the weights it began with.

    Source: Tarvainen and Valpola (2017), Mean teachers are better role models, arXiv 1703.01780.
    """

    average_momentum: float
    averages: list[Any]

    def build(self, variables: list[Any]) -> None:
        """Make the averages, equal to the weights at first."""
        super().build(variables)  # type: ignore[misc]
        self.averages = [
            self.add_variable_from_reference(variable, name="average")  # type: ignore[attr-defined]
            for variable in variables
        ]
        for average, variable in zip(self.averages, variables, strict=True):
            average.assign(ops.copy(variable))  # JAX would let both be one array, and a step give it up twice

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """One step of the optimiser, then one of the averages; none while gradients are only collected."""
        portions = self.gradient_accumulation_steps or 1  # type: ignore[attr-defined]
        count = self._iterations + 1  # type: ignore[attr-defined]  # as it will be after the step
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        steps = ops.cast(count // portions, "float32")
        share = ops.minimum(self.average_momentum, (1.0 + steps) / (10.0 + steps))
        share = ops.where(ops.equal(count % portions, 0), share, 1.0)
        for average, variable in zip(self.averages, self._trainable_variables, strict=True):  # type: ignore[attr-defined]
            average.assign(average * share + variable * (1.0 - share))


def averaging(kind: type) -> type:
    """The optimiser class that also averages; set `average_momentum` before it is built."""
    return type(f"Averaged{kind.__name__}", (AverageMixin, kind), {})


@contextmanager
def averaged_weights(network: Any) -> Iterator[None]:  # noqa: ANN401 - untyped Keras
    """The network with its averaged weights, where its optimiser keeps them; then as it was.

    Moving statistics of batch normalisation are averages already and stay.
    """
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    pairs = list(zip(getattr(optimizer, "averages", ()), optimizer._trainable_variables, strict=False))  # noqa: SLF001 - the order of the averages
    kept = [ops.convert_to_numpy(variable) for _, variable in pairs]
    for average, variable in pairs:
        variable.assign(ops.copy(average))  # as above: scoring gives the array up on JAX
    try:
        yield
    finally:
        for value, (_, variable) in zip(kept, pairs, strict=True):
            variable.assign(value)
