"""Rules for normalisations: batch, layer, RMS, unit, group, and the normalisation of input data."""

from typing import Any

import keras

from voxlift.models.layers import FusedBatchNormalization
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted, copy_weights, keep_layer
from voxlift.models.lifting.rules.dense import lift_tiled
from voxlift.models.lifting.rules.results import as_list, require_single_features


def lift_batch_normalisation(call: LayerCall) -> Lifted:
    """Return batch normalisation over the channel axis, which a 2D network may have stored as 3.

    Raises:
        UnsupportedError: It normalises over another axis than the channels.
    """
    config = _with_channel_axis(call)
    fused = call.is_fused and call.spec.is_volume
    layer_class = FusedBatchNormalization if fused else keras.layers.BatchNormalization
    if call.spec.repeats != 1:
        return lift_tiled(call, layer_class, config)
    return keep_layer(call).replace(layer_class=layer_class, config=config)


def lift_channel_normalisation(call: LayerCall) -> Lifted:
    """Return a layer that normalises over channels (layer, RMS, unit, group), with axis -1.

    Raises:
        UnsupportedError: Another axis than the channels, or features of a flattened volume.
    """
    require_single_features(call)
    return keep_layer(call).replace(config=_with_channel_axis(call))


def lift_data_normalisation(call: LayerCall) -> Lifted:
    """Return Normalization with the data's mean and variance, whatever the scheme of the other layers.

    Raises:
        UnsupportedError: Another axis than the channels, or features of a flattened volume.
    """
    require_single_features(call)
    config = _with_channel_axis(call) if call.config["axis"] else call.config  # no axis: one mean for all
    source = {"transfer": copy_weights, "source": "copied"} if call.weight_shapes else {}
    return keep_layer(call).replace(config=config, **source)


def _with_channel_axis(call: LayerCall) -> dict[str, Any]:
    """Return the configuration with its axis on the channels, the last axis in 2D and 3D."""
    axis = call.config.get("axis", -1)
    last = len(call.spec.shape_2d) - 1
    if any(each not in (-1, last) for each in as_list(axis)):
        raise UnsupportedError(
            f"it normalises over axis {axis}, expected the channels (-1 or {last}).",
            "Normalise over the last axis, or register your own rule with register_lift_rule.",
        )
    return {**call.config, "axis": [-1] if isinstance(axis, list | tuple) else -1}
