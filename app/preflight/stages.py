"""A network as a short table: what comes out at each resolution, and what that costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


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
