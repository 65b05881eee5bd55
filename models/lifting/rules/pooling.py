"""Rules for pooling and upsampling.

Before a pool that slices of zeros would change (an average, or a maximum of negative values), slices of
padding along depth repeat the slices beside them.
"""

import keras

from voxlift.models.layers import RepeatEdges3D, TrilinearUpSampling3D
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted
from voxlift.models.lifting.rules.results import dtype_setting, spatial_output
from voxlift.models.lifting.rules.windows import depth_upsampling, downsampled, times, window_output
from voxlift.models.lifting.types import LayerClass

GLOBAL_POOLS_3D = {
    keras.layers.GlobalAveragePooling2D: keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling2D: keras.layers.GlobalMaxPooling3D,
}


def lift_max_pooling(call: LayerCall) -> Lifted:
    """Return MaxPooling3D for MaxPooling2D."""
    is_spoiled = any(call.spec.depth_padding) and not call.spec.is_nonnegative
    return _lift_pooling(call, keras.layers.MaxPooling3D, is_spoiled=is_spoiled)


def lift_average_pooling(call: LayerCall) -> Lifted:
    """Return AveragePooling3D for AveragePooling2D."""
    return _lift_pooling(call, keras.layers.AveragePooling3D, is_spoiled=any(call.spec.depth_padding))


def _lift_pooling(call: LayerCall, layer_class: LayerClass, *, is_spoiled: bool) -> Lifted:
    spec, config, rule = call.require_volume(), call.config, call.depth_rule
    size, strides = config["pool_size"], config["strides"] or config["pool_size"]
    pool = (rule.pool_for(size[0]), *size)
    depth_stride = rule.pool_for(strides[0])
    if rule.pool not in (1, "height"):
        depth_stride = min(depth_stride, strides[0])
    stride = (depth_stride, *strides)
    sizes = tuple(
        window_output(length, window, stride=step, padding=config["padding"])
        for length, window, step in zip(spec.shape[1:4], pool, stride, strict=True)
    )
    output = spatial_output(call, sizes).replace(
        is_nonnegative=spec.is_nonnegative, downsampling=downsampled(spec, *stride[:2])
    )
    return Lifted(
        layer_class,
        {**config, "pool_size": pool, "strides": stride},
        (output,),
        before=(_repeat_edges(call),) if is_spoiled else (),
        window=f"{times(pool)} /{times(stride)} {config['padding']}",
        note="slices of padding repeat those beside them" if is_spoiled else "",
    )


def _repeat_edges(call: LayerCall) -> ExtraLayer:
    name = f"{call.config['name']}_repeat_edges"
    return ExtraLayer(
        RepeatEdges3D, {"name": name, "padding": call.spec.depth_padding, **dtype_setting(call)}
    )


def lift_global_pooling(call: LayerCall) -> Lifted:
    """Return the global pool of a volume; with `keepdims` its output is [B, 1, 1, 1, C]."""
    spec = call.require_volume()
    if call.config.get("keepdims"):
        output = spatial_output(call, (1, 1, 1)).replace(is_global=True)
    else:
        output = spec.replace(axes="BC", shape=(spec.shape[0], spec.channels), shape_2d=call.shapes_2d[0])
    output = output.replace(is_nonnegative=spec.is_nonnegative)
    return Lifted(GLOBAL_POOLS_3D[type(call.layer)], call.config, (output,))


def lift_adaptive_pooling(call: LayerCall) -> Lifted:
    """Return the adaptive pool of a volume; if the policy pools no slices, it keeps their number.

    Raises:
        UnsupportedError: The number of slices must be kept, but is unknown.
    """
    spec = call.require_volume()
    height, width = call.config["output_size"]
    depth = call.depth_rule.pool_for(height) if call.depth_rule.pool != 1 else spec.depth
    if depth is None:
        raise UnsupportedError("it cannot keep an unknown number of slices.", "Lift with a fixed depth.")
    is_average = isinstance(call.layer, keras.layers.AdaptiveAveragePooling2D)
    layer_class = keras.layers.AdaptiveAveragePooling3D if is_average else keras.layers.AdaptiveMaxPooling3D
    size = (depth, height, width)
    output = spatial_output(call, size).replace(is_nonnegative=spec.is_nonnegative)
    return Lifted(layer_class, {**call.config, "output_size": size}, (output,), window=f"to {times(size)}")


def lift_resize(call: LayerCall) -> Lifted:
    """Return upsampling for `keras.ops.image.resize`, or `keras.layers.Resizing`, to a multiple of the size.

    Raises:
        UnsupportedError: The new size is no multiple, or the image is cropped or padded.
    """
    config, spec = dict(call.config), call.require_volume()
    config.setdefault("size", (config.get("height"), config.get("width")))
    sides = spec.shape_2d[1:3]
    sizes = zip(config["size"], sides, spec.shape[2:4], strict=True)
    is_multiple = all(old is not None and new % old == 0 and old == side for new, old, side in sizes)
    if not is_multiple or config.get("crop_to_aspect_ratio") or config.get("pad_to_aspect_ratio"):
        raise UnsupportedError(
            f"it resizes {sides} to {tuple(config['size'])}, expected a multiple of every side, as in 2D.",
            "Use UpSampling2D, or an input_shape whose sides are divisible by the strides of the network.",
        )
    factors = tuple(new // int(old or 1) for new, old in zip(config["size"], sides, strict=True))
    settings = {"name": call.layer.name, "size": factors, "interpolation": config["interpolation"]}
    lifted = lift_upsampling(call.replace(config={**settings, **dtype_setting(call)}))
    return lifted.replace(call_args=(call.tensors[0],), call_kwargs={})


def lift_upsampling(call: LayerCall) -> Lifted:
    """Return UpSampling3D, or trilinear upsampling for bilinear.

    Raises:
        UnsupportedError: The interpolation is neither nearest nor bilinear.
    """
    spec, config = call.require_volume(), call.config
    mode, height = config["interpolation"], config["size"][0]
    if mode not in {"nearest", "bilinear"}:
        raise UnsupportedError(
            f"interpolation={mode!r} has no 3D counterpart.", "Use 'nearest' or 'bilinear'."
        )
    size = (depth_upsampling(spec, call.depth_rule.pool_for(height), height), *config["size"])
    sizes = tuple(
        None if length is None else length * factor
        for length, factor in zip(spec.shape[1:4], size, strict=True)
    )
    output = spatial_output(call, sizes).replace(
        is_nonnegative=spec.is_nonnegative,
        downsampling=(spec.downsampling[0] / size[0], spec.downsampling[1] / size[1]),
    )
    layer_class = keras.layers.UpSampling3D if mode == "nearest" else TrilinearUpSampling3D
    kept = {key: value for key, value in config.items() if key != "interpolation"}
    return Lifted(layer_class, {**kept, "size": size}, (output,), window=times(size))
