"""Step 1 of a lift: walk the 2D graph, apply a rule to every call, and collect all problems."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from voxlift.models.lifting.depth import DepthPolicy
from voxlift.models.lifting.edits.base import Edits
from voxlift.models.lifting.edits.input_channels import (
    adapt_first_convolution,
    is_channel_agnostic,
    reads_other_channels,
)
from voxlift.models.lifting.errors import (
    DepthTooSmallError,
    Problem,
    UnsupportedError,
    foreign_code,
    is_foreign,
)
from voxlift.models.lifting.graph import SUBCLASSED, Call, Graph, history_of, is_network, read_graph
from voxlift.models.lifting.rules import find_rule, find_token_rule
from voxlift.models.lifting.rules.base import Consumer, LayerCall, Lifted, LiftRule, keep_layer, user_rule
from voxlift.models.lifting.rules.elementwise import name_activation
from voxlift.models.lifting.rules.embedding import lift_foreign_tokens
from voxlift.models.lifting.rules.foreign import lift_foreign
from voxlift.models.lifting.types import Layer, Model, Shape, Tensor, TensorSpec, guess_spec, plain_spec
from voxlift.models.lifting.unfold import holds_layers, unfold_layer

WINDOWS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)
BETWEEN_PADDING_AND_WINDOW = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D, keras.layers.Identity)


@dataclass(frozen=True)
class Step:
    """One call of the 2D graph and its result: a layer, a nested network, or nothing if it is unsupported.

    Args:
        call: The call in the 2D network.
        path: Name of the layer, after the names of the models around it.
        inputs: The lifted tensors that it reads.
        outputs: The lifted tensors that it returns.
        policy: Name of the depth policy of this layer.
        lifted: The result of the rule, for a layer or raw operation.
        nested: The plan of a nested network.
        is_shared: Whether an earlier step has lifted the same layer.
    """

    call: Call
    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    policy: str = ""
    lifted: Lifted | None = None
    nested: "GraphPlan | None" = None
    is_shared: bool = False


@dataclass(frozen=True)
class GraphPlan:
    """The plan of one network or nested network."""

    model: Model
    graph: Graph
    inputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    outputs: tuple[TensorSpec, ...]

    def unfolded(self) -> dict[int, Model]:
        """Return the networks of the layers that layers of other libraries hold, by their ids."""
        found: dict[int, Model] = {}
        for step in self.steps:
            if step.nested is not None:
                found |= step.nested.unfolded()
                if step.nested.model is not step.call.operation:
                    found[id(step.call.operation)] = step.nested.model
        return found

    def walk(self) -> Iterator[Step]:
        """Yield all steps; those of a nested network replace its call."""
        for step in self.steps:
            if step.nested is None:
                yield step
            else:
                yield from step.nested.walk()


@dataclass
class Planner:
    """One walk over a network: its settings, and what was found so far.

    Args:
        policy: The depth rule of every layer.
        scheme: "centre", "mean", "acs" or "random".
        is_fused: Whether batch normalisation uses the fused kernel.
        edits: The changes of the 2D network.
        problems: All problems, in order.
        paths: Names of all layers, to find patterns that match none.
        results: The first result for each layer, by its id.
        unfolded: The network of the layers that a layer of another library holds, by the layer's id.
    """

    policy: DepthPolicy
    scheme: str
    is_fused: bool
    edits: Edits
    problems: list[Problem] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    results: dict[int, Lifted] = field(default_factory=dict)
    unfolded: dict[int, Model] = field(default_factory=dict)

    def plan(self, model: Model, inputs: tuple[TensorSpec, ...], *, prefix: str = "") -> GraphPlan:
        """Return the plan of a network for given inputs.

        Args:
            model: The 2D network, or one nested in it.
            inputs: One lifted tensor per input of the network.
            prefix: Names of the models around it, each followed by a slash.
        """
        graph = read_graph(model)
        specs = {id(tensor): spec for tensor, spec in zip(graph.inputs, inputs, strict=True)}
        steps = []
        for call in graph.calls:
            step = self._step(call, graph, tuple(specs[id(tensor)] for tensor in call.inputs), prefix)
            specs.update(zip(map(id, call.outputs), step.outputs, strict=True))
            steps.append(step)
        outputs = tuple(specs[id(tensor)] for tensor in graph.outputs)
        return GraphPlan(model, graph, inputs, tuple(steps), outputs)

    def _step(self, call: Call, graph: Graph, inputs: tuple[TensorSpec, ...], prefix: str) -> Step:
        path = prefix + call.operation.name
        self.paths.append(path)
        if not inputs:
            return self._record_problem(
                call, path, inputs, UnsupportedError("it reads no tensor of the network.")
            )
        if is_network(call.operation):
            nested = self.plan(call.operation, inputs, prefix=f"{path}/")
            return Step(call, path, inputs, nested.outputs, nested=nested)
        try:
            with foreign_code(call.operation, "while its lift was planned"):
                return self._lift(call, graph, inputs, path)
        except UnsupportedError as error:
            if not holds_layers(call.operation) or user_rule(call.operation):
                return self._record_problem(call, path, inputs, error)
        return self._unfold(call, inputs, path)

    def _unfold(self, call: Call, inputs: tuple[TensorSpec, ...], path: str) -> Step:
        """Return the plan of the layers that a layer of another library holds."""
        key = id(call.operation)
        try:
            if key not in self.unfolded:
                self.unfolded[key] = unfold_layer(call)
        except UnsupportedError as error:
            reason = f"there is no rule for this class, and {error.reason}"
            return self._record_problem(call, path, inputs, UnsupportedError(reason, error.fix))
        nested = self.plan(self.unfolded[key], inputs, prefix=f"{path}/")
        return Step(call, path, inputs, nested.outputs, nested=nested)

    def _lift(self, call: Call, graph: Graph, inputs: tuple[TensorSpec, ...], path: str) -> Step:
        layer = call.operation
        rule = _require_rule(layer, inputs)
        _require_own_weights(layer)
        layer_call = self._describe_call(call, graph, inputs, path)
        edit = adapt_first_convolution(layer_call, call, self.edits)
        if edit is not None:
            self.edits.add(layer, edit)
            layer_call = self.edits.edit_call(layer_call)
        lifted = self.edits.edit_result(layer_call, rule(layer_call))
        known = self.results.setdefault(id(layer), lifted)
        if known is not lifted and not _is_same_layer(known, lifted):
            raise UnsupportedError(
                "it is shared, but its calls require different 3D layers.",
                "Give the layers before its calls the same depth_policy.",
            )
        policy = self.policy.name_for(path, inputs[0])
        return Step(call, path, inputs, lifted.outputs, policy, lifted, is_shared=known is not lifted)

    def _describe_call(
        self, call: Call, graph: Graph, inputs: tuple[TensorSpec, ...], path: str
    ) -> LayerCall:
        layer = call.operation
        layer_call = LayerCall(
            layer=layer,
            path=path,
            config=read_config(layer),
            weight_shapes=tuple(tuple(weight.shape) for weight in getattr(layer, "weights", ())),
            inputs=inputs,
            shapes_2d=self._shapes_2d(call, inputs),
            depth_rule=self.policy.rule_for(path, inputs[0]),
            scheme=self.scheme,
            is_fused=self.is_fused,
            consumers=self._find_consumers(call, graph, inputs[0], path),
            args=call.args,
            kwargs=call.kwargs,
        )
        return self.edits.edit_call(layer_call)

    def _shapes_2d(self, call: Call, inputs: tuple[TensorSpec, ...]) -> tuple[Shape, ...]:
        shapes = tuple(self.edits.shape_of(tensor) for tensor in call.outputs)
        if reads_other_channels(call, inputs, self.edits) and is_channel_agnostic(call.operation):
            return tuple((*shape[:-1], inputs[0].channels) for shape in shapes)
        return shapes

    def _find_consumers(self, call: Call, graph: Graph, spec: TensorSpec, path: str) -> tuple[Consumer, ...]:
        """Return the convolutions and pools that read a padding layer, directly or after cropping."""
        if not isinstance(call.operation, keras.layers.ZeroPadding2D):
            return ()
        readers, prefix = graph.consumers(), path[: -len(call.operation.name)]
        return tuple(self._read_by(call.outputs[0], readers, spec, prefix))

    def _read_by(
        self, tensor: Tensor, readers: Mapping[int, list[Call]], spec: TensorSpec, prefix: str
    ) -> Iterator[Consumer]:
        """Yield the convolutions and pools that read a tensor, also in nested networks."""
        waiting = list(readers.get(id(tensor), ()))
        while waiting:
            reader = waiting.pop(0)
            name = prefix + reader.operation.name
            if isinstance(reader.operation, WINDOWS):
                yield Consumer(reader.operation.get_config(), self.policy.rule_for(name, spec))
            elif isinstance(reader.operation, BETWEEN_PADDING_AND_WINDOW):
                waiting.extend(readers.get(id(reader.outputs[0]), ()))
            elif is_network(reader.operation) and len(reader.inputs) == 1:
                nested = read_graph(reader.operation)
                yield from self._read_by(nested.inputs[0], nested.consumers(), spec, f"{name}/")

    def _record_problem(
        self, call: Call, path: str, inputs: tuple[TensorSpec, ...], error: UnsupportedError
    ) -> Step:
        """Record a problem and return a step with likely outputs, so that planning can continue."""
        is_first = not any(problem.reason == error.reason for problem in self.problems)
        if is_first or not isinstance(error, DepthTooSmallError):
            used = ", ".join(_describe_tensor(tensor) for tensor in call.inputs)
            kind = type(call.operation).__name__
            self.problems.append(
                Problem(path, kind, f"called on {used}" if used else "", error.reason, error.fix)
            )
        source = inputs[0] if inputs else plain_spec((None, None))
        outputs = tuple(guess_spec(tuple(tensor.shape), source) for tensor in call.outputs)
        return Step(call, path, inputs, outputs)


def _require_rule(layer: Layer, inputs: tuple[TensorSpec, ...]) -> LiftRule:
    """Return the rule of a layer.

    Without a rule it is kept if all its inputs are the same in 2D and 3D, and a layer of another library is
    kept if it is proved to act on each position alone.

    Raises:
        UnsupportedError: It is a layer of Keras without a rule, and an input has a depth axis.
    """
    has_tokens = any(spec.tokens is not None for spec in inputs)
    rule = find_token_rule(layer) if has_tokens else find_rule(layer)
    if rule is not None:
        return rule
    if all(spec.is_plain for spec in inputs) and not isinstance(layer, keras.layers.Lambda):
        return _keep_plain
    if isinstance(layer, keras.Model):
        raise UnsupportedError(*SUBCLASSED)
    if is_foreign(layer):
        return lift_foreign_tokens if has_tokens else lift_foreign
    if has_tokens:
        raise UnsupportedError(
            "there is no rule for this class on the tokens of a volume.",
            "Use layers that act on each token alone, MultiHeadAttention, or register your own rule.",
        )
    raise UnsupportedError(
        "there is no rule for this class.",
        "Use supported layers instead, or register your own rule: register_lift_rule(LayerClass, rule).",
    )


def _keep_plain(call: LayerCall) -> Lifted:
    outputs = tuple(plain_spec(shape) for shape in call.shapes_2d)
    return keep_layer(call.replace(shapes_2d=())).replace(outputs=outputs)


def _require_own_weights(operation: Layer) -> None:
    """Raise if the weights of a layer are not those of its class.

    Raises:
        UnsupportedError: The layer was quantised, or has low-rank adapters.
    """
    if getattr(operation, "lora_enabled", False) or getattr(operation, "quantization_mode", None):
        raise UnsupportedError(
            "its weights are quantised, or have low-rank adapters.",
            "Lift the network in its state before quantize() or enable_lora().",
        )


def read_config(operation: Layer) -> dict[str, Any]:
    """Return the configuration of a layer, from which its class can build it.

    Args:
        operation: The layer or raw operation.

    Raises:
        UnsupportedError: It cannot be described.
    """
    if type(operation) is keras.layers.Identity:  # Keras cannot describe it if its dtype was a policy
        policy = keras.dtype_policies.serialize(operation.dtype_policy)
        return {"name": operation.name, "trainable": operation.trainable, "dtype": policy}
    try:
        config = dict(operation.get_config())
    except NotImplementedError as error:
        raise UnsupportedError(
            "its configuration cannot be read, so it cannot be rebuilt.",
            "Implement get_config and from_config in its class.",
        ) from error
    is_lambda = getattr(getattr(operation, "activation", None), "__name__", "") == "<lambda>"
    return {**config, "activation": name_activation(operation.activation)} if is_lambda else config


def _is_same_layer(one: Lifted, other: Lifted) -> bool:
    return (one.layer_class, one.config, one.weight_shapes, one.before) == (
        other.layer_class,
        other.config,
        other.weight_shapes,
        other.before,
    )


def _describe_tensor(tensor: Tensor) -> str:
    return f"{history_of(tensor).operation.name} {tuple(tensor.shape)}"
