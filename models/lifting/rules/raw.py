"""What the rules for raw `keras.ops` calls share."""

from typing import Any

from voxlift.models.lifting.flow import VOLUME_AXES, Flow, Shape, plain_flow
from voxlift.models.lifting.kinds import Value
from voxlift.models.lifting.rules.answers import refuse_repeated
from voxlift.models.lifting.rules.base import LayerCall, Lifted


def keep_operation(call: LayerCall) -> Lifted:
    """Return an operation as it is, for tensors without a place in space.

    Raises:
        RefusedError: They are features of a flattened volume.
    """
    refuse_repeated(call)
    outputs = tuple(plain_flow(shape) for shape in call.shapes_2d)
    return Lifted(type(call.layer), call.config, outputs)


def again(call: LayerCall, output: Flow, **changes: Value) -> Lifted:  # arguments of any operation
    """Return the same operation with some arguments changed.

    Args:
        call: The operation where it is called.
        output: The tensor that it gives.
        changes: New values in its configuration.
    """
    return Lifted(type(call.layer), {**call.config, **changes}, (output,))


def without_axes(flow: Flow, dropped: list[int], shape_2d: Shape) -> Flow:
    """Return a flow without the axes at these places; a single part of the channels that is left is those.

    Args:
        flow: The tensor.
        dropped: Places of its axes in 3D.
        shape_2d: Shape of the result in 2D.
    """
    kept = [index for index in range(len(flow.axes)) if index not in dropped]
    axes = "".join(flow.axes[index] for index in kept)
    axes = VOLUME_AXES if len(axes) == 5 and axes.startswith("BDHW") else axes
    return flow.become(axes=axes, shape=tuple(flow.shape[index] for index in kept), shape_2d=shape_2d)


def as_list(axis: Any) -> list[int]:  # noqa: ANN401  # one axis or several
    """Return one axis or several as a list."""
    return list(axis) if isinstance(axis, list | tuple) else [axis]
