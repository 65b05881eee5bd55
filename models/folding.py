"""Folds normalisations into the convolutions before them, for networks that only score from now on.

A convolution that nothing but a batch normalisation reads can carry its scale in the kernel; the offset, with
the ReLU behind it if there is one, is added in the same pass over the voxels. The scores stay the same within
rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.models.layers import ChannelBias, FewPositionsConv3D, FusedBatchNormalization
from voxlift.models.lifting.graph import Call, ends_of, history_of, is_network, read_graph

Layer: TypeAlias = Any  # Keras ships no types
Model: TypeAlias = Any

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, FewPositionsConv3D)
NORMALISATIONS = (keras.layers.BatchNormalization, FusedBatchNormalization)


@dataclass(frozen=True)
class Fold:
    """A convolution, the normalisation that alone reads it, and the ReLU that alone reads that, if any."""

    convolution: Layer
    normalisation: Layer
    relu: Layer | None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those that change."""
        return tuple(filter(None, (self.convolution, self.normalisation, self.relu)))

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the kernel [..., C] and the offset [C] that do what convolution and normalisation did."""
        kernel, *bias = [np.asarray(weight, np.float64) for weight in self.convolution.get_weights()]
        scale, offset = affine_of(self.normalisation)
        total = offset + scale * (bias[0] if bias else 0.0)
        return (kernel * scale).astype(np.float32), total.astype(np.float32)


def fold_normalisation(network: Model) -> Model:
    """Return a network that scores as the given one does at inference, with its normalisations folded.

    Weights are copied: training the given network further does not change the result, which itself is not to
    be trained. Layers keep their names. Parts that cannot be folded are taken as they are; a network without
    a graph to walk (a subclassed one) comes back itself.

    Args:
        network: Any Keras model [B, ...] -> scores; nested networks are folded too.

    Source: Jacob et al. (2018), Quantization and training of neural networks for efficient
        integer-arithmetic-only inference, section 3.2, doi:10.1109/CVPR.2018.00286.
    """
    folds = find_folds(network) if is_network(network) else ()
    if not folds:
        return network
    copier = _Copier(folds)
    folded = copier.copy_network(network)
    copier.fill()
    return folded


def find_folds(network: Model) -> tuple[Fold, ...]:
    """Return what can be folded in a network and the networks inside it."""
    graph = read_graph(network)
    uses: dict[int, int] = {}
    for call in graph.calls:
        uses[id(call.operation)] = uses.get(id(call.operation), 0) + 1
    readers, ends = graph.consumers(), {id(tensor) for tensor in graph.outputs}

    def sole_reader(call: Call) -> Layer | None:
        """Return the one layer that reads a call's output, if nothing else does and it reads nothing else."""
        (tensor,) = call.outputs
        found = readers.get(id(tensor), [])
        is_sole = len(found) == 1 and id(tensor) not in ends and uses[id(found[0].operation)] == 1
        return found[0] if is_sole and len(found[0].inputs) == 1 else None

    folds: list[Fold] = []
    for call in graph.calls:
        if is_network(call.operation):
            folds += find_folds(call.operation)
        if not _is_plain_convolution(call.operation) or uses[id(call.operation)] > 1:
            continue
        second = sole_reader(call)
        if second is None or not _is_channel_normalisation(second.operation):
            continue
        third = sole_reader(second)
        relu = third.operation if third is not None and _is_relu(third.operation) else None
        folds.append(Fold(call.operation, second.operation, relu))
    return tuple(folds)


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
    plain = (None, 0.0, 0.0)
    return type(layer) is keras.layers.ReLU and plain == (
        layer.max_value,
        float(layer.negative_slope),
        float(layer.threshold),
    )


class _Copier:
    """One copy of each layer, and networks made of them.

    `keras.models.clone_model` would also compile its copy anew, which no loss of one's own survives.
    """

    def __init__(self, folds: Sequence[Fold]) -> None:
        self.folds = folds
        self.roles = {id(layer): fold for fold in folds for layer in fold.layers}
        self.copies: dict[
            int, tuple[Layer, Layer]
        ] = {}  # the original, which its id stands for, and the copy

    def copy_network(self, network: Model) -> Model:
        """Return the network called on copies, which have no weights of their own yet."""
        graph = read_graph(network)
        made = {id(tensor): _copy_input(tensor) for tensor in graph.inputs}
        for call in graph.calls:
            args, kwargs = _replaced((call.args, dict(call.kwargs)), made)
            outputs = keras.tree.flatten(self._copy(call.operation)(*args, **kwargs))
            made |= {id(old): new for old, new in zip(call.outputs, outputs, strict=True)}
        inputs, outputs = _replaced(ends_of(network), made)
        return keras.Model(inputs, outputs, name=network.name)

    def fill(self) -> None:
        """Give every copy its weights."""
        for key, (layer, made) in self.copies.items():
            if key not in self.roles and not is_network(layer):
                made.set_weights(layer.get_weights())
        for fold in self.folds:
            kernel, bias = fold.weights()
            self.copies[id(fold.convolution)][1].set_weights([kernel])
            self.copies[id(fold.normalisation)][1].set_weights([bias])

    def _copy(self, layer: Layer) -> Layer:
        if id(layer) not in self.copies:
            fold = self.roles.get(id(layer))
            made = self.copy_network(layer) if is_network(layer) else _copy_layer(layer, fold)
            self.copies[id(layer)] = (layer, made)
        return self.copies[id(layer)][1]


def _replaced(arguments: Any, made: Mapping[int, Any]) -> Any:  # noqa: ANN401 - any structure
    return keras.tree.map_structure(lambda value: made.get(id(value), value), arguments)


def _copy_input(tensor: Any) -> Any:  # noqa: ANN401 - symbolic
    name = history_of(tensor).operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)


def _copy_layer(layer: Layer, fold: Fold | None) -> Layer:
    settings = layer.get_config()
    if fold is None:
        return type(layer).from_config(settings)
    if layer is fold.convolution:
        return type(layer).from_config({**settings, "use_bias": False})
    kept = {"name": layer.name, "dtype": layer.dtype_policy}
    if layer is fold.normalisation:
        return ChannelBias(activation=None if fold.relu is None else "relu", **kept)
    return keras.layers.Identity(**kept)


def affine_of(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scale and the offset [C] float64 that a batch normalisation applies at inference."""
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
