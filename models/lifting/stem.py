"""Volumes with another number of channels than the 2D network's images.

The layers up to the first convolution.
"""

import keras
import numpy as np
from keras import layers

from voxlift.models.lifting.edits import Edit, Edits
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.graph import Call
from voxlift.models.lifting.inflate import adapt_channels
from voxlift.models.lifting.kinds import Layer
from voxlift.models.lifting.rules.base import LayerCall, Weights

STEM_REASON = "it stands before the first convolution and treats every channel by itself."
STEM_WAY_OUT = "Take channels=1 or the 2D network's own number, or put it behind a convolution."
BLIND = (
    layers.ZeroPadding2D, layers.Cropping2D, layers.MaxPooling2D, layers.AveragePooling2D,
    layers.UpSampling2D,
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Dropout, layers.SpatialDropout2D,
    layers.GaussianNoise, layers.GaussianDropout, layers.Identity, layers.ActivityRegularization,
)  # fmt: skip


def is_stem(call: Call, inputs: tuple[Flow, ...], edits: Edits) -> bool:
    """Return whether a call reads a volume whose channels are not those of the 2D network.

    Args:
        call: The call in the 2D network.
        inputs: The lifted tensors that it reads.
        edits: What changes in the 2D network.
    """
    pairs = zip(call.inputs, inputs, strict=True)
    return any(flow.is_volume and flow.channels != edits.shape_of(tensor)[-1] for tensor, flow in pairs)


def passes_channels(layer: Layer) -> bool:
    """Return whether a layer treats all channels alike, however many there are."""
    if isinstance(layer, layers.Rescaling):
        return np.ndim(layer.scale) == np.ndim(layer.offset) == 0
    is_augmentation = ".image_preprocessing." in type(layer).__module__
    return isinstance(layer, BLIND) or is_augmentation


def adapt_stem(layer_call: LayerCall, call: Call, edits: Edits) -> Edit | None:
    """Return how a first convolution's kernel takes the volumes' channels; None where nothing is to be done.

    Args:
        layer_call: The layer where it is called, as its rule sees it.
        call: The call in the 2D network.
        edits: What changes in the 2D network.

    Raises:
        RefusedError: The layer has something of its own for every channel of the 2D network.
    """
    layer = call.operation
    if not is_stem(call, layer_call.inputs, edits) or passes_channels(layer):
        if id(layer) in edits.by_layer:
            _check_shared(layer_call)
        return None
    if not isinstance(layer, keras.layers.Conv2D) or layer.groups != 1:
        raise RefusedError(STEM_REASON, STEM_WAY_OUT)
    channels = int(layer_call.flow.channels or 1)

    def cut(weights: Weights) -> Weights:
        return [adapt_channels(weights[0], channels, axis=2), *weights[1:]]

    kernel, *rest = layer_call.weight_shapes
    known = kernel[2]
    if known == channels:  # a shared layer, adapted at its first call
        return None
    way = "summed" if channels == 1 else "shared out"
    return Edit(
        {}, cut, ((*kernel[:2], channels, kernel[3]), *rest), source=f"{known} channels {way} to {channels}"
    )


def _check_shared(layer_call: LayerCall) -> None:
    """Refuse a later call of a first convolution, whose kernel now takes the channels of the volumes.

    Raises:
        RefusedError: This call reads others.
    """
    layer = layer_call.layer
    is_plain = isinstance(layer, keras.layers.Conv2D) and layer.groups == 1
    if not is_plain or layer.data_format != "channels_last" or not layer_call.flow.is_volume:
        return
    known, given = layer_call.weight_shapes[0][2], layer_call.flow.channels
    if known != given:
        raise RefusedError(
            f"it is shared, and its calls read {known} and {given} channels.",
            "Take the 2D network's own number of channels.",
        )
