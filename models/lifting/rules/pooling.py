"""Rules for pooling and upsampling."""

import keras

from voxlift.models.layers import TrilinearUpSampling3D
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.kinds import LayerClass
from voxlift.models.lifting.rules.answers import spatial_output
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.rules.kernels import depth_growth
from voxlift.models.lifting.windows import window_output

GLOBAL_TWINS = {
    keras.layers.GlobalAveragePooling2D: keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling2D: keras.layers.GlobalMaxPooling3D,
}


def lift_max_pooling(call: LayerCall) -> Lifted:
    """Return MaxPooling3D for MaxPooling2D."""
    zeros = any(call.flow.depth_padding) and not call.flow.is_nonnegative
    reason = "slices of zeros win over negative values in its maximum" if zeros else ""
    return _lift_pooling(call, keras.layers.MaxPooling3D, reason)


def lift_average_pooling(call: LayerCall) -> Lifted:
    """Return AveragePooling3D for AveragePooling2D."""
    reason = "slices of zeros lower its average" if any(call.flow.depth_padding) else ""
    return _lift_pooling(call, keras.layers.AveragePooling3D, reason)


def lift_global_pooling(call: LayerCall) -> Lifted:
    """Return the global pool of a volume; with `keepdims` it leaves [B, 1, 1, 1, C]."""
    flow = call.volume()
    shape_2d = call.shapes_2d[0]
    if call.config.get("keepdims"):
        output = spatial_output(call, (1, 1, 1)).become(is_global=True)
    else:
        output = flow.become(axes="BC", shape=(flow.shape[0], flow.channels), shape_2d=shape_2d)
    output = output.become(is_nonnegative=flow.is_nonnegative)
    return Lifted(GLOBAL_TWINS[type(call.layer)], call.config, (output,))


def lift_adaptive_pooling(call: LayerCall) -> Lifted:
    """Return the adaptive pool of a volume; where pools keep depth, it keeps the number of slices.

    Raises:
        RefusedError: It shall keep a number of slices that is unknown.
    """
    flow = call.volume()
    height, width = call.config["output_size"]
    depth = call.rule.pool_for(height) if call.rule.pool != 1 else flow.depth
    if depth is None:
        raise RefusedError("it cannot keep an unknown number of slices.", "Lift with a fixed depth.")
    is_average = isinstance(call.layer, keras.layers.AdaptiveAveragePooling2D)
    twin = keras.layers.AdaptiveAveragePooling3D if is_average else keras.layers.AdaptiveMaxPooling3D
    output = spatial_output(call, (depth, height, width)).become(is_nonnegative=flow.is_nonnegative)
    config = {**call.config, "output_size": (depth, height, width)}
    return Lifted(twin, config, (output,), window=f"to {depth}x{height}x{width}")


def _lift_pooling(call: LayerCall, twin: LayerClass, inexact: str) -> Lifted:
    flow, config = call.volume(), call.config
    size, strides = config["pool_size"], config["strides"] or config["pool_size"]
    pool = (call.rule.pool_for(size[0]), *size)
    stride = (_stride(call, strides[0]), *strides)
    sizes = tuple(
        window_output(length, window, stride=step, padding=config["padding"])
        for length, window, step in zip(flow.shape[1:4], pool, stride, strict=True)
    )
    output = spatial_output(call, sizes).become(
        is_nonnegative=flow.is_nonnegative, reduction=_reduced(flow, stride)
    )
    changes = {"pool_size": pool, "strides": stride}
    return Lifted(
        twin,
        {**config, **changes},
        (output,),
        window=_describe(pool, stride, config["padding"]),
        inexact=inexact,
    )


def _stride(call: LayerCall, height: int) -> int:
    rule = call.rule
    return rule.pool_for(height) if rule.pool in (1, "height") else min(rule.pool_for(height), height)


def _reduced(flow: Flow, stride: tuple[int, ...]) -> tuple[float, float]:
    return flow.reduction[0] * stride[0], flow.reduction[1] * stride[1]


def _describe(pool: tuple[int, ...], stride: tuple[int, ...], padding: str) -> str:
    return f"{'x'.join(map(str, pool))} /{'x'.join(map(str, stride))} {padding}"


def lift_upsampling(call: LayerCall) -> Lifted:
    """Return UpSampling3D, or trilinear upsampling for bilinear.

    Raises:
        RefusedError: Another interpolation than nearest and bilinear.
    """
    flow, config = call.volume(), call.config
    mode = config["interpolation"]
    if mode not in {"nearest", "bilinear"}:
        raise RefusedError(f"interpolation={mode!r} has no 3D twin.", "Use 'nearest' or 'bilinear'.")
    wanted = call.rule.pool_for(config["size"][0])
    size = (depth_growth(call.flow, wanted, config["size"][0]), *config["size"])
    sizes = tuple(
        None if length is None else length * factor
        for length, factor in zip(flow.shape[1:4], size, strict=True)
    )
    reduction = (flow.reduction[0] / size[0], flow.reduction[1] / size[1])
    output = spatial_output(call, sizes).become(is_nonnegative=flow.is_nonnegative, reduction=reduction)
    twin = keras.layers.UpSampling3D if mode == "nearest" else TrilinearUpSampling3D
    kept = {key: value for key, value in config.items() if key != "interpolation"}
    return Lifted(twin, {**kept, "size": size}, (output,), window="x".join(map(str, size)))
