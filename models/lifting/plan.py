"""The plan of a lift: everything decided, nothing built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.models.lifting.build import build_network
from voxlift.models.lifting.depth import PolicyLike, read_policy
from voxlift.models.lifting.edits import Edits
from voxlift.models.lifting.errors import LiftError, Problem, RefusedError
from voxlift.models.lifting.filters import FilterScale, scale_filters
from voxlift.models.lifting.flow import Flow, plain_flow, volume_flow
from voxlift.models.lifting.graph import Graph, read_graph
from voxlift.models.lifting.head import edit_head
from voxlift.models.lifting.inflate import SCHEMES
from voxlift.models.lifting.kinds import Model, Tensor, Value
from voxlift.models.lifting.planner import Planner, raise_problems
from voxlift.models.lifting.report import plan_rows, plan_text
from voxlift.models.lifting.stem import STEM_REASON
from voxlift.models.lifting.steps import GraphPlan


@dataclass(frozen=True)
class LiftPlan:
    """The account of a lift, layer by layer.

    Args:
        model_2d: The 2D network.
        graph: What becomes of each of its layers.
        settings: The arguments of `plan_lift`, so that the plan can be made again with others.
        graph_edits: What was changed in the 2D network on the way (filters, head, first convolution).
        is_grey: Whether volumes have one channel, which is repeated to those of 2D before the first layer.
        appended_classes: Classes of a head that is put behind a network which has none.
    """

    model_2d: Model
    graph: GraphPlan
    settings: Mapping[str, Any]
    graph_edits: Edits
    is_grey: bool = False
    appended_classes: int | None = None

    def build(self) -> Model:
        """Return the 3D network, an ordinary Keras model with its weights from the 2D one."""
        name = self.settings["name"] or self.model_2d.name
        return build_network(self.graph, name=name, is_grey=self.is_grey, classes=self.appended_classes)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per layer, with the columns of the printed plan and more."""
        return plan_rows(self.graph)

    def again(self, **changes: Value) -> "LiftPlan":
        """Return the plan of the same network with some settings changed.

        Args:
            changes: Arguments of `plan_lift`.

        Raises:
            LiftError: The changed settings stand in the way.
        """
        return plan_lift(self.model_2d, **{**self.settings, **changes})

    @property
    def inexact(self) -> dict[str, str]:
        """Layers that can differ from 2D on a volume that is constant along depth, with the reason."""
        return {row["layer"]: row["inexact"] for row in self.rows() if row["inexact"]}

    def __str__(self) -> str:
        return plan_text(self.graph, self.rows(), self.settings)


def plan_lift(
    model_2d: Model,
    *,
    depth: int | None = None,
    input_shape: Sequence[int | None] | None = None,
    depth_policy: PolicyLike = "isotropic",
    spacing: Sequence[float] | None = None,
    init: str = "centre",
    channels: int | None = None,
    filters: FilterScale | None = None,
    classes: int | None = None,
    logits: bool = False,
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
        channels: Channels of the volumes, where they are not the 2D network's: the first convolution's kernel
            is summed
            over its input channels and shared out evenly, so that images with equal channels give what they
            gave.
        filters: A factor for the number of filters, or factors or numbers per stage; see
            `models.lifting.filters.scale_filters`. The weights of the filters that stay are kept.
        classes: Units of a new head, which starts from its initialiser.
        logits: Take a softmax or sigmoid at the end away.
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
    policy = read_policy(depth_policy, spacing, network=network)
    flows = _input_flows(graph, network, depth, input_shape)
    is_appended, edits = _edits(model_2d, filters=filters, classes=classes, logits=logits)
    planner = Planner(policy, init, is_fused=fused, edits=edits)
    lifted = planner.plan(model_2d, _with_channels(flows, channels))
    is_grey = channels == 1 and any(problem.reason == STEM_REASON for problem in planner.problems)
    if is_grey:
        # A layer before the first convolution has weights per channel: give it the channels that it knows.
        is_appended, edits = _edits(model_2d, filters=filters, classes=classes, logits=logits)
        planner = Planner(policy, init, is_fused=fused, edits=edits)
        lifted = planner.plan(model_2d, flows)
    for pattern in planner.policy.unmatched(planner.paths):
        planner.problems.append(Problem("depth_policy", "setting", "", f"no layer is named {pattern!r}."))
    raise_problems(network, planner.problems)
    return LiftPlan(model_2d, lifted, settings, edits, is_grey, classes if is_appended else None)


def to_3d(model_2d: Model, **settings: Value) -> Model:
    """Return the 3D network lifted from a 2D one, with its weights; arguments as for `plan_lift`.

    Raises:
        LiftError: Any layer or setting stands in the way; all of them are listed.
    """
    return plan_lift(model_2d, **settings).build()


def _edits(
    model: Model, *, filters: FilterScale | None, classes: int | None, logits: bool
) -> tuple[bool, Edits]:
    edits = Edits()
    try:
        if filters is not None:
            scale_filters(model, filters, edits)
        return edit_head(model, edits, classes=classes, logits=logits), edits
    except RefusedError as refusal:
        problem = Problem(model.name, type(model).__name__, "", refusal.reason, refusal.way_out)
        raise LiftError(model.name, [problem]) from refusal


def _with_channels(flows: tuple[Flow, ...], channels: int | None) -> tuple[Flow, ...]:
    if channels is None:
        return flows
    return tuple(
        flow.become(shape=(*flow.shape[:-1], channels), shape_2d=(*flow.shape_2d[:-1], channels))
        if flow.is_volume
        else flow
        for flow in flows
    )


def _input_flows(
    graph: Graph, network: str, depth: int | None, input_shape: Sequence[int | None] | None
) -> tuple[Flow, ...]:
    if input_shape is not None and (len(input_shape) != 3 or depth not in (None, input_shape[0])):
        reason = (
            f"expected (depth, height, width) that agrees with depth={depth}, received {tuple(input_shape)}."
        )
        raise LiftError(network, [Problem("input_shape", "setting", "", reason)])
    if not any(len(tensor.shape) == 4 for tensor in graph.inputs):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in graph.inputs)
        reason = f"expected an image [B, H, W, C] among the inputs, received {shapes}."
        raise LiftError(network, [Problem("inputs", "network", "", reason, "Lift a 2D network.")])
    return tuple(_input_flow(tensor, depth, input_shape) for tensor in graph.inputs)


def _input_flow(tensor: Tensor, depth: int | None, input_shape: Sequence[int | None] | None) -> Flow:
    shape = tuple(tensor.shape)
    if len(shape) != 4:
        return plain_flow(shape)
    size = (depth, *shape[1:3]) if input_shape is None else tuple(input_shape)
    return volume_flow(shape, (shape[0], *size, shape[3]))
