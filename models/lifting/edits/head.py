"""The end of a network: find its head, replace it for other classes, return logits, compute in float32."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import layers

from voxlift.models.lifting.edits.base import Edit, Edits, float32_edit
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.graph import Call, ends_of, history_of, is_network, read_graph
from voxlift.models.lifting.types import Layer, Model, Tensor

TAIL_LAYERS = (
    layers.Activation, layers.Softmax, layers.Dropout, layers.Reshape, layers.Flatten, layers.Identity,
    layers.GlobalAveragePooling2D,
)  # fmt: skip
PROBABILITY_ACTIVATIONS = {"softmax", "sigmoid", "log_softmax"}


@dataclass(frozen=True)
class Head:
    """The calls at the end of a network, last first.

    Args:
        tail: Calls after the classifying layer.
        classifier: The call of the classifying layer, None if there is none.
        last: The last call of all, None if an output is an input.
    """

    tail: tuple[Call, ...]
    classifier: Call | None
    last: Call | None

    @property
    def calls(self) -> tuple[Call, ...]:
        """The tail and the classifier; without a classifier the last call alone."""
        if self.classifier is not None:
            return (*self.tail, self.classifier)
        return () if self.last is None else (self.last,)


def find_head(model: Model, output: Tensor) -> Head:
    """Return the head that computes one output of a network.

    Args:
        model: The network.
        output: One of its symbolic outputs.
    """
    tail: list[Call] = []
    last = next(_backwards(model, output), None)
    for call in _backwards(model, output):
        if isinstance(call.operation, layers.Dense) or _is_pointwise_classifier(call, tail):
            return Head(tuple(tail), call, last)
        if not isinstance(call.operation, TAIL_LAYERS):
            break
        tail.append(call)
    return Head(tuple(tail), None, last)


def edit_head(model: Model, edits: Edits, *, classes: int | None, logits: bool) -> bool:
    """Add the changes at the end of a network to `edits`; return whether a new head must be appended.

    Args:
        model: The 2D network.
        edits: Receives the changes.
        classes: Units of a new classifying layer, None to keep the trained one.
        logits: Whether a final softmax or sigmoid is removed.

    Raises:
        UnsupportedError: New classes for a network with several outputs, or logits of probabilities that
            another layer reads.
    """
    heads = [find_head(model, output) for output in model.outputs]
    for head in heads:
        for call in head.calls:
            if isinstance(call.operation, layers.Layer):
                edits.add(call.operation, float32_edit(call.operation))
        if logits:
            _remove_final_activation(model, head, edits)
    if classes is None:
        return False
    if len(heads) != 1:
        raise UnsupportedError(
            f"a new head requires a network with one output; this network has {len(heads)}.",
            "Lift keras.Model(network.inputs, network.outputs[0]).",
        )
    classifier = heads[0].classifier
    if classifier is None or len(model.outputs[0].shape) != 2:
        return True
    _replace_classifier(classifier, heads[0].tail, edits, classes)
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


def _is_pointwise_classifier(call: Call, tail: list[Call]) -> bool:
    """Return whether a call is a 1x1 convolution that is flattened or pooled to the scores."""
    layer = call.operation
    flattening = (layers.Reshape, layers.Flatten, layers.GlobalAveragePooling2D)
    is_flattened = any(isinstance(each.operation, flattening) for each in tail)
    return bool(isinstance(layer, layers.Conv2D) and set(layer.kernel_size) == {1} and is_flattened)


def _remove_final_activation(model: Model, head: Head, edits: Edits) -> None:
    final = [call for call in head.calls if _gives_probabilities(call.operation)]
    readers = _count_readers(model) if final else Counter()
    for call in final:
        layer = call.operation
        if readers[id(layer)] > 1 or readers[id(call.outputs[0])] > 1:
            raise UnsupportedError(
                f"the probabilities of {layer.name!r} are read in more than one place.",
                "Add a separate layer for the output of the network.",
            )
        if isinstance(layer, layers.Softmax):
            edits.add(layer, Edit(is_dropped=True, source="left out: the network returns logits"))
        else:
            edits.add(layer, Edit({"activation": "linear"}))


def _gives_probabilities(layer: Layer) -> bool:
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    return isinstance(layer, layers.Softmax) or activation in PROBABILITY_ACTIVATIONS


def _count_readers(model: Model) -> Counter[int]:
    """Return how often each tensor is read (also as an output) and each layer called, by their ids."""
    graph = read_graph(model)
    counts = Counter(map(id, graph.outputs))
    for call in graph.calls:
        counts.update([id(call.operation), *map(id, call.inputs)])
        if is_network(call.operation):
            counts.update(_count_readers(call.operation))
    return counts


def _replace_classifier(classifier: Call, tail: tuple[Call, ...], edits: Edits, classes: int) -> None:
    layer = classifier.operation
    units = "units" if isinstance(layer, layers.Dense) else "filters"
    known = edits.edit_of(layer).weight_shapes  # `filters` may have reduced its input
    shapes = tuple((*shape[:-1], classes) for shape in known or [weight.shape for weight in layer.weights])
    edits.add(layer, Edit({units: classes}, None, shapes, is_fresh=True, source="new head, initialiser"))
    edits.channels[id(classifier.outputs[0])] = classes
    for call in tail:
        edits.channels[id(call.outputs[0])] = classes
        if isinstance(call.operation, layers.Reshape) and call.operation.target_shape != (-1,):
            target = (*call.operation.target_shape[:-1], classes)
            edits.add(call.operation, Edit({"target_shape": target}))


def append_head(model: Model, *, classes: int) -> Model:
    """Return a lifted network with a new dense head, and a global pool before it if its output is a volume.

    Args:
        model: The lifted network, with one output [B, C] or [B, D, H, W, C].
        classes: Number of float32 logits.
    """
    (output,) = model.outputs
    if len(output.shape) == 5:
        output = layers.GlobalAveragePooling3D(name="head_pool")(output)
    logits = layers.Dense(classes, dtype="float32", name="head")(output)
    return keras.Model(ends_of(model)[0], logits, name=model.name)
