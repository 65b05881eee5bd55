"""Batch normalisation of trained networks: folding it into convolutions, and recalibrating its statistics."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.models.backend import Tensor
from voxlift.models.layers import ChannelBias, FewChannelsConv3D, FewPositionsConv3D, FusedBatchNormalization
from voxlift.models.lifting.graph import Call, Graph, ends_of, history_of, is_network, read_graph, walk_layers

Layer: TypeAlias = Any  # Keras ships no types
Model: TypeAlias = Any

CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    FewChannelsConv3D,
    FewPositionsConv3D,
)
NORMALISATIONS = (keras.layers.BatchNormalization, FusedBatchNormalization)


def fold_batch_norm(network: Model) -> Model:
    """Return a copy of a network for inference, its batch normalisations folded into the convolutions before.

    The scale goes into the convolution's kernel; the offset and a following ReLU are one pass over the
    voxels. Scores are equal up to rounding. Weights are copied: training the given network further does not
    change the copy, which is not meant to be trained. Layers keep their names. Layers that cannot be folded
    are copied as they are. A network without a graph to walk (a subclassed one) is returned itself.

    Args:
        network: Any Keras model [B, ...] -> scores; nested networks are folded too.

    Source:
        Jacob et al. (2018), Quantization and training of neural networks for efficient
        integer-arithmetic-only inference, section 3.2, doi:10.1109/CVPR.2018.00286.
    """
    folds = find_folds(network) if is_network(network) else ()
    if not folds:
        return network
    copier = _FoldingCopier(folds)
    folded = copier.copy_network(network)
    copier.copy_weights()
    return folded


def recalibrate_batch_norm(network: Model, batches: Iterable[Tensor]) -> int:
    """Replace the moving mean and variance of every batch normalisation by averages over batches.

    For weights that came from another network. No other weight changes. Every batch counts the same, unlike
    in training, where the moving average forgets.

    Args:
        network: Its normalisation layers are changed in place; frozen ones keep what they have.
        batches: Inputs of the network, at least one batch; dropout is active, as in training.

    Returns:
        The number of batches used; 0 where the network has no batch normalisation.

    Raises:
        ValueError: There is no batch.

    Source:
        Wu and Johnson (2021), Rethinking "Batch" in BatchNorm, arXiv:2105.07576 (precise statistics).
    """
    layers = [layer for layer in walk_layers(network) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    count = 0
    try:
        for count, batch in enumerate(batches, start=1):
            for layer in layers:  # a running mean: the first batch replaces what was there
                layer.momentum = (count - 1) / count
            network(batch, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if count == 0:
        raise ValueError("Expected at least one batch for the batch statistics, received none.")
    return count


@dataclass(frozen=True)
class Fold:
    """A convolution, the batch normalisation that alone reads it, and the ReLU after it, if any."""

    convolution: Layer
    normalisation: Layer
    relu: Layer | None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that change."""
        return tuple(filter(None, (self.convolution, self.normalisation, self.relu)))

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the kernel [..., C] and the bias [C] that replace convolution and normalisation."""
        kernel, *bias = [np.asarray(weight, np.float64) for weight in self.convolution.get_weights()]
        scale, offset = scale_and_offset(self.normalisation)
        total = offset + scale * (bias[0] if bias else 0.0)
        return (kernel * scale).astype(np.float32), total.astype(np.float32)


def scale_and_offset(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scale and the offset [C] that a batch normalisation applies at inference."""
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        for value in (layer.moving_mean, layer.moving_variance)
    )
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(keras.ops.convert_to_numpy(layer.gamma), np.float64)
    offset = -mean * scale
    if layer.center:
        offset = offset + np.asarray(keras.ops.convert_to_numpy(layer.beta), np.float64)
    return scale, offset


def find_folds(network: Model) -> tuple[Fold, ...]:
    """Return what can be folded in a network and in the networks inside it."""
    graph = read_graph(network)
    uses = Counter(id(call.operation) for call in graph.calls)
    next_calls = _find_next_calls(graph, uses)
    folds: list[Fold] = []
    for call in graph.calls:
        if is_network(call.operation):
            folds += find_folds(call.operation)
        if not _is_plain_convolution(call.operation) or uses[id(call.operation)] > 1:
            continue
        second = next_calls.get(id(call))
        if second is None or not _is_channel_normalisation(second.operation):
            continue
        third = next_calls.get(id(second))
        relu = third.operation if third is not None and _is_relu(third.operation) else None
        folds.append(Fold(call.operation, second.operation, relu))
    return tuple(folds)


def _find_next_calls(graph: Graph, uses: Mapping[int, int]) -> dict[int, Call]:
    """Return, by the id of a call, the call that alone reads its output and reads nothing else."""
    consumers, outputs = graph.consumers(), {id(tensor) for tensor in graph.outputs}
    next_calls = {}
    for call in graph.calls:
        readers = consumers.get(id(call.outputs[0]), [])
        if len(call.outputs) > 1 or len(readers) != 1 or id(call.outputs[0]) in outputs:
            continue
        if uses[id(readers[0].operation)] == 1 and len(readers[0].inputs) == 1:
            next_calls[id(call)] = readers[0]
    return next_calls


def _is_plain_convolution(layer: Layer) -> bool:
    return (
        type(layer) in CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
    )


def _is_channel_normalisation(layer: Layer) -> bool:
    if type(layer) not in NORMALISATIONS or getattr(layer, "renorm", False):
        return False
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    return axis in (-1, layer.input_spec.ndim - 1)


def _is_relu(layer: Layer) -> bool:
    if type(layer) is keras.layers.Activation:
        return layer.activation is keras.activations.relu
    return (
        type(layer) is keras.layers.ReLU
        and layer.max_value is None
        and float(layer.negative_slope) == 0.0
        and float(layer.threshold) == 0.0
    )


class _FoldingCopier:
    """Copies of layers, one each, and networks made of them.

    `keras.models.clone_model` would also compile its copy, which fails for a loss that is a plain function.
    """

    def __init__(self, folds: Sequence[Fold]) -> None:
        self.folds = folds
        self.fold_of = {id(layer): fold for fold in folds for layer in fold.layers}
        self.copies: dict[int, tuple[Layer, Layer]] = {}  # by id: the original, kept alive, and its copy

    def copy_network(self, network: Model) -> Model:
        """Return the network called on copies of its layers, whose weights are not set yet."""
        graph = read_graph(network)
        copied = {id(tensor): _copy_input(tensor) for tensor in graph.inputs}
        for call in graph.calls:
            args, kwargs = _replace_tensors((call.args, dict(call.kwargs)), copied)
            outputs = keras.tree.flatten(self._copy(call.operation)(*args, **kwargs))
            copied |= {id(old): new for old, new in zip(call.outputs, outputs, strict=True)}
        inputs, outputs = _replace_tensors(ends_of(network), copied)
        return keras.Model(inputs, outputs, name=network.name)

    def copy_weights(self) -> None:
        """Set the weights of every copy."""
        for key, (layer, copy) in self.copies.items():
            is_operation = not isinstance(layer, keras.Layer)  # such as a sum written with +
            if key not in self.fold_of and not is_operation and not is_network(layer):
                copy.set_weights(layer.get_weights())
        for fold in self.folds:
            kernel, bias = fold.weights()
            self.copies[id(fold.convolution)][1].set_weights([kernel])
            self.copies[id(fold.normalisation)][1].set_weights([bias])

    def _copy(self, layer: Layer) -> Layer:
        if id(layer) not in self.copies:
            fold = self.fold_of.get(id(layer))
            copy = self.copy_network(layer) if is_network(layer) else _copy_layer(layer, fold)
            self.copies[id(layer)] = (layer, copy)
        return self.copies[id(layer)][1]


def _replace_tensors(arguments: Any, copied: Mapping[int, Any]) -> Any:  # noqa: ANN401 - any structure
    return keras.tree.map_structure(lambda value: copied.get(id(value), value), arguments)


def _copy_input(tensor: Any) -> Any:  # noqa: ANN401 - symbolic
    name = history_of(tensor).operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)


def _copy_layer(layer: Layer, fold: Fold | None) -> Layer:
    config = layer.get_config()
    if fold is None:
        return type(layer).from_config(config)
    if layer is fold.convolution:
        return type(layer).from_config({**config, "use_bias": False})
    kept = {"name": layer.name, "dtype": layer.dtype_policy}
    if layer is fold.normalisation:
        return ChannelBias(activation=None if fold.relu is None else "relu", **kept)
    return keras.layers.Identity(**kept)
