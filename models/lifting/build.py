"""From a plan to a Keras model: layers made, called and given their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras

from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.graph import ends_of, history_of
from voxlift.models.lifting.head import append_head
from voxlift.models.lifting.kinds import Layer, Model, Tensor, Value
from voxlift.models.lifting.rules.base import Extra
from voxlift.models.lifting.steps import GraphPlan, Step


def build_network(plan: GraphPlan, *, name: str, is_grey: bool = False, classes: int | None = None) -> Model:
    """Return the 3D network of a plan, with its weights.

    Args:
        plan: What to build.
        name: Name of the network.
        is_grey: Whether volumes have one channel, which is repeated to those of 2D before the first layer.
        classes: Classes of a head to put behind the network, None for no new head.
    """
    model, _ = build_made(plan, name=name, is_grey=is_grey)
    return model if classes is None else append_head(model, list(model.outputs), classes=classes, name=name)


def build_made(
    plan: GraphPlan, *, name: str | None = None, is_grey: bool = False
) -> tuple[Model, dict[int, list[Layer]]]:
    """Return the network and, by the 2D operation's id, the layers that each operation became.

    Args:
        plan: What to build.
        name: Name of the network; that of the 2D network if None.
        is_grey: Whether volumes have one channel, which is repeated to those of 2D before the first layer.
    """
    builder = _Builder(_nested_shapes(plan))
    model = builder.build(plan, name or plan.model.name, is_grey=is_grey)
    _transfer_weights(plan, builder.made)
    return model, builder.made


@dataclass
class _Builder:
    """One building: the input shapes of the networks inside the network, and the layers made so far."""

    nested_shapes: Mapping[int, Sequence[Shape]]
    made: dict[int, list[Layer]] = field(default_factory=dict)

    def build(self, plan: GraphPlan, name: str, *, is_grey: bool = False) -> Model:
        """Return a network, or a nested one, without the weights from 2D.

        Args:
            plan: What to build.
            name: Name of the network.
            is_grey: See `build_made`.
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
            layers += self._layers_of(step)
        return keras.Sequential(layers, name=name)

    def _build_functional(self, plan: GraphPlan, name: str, *, is_grey: bool) -> Model:
        entries = {
            id(tensor): self._input_layer(plan, index, is_grey=is_grey).output
            for index, tensor in enumerate(plan.graph.inputs)
        }
        wanted = {id(tensor): flow.shape for tensor, flow in zip(plan.graph.inputs, plan.inputs, strict=True)}
        tensors = {key: _in_channels(entry, wanted[key][-1]) for key, entry in entries.items()}
        for step in plan.steps:
            outputs = _call(step, self._layers_of(step), tensors)
            tensors.update(zip(map(id, step.call.outputs), keras.tree.flatten(outputs), strict=True))
        inputs, outputs = ends_of(plan.model)
        inputs = keras.tree.map_structure(lambda tensor: entries[id(tensor)], inputs)
        outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], outputs)
        return keras.Model(inputs, outputs, name=name)

    def _input_layer(self, plan: GraphPlan, index: int, *, is_grey: bool = False) -> Layer:
        tensor, flow = plan.graph.inputs[index], plan.inputs[index]
        shape = (
            self.nested_shapes[id(plan.model)][index] if id(plan.model) in self.nested_shapes else flow.shape
        )
        if is_grey and flow.is_volume:
            shape = (*shape[:-1], 1)
        return keras.layers.InputLayer(
            batch_shape=shape, dtype=tensor.dtype, name=history_of(tensor).operation.name
        )

    def _layers_of(self, step: Step) -> list[Layer]:
        """Return the layers of a step in the order of their calls; those of a shared layer are made once."""
        key = id(step.call.operation)
        if key not in self.made:
            nested = step.nested
            self.made[key] = _make(step) if nested is None else [self.build(nested, nested.model.name)]
        return self.made[key]


def _nested_shapes(plan: GraphPlan) -> dict[int, list[Shape]]:
    """Return the input shapes of each network inside a plan: a side is open where its calls differ."""
    found: dict[int, list[Shape]] = {}
    for step in plan.steps:
        if step.nested is None:
            continue
        own = {id(step.nested.model): [flow.shape for flow in step.nested.inputs]}
        for key, shapes in (own | _nested_shapes(step.nested)).items():
            known = found.get(key, shapes)
            found[key] = [_common(*pair) for pair in zip(known, shapes, strict=True)]
    return found


def _common(one: Shape, other: Shape) -> Shape:
    return tuple(size if size == twin else None for size, twin in zip(one, other, strict=True))


def _in_channels(tensor: Tensor, count: int | None) -> Tensor:
    """Return an input with as many channels as the network takes: a single one is repeated."""
    if tensor.shape[-1] == count or len(tensor.shape) != 5:
        return tensor
    name = f"{history_of(tensor).operation.name}_repeated"
    return keras.layers.Concatenate(name=name)([tensor] * int(count or 1))


def _call(step: Step, layers: Sequence[Layer], tensors: Mapping[int, Tensor]) -> Value:
    """Return the outputs of a step's layers, called one behind the other."""

    def lifted(value: Value) -> Value:
        return tensors.get(id(value), value)

    args = step.call.args
    kwargs = dict(step.call.kwargs)
    if step.lifted is not None and step.lifted.call_args is not None:
        args, kwargs = step.lifted.call_args, dict(step.lifted.call_kwargs or {})
    args = keras.tree.map_structure(lifted, args)
    kwargs = keras.tree.map_structure(lifted, kwargs)
    if not layers:
        return args[0]
    outputs = layers[0](*args, **kwargs) if len(layers) == 1 else layers[0](*args)
    for index, layer in enumerate(layers[1:], start=1):
        is_main = index == len(step.lifted.before) if step.lifted else False
        outputs = layer(outputs, **kwargs) if is_main else layer(outputs)
    return outputs


def _make(step: Step) -> list[Layer]:
    lifted = step.lifted
    if lifted is None or lifted.layer_class is None:
        return []
    main = Extra(lifted.layer_class, lifted.config)
    return [
        extra.layer_class.from_config(dict(extra.config)) for extra in (*lifted.before, main, *lifted.after)
    ]


def _transfer_weights(plan: GraphPlan, made: Mapping[int, list[Layer]]) -> None:
    for step in plan.walk():
        lifted = step.lifted
        if step.is_shared or lifted is None or lifted.transfer is None:
            continue
        layer = made[id(step.call.operation)][len(lifted.before)]
        layer.set_weights(lifted.transfer(step.call.operation.get_weights()))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
