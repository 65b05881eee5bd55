"""Rules for layers that join several tensors."""

from voxlift.models.layers import RepeatingConcatenate3D
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.rules.base import LayerCall, Lifted


def lift_merge(call: LayerCall) -> Lifted:
    """Return the same merge (sum, product ...): it broadcasts over single slices as over single pixels.

    Raises:
        RefusedError: Its inputs do not mean the same in 3D, see `check_alike`.
    """
    check_alike(call.inputs)
    nonnegative = all(flow.is_nonnegative for flow in call.inputs) and type(call.layer).__name__ != "Subtract"
    return Lifted(type(call.layer), call.config, (lift_joined(call).become(is_nonnegative=nonnegative),))


def lift_concatenate(call: LayerCall) -> Lifted:
    """Return Concatenate along the same axis, which may stand elsewhere in 3D.

    Raises:
        RefusedError: Unlike axes or depths, or features of a flattened volume.
    """
    flows, first = call.inputs, call.inputs[0]
    if any(flow.axes != first.axes for flow in flows) or any(flow.repeats != 1 for flow in flows):
        raise RefusedError(
            f"its inputs have unlike axes or repeated features: {', '.join(map(_axes, flows))}."
        )
    axis = first.axis_3d(call.config["axis"])
    _check_depths(flows)
    _check_sides(flows, but=first.axes[axis])
    is_last = axis == len(first.shape) - 1
    leading = next((flow for flow in flows if flow.depth != 1), first)
    is_repeating = first.is_volume and leading.depth != 1 and any(flow.depth == 1 for flow in flows)
    if is_repeating and not is_last:
        raise RefusedError("it joins single slices with whole volumes in space.", "Join them along channels.")
    output = _concatenated(call, leading if is_repeating else first, axis)
    if is_repeating:
        kept = {key: call.config[key] for key in ("name", "dtype") if key in call.config}
        return Lifted(RepeatingConcatenate3D, kept, (output,), note="single slices are repeated along depth")
    return Lifted(type(call.layer), {**call.config, "axis": -1 if is_last else axis}, (output,))


def _concatenated(call: LayerCall, leading: Flow, axis: int) -> Flow:
    flows = call.inputs
    sizes = [flow.shape[axis] for flow in flows]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return leading.become(
        shape=(*leading.shape[:axis], total, *leading.shape[axis + 1 :]),
        shape_2d=call.shapes_2d[0],
        is_nonnegative=all(flow.is_nonnegative for flow in flows),
        is_global=all(flow.is_global for flow in flows),
    )


def lift_joined(call: LayerCall) -> Flow:
    """Return the tensor that inputs broadcast to."""
    flows = call.inputs
    widest = max(flows, key=lambda flow: len(flow.shape))
    shape = list(widest.shape)
    for flow in flows:
        for back in range(1, len(flow.shape) if flow.axes != "BC" else 2):
            if shape[-back] == 1:
                shape[-back] = flow.shape[-back]
    largest = max(flows, key=lambda flow: (flow.is_volume, flow.depth or 0))
    return widest.become(
        shape=tuple(shape),
        shape_2d=call.shapes_2d[0],
        reduction=largest.reduction,
        is_global=all(flow.is_global for flow in flows if "D" in flow.axes),
    )


def check_alike(flows: tuple[Flow, ...]) -> None:
    """Raise where tensors that are joined do not mean the same in 3D.

    Args:
        flows: The tensors.

    Raises:
        RefusedError: Unlike numbers of slices, unlike axes, or repeated features beside single ones.
    """
    _check_depths(flows)
    _check_sides(flows)
    widest = max(flows, key=lambda flow: len(flow.shape))
    if any(flow.repeats != widest.repeats for flow in flows):
        raise RefusedError(
            "it joins flattened volumes with features that are not repeated once per slice.",
            "Put a global pool in the place of Flatten.",
        )
    if any(flow.axes not in (widest.axes, "BC") for flow in flows):
        raise RefusedError(f"its inputs have unlike axes: {', '.join(map(_axes, flows))}.")


def _axes(flow: Flow) -> str:
    return flow.axes if flow.repeats == 1 else f"{flow.axes} (repeated {flow.repeats} times)"


def _check_sides(flows: tuple[Flow, ...], *, but: str = "") -> None:
    """Refuse planes that do not meet, as those of another size than the 2D network's may not.

    Raises:
        RefusedError: Heights or widths that are neither equal nor 1, but for the axis that is joined.
    """
    for label in sorted({"H", "W"} - {but}):
        known = {flow.shape[flow.axes.index(label)] for flow in flows if label in flow.axes}
        sides = sorted(size for size in known if size is not None and size != 1)
        if len(sides) > 1:
            name = "rows" if label == "H" else "columns"
            raise RefusedError(
                f"branches meet here with {' and '.join(map(str, sides))} {name}.",
                "Ask for an input_shape that the network's strides divide.",
            )


def _check_depths(flows: tuple[Flow, ...]) -> None:
    depths = {flow.depth for flow in flows if "D" in flow.axes and flow.depth not in (None, 1)}
    if len(depths) > 1:
        raise RefusedError(
            f"branches meet here with {' and '.join(map(str, sorted(depths, key=str)))} slices.",
            "Give these branches' layers the same depth_policy, take a depth that their strides divide, "
            "or lift with depth_policy='preserve'.",
        )
