"""The walk: every call of the 2D graph through its rule, in order, collecting all problems on the way."""

from dataclasses import dataclass, field
from typing import Any

import keras

from voxlift.models.lifting.depth import DepthPolicy
from voxlift.models.lifting.edits import Edits
from voxlift.models.lifting.errors import DepthUsedUpError, LiftError, Problem, RefusedError
from voxlift.models.lifting.flow import Flow, Shape, guess_flow, plain_flow
from voxlift.models.lifting.graph import Call, Graph, history_of, is_network, read_graph
from voxlift.models.lifting.kinds import Layer, Model, Tensor
from voxlift.models.lifting.registry import rule_for
from voxlift.models.lifting.rules.answers import keep
from voxlift.models.lifting.rules.base import Follower, LayerCall, Lifted
from voxlift.models.lifting.stem import adapt_stem, is_stem, passes_channels
from voxlift.models.lifting.steps import GraphPlan, Step

WINDOWS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)
PASSES = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D, keras.layers.Identity)
NO_RULE = "no rule is known for it."
NO_RULE_WAY_OUT = (
    "Replace it by layers that have one, or register your own with register_lift_rule(LayerClass, rule)."
)


@dataclass
class Planner:
    """One walk over a network: its settings, and what it has met so far.

    Args:
        policy: Which depth rule holds where.
        scheme: "centre", "mean", "acs" or "random".
        is_fused: Whether batch normalisation takes the fused kernel.
        edits: What changes in the 2D network.
        problems: What stands in the way, in order.
        paths: Names of the layers met, for patterns that match none.
        lifted: What was decided for each layer the first time.
    """

    policy: DepthPolicy
    scheme: str
    is_fused: bool
    problems: list[Problem] = field(default_factory=list)
    edits: Edits = field(default_factory=Edits)
    paths: list[str] = field(default_factory=list)
    lifted: dict[int, Lifted] = field(default_factory=dict)

    def plan(self, model: Model, inputs: tuple[Flow, ...], *, prefix: str = "") -> GraphPlan:
        """Return the plan for a network whose inputs are to have these flows.

        Args:
            model: The 2D network, or one inside it.
            inputs: One per input of the network.
            prefix: Names of the models around it, each with a slash.
        """
        graph = read_graph(model)
        flows = {id(tensor): flow for tensor, flow in zip(graph.inputs, inputs, strict=True)}
        steps = []
        for call in graph.calls:
            step = self._step(call, graph, tuple(flows[id(tensor)] for tensor in call.inputs), prefix)
            flows.update(zip(map(id, call.outputs), step.outputs, strict=True))
            steps.append(step)
        outputs = tuple(flows[id(tensor)] for tensor in graph.outputs)
        return GraphPlan(model, graph, inputs, tuple(steps), outputs)

    def _step(self, call: Call, graph: Graph, inputs: tuple[Flow, ...], prefix: str) -> Step:
        path = prefix + call.operation.name
        self.paths.append(path)
        if not inputs:
            return self._refused(call, path, inputs, RefusedError("it reads no tensor of the network."))
        if is_network(call.operation):
            nested = self.plan(call.operation, inputs, prefix=f"{path}/")
            return Step(call, path, inputs, nested.outputs, nested=nested)
        try:
            return self._lift(call, graph, inputs, path)
        except RefusedError as refusal:
            return self._refused(call, path, inputs, refusal)

    def _lift(self, call: Call, graph: Graph, inputs: tuple[Flow, ...], path: str) -> Step:
        rule = rule_for(call.operation)
        if rule is None and all(flow.is_plain for flow in inputs) and _is_safe(call.operation):
            rule = keep_plain
        if rule is None:
            raise RefusedError(*_why_no_rule(call.operation))
        _check_weights(call.operation)
        layer_call = self._layer_call(call, graph, inputs, path)
        edit = adapt_stem(layer_call, call, self.edits)
        if edit is not None:
            self.edits.add(call.operation, edit)
            layer_call = self.edits.apply(layer_call)
        lifted = self.edits.finish(layer_call, rule(layer_call))
        known = self.lifted.setdefault(id(call.operation), lifted)
        if known is not lifted and _differ(known, lifted):
            raise RefusedError(
                "it is shared, and its calls want unlike 3D layers.",
                "Give the layers that lead to its calls the same depth_policy.",
            )
        policy = self.policy.name_for(path, inputs[0])
        return Step(call, path, inputs, lifted.outputs, policy, lifted, is_shared=known is not lifted)

    def _layer_call(self, call: Call, graph: Graph, inputs: tuple[Flow, ...], path: str) -> LayerCall:
        layer = call.operation
        layer_call = LayerCall(
            layer=layer,
            path=path,
            config=_config_of(layer),
            weight_shapes=tuple(tuple(weight.shape) for weight in getattr(layer, "weights", ())),
            inputs=inputs,
            shapes_2d=self._shapes_2d(call, inputs),
            rule=self.policy.rule_for(path, inputs[0]),
            scheme=self.scheme,
            is_fused=self.is_fused,
            next_windows=self._next_windows(call, graph, inputs[0], path),
            args=call.args,
            kwargs=call.kwargs,
        )
        return self.edits.apply(layer_call)

    def _shapes_2d(self, call: Call, inputs: tuple[Flow, ...]) -> tuple[Shape, ...]:
        shapes = tuple(self.edits.shape_of(tensor) for tensor in call.outputs)
        if is_stem(call, inputs, self.edits) and passes_channels(call.operation):
            return tuple((*shape[:-1], inputs[0].channels) for shape in shapes)
        return shapes

    def _next_windows(self, call: Call, graph: Graph, flow: Flow, path: str) -> tuple[Follower, ...]:
        """Return the convolutions and pools that a padding layer feeds, through croppings too."""
        if not isinstance(call.operation, keras.layers.ZeroPadding2D):
            return ()
        readers, prefix = graph.consumers(), path[: -len(call.operation.name)]
        found, waiting = [], list(readers[id(call.outputs[0])])
        while waiting:
            reader = waiting.pop(0)
            if isinstance(reader.operation, WINDOWS):
                rule = self.policy.rule_for(prefix + reader.operation.name, flow)
                found.append(Follower(reader.operation.get_config(), rule))
            elif isinstance(reader.operation, PASSES):
                waiting.extend(readers[id(reader.outputs[0])])
        return tuple(found)

    def _refused(self, call: Call, path: str, inputs: tuple[Flow, ...], refusal: RefusedError) -> Step:
        is_first = not any(problem.reason == refusal.reason for problem in self.problems)
        if is_first or not isinstance(refusal, DepthUsedUpError):
            used = ", ".join(_where(tensor) for tensor in call.inputs)
            kind = type(call.operation).__name__
            self.problems.append(
                Problem(path, kind, f"called on {used}" if used else "", refusal.reason, refusal.way_out)
            )
        source = inputs[0] if inputs else plain_flow((None, None))
        outputs = tuple(guess_flow(tuple(tensor.shape), source) for tensor in call.outputs)
        return Step(call, path, inputs, outputs)


def keep_plain(call: LayerCall) -> Lifted:
    """Return a layer as it is: none of its inputs has an axis more than in 2D."""
    return keep_with(call, tuple(plain_flow(shape) for shape in call.shapes_2d))


def keep_with(call: LayerCall, outputs: tuple[Flow, ...]) -> Lifted:
    """Return the same layer, with the outputs given.

    Args:
        call: The 2D layer where it is called.
        outputs: The tensors that it gives.
    """
    single = LayerCall(**{**vars(call), "shapes_2d": ()})
    return keep(single).become(outputs=outputs)


def raise_problems(network: str, problems: list[Problem]) -> None:
    """Pass when there are no problems.

    Args:
        network: Name of the 2D network.
        problems: All that was found.

    Raises:
        LiftError: There are some.
    """
    if problems:
        raise LiftError(network, problems)


def _config_of(operation: Layer) -> dict[str, Any]:
    try:
        return dict(operation.get_config())
    except NotImplementedError as error:
        raise RefusedError(
            "its configuration cannot be read, so that it cannot be made again.",
            "Give its class get_config and from_config.",
        ) from error


def _check_weights(operation: Layer) -> None:
    """Refuse a layer whose weights are not those of its class.

    Raises:
        RefusedError: It was quantised, or given low-rank adapters.
    """
    if getattr(operation, "lora_enabled", False) or getattr(operation, "quantization_mode", None):
        raise RefusedError(
            "its weights are quantised, or beside low-rank adapters.",
            "Lift the network as it was before quantize() or enable_lora().",
        )


def _is_safe(operation: Layer) -> bool:
    return not isinstance(operation, keras.layers.Lambda)


def _why_no_rule(operation: Layer) -> tuple[str, str]:
    if isinstance(operation, keras.Model):
        return (
            "a subclassed model has no graph to walk.",
            "Write it with the Functional API (the same layers, called on keras.Input).",
        )
    return NO_RULE, NO_RULE_WAY_OUT


def _differ(one: Lifted, other: Lifted) -> bool:
    return (one.layer_class, one.config, one.weight_shapes, one.before) != (
        other.layer_class,
        other.config,
        other.weight_shapes,
        other.before,
    )


def _where(tensor: Tensor) -> str:
    shape: Shape = tuple(tensor.shape)
    return f"{history_of(tensor).operation.name} {shape}"
