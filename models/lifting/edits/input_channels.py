"""Adapt the first convolution to volumes with another number of channels than the 2D network's images."""

import keras
import numpy as np
from keras import layers

from voxlift.models.lifting.edits.base import Edit, Edits
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.graph import Call
from voxlift.models.lifting.inflate import adapt_channels
from voxlift.models.lifting.rules.base import LayerCall
from voxlift.models.lifting.types import Layer, TensorSpec, Weights

CHANNEL_WEIGHTS = "it precedes the first convolution and has its own weights for every channel."
CHANNEL_WEIGHTS_FIX = (
    "Use channels=1 or the 2D network's own number of channels, or place it after a convolution."
)
CHANNEL_AGNOSTIC = (
    layers.ZeroPadding2D, layers.Cropping2D, layers.MaxPooling2D, layers.AveragePooling2D,
    layers.UpSampling2D, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Dropout,
    layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout, layers.Identity,
    layers.ActivityRegularization,
)  # fmt: skip


def reads_other_channels(call: Call, inputs: tuple[TensorSpec, ...], edits: Edits) -> bool:
    """Return whether a call reads a volume whose number of channels is not that of the 2D network.

    Args:
        call: The call in the 2D network.
        inputs: The lifted tensors that it reads.
        edits: The changes of the 2D network.
    """
    pairs = zip(call.inputs, inputs, strict=True)
    return any(spec.is_volume and spec.channels != edits.shape_of(tensor)[-1] for tensor, spec in pairs)


def is_channel_agnostic(layer: Layer) -> bool:
    """Return whether a layer acts on all channels alike, whatever their number."""
    if isinstance(layer, layers.Rescaling):
        return np.ndim(layer.scale) == np.ndim(layer.offset) == 0
    is_augmentation = ".image_preprocessing." in type(layer).__module__
    return isinstance(layer, CHANNEL_AGNOSTIC) or is_augmentation


def adapt_first_convolution(layer_call: LayerCall, call: Call, edits: Edits) -> Edit | None:
    """Return the change of a first convolution's kernel for the channels of the volumes; None if not needed.

    Args:
        layer_call: The layer where it is called, as its rule receives it.
        call: The call in the 2D network.
        edits: The changes of the 2D network.

    Raises:
        UnsupportedError: The layer has its own weights for every channel of the 2D network.
    """
    layer = call.operation
    if not reads_other_channels(call, layer_call.inputs, edits) or is_channel_agnostic(layer):
        if id(layer) in edits.by_layer:
            _check_shared(layer_call)
        return None
    if not isinstance(layer, keras.layers.Conv2D) or layer.groups != 1:
        raise UnsupportedError(CHANNEL_WEIGHTS, CHANNEL_WEIGHTS_FIX)
    channels = int(layer_call.spec.channels or 1)
    kernel, *rest = layer_call.weight_shapes
    known = kernel[2]
    if known == channels:  # a shared layer, adapted at its first call
        return None

    def cut(weights: Weights) -> Weights:
        return [adapt_channels(weights[0], channels, axis=2), *weights[1:]]

    shapes = ((*kernel[:2], channels, kernel[3]), *rest)
    how = "summed" if channels == 1 else "redistributed"
    return Edit({}, cut, shapes, source=f"{known} channels {how} to {channels}")


def _check_shared(layer_call: LayerCall) -> None:
    """Raise if a later call of an adapted first convolution reads another number of channels.

    Raises:
        UnsupportedError: The kernel has the channels of the volumes, this call reads others.
    """
    layer = layer_call.layer
    is_convolution = isinstance(layer, keras.layers.Conv2D) and layer.groups == 1
    if not is_convolution or layer.data_format != "channels_last" or not layer_call.spec.is_volume:
        return
    known, received = layer_call.weight_shapes[0][2], layer_call.spec.channels
    if known != received:
        raise UnsupportedError(
            f"it is shared, and its calls read {known} and {received} channels.",
            "Use the 2D network's own number of channels.",
        )
