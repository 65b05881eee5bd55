"""Type aliases, and the description of a tensor of the lifted network before anything is built."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

Model: TypeAlias = Any  # a Functional or Sequential model; Keras ships no types
Layer: TypeAlias = Any  # a layer, a nested model or a raw operation of keras.ops
LayerClass: TypeAlias = Any  # a class of layers
Tensor: TypeAlias = Any  # a symbolic tensor
Value: TypeAlias = Any  # any value of a setting, of a call's argument or of a configuration
Array: TypeAlias = npt.NDArray[Any]
Weights: TypeAlias = list[Array]
Transfer: TypeAlias = Callable[[Weights], Weights]  # from a layer's 2D weights to its 3D weights
Shape: TypeAlias = tuple[int | None, ...]

VOLUME_AXES = "BDHWC"


@dataclass(frozen=True)
class TokenLayout:
    """How the tokens of a volume are ordered: prefix tokens, then one plane after the other.

    Args:
        planes: Planes along depth; each repeats the tokens of the 2D network.
        prefix: Number of prefix tokens, such as a class token, which the 2D network has as well.
        sides: Rows and columns of tokens in a plane, None if unknown.
        sides_2d: The same in the 2D network.
    """

    planes: int
    prefix: int = 0
    sides: Shape = (None, None)
    sides_2d: Shape = (None, None)

    def with_prefix(self, prefix: int) -> "TokenLayout":
        """Return the same order with another number of prefix tokens."""
        return dataclasses.replace(self, prefix=prefix)


@dataclass(frozen=True)
class TensorSpec:
    """The description of a tensor of the lifted network, beside its counterpart in the 2D network.

    Axes are named, so that an axis number of the 2D network can be mapped to 3D: the axes of the 2D tensor
    are `axes` without D.

    Args:
        axes: One letter per axis of the 3D tensor: B, D, H, W, C; T for the tokens of a volume; x (or p to v)
            for an axis that is neither spatial nor the channels.
        shape: Shape in 3D, including the batch.
        shape_2d: Shape in the 2D network, including the batch.
        is_nonnegative: Whether no value below zero can occur; zero padding before a maximum is exact then.
        depth_padding: Slices of zeros (front, back) that a padding layer has added for the next layer.
        downsampling: Factor by which (depth, height) have been downsampled so far.
        is_global: Whether the tensor was pooled over the whole volume; its single slice stands for all.
        repeats: How often each feature of the 2D tensor occurs on the last axis: a flattened volume repeats
            the features once per slice. None if they are not the features of the 2D tensor.
        tokens: The order of the tokens, if the tensor is the tokens [B, T, C] of a volume, or groups of them
            [B, P, T, C].
    """

    axes: str
    shape: Shape
    shape_2d: Shape
    is_nonnegative: bool = False
    depth_padding: tuple[int, int] = (0, 0)
    downsampling: tuple[float, float] = (1.0, 1.0)
    is_global: bool = False
    repeats: int | None = 1
    tokens: TokenLayout | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the tensor is a full volume [B, D, H, W, C]."""
        return self.axes == VOLUME_AXES

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is the same in 2D and 3D: no depth axis, no repeated features or tokens."""
        return "D" not in self.axes and self.repeats == 1 and self.tokens is None

    @property
    def axes_2d(self) -> str:
        """Axes of the 2D tensor, one letter per axis."""
        return self.axes.replace("D", "")

    @property
    def depth(self) -> int | None:
        """Number of slices, None if unknown."""
        return self.shape[self.axes.index("D")] if "D" in self.axes else None

    @property
    def channels(self) -> int | None:
        """Size of the last axis."""
        return self.shape[-1]

    def axis_3d(self, axis_2d: int) -> int:
        """Return the index in 3D, not negative, of an axis of the 2D tensor."""
        axes_2d = self.axes_2d
        return self.axes.index(axes_2d[axis_2d]) if "x" not in axes_2d else axis_2d % len(axes_2d)

    def replace(self, **changes: Value) -> "TensorSpec":
        """Return this description with some fields changed; `depth_padding` is reset unless given."""
        return dataclasses.replace(self, **{"depth_padding": (0, 0), **changes})


def volume_spec(shape_2d: Shape, shape: Shape) -> TensorSpec:
    """Return the description of an image input [B, H, W, C] that becomes a volume [B, D, H, W, C].

    Args:
        shape_2d: [B, H, W, C], None for unknown sizes.
        shape: [B, D, H, W, C], None for unknown sizes.
    """
    return TensorSpec(VOLUME_AXES, shape, shape_2d)


def plain_spec(shape: Shape) -> TensorSpec:
    """Return the description of a tensor without depth, such as a vector per subject."""
    return TensorSpec(plain_axes(shape), shape, shape)


def plain_axes(shape: Shape) -> str:
    """Return the axes of a tensor without spatial axes.

    >>> plain_axes((None, 7)), plain_axes((None, 5, 7))
    ('BC', 'Bxx')
    """
    return "BC" if len(shape) == 2 else "B" + "x" * (len(shape) - 1)


def guess_spec(shape_2d: Shape, source: TensorSpec) -> TensorSpec:
    """Return a likely description of an unsupported layer's output, so that planning can continue.

    Args:
        shape_2d: Shape of the layer's output in 2D.
        source: The first tensor that the layer reads.
    """
    if len(shape_2d) == 4 and source.is_volume:
        return source.replace(shape=(shape_2d[0], source.depth, *shape_2d[1:]), shape_2d=shape_2d)
    return plain_spec(shape_2d)
