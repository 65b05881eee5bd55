"""The plan of a lift: `plan_lift` decides everything and builds nothing; `to_3d` also builds the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.models.lifting.build import build_network
from voxlift.models.lifting.depth import DepthPolicy, PolicyLike, read_policy
from voxlift.models.lifting.edits.base import Edits
from voxlift.models.lifting.edits.filters import FilterScale, scale_filters
from voxlift.models.lifting.edits.head import append_head, edit_head
from voxlift.models.lifting.edits.input_channels import CHANNEL_WEIGHTS
from voxlift.models.lifting.errors import LiftError, Problem, UnsupportedError, setting_error
from voxlift.models.lifting.graph import Graph, read_graph
from voxlift.models.lifting.inflate import SCHEMES
from voxlift.models.lifting.planner import GraphPlan, Planner
from voxlift.models.lifting.report import WIDTH, format_plan, plan_rows
from voxlift.models.lifting.types import Model, Tensor, TensorSpec, Value, plain_spec, volume_spec


@dataclass(frozen=True)
class LiftPlan:
    """The description of a lift, layer by layer.

    Args:
        model_2d: The 2D network.
        graph: The result for each of its layers.
        settings: The arguments of `plan_lift`, so that `replan` can change some of them.
        edits: The changes of the 2D network (filters, head, first convolution).
        is_grey: Whether volumes have one channel that is repeated before the first layer.
        appended_classes: Classes of a head that is appended to a network without one.
    """

    model_2d: Model
    graph: GraphPlan
    settings: Mapping[str, Any]
    edits: Edits
    is_grey: bool = False
    appended_classes: int | None = None

    def build(self) -> Model:
        """Return the 3D network, an ordinary Keras model with the weights of the 2D network."""
        name = self.settings["name"] or self.model_2d.name
        model = build_network(self.graph, name=name, is_grey=self.is_grey).model
        classes = self.appended_classes
        return model if classes is None else append_head(model, classes=classes)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per layer, with the columns of the printed plan and more."""
        return plan_rows(self.graph)

    def replan(self, **changes: Value) -> "LiftPlan":
        """Return the plan of the same network with some settings changed.

        Args:
            changes: Arguments of `plan_lift`.

        Raises:
            LiftError: The network cannot be lifted with the changed settings.
        """
        return plan_lift(self.model_2d, **{**self.settings, **changes})

    @property
    def inexact(self) -> dict[str, str]:
        """Layers that can differ from 2D on a volume that is constant along depth, with the reason."""
        return {row["layer"]: row["inexact"] for row in self.rows() if row["inexact"]}

    def format(self, width: int = WIDTH) -> str:
        """Return the plan as text, which `print(plan)` shows with 110 characters a line.

        Args:
            width: Characters of a line.
        """
        return format_plan(self.graph, self.rows(), self.settings, width)

    def __str__(self) -> str:
        return self.format()


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
    """Return how a 2D network becomes a 3D network, layer by layer; nothing is built.

    Args:
        model_2d: Functional or Sequential model, channels last.
        depth: Number of slices; None for any number.
        input_shape: (depth, height, width) of the volumes, if height and width are not the 2D network's.
        depth_policy: "isotropic", "preserve", "slicewise" or "spacing", or a choice per layer or stage; see
            `models.lifting.depth.read_policy`.
        spacing: (depth, height, width) of the volumes in mm, for "spacing".
        init: "centre", "mean", "acs" or "random"; see `models.lifting.inflate`.
        channels: Channels of the volumes, if they are not the 2D network's. The kernel of the first
            convolution is summed over its input channels and shared equally, so that images with equal
            channels give the same output as before.
        filters: A factor for the number of filters, or factors or numbers per stage; see
            `models.lifting.edits.filters.scale_filters`. The remaining filters keep their weights.
        classes: Units of a new head, which starts from its initialiser.
        logits: Whether a softmax or sigmoid at the end is removed.
        fused: Whether batch normalisation uses the fused kernel (same weights and configuration).
        name: Name of the 3D network; that of the 2D network if None.

    Raises:
        LiftError: The network cannot be lifted with these settings; all problems are listed.
    """
    settings = {key: value for key, value in locals().items() if key != "model_2d"}
    graph = read_graph(model_2d)
    network = model_2d.name
    if init not in SCHEMES:
        raise setting_error(network, "init", f"expected one of {', '.join(SCHEMES)}; received {init!r}.")
    policy = read_policy(depth_policy, spacing, network=network)
    specs = _input_specs(graph, network, depth, input_shape)
    planner, lifted, is_appended = _plan_graph(model_2d, _with_channels(specs, channels), policy, settings)
    is_grey = channels == 1 and any(problem.reason == CHANNEL_WEIGHTS for problem in planner.problems)
    if is_grey:
        # A layer before the first convolution has weights per channel: repeat the channel for it.
        planner, lifted, is_appended = _plan_graph(model_2d, specs, policy, settings)
    for pattern in policy.unmatched(planner.paths):
        planner.problems.append(Problem("depth_policy", "setting", "", f"no layer is named {pattern!r}."))
    if planner.problems:
        raise LiftError(network, planner.problems)
    return LiftPlan(model_2d, lifted, settings, planner.edits, is_grey, classes if is_appended else None)


def to_3d(model_2d: Model, **settings: Value) -> Model:
    """Return the 3D network lifted from a 2D network, with its weights.

    Args:
        model_2d: Functional or Sequential model, channels last.
        settings: Further arguments of `plan_lift`.

    Raises:
        LiftError: The network cannot be lifted with these settings; all problems are listed.
    """
    return plan_lift(model_2d, **settings).build()


def _plan_graph(
    model: Model, inputs: tuple[TensorSpec, ...], policy: DepthPolicy, settings: Mapping[str, Any]
) -> tuple[Planner, GraphPlan, bool]:
    """Return the planner after its walk, the plan, and whether a new head must be appended."""
    edits = Edits()
    try:
        if settings["filters"] is not None:
            scale_filters(model, settings["filters"], edits)
        is_appended = edit_head(model, edits, classes=settings["classes"], logits=settings["logits"])
    except UnsupportedError as error:
        problem = Problem(model.name, type(model).__name__, "", error.reason, error.fix)
        raise LiftError(model.name, [problem]) from error
    planner = Planner(policy, settings["init"], is_fused=settings["fused"], edits=edits)
    return planner, planner.plan(model, inputs), is_appended


def _with_channels(specs: tuple[TensorSpec, ...], channels: int | None) -> tuple[TensorSpec, ...]:
    if channels is None:
        return specs
    return tuple(
        spec.replace(shape=(*spec.shape[:-1], channels), shape_2d=(*spec.shape_2d[:-1], channels))
        if spec.is_volume
        else spec
        for spec in specs
    )


def _input_specs(
    graph: Graph, network: str, depth: int | None, input_shape: Sequence[int | None] | None
) -> tuple[TensorSpec, ...]:
    if input_shape is not None and (len(input_shape) != 3 or depth not in (None, input_shape[0])):
        reason = f"expected (depth, height, width) and depth={depth}, received {tuple(input_shape)}."
        raise setting_error(network, "input_shape", reason)
    if not any(len(tensor.shape) == 4 for tensor in graph.inputs):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in graph.inputs)
        reason = f"expected an image [B, H, W, C] among the inputs, received {shapes}."
        raise LiftError(network, [Problem("inputs", "network", "", reason, "Lift a 2D network.")])
    return tuple(_input_spec(tensor, depth, input_shape) for tensor in graph.inputs)


def _input_spec(tensor: Tensor, depth: int | None, input_shape: Sequence[int | None] | None) -> TensorSpec:
    shape = tuple(tensor.shape)
    if len(shape) != 4:
        return plain_spec(shape)
    size = (depth, *shape[1:3]) if input_shape is None else tuple(input_shape)
    return volume_spec(shape, (shape[0], *size, shape[3]))
