"""A network as a short table: what comes out at each resolution, and what that costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from voxlift.app.progress import console
from voxlift.app.runtime.devices import Memory
from voxlift.app.training.preflight.memory import Need
from voxlift.app.training.preflight.speed import Rates


@dataclass(frozen=True)
class Stage:
    """Neighbouring layers whose outputs have the same sides; for one sample and a forward pass."""

    sides: tuple[int, ...]  # depth, height, width of a volume; height, width of a slice; none of a vector
    channels: int
    layers: int
    parameters: int
    flops: int
    activation_bytes: int

    @property
    def name(self) -> str:
        """The sides as one reads them."""
        return "x".join(map(str, self.sides)) or "vector"


def network_stages(network: Any) -> tuple[Stage, ...]:  # noqa: ANN401 - untyped Keras
    """The stages of a Functional or Sequential network, in the order of computation."""
    from voxlift.models.complexity import VIEWS, layer_costs

    costs = [cost for cost in layer_costs(network) if cost.kind not in VIEWS]
    return tuple(_stages(costs))


def _stages(costs: Sequence[Any]) -> Iterator[Stage]:
    for sides, group in itertools.groupby(costs, key=lambda cost: cost.output_shape[1:-1]):
        members = list(group)
        yield Stage(
            sides=tuple(sides),
            channels=max(cost.output_shape[-1] for cost in members),
            layers=len(members),
            parameters=sum(cost.parameters for cost in members),
            flops=sum(cost.flops for cost in members),
            activation_bytes=sum(cost.activation_bytes for cost in members),
        )


def show_stages(stages: Sequence[Stage], *, name: str) -> None:
    """Print what comes out at each resolution."""
    table = Table("output", title=f"{name}, for one sample and a forward pass")
    for column in ("channels", "layers", "parameters", "MFLOP", "MB"):
        table.add_column(column, justify="right")
    for stage in stages:
        table.add_row(stage.name, *_figures(stage))
    table.add_section()
    table.add_row(
        "all",
        "",
        str(sum(stage.layers for stage in stages)),
        f"{sum(stage.parameters for stage in stages):,}",
        f"{sum(stage.flops for stage in stages) / 1e6:,.1f}",
        f"{sum(stage.activation_bytes for stage in stages) / 1e6:,.1f}",
    )
    console.print(table)


def show_memory(need: Need, memory: Memory) -> None:
    """Print what a step takes beside what there is."""
    training = need.training
    table = Table("memory of a step", title=f"Against {memory.free / 1e9:.1f} GB free on {memory.name}")
    table.add_column("MB", justify="right")
    rows = (
        (f"activations and their gradients, batch {need.batch}", need.batch * training.per_sample),
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("optimiser", training.slots),
        ("graph and kernels", need.engine),
        ("scoring, instead of training", need.scoring),
    )
    for name, size in rows:
        table.add_row(name, f"{size / 1e6:,.1f}")
    console.print(table)


def spoken_rates(rates: Rates) -> str:
    """How long an epoch will take, and which side it waits for.

    >>> spoken_rates(Rates(0.05, 0.1, steps_per_epoch=20, shares_cores=False))
    'Input 20 batches/s, compute 10 batches/s: 20 steps an epoch, about 2 s. Compute is the bottleneck.'
    """
    both = f"Input {1 / rates.input_seconds:.3g} batches/s, compute {1 / rates.compute_seconds:.3g} batches/s"
    epoch = f"{rates.steps_per_epoch} steps an epoch, about {rates.epoch_seconds:.3g} s"
    slow = "The input is the bottleneck: weaker augmentation, a faster disk or more cores would help."
    return f"{both}: {epoch}. {slow if rates.bottleneck == 'input' else 'Compute is the bottleneck.'}"


def _figures(stage: Stage) -> tuple[str, ...]:
    return (
        str(stage.channels),
        str(stage.layers),
        f"{stage.parameters:,}",
        f"{stage.flops / 1e6:,.1f}",
        f"{stage.activation_bytes / 1e6:,.1f}",
    )
