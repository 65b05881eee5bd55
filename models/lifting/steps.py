"""What a walk over a 2D network gives: a step for every call, a plan for every network of the graph."""

from collections.abc import Iterator
from dataclasses import dataclass

from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.graph import Call, Graph
from voxlift.models.lifting.kinds import Model
from voxlift.models.lifting.rules.base import Lifted


@dataclass(frozen=True)
class Step:
    """One call of the 2D graph and what becomes of it: a layer, a nested network, or (refused) nothing.

    Args:
        call: The call in the 2D network.
        path: Name of the layer, after the names of the models around it.
        inputs: The lifted tensors that it reads.
        outputs: The lifted tensors that it gives.
        policy: Name of the depth policy that held here.
        lifted: The rule's decision, for a layer or raw operation.
        nested: The plan of a nested network.
        is_shared: Whether an earlier step has lifted the same layer.
    """

    call: Call
    path: str
    inputs: tuple[Flow, ...]
    outputs: tuple[Flow, ...]
    policy: str = ""
    lifted: Lifted | None = None
    nested: "GraphPlan | None" = None
    is_shared: bool = False


@dataclass(frozen=True)
class GraphPlan:
    """The plan for one network or nested network."""

    model: Model
    graph: Graph
    inputs: tuple[Flow, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Flow, ...]

    def walk(self) -> Iterator[Step]:
        """Yield all steps, those of nested networks in the place of their call."""
        for step in self.steps:
            if step.nested is None:
                yield step
            else:
                yield from step.nested.walk()
