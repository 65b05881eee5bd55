"""Step 2 of a lift: build the Keras model of a plan, and give its layers their weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import keras

from voxlift.models.lifting.errors import LiftError, Problem, UnsupportedError, foreign_code, is_foreign
from voxlift.models.lifting.graph import ends_of, history_of
from voxlift.models.lifting.planner import GraphPlan, Step
from voxlift.models.lifting.rules.base import ExtraLayer
from voxlift.models.lifting.types import Layer, Model, Shape, Tensor, Value


@dataclass(frozen=True)
class BuiltNetwork:
    """A built network and, by the id of each 2D operation, its 3D layers in the order of their calls."""

    model: Model
    layers: Mapping[int, list[Layer]]


def build_network(plan: GraphPlan, *, name: str | None = None, is_grey: bool = False) -> BuiltNetwork:
    """Return the 3D network of a plan, with its weights.

    Args:
        plan: What to build.
        name: Name of the network; that of the 2D network if None.
        is_grey: Whether volumes have one channel that is repeated before the first layer.
    """
    builder = _Builder(_nested_shapes(plan))
    model = builder.build(plan, name or plan.model.name, is_grey=is_grey)
    _transfer_weights(plan, builder.layers)
    return BuiltNetwork(model, builder.layers)


@dataclass
class _Builder:
    """The input shapes of the nested networks, and the layers built so far by the id of the 2D operation."""

    nested_shapes: Mapping[int, Sequence[Shape]]
    layers: dict[int, list[Layer]] = field(default_factory=dict)

    def build(self, plan: GraphPlan, name: str, *, is_grey: bool = False) -> Model:
        """Return a network or nested network, without the weights of the 2D network.

        Args:
            plan: What to build.
            name: Name of the network.
            is_grey: See `build_network`.
        """
        if isinstance(plan.model, keras.Sequential) and not is_grey:
            model = self._build_sequential(plan, name)
        else:
            model = self._build_functional(plan, name, is_grey=is_grey)
        if not plan.model.trainable:
            model.trainable = False
        return model

    def _build_sequential(self, plan: GraphPlan, name: str) -> Model:
        layers = [self._input_layer(plan, 0)]
        for step in plan.steps:
            with _step_errors(name, step):
                layers += self._layers_of(step)
        # Keras calls the layers here; an error is reported for the first foreign one, if there is any.
        foreign = [step for step in plan.steps if is_foreign(step.call.operation)]
        with _step_errors(name, foreign[0]) if foreign else nullcontext():
            return keras.Sequential(layers, name=name)

    def _build_functional(self, plan: GraphPlan, name: str, *, is_grey: bool) -> Model:
        entries, tensors = {}, {}
        for index, (tensor, spec) in enumerate(zip(plan.graph.inputs, plan.inputs, strict=True)):
            entry = self._input_layer(plan, index, is_grey=is_grey).output
            entries[id(tensor)] = entry
            tensors[id(tensor)] = _repeat_channel(entry, spec.channels)
        for step in plan.steps:
            with _step_errors(name, step):
                outputs = _call_layers(step, self._layers_of(step), tensors)
            tensors.update(zip(map(id, step.call.outputs), keras.tree.flatten(outputs), strict=True))
        inputs, outputs = ends_of(plan.model)
        inputs = keras.tree.map_structure(lambda tensor: entries[id(tensor)], inputs)
        outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)
        return keras.Model(inputs, outputs, name=name)

    def _input_layer(self, plan: GraphPlan, index: int, *, is_grey: bool = False) -> Layer:
        tensor, spec = plan.graph.inputs[index], plan.inputs[index]
        is_nested = id(plan.model) in self.nested_shapes
        shape = self.nested_shapes[id(plan.model)][index] if is_nested else spec.shape
        if is_grey and spec.is_volume:
            shape = (*shape[:-1], 1)
        name = history_of(tensor).operation.name
        return keras.layers.InputLayer(batch_shape=shape, dtype=tensor.dtype, name=name)

    def _layers_of(self, step: Step) -> list[Layer]:
        """Return the layers of a step in the order of their calls; those of a shared layer are built once."""
        key = id(step.call.operation)
        if key not in self.layers:
            nested = step.nested
            self.layers[key] = (
                _create_layers(step) if nested is None else [self.build(nested, nested.model.name)]
            )
        return self.layers[key]


@contextmanager
def _step_errors(network: str, step: Step) -> Iterator[None]:
    """Report what the code of a step's foreign layer raises as the problem of that layer.

    Raises:
        LiftError: Its code failed.
    """
    operation = step.call.operation
    try:
        with foreign_code(operation, "while the 3D network was built"):
            yield
    except UnsupportedError as error:
        problem = Problem(step.path, type(operation).__name__, "", error.reason, error.fix)
        raise LiftError(network, [problem]) from error


def _create_layers(step: Step) -> list[Layer]:
    lifted = step.lifted
    if lifted is None or lifted.layer_class is None:
        return []
    main = ExtraLayer(lifted.layer_class, lifted.config)
    all_layers = (*lifted.before, main, *lifted.after)
    return [layer.layer_class.from_config(dict(layer.config)) for layer in all_layers]


def _nested_shapes(plan: GraphPlan) -> dict[int, list[Shape]]:
    """Return the input shapes of each nested network, by its id; None for a size that differs by call."""
    found: dict[int, list[Shape]] = {}
    for step in plan.steps:
        if step.nested is None:
            continue
        own = {id(step.nested.model): [spec.shape for spec in step.nested.inputs]}
        for key, shapes in (own | _nested_shapes(step.nested)).items():
            known = found.get(key, shapes)
            found[key] = [_common_shape(*pair) for pair in zip(known, shapes, strict=True)]
    return found


def _common_shape(one: Shape, other: Shape) -> Shape:
    return tuple(size if size == same else None for size, same in zip(one, other, strict=True))


def _repeat_channel(tensor: Tensor, count: int | None) -> Tensor:
    """Return an input with as many channels as the network reads; a single channel is repeated."""
    if tensor.shape[-1] == count or len(tensor.shape) != 5:
        return tensor
    name = f"{history_of(tensor).operation.name}_repeated"
    return keras.layers.Concatenate(name=name)([tensor] * int(count or 1))


def _call_layers(step: Step, layers: Sequence[Layer], tensors: Mapping[int, Tensor]) -> Value:
    """Return the outputs of a step's layers, called one after the other."""
    args, kwargs = step.call.args, dict(step.call.kwargs)
    if step.lifted is not None and step.lifted.call_args is not None:
        args, kwargs = step.lifted.call_args, dict(step.lifted.call_kwargs or {})
    args, kwargs = keras.tree.map_structure(lambda value: tensors.get(id(value), value), (args, kwargs))
    if not layers:
        return args[0]
    outputs = layers[0](*args, **kwargs) if len(layers) == 1 else layers[0](*args)
    for index, layer in enumerate(layers[1:], start=1):
        is_main = index == len(step.lifted.before) if step.lifted else False
        outputs = layer(outputs, **kwargs) if is_main else layer(outputs)
    return outputs


def _transfer_weights(plan: GraphPlan, layers: Mapping[int, list[Layer]]) -> None:
    for step in plan.walk():
        lifted = step.lifted
        if step.is_shared or lifted is None or lifted.transfer is None:
            continue
        layer = layers[id(step.call.operation)][len(lifted.before)]
        with _step_errors(plan.model.name, step):
            layer.set_weights(lifted.transfer(step.call.operation.get_weights()))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
