"""Rules for layers that treat every voxel alike: activations, dropout, scaling; and for augmentation."""

import keras

from models.lifting.errors import RefusedError
from models.lifting.rules.base import LayerCall, Lifted, copy_weights, is_nonnegative_activation, keep


def lift_elementwise(call: LayerCall) -> Lifted:
    """Return the same layer; values stay nonnegative where they were."""
    lifted = keep(call)
    return lifted.become(outputs=(lifted.outputs[0].become(is_nonnegative=call.flow.is_nonnegative),))


def lift_activation(call: LayerCall) -> Lifted:
    """Return the same activation."""
    lifted = keep(call)
    is_rectified = isinstance(call.layer, keras.layers.ReLU) and not call.config.get("negative_slope")
    nonnegative = is_rectified or is_nonnegative_activation(call.config)
    return lifted.become(outputs=(lifted.outputs[0].become(is_nonnegative=nonnegative),))


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
    """Return nothing in the place of an augmentation layer: it acts in training only, and on images only."""
    if call.shapes_2d[0] != call.flow.shape_2d:
        raise RefusedError(
            f"it changes {call.flow.shape_2d[1:3]} to {call.shapes_2d[0][1:3]}, which no 3D layer does.",
            "Resize volumes in the pipeline, and leave the layer out of the network.",
        )
    return Lifted(
        None,
        {},
        (call.flow,),
        note="left out: it augments images in training; augment volumes in the pipeline",
    )
