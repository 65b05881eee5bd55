"""Rules for layers that act on every voxel alike: activations, dropout, scaling; also for augmentation."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted, copy_weights, keep_layer, weight_transfer
from voxlift.models.lifting.rules.dense import lift_tiled
from voxlift.models.lifting.rules.pooling import lift_resize
from voxlift.models.lifting.rules.results import (
    activation_name,
    is_nonnegative_activation,
    require_single_features,
)
from voxlift.models.lifting.rules.windows import SLOPE_AXES, move_weight_axes
from voxlift.models.lifting.types import Weights

CHANNEL_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax", "glu"}  # these read all channels of a voxel
NAMED_ACTIVATIONS = (
    "gelu",
    "relu",
    "silu",
    "tanh",
    "sigmoid",
    "hard_silu",
    "relu6",
    "leaky_relu",
    "linear",
    "elu",
)
INFERENCE_AUGMENTATIONS = {"AutoContrast", "CLAHE"}


def lift_elementwise(call: LayerCall) -> Lifted:
    """Return the same layer; nonnegative values stay nonnegative."""
    lifted = keep_layer(call)
    return lifted.replace(outputs=(lifted.outputs[0].replace(is_nonnegative=call.spec.is_nonnegative),))


def lift_scale(call: LayerCall) -> Lifted:
    """Return the same layer with its weights per channel copied, whatever the scheme of the other layers."""
    return keep_layer(call).replace(transfer=copy_weights if call.weight_shapes else None)


def lift_activation(call: LayerCall) -> Lifted:
    """Return the same activation.

    Raises:
        UnsupportedError: It reads the features of a flattened volume together.
    """
    if activation_name(call.config) in CHANNEL_ACTIVATIONS:
        require_single_features(call)
    lifted = keep_layer(call)
    is_relu = isinstance(call.layer, keras.layers.ReLU) and not call.config.get("negative_slope")
    nonnegative = is_relu or is_nonnegative_activation(call.config)
    return lifted.replace(outputs=(lifted.outputs[0].replace(is_nonnegative=nonnegative),))


def name_activation(function: Callable[..., Any]) -> str:
    """Return the name of Keras' activation that computes the same as a lambda, which cannot be loaded.

    Args:
        function: The activation of a layer.

    Raises:
        UnsupportedError: No activation of Keras computes the same.
    """
    probe = ops.convert_to_tensor(np.linspace(-30, 30, 601, dtype="float32").reshape(1, -1))
    expected = ops.convert_to_numpy(function(probe))
    for name in NAMED_ACTIVATIONS:
        if np.allclose(ops.convert_to_numpy(keras.activations.get(name)(probe)), expected, atol=1e-6):
            return name
    raise UnsupportedError(
        "its activation is a lambda, which cannot be saved and loaded.",
        "Write the activation as a function with keras.saving.register_keras_serializable.",
    )


def lift_softmax(call: LayerCall) -> Lifted:
    """Return Softmax over the same axes.

    Raises:
        UnsupportedError: It reads the features of a flattened volume.
    """
    require_single_features(call)
    axes = call.config["axis"]
    moved = [_move(call, axis) for axis in axes] if isinstance(axes, list | tuple) else _move(call, axes)
    lifted = keep_layer(call).replace(config={**call.config, "axis": moved})
    return lifted.replace(outputs=(lifted.outputs[0].replace(is_nonnegative=True),))


def lift_prelu(call: LayerCall) -> Lifted:
    """Return PReLU, whose slopes must be shared over height and width.

    Raises:
        UnsupportedError: Every pixel has its own slope.
    """
    shared = call.config["shared_axes"] or []
    if call.spec.repeats != 1 and not shared:
        return lift_tiled(call, type(call.layer), call.config)
    if not call.spec.is_volume:
        return keep_layer(call)
    if set(shared) != {1, 2}:
        raise UnsupportedError(
            f"one slope per pixel (shared_axes={shared or None}) is not defined along depth.",
            "Use PReLU(shared_axes=[1, 2]).",
        )
    channels = call.weight_shapes[0][-1]

    def transfer(weights: Weights) -> Weights:
        return [weights[0][None]]

    return keep_layer(call).replace(
        config={
            **call.config,
            "shared_axes": [1, 2, 3],
            **move_weight_axes(call.config, "alpha", SLOPE_AXES),
        },
        weight_shapes=((1, 1, 1, channels),),
        **weight_transfer(call, transfer, "copied"),
    )


def lift_dropout(call: LayerCall) -> Lifted:
    """Return the same dropout; a mask that is constant over the plane is constant along depth too.

    Raises:
        UnsupportedError: Its noise_shape does not name every axis.
    """
    is_dropout = isinstance(call.layer, keras.layers.Dropout)
    lifted = lift_elementwise(call) if is_dropout else keep_layer(call)  # AlphaDropout gives negative values
    shape = call.config.get("noise_shape")
    if shape is None or call.spec.is_plain:
        return lifted
    axes = call.spec.axes_2d
    if len(shape) != len(axes):
        raise UnsupportedError(
            f"expected a noise_shape with one entry per axis of {call.spec.shape_2d}, received "
            f"{tuple(shape)}."
        )
    sides = {label: 1 if size == 1 else None for label, size in zip(axes, shape, strict=True)}
    sides |= {"B": shape[0], "D": sides.get("H")}
    return lifted.replace(
        config={**call.config, "noise_shape": tuple(sides[axis] for axis in call.spec.axes)}
    )


def lift_spatial_dropout(call: LayerCall) -> Lifted:
    """Return SpatialDropout3D, which drops whole channels of a volume."""
    spec = call.require_volume()
    config = {key: value for key, value in call.config.items() if key != "data_format"}
    return Lifted(keras.layers.SpatialDropout3D, config, (spec.replace(is_nonnegative=spec.is_nonnegative),))


def lift_resizing(call: LayerCall) -> Lifted:
    """Return upsampling for Resizing to a multiple of the size, and no layer if it keeps the size.

    Raises:
        UnsupportedError: As `lift_resize`.
    """
    return drop_augmentation(call) if call.shapes_2d[0] == call.spec.shape_2d else lift_resize(call)


def drop_augmentation(call: LayerCall) -> Lifted:
    """Return no layer for an augmentation layer, which acts in training only and on images only.

    Raises:
        UnsupportedError: The layer changes the size of images, or acts at inference too.
    """
    if type(call.layer).__name__ in INFERENCE_AUGMENTATIONS:
        raise UnsupportedError(
            "it changes images at inference too, and there is no 3D counterpart.",
            "Apply it in the data pipeline, and remove the layer from the network.",
        )
    if call.shapes_2d[0] != call.spec.shape_2d:
        raise UnsupportedError(
            f"it changes {call.spec.shape_2d[1:3]} to {call.shapes_2d[0][1:3]}; there is no 3D counterpart.",
            "Resize volumes in the data pipeline and remove the layer, or use UpSampling2D or Cropping2D.",
        )
    return Lifted(
        None,
        {},
        (call.spec,),
        note="left out: it augments images in training; augment volumes in the data pipeline",
    )


def _move(call: LayerCall, axis: int) -> int:
    return axis if axis == -1 else call.spec.axis_3d(axis)
