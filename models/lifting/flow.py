"""What is known about a tensor of the lifted network before anything is built."""

from dataclasses import dataclass, replace

from voxlift.models.lifting.kinds import Value

Shape = tuple[int | None, ...]

VOLUME_AXES = "BDHWC"


@dataclass(frozen=True)
class Flow:
    """A tensor of the lifted network beside its 2D counterpart.

    Axes are named, so that an axis number of the 2D network finds its place in 3D: the 2D axes are
    these without D.

    Args:
        axes: One letter per axis of the 3D tensor: B, D, H, W, C, and x for an axis without place in space.
        shape: Shape in 3D, the batch included.
        shape_2d: Shape in the 2D network, the batch included.
        is_nonnegative: No value below zero can occur, so that zero padding before a maximum changes nothing.
        depth_padding: Slices of zeros that a padding layer has put in front and behind for the next layer.
        reduction: By what factor (depth, height) have been downsampled so far.
        is_global: Whether it was pooled over the whole volume: its single slice stands for all.
        repeats: How often each feature of the 2D tensor stands on the last axis: a flattened volume repeats
            them once per slice. None where they are not the 2D tensor's at all.
    """

    axes: str
    shape: Shape
    shape_2d: Shape
    is_nonnegative: bool = False
    depth_padding: tuple[int, int] = (0, 0)
    reduction: tuple[float, float] = (1.0, 1.0)
    is_global: bool = False
    repeats: int | None = 1

    @property
    def is_volume(self) -> bool:
        """Whether the tensor is a full [B, D, H, W, C]."""
        return self.axes == VOLUME_AXES

    @property
    def is_plain(self) -> bool:
        """Whether the tensor means the same in 2D and 3D: no depth axis, no repeated features."""
        return "D" not in self.axes and self.repeats == 1

    @property
    def depth(self) -> int | None:
        """Number of slices, None where unknown."""
        return self.shape[self.axes.index("D")] if "D" in self.axes else None

    @property
    def channels(self) -> int | None:
        """Size of the last axis."""
        return self.shape[-1]

    def axis_3d(self, axis_2d: int) -> int:
        """Return the place in 3D of an axis of the 2D tensor, positive."""
        axes_2d = self.axes.replace("D", "")
        return self.axes.index(axes_2d[axis_2d]) if "x" not in axes_2d else axis_2d % len(axes_2d)

    def become(self, **changes: Value) -> "Flow":
        """Return this flow with some facts changed; padding meant for the next layer is forgotten."""
        return replace(self, **{"depth_padding": (0, 0), **changes})


def volume_flow(shape_2d: Shape, shape: Shape) -> Flow:
    """Return the flow of an image input [B, H, W, C] that becomes a volume [B, D, H, W, C].

    Args:
        shape_2d: [B, H, W, C], None where unknown.
        shape: [B, D, H, W, C], None where unknown.
    """
    return Flow(VOLUME_AXES, shape, shape_2d)


def plain_flow(shape: Shape) -> Flow:
    """Return the flow of a tensor that has no depth, such as a vector per subject."""
    return Flow(plain_axes(shape), shape, shape)


def plain_axes(shape: Shape) -> str:
    """Return the axes of a tensor without a place in space.

    >>> plain_axes((None, 7)), plain_axes((None, 5, 7))
    ('BC', 'Bxx')
    """
    return "BC" if len(shape) == 2 else "B" + "x" * (len(shape) - 1)


def guess_flow(shape_2d: Shape, source: Flow) -> Flow:
    """Return a likely flow behind a refused layer, so that planning can go on and find the next problem.

    Args:
        shape_2d: Shape of the layer's output in 2D.
        source: The first tensor that it reads.
    """
    if len(shape_2d) == 4 and source.is_volume:
        return source.become(shape=(shape_2d[0], source.depth, *shape_2d[1:]), shape_2d=shape_2d)
    return plain_flow(shape_2d)
