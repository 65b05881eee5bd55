"""Rules for layers that join several tensors."""

from models.lifting.errors import RefusedError
from models.lifting.flow import Flow
from models.lifting.rules.base import LayerCall, Lifted


def lift_merge(call: LayerCall) -> Lifted:
    """Return the same merge (sum, product ...): it broadcasts over single slices as over single pixels."""
    flows = call.inputs
    widest = max(flows, key=lambda flow: len(flow.shape))
    _check_alike(flows, widest)
    nonnegative = all(flow.is_nonnegative for flow in flows) and type(call.layer).__name__ != "Subtract"
    output = _joined(flows, widest, call)
    return Lifted(type(call.layer), call.config, (output.become(is_nonnegative=nonnegative),))


def lift_concatenate(call: LayerCall) -> Lifted:
    """Return Concatenate along the same axis, which may stand elsewhere in 3D."""
    flows = call.inputs
    first = flows[0]
    axis_2d = call.config["axis"]
    if any(flow.axes != first.axes for flow in flows) or any(flow.repeats != 1 for flow in flows):
        raise RefusedError(f"its inputs have unlike axes: {', '.join(flow.axes for flow in flows)}.")
    axis = first.axis_3d(axis_2d)
    _check_depths(flows)
    sizes = [flow.shape[axis] for flow in flows]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    output = first.become(
        shape=shape,
        shape_2d=call.shapes_2d[0],
        is_nonnegative=all(flow.is_nonnegative for flow in flows),
    )
    is_last = axis == len(shape) - 1
    return Lifted(type(call.layer), {**call.config, "axis": -1 if is_last else axis}, (output,))


def _joined(flows: tuple[Flow, ...], widest: Flow, call: LayerCall) -> Flow:
    shape = list(widest.shape)
    for flow in flows:
        for back in range(1, len(flow.shape) if flow.axes != "BC" else 2):
            if shape[-back] == 1:
                shape[-back] = flow.shape[-back]
    return widest.become(shape=tuple(shape), shape_2d=call.shapes_2d[0], reduction=_deepest(flows))


def _deepest(flows: tuple[Flow, ...]) -> tuple[float, float]:
    volumes = [flow for flow in flows if flow.is_volume and flow.depth != 1] or list(flows)
    return volumes[0].reduction


def _check_alike(flows: tuple[Flow, ...], widest: Flow) -> None:
    _check_depths(flows)
    for flow in flows:
        if flow.repeats != widest.repeats:
            raise RefusedError(
                "it joins flattened volumes with features that are not repeated once per slice.",
                "Put a global pool in the place of Flatten.",
            )
        if flow.axes not in (widest.axes, "BC"):
            raise RefusedError(f"its inputs have unlike axes: {', '.join(each.axes for each in flows)}.")


def _check_depths(flows: tuple[Flow, ...]) -> None:
    depths = {flow.depth for flow in flows if "D" in flow.axes and flow.depth not in (None, 1)}
    if len(depths) > 1:
        raise RefusedError(
            f"branches meet here with {' and '.join(map(str, sorted(depths, key=str)))} slices.",
            "Give the layers of these branches the same depth_policy.",
        )
