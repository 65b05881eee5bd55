"""Which channels of a 2D network are one and the same, followed from layer to layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import layers

from voxlift.models.lifting.cuts import SOURCES
from voxlift.models.lifting.graph import Call, is_network, read_graph
from voxlift.models.lifting.kinds import Layer, Model, Tensor
from voxlift.models.lifting.rules.operations import POINTWISE, REDUCTIONS

Channels = npt.NDArray[np.int64]


MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)


PASSING = (
    layers.BatchNormalization, layers.LayerNormalization, layers.UnitNormalization, layers.PReLU,
    layers.Activation,
    layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax, layers.Dropout, layers.GaussianDropout,
    layers.GaussianNoise, layers.AlphaDropout, layers.SpatialDropout2D, layers.ActivityRegularization,
    layers.Identity, layers.Rescaling, layers.MaxPooling2D, layers.AveragePooling2D, layers.ZeroPadding2D,
    layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Cropping2D, layers.UpSampling2D,
    layers.Normalization,
)  # fmt: skip


PASSING_NAMES = {"LayerScale", "RMSNormalization", "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D"}


@dataclass(frozen=True)
class Source:
    """A layer that makes channels, and which ones."""

    layer: Layer
    outputs: Channels
    stage: int


@dataclass
class ChannelMap:
    """Which channels of the network are one and the same, and which of them stay.

    Every output channel of a convolution or dense layer has a number; layers in between hand numbers on, and
    sums tie
    them together, so that the ends of a residual branch lose the same filters.

    Args:
        parents: A forest over the numbers; tied channels have one root.
        pinned: Channels that must stay: the network's inputs and outputs, and what an unknown layer reads.
        by_tensor: The numbers along the last axis of each symbolic tensor, by its id.
        by_layer: The numbers that each layer reads and gives.
        sources: Layers that make channels, in order.
        heights: How far height is reduced at each symbolic tensor.
    """

    parents: list[int] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    by_tensor: dict[int, Channels] = field(default_factory=dict)
    by_layer: dict[int, tuple[Layer, Channels, Channels]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    heights: dict[int, float] = field(default_factory=dict)

    def make(self, count: int) -> Channels:
        """Return new numbers.

        Args:
            count: How many.

        Returns:
            int64 [count].
        """
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, number: int) -> int:
        """Return the number that stands for all channels tied to one."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def tie(self, one: Channels, other: Channels) -> None:
        """Make channels one and the same, pair by pair.

        Args:
            one: Numbers [n].
            other: As many.
        """
        for first, second in zip(one, other, strict=True):
            self.parents[self.root(int(second))] = self.root(int(first))

    def pin(self, channels: Channels) -> None:
        """Make channels stay."""
        self.pinned.update(int(number) for number in channels)


Behaviour = Callable[[Call, ChannelMap, list[Channels]], list[Channels]]


def follow_channels(model: Model, channels: ChannelMap) -> list[Tensor]:
    """Number the channels of every tensor of a network whose inputs are numbered; return the tensors.

    Args:
        model: A network; each of its inputs has numbers and a height in `channels`.
        channels: Receives those of all other tensors.
    """
    tensors = []
    for call in read_graph(model).calls:
        if is_network(call.operation):
            inner = call.operation
            for place, tensor in zip(inner.inputs, call.inputs, strict=True):
                _meet(channels, place, channels.by_tensor[id(tensor)])
                channels.heights.setdefault(id(place), channels.heights[id(tensor)])
            tensors += [*inner.inputs, *follow_channels(inner, channels)]
            given = [channels.by_tensor[id(tensor)] for tensor in inner.outputs]
            heights = [channels.heights[id(tensor)] for tensor in inner.outputs]
        else:
            given = _outputs_of(call, channels)
            heights = [_height_behind(call, channels)] * len(given)
        for tensor, numbers, height in zip(call.outputs, given, heights, strict=True):
            channels.by_tensor[id(tensor)] = numbers
            channels.heights[id(tensor)] = height
            tensors.append(tensor)
    return tensors


def _meet(channels: ChannelMap, tensor: Tensor, numbers: Channels) -> None:
    """Give a tensor its numbers; a second call of a shared network ties them to the first's."""
    if id(tensor) in channels.by_tensor:
        channels.tie(channels.by_tensor[id(tensor)], numbers)
    else:
        channels.by_tensor[id(tensor)] = numbers


def _outputs_of(call: Call, channels: ChannelMap) -> list[Channels]:
    layer = call.operation
    inputs = [channels.by_tensor[id(tensor)] for tensor in call.inputs]
    known = channels.by_layer.get(id(layer))
    if known is not None:
        channels.tie(known[1], inputs[0])
        return [known[2]] * len(call.outputs)
    outputs = _behaviour_of(layer)(call, channels, inputs)
    if (
        isinstance(layer, layers.Layer)
        and len(outputs) == 1
        and not isinstance(layer, (*MERGES, layers.Concatenate))
    ):
        channels.by_layer[id(layer)] = (layer, inputs[0], outputs[0])
    return outputs


def _behaviour_of(layer: Layer) -> Behaviour:
    by_class = next((each for kinds, each in _BY_CLASS if isinstance(layer, kinds)), None)
    return by_class or _behaviour_by_name(layer)


def _behaviour_by_name(layer: Layer) -> Behaviour:
    name, is_raw = type(layer).__name__, not isinstance(layer, layers.Layer)
    if name == "CustomScaleLayer" or (is_raw and name in POINTWISE):
        return _tie_all
    return _pass_on if name in PASSING_NAMES or (is_raw and name in REDUCTIONS) else _pin_all


def _make_channels(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    layer, count = call.operation, int(call.outputs[0].shape[-1])
    groups = getattr(layer, "groups", 1)
    if groups > 1 and groups == len(inputs[0]):
        return [np.repeat(inputs[0], count // groups)]
    outputs = channels.make(count)
    if groups > 1:  # a group goes or stays as one
        for read, given in zip(np.split(inputs[0], groups), np.split(outputs, groups), strict=True):
            everyone = np.concatenate([read, given])
            channels.tie(np.repeat(everyone[:1], len(everyone)), everyone)
    channels.sources.append(Source(layer, outputs, round(np.log2(max(1.0, _height_behind(call, channels))))))
    return [outputs]


def _repeat(call: Call, _channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    return [np.repeat(inputs[0], call.operation.depth_multiplier)]


def _join(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    if call.operation.axis in (-1, len(call.outputs[0].shape) - 1):
        return [np.concatenate(inputs)]
    return _tie_all(call, channels, inputs)


def _tie_all(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    widest = max(inputs, key=len)
    for numbers in inputs:
        if len(numbers) == len(widest) and numbers is not widest:
            channels.tie(widest, numbers)
    return [widest] if len(widest) == call.outputs[0].shape[-1] else _pin_all(call, channels, inputs)


def _pass_on(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    if len(inputs) == 1 and call.outputs[0].shape[-1] == len(inputs[0]):
        return inputs
    return _pin_all(call, channels, inputs)


def _flatten(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    count = call.outputs[0].shape[-1]
    if count is None or count % len(inputs[0]):
        return _pin_all(call, channels, inputs)
    return [np.tile(inputs[0], count // len(inputs[0]))]


def _pin_all(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    for numbers in inputs:
        channels.pin(numbers)
    outputs = [channels.make(int(tensor.shape[-1] or 1)) for tensor in call.outputs]
    for numbers in outputs:
        channels.pin(numbers)
    return outputs


_BY_CLASS: tuple[tuple[Any, Behaviour], ...] = (
    (layers.DepthwiseConv2D, _repeat),
    (SOURCES, _make_channels),
    (layers.Concatenate, _join),
    ((layers.Flatten, layers.Reshape), _flatten),
    (MERGES, _tie_all),
    (PASSING, _pass_on),
)


def _height_behind(call: Call, channels: ChannelMap) -> float:
    before = channels.heights[id(call.inputs[0])]
    layer = call.operation
    if isinstance(layer, layers.UpSampling2D):
        return float(before / layer.size[0])
    strides = getattr(layer, "strides", None)
    stride = strides[0] if isinstance(strides, list | tuple) else (strides or 1)
    return float(before / stride if isinstance(layer, layers.Conv2DTranspose) else before * stride)
