"""Rules for layers with an axis or with per-channel weights: normalisations, Dense, PReLU, Softmax."""

from typing import Any

import keras

from voxlift.models.layers import FusedBatchNormalization
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.inflate import tile_rows, tile_vector
from voxlift.models.lifting.kinds import LayerClass
from voxlift.models.lifting.rules.answers import (
    copy_weights,
    is_nonnegative_activation,
    keep,
    refuse_repeated,
    same_shape,
    weights_of,
)
from voxlift.models.lifting.rules.base import LayerCall, Lifted, Weights


def lift_batch_normalisation(call: LayerCall) -> Lifted:
    """Return batch normalisation over the channel axis, which a 2D network may have written as 3.

    Raises:
        RefusedError: It normalises over another axis than the channels.
    """
    config = _with_channel_axis(call)
    fused = call.is_fused and call.flow.is_volume
    layer_class = FusedBatchNormalization if fused else keras.layers.BatchNormalization
    if call.flow.repeats != 1:
        return _lift_tiled(call, layer_class, config)
    return keep(call).become(layer_class=layer_class, config=config)


def lift_channel_normalisation(call: LayerCall) -> Lifted:
    """Return a layer that normalises over channels (layer, RMS, unit, group), its axis made -1.

    Raises:
        RefusedError: Another axis than the channels, or features of a flattened volume.
    """
    refuse_repeated(call)
    return keep(call).become(config=_with_channel_axis(call))


def lift_data_normalisation(call: LayerCall) -> Lifted:
    """Return Normalization with the data's mean and variance, whatever the initialisation of the rest.

    Raises:
        RefusedError: Another axis than the channels, or features of a flattened volume.
    """
    refuse_repeated(call)
    config = _with_channel_axis(call) if call.config["axis"] else call.config  # no axis: one mean for all
    source = {"transfer": copy_weights, "source": "copied"} if call.weight_shapes else {}
    return keep(call).become(config=config, **source)


def lift_softmax(call: LayerCall) -> Lifted:
    """Return Softmax over the same axes.

    Raises:
        RefusedError: Features of a flattened volume.
    """
    refuse_repeated(call)
    axes = call.config["axis"]
    moved = [_moved(call, axis) for axis in axes] if isinstance(axes, list | tuple) else _moved(call, axes)
    lifted = keep(call).become(config={**call.config, "axis": moved})
    return lifted.become(outputs=(lifted.outputs[0].become(is_nonnegative=True),))


def lift_prelu(call: LayerCall) -> Lifted:
    """Return PReLU, whose slopes must be shared over the two spatial axes.

    Raises:
        RefusedError: Every pixel has a slope of its own.
    """
    shared = call.config["shared_axes"] or []
    if call.flow.repeats != 1 and not shared:
        return _lift_tiled(call, type(call.layer), dict(call.config))
    if not call.flow.is_volume:
        return keep(call)
    if set(shared) != {1, 2}:
        raise RefusedError(
            f"slopes of their own for every pixel (shared_axes={shared or None}) have no place along depth.",
            "Use PReLU(shared_axes=[1, 2]).",
        )
    channels = call.weight_shapes[0][-1]

    def transfer(weights: Weights) -> Weights:
        return [weights[0][None]]

    return keep(call).become(
        config={**call.config, "shared_axes": [1, 2, 3]},
        weight_shapes=((1, 1, 1, channels),),
        **weights_of(call, transfer, "copied"),
    )


def lift_dense(call: LayerCall) -> Lifted:
    """Return Dense; behind a flattened volume its kernel is tiled over the slices and scaled down."""
    flow = call.flow
    units = call.shapes_2d[0][-1]
    output = flow.become(
        shape=(*flow.shape[:-1], units),
        shape_2d=call.shapes_2d[0],
        is_nonnegative=is_nonnegative_activation(call.config),
        repeats=1,
    )
    if flow.repeats == 1:
        return Lifted(
            keras.layers.Dense,
            call.config,
            (output,),
            weight_shapes=call.weight_shapes,
            **weights_of(call, copy_weights, "copied"),
        )
    repeats = flow.repeats or 1

    def transfer(weights: Weights) -> Weights:
        return [tile_rows(weights[0], repeats), *weights[1:]]

    return Lifted(
        keras.layers.Dense,
        call.config,
        (output,),
        weight_shapes=((flow.channels, units), *call.weight_shapes[1:]),
        **weights_of(call, transfer, f"tiled over {repeats} slices"),
    )


def _lift_tiled(call: LayerCall, layer_class: LayerClass, config: dict[str, Any]) -> Lifted:
    repeats = call.flow.repeats or 1
    shapes = tuple((call.flow.channels,) for _ in call.weight_shapes)

    def transfer(weights: Weights) -> Weights:
        return [tile_vector(vector, repeats) for vector in weights]

    return Lifted(
        layer_class,
        config,
        (same_shape(call, call.shapes_2d[0]),),
        weight_shapes=shapes,
        **weights_of(call, transfer, f"tiled over {repeats} slices"),
    )


def _with_channel_axis(call: LayerCall) -> dict[str, Any]:
    """Return the configuration with its axis on the channels, which are last in 3D as in 2D."""
    axis = call.config.get("axis", -1)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    rank = len(call.flow.shape_2d)
    if any(each not in (-1, rank - 1) for each in axes):
        raise RefusedError(
            f"it normalises over axis {axis}, which is not the channels.",
            "Normalise over the last axis, or register a rule of your own with register_lift_rule.",
        )
    return {**call.config, "axis": [-1] if isinstance(axis, list | tuple) else -1}


def _moved(call: LayerCall, axis: int) -> int:
    return axis if axis == -1 else call.flow.axis_3d(axis)
