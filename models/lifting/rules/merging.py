"""Rules for layers that merge several tensors."""

from voxlift.models.layers import RepeatingConcatenate3D
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.types import TensorSpec


def lift_merge(call: LayerCall) -> Lifted:
    """Return the same merge (sum, product, ...); single slices are broadcast as single pixels are.

    Raises:
        UnsupportedError: Its inputs cannot be merged in 3D, see `require_compatible`.
    """
    require_compatible(call.inputs)
    nonnegative = all(spec.is_nonnegative for spec in call.inputs) and type(call.layer).__name__ != "Subtract"
    output = broadcast_inputs(call).replace(is_nonnegative=nonnegative)
    return Lifted(type(call.layer), call.config, (output,))


def lift_concatenate(call: LayerCall) -> Lifted:
    """Return Concatenate along the same axis, whose number may differ in 3D.

    Raises:
        UnsupportedError: Different axes or sizes, or features of a flattened volume.
    """
    specs, first = call.inputs, call.inputs[0]
    if any(spec.axes != first.axes for spec in specs) or any(spec.repeats != 1 for spec in specs):
        raise UnsupportedError(f"its inputs have different axes or repeated features: {_list_axes(specs)}.")
    axis = first.axis_3d(call.config["axis"])
    _require_same_depth(specs)
    _require_same_sides(specs, ignored=first.axes[axis])
    is_last = axis == len(first.shape) - 1
    deepest = next((spec for spec in specs if spec.depth != 1), first)
    is_repeating = first.is_volume and deepest.depth != 1 and any(spec.depth == 1 for spec in specs)
    if not is_repeating:
        output = _concatenate_specs(call, first, axis)
        return Lifted(type(call.layer), {**call.config, "axis": -1 if is_last else axis}, (output,))
    if not is_last:
        raise UnsupportedError(
            "it concatenates single slices with volumes along a spatial axis.",
            "Concatenate them along the channels.",
        )
    kept = {key: call.config[key] for key in ("name", "dtype") if key in call.config}
    output = _concatenate_specs(call, deepest, axis)
    return Lifted(RepeatingConcatenate3D, kept, (output,), note="single slices are repeated along depth")


def _concatenate_specs(call: LayerCall, deepest: TensorSpec, axis: int) -> TensorSpec:
    sizes = [spec.shape[axis] for spec in call.inputs]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return deepest.replace(
        shape=(*deepest.shape[:axis], total, *deepest.shape[axis + 1 :]),
        shape_2d=call.shapes_2d[0],
        is_nonnegative=all(spec.is_nonnegative for spec in call.inputs),
        is_global=all(spec.is_global for spec in call.inputs),
    )


def broadcast_inputs(call: LayerCall) -> TensorSpec:
    """Return the tensor that the inputs of a layer are broadcast to."""
    specs = call.inputs
    widest = max(specs, key=lambda spec: len(spec.shape))
    shape = list(widest.shape)
    for spec in specs:
        for back in range(1, len(spec.shape) if spec.axes != "BC" else 2):
            if shape[-back] == 1:
                shape[-back] = spec.shape[-back]
    deepest = max(specs, key=lambda spec: (spec.is_volume, spec.depth or 0))
    return widest.replace(
        shape=tuple(shape),
        shape_2d=call.shapes_2d[0],
        downsampling=deepest.downsampling,
        is_global=all(spec.is_global for spec in specs if "D" in spec.axes),
    )


def require_compatible(specs: tuple[TensorSpec, ...]) -> None:
    """Raise if tensors cannot be merged in 3D.

    Args:
        specs: The tensors.

    Raises:
        UnsupportedError: Different numbers of slices, different axes, or repeated features with single ones.
    """
    _require_same_depth(specs)
    _require_same_sides(specs)
    widest = max(specs, key=lambda spec: len(spec.shape))
    if any(spec.repeats != widest.repeats for spec in specs):
        raise UnsupportedError(
            "it merges a flattened volume with features that are not repeated once per slice.",
            "Replace Flatten by a global pooling layer.",
        )
    if any(spec.axes not in (widest.axes, "BC") for spec in specs):
        raise UnsupportedError(f"its inputs have different axes: {_list_axes(specs)}.")


def _list_axes(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(
        spec.axes if spec.repeats == 1 else f"{spec.axes} (repeated {spec.repeats} times)" for spec in specs
    )


def _require_same_sides(specs: tuple[TensorSpec, ...], *, ignored: str = "") -> None:
    """Raise if heights or widths are neither equal nor 1, except for the axis `ignored`.

    Raises:
        UnsupportedError: They differ, as they can with another input size than the 2D network's.
    """
    for label in sorted({"H", "W"} - {ignored}):
        known = {spec.shape[spec.axes.index(label)] for spec in specs if label in spec.axes}
        sides = sorted(size for size in known if size is not None and size != 1)
        if len(sides) > 1:
            name = "rows" if label == "H" else "columns"
            raise UnsupportedError(
                f"its inputs have {' and '.join(map(str, sides))} {name}, expected equal numbers.",
                "Use an input_shape that is divisible by the strides of the network.",
            )


def _require_same_depth(specs: tuple[TensorSpec, ...]) -> None:
    depths = {spec.depth for spec in specs if "D" in spec.axes and spec.depth not in (None, 1)}
    if len(depths) > 1:
        numbers = " and ".join(map(str, sorted(depths, key=str)))
        raise UnsupportedError(
            f"its inputs have {numbers} slices, expected equal numbers.",
            "Give the layers before it the same depth_policy, use a depth that is divisible by their "
            "strides, or lift with depth_policy='preserve'.",
        )
