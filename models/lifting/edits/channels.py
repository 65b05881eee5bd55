"""The channels of a 2D network: which ones must be kept or removed together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from keras import layers

from voxlift.models.lifting.graph import Call, is_network, read_graph
from voxlift.models.lifting.rules.operations import POINTWISE, REDUCTIONS
from voxlift.models.lifting.types import Layer, Model, Tensor

Channels: TypeAlias = npt.NDArray[np.int64]  # a number per channel

CHANNEL_SOURCES = (layers.Conv2D, layers.SeparableConv2D, layers.Conv2DTranspose, layers.Dense)
MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
CHANNELWISE = (
    layers.BatchNormalization, layers.LayerNormalization, layers.UnitNormalization, layers.PReLU,
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax, layers.Dropout,
    layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.SpatialDropout2D,
    layers.ActivityRegularization, layers.Identity, layers.Rescaling, layers.MaxPooling2D,
    layers.AveragePooling2D, layers.ZeroPadding2D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D,
    layers.Cropping2D, layers.UpSampling2D, layers.Normalization,
)  # fmt: skip
CHANNELWISE_NAMES = {"LayerScale", "RMSNormalization", "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D"}


@dataclass(frozen=True)
class Source:
    """A layer that creates channels, the numbers of these channels, and its stage."""

    layer: Layer
    outputs: Channels
    stage: int


@dataclass
class ChannelMap:
    """The channels of a network: which are tied to each other, and which must be kept.

    Every output channel of a convolution or dense layer has a number. Layers in between pass numbers on, and
    sums tie them together, so that the ends of a residual branch lose the same filters.

    Args:
        parents: Union-find forest over the numbers; tied channels have one root.
        pinned: Channels that must be kept: inputs and outputs of the network, and those of unknown layers.
        by_tensor: Numbers along the last axis of each symbolic tensor, by its id.
        by_layer: The numbers that each layer reads and returns.
        sources: Layers that create channels, in order.
        heights: Factor by which height is reduced at each symbolic tensor, by its id.
    """

    parents: list[int] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    by_tensor: dict[int, Channels] = field(default_factory=dict)
    by_layer: dict[int, tuple[Layer, Channels, Channels]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    heights: dict[int, float] = field(default_factory=dict)

    def create(self, count: int) -> Channels:
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
        """Return the number that represents all channels tied to one."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def tie(self, one: Channels, other: Channels) -> None:
        """Tie channels pair by pair: both of a pair are kept or removed.

        Args:
            one: Numbers [n].
            other: Numbers [n].
        """
        for first, second in zip(one, other, strict=True):
            self.parents[self.root(int(second))] = self.root(int(first))

    def pin(self, channels: Channels) -> None:
        """Mark channels that must be kept."""
        self.pinned.update(int(number) for number in channels)


ChannelRule: TypeAlias = Callable[[Call, ChannelMap, list[Channels]], list[Channels]]


def number_channels(model: Model, channels: ChannelMap) -> list[Tensor]:
    """Assign numbers to the channels of every tensor of a network, and return the tensors.

    Args:
        model: A network; each of its inputs has numbers and a height in `channels`.
        channels: Receives those of all other tensors.
    """
    tensors = []
    for call in read_graph(model).calls:
        if is_network(call.operation):
            nested = call.operation
            for entry, tensor in zip(nested.inputs, call.inputs, strict=True):
                _number_entry(channels, entry, channels.by_tensor[id(tensor)])
                channels.heights.setdefault(id(entry), channels.heights[id(tensor)])
            tensors += [*nested.inputs, *number_channels(nested, channels)]
            outputs = [channels.by_tensor[id(tensor)] for tensor in nested.outputs]
            heights = [channels.heights[id(tensor)] for tensor in nested.outputs]
        else:
            outputs = _number_outputs(call, channels)
            heights = [_height_after(call, channels)] * len(outputs)
        for tensor, numbers, height in zip(call.outputs, outputs, heights, strict=True):
            channels.by_tensor[id(tensor)] = numbers
            channels.heights[id(tensor)] = height
            tensors.append(tensor)
    return tensors


def _number_entry(channels: ChannelMap, tensor: Tensor, numbers: Channels) -> None:
    """Assign numbers to the input of a nested network; a second call ties its numbers to the first's."""
    if id(tensor) in channels.by_tensor:
        channels.tie(channels.by_tensor[id(tensor)], numbers)
    else:
        channels.by_tensor[id(tensor)] = numbers


def _number_outputs(call: Call, channels: ChannelMap) -> list[Channels]:
    layer = call.operation
    inputs = [channels.by_tensor[id(tensor)] for tensor in call.inputs]
    known = channels.by_layer.get(id(layer))
    if known is not None:
        channels.tie(known[1], inputs[0])
        return [known[2]] * len(call.outputs)
    outputs = _find_channel_rule(layer)(call, channels, inputs)
    is_merge = isinstance(layer, (*MERGES, layers.Concatenate))
    if isinstance(layer, layers.Layer) and len(outputs) == 1 and not is_merge:
        channels.by_layer[id(layer)] = (layer, inputs[0], outputs[0])
    return outputs


def _find_channel_rule(layer: Layer) -> ChannelRule:
    by_class = next((rule for classes, rule in _RULES_BY_CLASS if isinstance(layer, classes)), None)
    if by_class is not None:
        return by_class
    name, is_raw = type(layer).__name__, not isinstance(layer, layers.Layer)
    if name == "CustomScaleLayer" or (is_raw and name in POINTWISE):
        return _tie_all
    return _pass_on if name in CHANNELWISE_NAMES or (is_raw and name in REDUCTIONS) else _pin_all


def _create_channels(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    layer, count = call.operation, int(call.outputs[0].shape[-1])
    groups = getattr(layer, "groups", 1)
    if groups > 1 and groups == len(inputs[0]):
        return [np.repeat(inputs[0], count // groups)]
    outputs = channels.create(count)
    if groups > 1:  # a group is kept or removed as a whole
        for read, returned in zip(np.split(inputs[0], groups), np.split(outputs, groups), strict=True):
            group = np.concatenate([read, returned])
            channels.tie(np.repeat(group[:1], len(group)), group)
    channels.sources.append(Source(layer, outputs, round(np.log2(max(1.0, _height_after(call, channels))))))
    return [outputs]


def _repeat(call: Call, _channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
    return [np.repeat(inputs[0], call.operation.depth_multiplier)]


def _concatenate(call: Call, channels: ChannelMap, inputs: list[Channels]) -> list[Channels]:
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
    outputs = [channels.create(int(tensor.shape[-1] or 1)) for tensor in call.outputs]
    for numbers in outputs:
        channels.pin(numbers)
    return outputs


_RULES_BY_CLASS: tuple[tuple[Any, ChannelRule], ...] = (
    (layers.DepthwiseConv2D, _repeat),
    (CHANNEL_SOURCES, _create_channels),
    (layers.Concatenate, _concatenate),
    ((layers.Flatten, layers.Reshape), _flatten),
    (MERGES, _tie_all),
    (CHANNELWISE, _pass_on),
)


def _height_after(call: Call, channels: ChannelMap) -> float:
    before = channels.heights[id(call.inputs[0])]
    layer = call.operation
    if isinstance(layer, layers.UpSampling2D):
        return float(before / layer.size[0])
    strides = getattr(layer, "strides", None)
    stride = strides[0] if isinstance(strides, list | tuple) else (strides or 1)
    return float(before / stride if isinstance(layer, layers.Conv2DTranspose) else before * stride)
