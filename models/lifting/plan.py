"""The plan of a lift: everything decided, nothing built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.lifting.build import build_network
from models.lifting.depth import PolicyLike, read_policy
from models.lifting.errors import LiftError, Problem
from models.lifting.flow import Flow, plain_flow, volume_flow
from models.lifting.graph import Graph, history_of, read_graph
from models.lifting.inflate import SCHEMES
from models.lifting.kinds import Model, Tensor, Value
from models.lifting.planner import GraphPlan, Planner, raise_problems
from models.lifting.report import plan_rows, plan_text


@dataclass(frozen=True)
class LiftPlan:
    """The account of a lift, layer by layer.

    Args:
        model_2d: The 2D network.
        graph: What becomes of each of its layers.
        settings: The arguments of `plan_lift`, so that the plan can be made again with others.
    """

    model_2d: Model
    graph: GraphPlan
    settings: Mapping[str, Any]

    def build(self) -> Model:
        """Return the 3D network, an ordinary Keras model of float32 weights from the 2D one."""
        return build_network(self.graph, name=self.settings["name"])

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per layer, with the columns of the printed plan and more."""
        return plan_rows(self)

    def again(self, **changes: Value) -> "LiftPlan":
        """Return the plan of the same network with some settings changed."""
        return plan_lift(self.model_2d, **{**self.settings, **changes})

    @property
    def inexact(self) -> dict[str, str]:
        """Layers that can differ from 2D on a volume that is constant along depth, with the reason."""
        return {row["layer"]: row["inexact"] for row in self.rows() if row["inexact"]}

    def __str__(self) -> str:
        return plan_text(self)


def plan_lift(
    model_2d: Model,
    *,
    depth: int | None = None,
    input_shape: Sequence[int | None] | None = None,
    depth_policy: PolicyLike = "isotropic",
    spacing: Sequence[float] | None = None,
    init: str = "centre",
    fused: bool = True,
    name: str | None = None,
) -> LiftPlan:
    """Return how a 2D network becomes a 3D one, layer by layer; nothing is built.

    Args:
        model_2d: Functional or Sequential model, channels last.
        depth: Number of slices; None leaves it open.
        input_shape: (depth, height, width) of the volumes, where height and width are not the 2D network's.
        depth_policy: "isotropic", "preserve", "slicewise" or "spacing", or a choice per layer or stage; see
            `models.lifting.depth.read_policy`.
        spacing: (depth, height, width) in mm of the volumes, for "spacing".
        init: "centre", "mean", "acs" or "random"; see `models.lifting.inflate`.
        fused: Whether batch normalisation runs through the fused kernel (same weights and configuration).
        name: Name of the 3D network; that of the 2D network if None.

    Raises:
        LiftError: Any layer or setting stands in the way; all of them are listed.
    """
    settings = {key: value for key, value in locals().items() if key != "model_2d"}
    graph = read_graph(model_2d)
    network = model_2d.name
    if init not in SCHEMES:
        reason = f"unknown init {init!r}; there are {', '.join(SCHEMES)}."
        raise LiftError(network, [Problem("init", "setting", "", reason)])
    planner = Planner(read_policy(depth_policy, spacing, network=network), init, is_fused=fused)
    lifted = planner.plan(model_2d, _input_flows(graph, network, depth, input_shape))
    for pattern in planner.policy.unmatched(planner.paths):
        planner.problems.append(Problem("depth_policy", "setting", "", f"no layer is named {pattern!r}."))
    raise_problems(network, planner.problems)
    return LiftPlan(model_2d, lifted, settings)


def to_3d(model_2d: Model, **settings: Value) -> Model:
    """Return the 3D network lifted from a 2D one, with its weights; arguments as for `plan_lift`.

    Raises:
        LiftError: Any layer or setting stands in the way; all of them are listed.
    """
    return plan_lift(model_2d, **settings).build()


def _input_flows(
    graph: Graph, network: str, depth: int | None, input_shape: Sequence[int | None] | None
) -> tuple[Flow, ...]:
    if input_shape is not None and (len(input_shape) != 3 or depth not in (None, input_shape[0])):
        reason = (
            f"expected (depth, height, width) that agrees with depth={depth}, received {tuple(input_shape)}."
        )
        raise LiftError(network, [Problem("input_shape", "setting", "", reason)])
    return tuple(_input_flow(tensor, depth, input_shape) for tensor in graph.inputs)


def _input_flow(tensor: Tensor, depth: int | None, input_shape: Sequence[int | None] | None) -> Flow:
    shape = tuple(tensor.shape)
    if len(shape) != 4:
        return plain_flow(shape)
    size = (depth, *shape[1:3]) if input_shape is None else tuple(input_shape)
    return volume_flow(shape, (shape[0], *size, shape[3]))


__all__ = ["LiftPlan", "history_of", "plan_lift", "to_3d"]
