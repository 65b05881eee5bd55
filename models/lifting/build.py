"""From a plan to a Keras model: layers made, called and given their weights."""

from typing import Any

import keras

from models.lifting.graph import history_of
from models.lifting.head import append_head
from models.lifting.kinds import Layer, Model, Tensor, Value
from models.lifting.planner import GraphPlan, Step
from models.lifting.rules.base import Extra


def build_network(plan: GraphPlan, *, name: str, repeats: int = 1, classes: int | None = None) -> Model:
    """Return the 3D network of a plan, with its weights.

    Args:
        plan: What to build.
        name: Name of the network.
        repeats: How often the volumes' channel is repeated before the first layer.
        classes: Classes of a head to put behind the network, None for no new head.
    """
    model, _ = build_made(plan, name=name, repeats=repeats)
    return model if classes is None else append_head(model, list(model.outputs), classes=classes, name=name)


def build_made(
    plan: GraphPlan, *, name: str | None = None, repeats: int = 1
) -> tuple[Model, dict[int, list[Layer]]]:
    """Return the network and, by the 2D operation's id, the layers that each operation became."""
    made: dict[int, Any] = {}
    model = _build(plan, made, name or plan.model.name, repeats=repeats)
    _transfer_weights(plan, made)
    return model, made


def _build(plan: GraphPlan, made: dict[int, Any], name: str, *, repeats: int = 1) -> Model:
    if isinstance(plan.model, keras.Sequential) and repeats == 1:
        model = _build_sequential(plan, made, name)
    else:
        model = _build_functional(plan, made, name, repeats=repeats)
    if not plan.model.trainable:
        model.trainable = False
    return model


def _build_sequential(plan: GraphPlan, made: dict[int, Any], name: str) -> Model:
    layers = [_input_layer(plan, 0)]
    for step in plan.steps:
        layers += _layers_of(step, made)
    return keras.Sequential(layers, name=name)


def _build_functional(plan: GraphPlan, made: dict[int, Any], name: str, *, repeats: int) -> Model:
    entries = {
        id(tensor): _input_layer(plan, index, repeats=repeats).output
        for index, tensor in enumerate(plan.graph.inputs)
    }
    tensors = {key: _repeat_channel(entry, repeats) for key, entry in entries.items()}
    for step in plan.steps:
        outputs = _call(step, made, tensors)
        tensors.update(zip(map(id, step.call.outputs), keras.tree.flatten(outputs), strict=True))
    inputs = keras.tree.map_structure(lambda tensor: entries[id(tensor)], plan.model.input)
    outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], plan.model.output)
    return keras.Model(inputs, outputs, name=name)


def _input_layer(plan: GraphPlan, index: int, *, repeats: int = 1) -> Layer:
    tensor, flow = plan.graph.inputs[index], plan.inputs[index]
    shape = flow.shape
    if repeats > 1 and flow.is_volume:
        shape = (*shape[:-1], int(flow.channels or 1) // repeats)
    return keras.layers.InputLayer(
        batch_shape=shape, dtype=tensor.dtype, name=history_of(tensor).operation.name
    )


def _repeat_channel(tensor: Tensor, repeats: int) -> Tensor:
    if repeats == 1 or len(tensor.shape) != 5:
        return tensor
    name = f"{history_of(tensor).operation.name}_repeated"
    return keras.layers.Concatenate(name=name)([tensor] * repeats)


def _call(step: Step, made: dict[int, Any], tensors: dict[int, Any]) -> Value:
    def lifted(value: Value) -> Value:
        return tensors.get(id(value), value)

    layers = _layers_of(step, made)
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


def _layers_of(step: Step, made: dict[int, Any]) -> list[Any]:
    """Return the layers of a step in the order of their calls; those of a shared layer are made once."""
    key = id(step.call.operation)
    if key not in made:
        made[key] = [_build(step.nested, made, step.nested.model.name)] if step.nested else _make(step)
    layers: list[Any] = made[key]
    return layers


def _make(step: Step) -> list[Any]:
    lifted = step.lifted
    if lifted is None or lifted.layer_class is None:
        return []
    main = Extra(lifted.layer_class, lifted.config)
    return [
        extra.layer_class.from_config(dict(extra.config)) for extra in (*lifted.before, main, *lifted.after)
    ]


def _transfer_weights(plan: GraphPlan, made: dict[int, Any]) -> None:
    for step in plan.walk():
        lifted = step.lifted
        if step.is_shared or lifted is None or lifted.transfer is None:
            continue
        layer = made[id(step.call.operation)][len(lifted.before)]
        layer.set_weights(lifted.transfer(step.call.operation.get_weights()))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
