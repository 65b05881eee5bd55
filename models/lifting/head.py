"""The end of a network: its head found, renewed for other classes, stripped to logits, kept in float32."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import layers

from voxlift.models.lifting.edits import Edit, Edits, float32_edit
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.graph import Call, ends_of, history_of, is_network, read_graph
from voxlift.models.lifting.kinds import Layer, Model, Tensor

PASSED = (layers.Activation, layers.Softmax, layers.Dropout, layers.Reshape, layers.Flatten, layers.Identity)
SQUASHING = {"softmax", "sigmoid", "log_softmax"}


@dataclass(frozen=True)
class Head:
    """The calls at the end of a network, last first: those behind the classifying layer, and that layer."""

    tail: tuple[Call, ...]
    classifier: Call | None


def find_head(model: Model, output: Tensor) -> Head:
    """Return the head that gives one output of a network.

    Args:
        model: The network.
        output: One of its symbolic outputs.
    """
    tail: list[Call] = []
    for call in _backwards(model, output):
        if isinstance(call.operation, layers.Dense) or _is_pointwise(call, tail):
            return Head(tuple(tail), call)
        if not isinstance(call.operation, (*PASSED, layers.GlobalAveragePooling2D)):
            break
        tail.append(call)
    return Head(tuple(tail), None)


def edit_head(model: Model, edits: Edits, *, classes: int | None, logits: bool) -> bool:
    """Add the changes at the end of a network to `edits`; return whether a new head must be appended.

    Args:
        model: The 2D network.
        edits: Receives the changes.
        classes: Units of a new classifying layer, None to keep the trained one.
        logits: Whether a softmax or sigmoid at the end is taken away.

    Raises:
        RefusedError: New classes for a network of several outputs; logits of a softmax read elsewhere.
    """
    heads = [find_head(model, output) for output in model.outputs]
    for output, head in zip(model.outputs, heads, strict=True):
        _keep_float32(model, output, head, edits)
        if logits:
            _strip(model, output, head, edits)
    if classes is None:
        return False
    if len(heads) != 1:
        raise RefusedError(
            f"a new head needs a network with one output; this one has {len(heads)}.",
            "Make keras.Model(network.inputs, network.outputs[0]) and lift that.",
        )
    if heads[0].classifier is None or len(model.outputs[0].shape) != 2:
        return True
    _renew(heads[0], edits, classes)
    return False


def _backwards(model: Model, output: Tensor) -> Iterator[Call]:
    """Yield the calls that lead to an output, last first, as long as each reads a single tensor."""
    makers = {id(tensor): call for call in read_graph(model).calls for tensor in call.outputs}
    while id(output) in makers:
        call = makers[id(output)]
        if is_network(call.operation):
            inner = call.operation.outputs[history_of(output).tensor_index]
            yield from _backwards(call.operation, inner)
        else:
            yield call
        if len(call.inputs) != 1:
            return
        output = call.inputs[0]


def _is_pointwise(call: Call, tail: list[Call]) -> bool:
    layer = call.operation
    flattening = (layers.Reshape, layers.Flatten, layers.GlobalAveragePooling2D)
    is_flattened = any(isinstance(each.operation, flattening) for each in tail)
    return bool(isinstance(layer, layers.Conv2D) and set(layer.kernel_size) == {1} and is_flattened)


def _keep_float32(model: Model, output: Tensor, head: Head, edits: Edits) -> None:
    last = next(_backwards(model, output), None)
    calls = (*head.tail, head.classifier) if head.classifier else (last,)
    for call in calls:
        if call is not None and isinstance(call.operation, layers.Layer):
            edits.add(call.operation, float32_edit(call.operation))


def _strip(model: Model, output: Tensor, head: Head, edits: Edits) -> None:
    last = next(_backwards(model, output), None)
    calls = (*head.tail, head.classifier) if head.classifier else (last,)
    squashing = [call for call in calls if call is not None and _is_squashing(call.operation)]
    readers = _count_readers(model) if squashing else Counter()
    for call in squashing:
        layer = call.operation
        if readers[id(layer)] > 1 or readers[id(call.outputs[0])] > 1:
            raise RefusedError(
                f"{layer.name!r} gives probabilities that are read in more than one place.",
                "Let a layer of its own give the network's output.",
            )
        if isinstance(layer, layers.Softmax):
            edits.add(layer, Edit(is_dropped=True, source="left out: the network gives logits"))
        else:
            edits.add(layer, Edit({"activation": "linear"}))


def _is_squashing(layer: Layer) -> bool:
    return isinstance(layer, layers.Softmax) or _activation_name(layer) in SQUASHING


def _count_readers(model: Model) -> Counter[int]:
    """Return how often each tensor is read, as an output too, and each layer called, by their ids."""
    graph = read_graph(model)
    counts = Counter(map(id, graph.outputs))
    for call in graph.calls:
        counts.update([id(call.operation), *map(id, call.inputs)])
        if is_network(call.operation):
            counts.update(_count_readers(call.operation))
    return counts


def _activation_name(layer: Layer) -> str:  # any layer
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _renew(head: Head, edits: Edits, classes: int) -> None:
    classifier = head.classifier
    if classifier is None:
        return
    layer = classifier.operation
    units = "units" if isinstance(layer, layers.Dense) else "filters"
    known = edits.by_layer.get(id(layer), Edit()).weight_shapes  # fewer filters may reach it
    shapes = tuple((*shape[:-1], classes) for shape in known or [weight.shape for weight in layer.weights])
    edits.add(layer, Edit({units: classes}, None, shapes, is_fresh=True, source="new head, initialiser"))
    edits.channels[id(classifier.outputs[0])] = classes
    for call in head.tail:
        edits.channels[id(call.outputs[0])] = classes
        if isinstance(call.operation, layers.Reshape) and call.operation.target_shape != (-1,):
            target = (*call.operation.target_shape[:-1], classes)
            edits.add(call.operation, Edit({"target_shape": target}))


def append_head(model: Model, outputs: list[Tensor], *, classes: int, name: str) -> Model:
    """Return a lifted network with a dense head behind it, and a global pool if it ends in a volume.

    Args:
        model: The lifted network.
        outputs: Its one output, [B, C] or [B, D, H, W, C].
        classes: How many float32 logits.
        name: Name of the network with the head.
    """
    (output,) = outputs
    if len(output.shape) == 5:
        output = layers.GlobalAveragePooling3D(name="head_pool")(output)
    logits = layers.Dense(classes, dtype="float32", name="head")(output)
    return keras.Model(ends_of(model)[0], logits, name=name)
