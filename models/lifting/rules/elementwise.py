"""Rules for layers that treat every voxel alike: activations, dropout, scaling; and for augmentation."""

import keras

from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.rules.answers import (
    activation_name,
    copy_weights,
    is_nonnegative_activation,
    keep,
    refuse_repeated,
)
from voxlift.models.lifting.rules.base import LayerCall, Lifted

ACTS_ALONG_CHANNELS = {"softmax", "log_softmax", "sparsemax", "glu"}
ACTS_AT_INFERENCE = {"AutoContrast", "CLAHE"}


def lift_elementwise(call: LayerCall) -> Lifted:
    """Return the same layer; values stay nonnegative where they were."""
    lifted = keep(call)
    return lifted.become(outputs=(lifted.outputs[0].become(is_nonnegative=call.flow.is_nonnegative),))


def lift_activation(call: LayerCall) -> Lifted:
    """Return the same activation."""
    if activation_name(call.config) in ACTS_ALONG_CHANNELS:
        refuse_repeated(call)
    lifted = keep(call)
    is_rectified = isinstance(call.layer, keras.layers.ReLU) and not call.config.get("negative_slope")
    nonnegative = is_rectified or is_nonnegative_activation(call.config)
    return lifted.become(outputs=(lifted.outputs[0].become(is_nonnegative=nonnegative),))


def lift_dropout(call: LayerCall) -> Lifted:
    """Return the same dropout; what it drops whole in the plane, it drops whole along depth.

    Raises:
        RefusedError: Its noise_shape does not name every axis.
    """
    lifted = lift_elementwise(call) if isinstance(call.layer, keras.layers.Dropout) else keep(call)
    shape = call.config.get("noise_shape")
    if shape is None or call.flow.is_plain:
        return lifted
    axes = call.flow.axes.replace("D", "")
    if len(shape) != len(axes):
        raise RefusedError(f"its noise_shape {tuple(shape)} names other axes than {call.flow.shape_2d}.")
    sides = {label: 1 if size == 1 else None for label, size in zip(axes, shape, strict=True)}
    sides |= {"B": shape[0], "D": sides.get("H")}
    return lifted.become(config={**call.config, "noise_shape": tuple(sides[axis] for axis in call.flow.axes)})


def lift_signed(call: LayerCall) -> Lifted:
    """Return the same layer, whose output may be negative."""
    return keep(call)


def lift_scale(call: LayerCall) -> Lifted:
    """Return the same layer with its per-channel weights copied, whatever the initialisation of the rest."""
    return keep(call).become(transfer=copy_weights if call.weight_shapes else None)


def lift_spatial_dropout(call: LayerCall) -> Lifted:
    """Return SpatialDropout3D: whole channels of a volume are dropped."""
    flow = call.volume()
    config = {key: value for key, value in call.config.items() if key != "data_format"}
    return Lifted(keras.layers.SpatialDropout3D, config, (flow.become(is_nonnegative=flow.is_nonnegative),))


def drop_augmentation(call: LayerCall) -> Lifted:
    """Return nothing in the place of an augmentation layer: it acts in training only, and on images only.

    Raises:
        RefusedError: The layer changes the size of images, or acts at inference too.
    """
    if type(call.layer).__name__ in ACTS_AT_INFERENCE:
        raise RefusedError(
            "it changes images at inference too, and no 3D layer does what it does.",
            "Do it in the pipeline, and leave the layer out of the network.",
        )
    if call.shapes_2d[0] != call.flow.shape_2d:
        raise RefusedError(
            f"it changes {call.flow.shape_2d[1:3]} to {call.shapes_2d[0][1:3]}, which no 3D layer does.",
            "Resize volumes in the pipeline and leave the layer out of the network; inside it, use "
            "UpSampling2D or Cropping2D.",
        )
    return Lifted(
        None,
        {},
        (call.flow,),
        note="left out: it augments images in training; augment volumes in the pipeline",
    )
