"""The preflight on the terminal: the network by resolution, the memory of a step, the time of an epoch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from voxlift.app.progress import console
from voxlift.app.runtime.devices import Memory
from voxlift.app.training.preflight.memory import Need
from voxlift.app.training.preflight.trial_steps import Rates


@dataclass(frozen=True)
class Resolution:
    """Consecutive layers whose outputs have the same sides; costs of one sample and a forward pass.

    Attributes:
        sides: Depth, height, width of a volume; height, width of a slice; empty for a vector.
        channels: The most channels of an output.
        layers: How many layers.
        parameters: Weights of these layers.
        flops: Floating-point operations.
        activation_bytes: Size of the outputs.
    """

    sides: tuple[int, ...]
    channels: int
    layers: int
    parameters: int
    flops: int
    activation_bytes: int

    @property
    def name(self) -> str:
        """The sides, such as 16x32x32."""
        return "x".join(map(str, self.sides)) or "vector"


def list_resolutions(network: Any) -> tuple[Resolution, ...]:  # noqa: ANN401 - untyped Keras
    """Return the layers of a Functional or Sequential network by resolution, in the order of computation."""
    from voxlift.models.complexity import VIEWS, layer_costs

    costs = [cost for cost in layer_costs(network) if cost.kind not in VIEWS]
    groups = itertools.groupby(costs, key=lambda cost: cost.output_shape[1:-1])
    return tuple(_sum_costs(tuple(sides), list(members)) for sides, members in groups)


def print_resolutions(resolutions: Sequence[Resolution], *, name: str) -> None:
    """Print a row for each resolution, and their sum."""
    table = Table("output", title=f"{name}, for one sample and a forward pass")
    for column in ("channels", "layers", "parameters", "MFLOP", "MB"):
        table.add_column(column, justify="right")
    for one in resolutions:
        table.add_row(one.name, str(one.channels), *_figures(one))
    table.add_section()
    table.add_row("all", "", *_figures(*resolutions))
    console.print(table)


def print_memory(need: Need, memory: Memory) -> None:
    """Print what a step needs, with what is free."""
    training = need.training
    table = Table("memory of a step", title=f"{memory.free / 1e9:.1f} GB free on {memory.name}")
    table.add_column("MB", justify="right")
    rows = (
        (f"activations and their gradients, batch {need.batch}", need.batch * training.per_sample),
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("optimizer", training.slots),
        ("graph and kernels", need.engine),
        ("scoring, not at the same time", need.scoring),
    )
    for name, size in rows:
        table.add_row(name, f"{size / 1e6:,.1f}")
    console.print(table)


def describe_memory(need: Need, memory: Memory) -> str:
    """Return a sentence on what a step needs of the memory that is free."""
    needed, free = f"{need.bytes / 1e9:.2g} GB", f"{memory.free / 1e9:.1f} GB"
    return f"A step needs about {needed} of the {free} free on {memory.name}."


def describe_rates(rates: Rates) -> str:
    """Return how long an epoch will take; the training itself measures what waits for what.

    >>> describe_rates(Rates(0.05, 0.1, steps_per_epoch=20, shares_cores=False))
    'Input 20 batches/s, compute 10 batches/s: 20 steps per epoch, about 2 s.'
    """
    both = f"Input {1 / rates.input_seconds:.3g} batches/s, compute {1 / rates.compute_seconds:.3g} batches/s"
    epoch = f"{rates.steps_per_epoch} steps per epoch, about {rates.epoch_seconds:.3g} s"
    return f"{both}: {epoch}."


def _sum_costs(sides: tuple[int, ...], costs: Sequence[Any]) -> Resolution:
    return Resolution(
        sides=sides,
        channels=max(cost.output_shape[-1] for cost in costs),
        layers=len(costs),
        parameters=sum(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        activation_bytes=sum(cost.activation_bytes for cost in costs),
    )


def _figures(*resolutions: Resolution) -> tuple[str, ...]:
    return (
        str(sum(one.layers for one in resolutions)),
        f"{sum(one.parameters for one in resolutions):,}",
        f"{sum(one.flops for one in resolutions) / 1e6:,.1f}",
        f"{sum(one.activation_bytes for one in resolutions) / 1e6:,.1f}",
    )
