"""Rules for Flatten and Dense: a flattened volume repeats the features of a slice once per slice."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.inflate import tile_rows
from voxlift.models.lifting.rules.base import (
    LayerCall,
    Lifted,
    copy_weights,
    keep_layer,
    same_sides,
    weight_transfer,
)
from voxlift.models.lifting.rules.results import is_nonnegative_activation
from voxlift.models.lifting.types import LayerClass, Shape, TensorSpec, Weights, plain_axes


def lift_flatten(call: LayerCall) -> Lifted:
    """Return Flatten; its output has every feature of a slice once per slice.

    Raises:
        UnsupportedError: The number of slices is unknown, or the following weights belong to another size.
    """
    if call.spec.is_volume:
        return Lifted(keras.layers.Flatten, call.config, (flattened(call),), note=flatten_note(call))
    return keep_plain_reshape(call) if call.spec.is_plain else keep_layer(call)


def lift_dense(call: LayerCall) -> Lifted:
    """Return Dense; after a flattened volume its kernel is tiled over the slices and scaled down."""
    spec, units = call.spec, call.shapes_2d[0][-1]
    output = spec.replace(
        shape=(*spec.shape[:-1], units),
        shape_2d=call.shapes_2d[0],
        is_nonnegative=is_nonnegative_activation(call.config),
        repeats=1,
    )
    if spec.repeats == 1:
        weights, shapes = weight_transfer(call, copy_weights, "copied"), call.weight_shapes
        return Lifted(keras.layers.Dense, call.config, (output,), shapes, **weights)
    repeats = spec.repeats or 1

    def transfer(weights: Weights) -> Weights:
        return [tile_rows(weights[0], repeats), *weights[1:]]

    return Lifted(
        keras.layers.Dense,
        call.config,
        (output,),
        weight_shapes=((spec.channels, units), *call.weight_shapes[1:]),
        **weight_transfer(call, transfer, f"tiled over {repeats} slices"),
    )


def lift_tiled(call: LayerCall, layer_class: LayerClass, config: Mapping[str, Any]) -> Lifted:
    """Return a layer with one weight per feature, its weights repeated once per slice.

    Args:
        call: The 2D layer, which reads a flattened volume.
        layer_class: Class of the layer in 3D.
        config: Its configuration.
    """
    repeats = call.spec.repeats or 1

    def transfer(weights: Weights) -> Weights:
        return [np.tile(vector, repeats) for vector in weights]

    return Lifted(
        layer_class,
        config,
        (same_sides(call, call.shapes_2d[0]),),
        weight_shapes=tuple((call.spec.channels,) for _ in call.weight_shapes),
        **weight_transfer(call, transfer, f"tiled over {repeats} slices"),
    )


def flattened(call: LayerCall) -> TensorSpec:
    """Return the tensor [B, D * H * W * C] that a layer makes of a volume.

    Args:
        call: The layer where it is called.

    Raises:
        UnsupportedError: The number of slices is unknown, or the following weights belong to another size.
    """
    spec = call.require_volume()
    # Depth is the first of these axes, so the features of a slice stay adjacent: [D * (H * W * C)].
    features, in_slice = _product(spec.shape[1:]), _product(spec.shape_2d[1:])
    if spec.depth is None:
        raise UnsupportedError(
            "an unknown number of slices gives an unknown number of features.",
            "Lift with a fixed depth, or replace Flatten by a global pooling layer.",
        )
    is_resized = spec.shape[2:] != spec.shape_2d[1:]
    if is_resized and call.scheme != "random":
        raise UnsupportedError(
            f"the next weights belong to {in_slice} features per slice; height, width and channels "
            f"{spec.shape[2:]} give another number.",
            "Keep the 2D network's height and width, use init='random', or replace Flatten by a global "
            "pooling layer.",
        )
    repeats = None if is_resized else spec.depth
    return spec.replace(
        axes="BC", shape=(spec.shape[0], features), shape_2d=call.shapes_2d[0], repeats=repeats
    )


def flatten_note(call: LayerCall) -> str:
    """Return what the plan notes about a flattened volume; empty for a single slice."""
    if call.spec.depth == 1:
        return ""
    return (
        f"the next layer has {call.spec.depth} times the features and parameters (global pooling avoids it); "
        "it gives the output of the 2D network only if all slices are equal"
    )


def keep_plain_reshape(call: LayerCall) -> Lifted:
    """Return a reshaping layer as it is, for tensors without spatial axes."""
    spec, shape_2d = call.spec, call.shapes_2d[0]
    output = spec.replace(axes=plain_axes(shape_2d), shape=(spec.shape[0], *shape_2d[1:]), shape_2d=shape_2d)
    return Lifted(type(call.layer), call.config, (output,))


def _product(sizes: Shape) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
