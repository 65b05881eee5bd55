"""The layer and the class that an explanation map is made for."""

from collections.abc import Sequence

import keras

from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, SeparableConv3D
from voxlift.models.slice_model import find_slice_network

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    ACSConv3D,
    DepthwiseConv3D,
    SeparableConv3D,
)


def find_layer(model: keras.Model, name: str | None = None) -> str:
    """Return the name of the target layer of Grad-CAM; in a slice model, a layer of its 2D network.

    Args:
        model: A Functional or Sequential model from slices, or volumes, to scores.
        name: Of a spatial layer. By default the last layer at the resolution of the last convolution.

    Raises:
        ValueError: If no spatial layer has that name, or there is no spatial layer.
    """
    network = find_slice_network(model) or model
    spatial = [layer for layer in network.layers if _is_spatial(layer, len(network.inputs[0].shape))]
    if not spatial:
        raise ValueError(f"{network.name} has no layer with spatial outputs, which Grad-CAM needs.")
    if name is None:
        return _last_at_resolution_of_last_convolution(spatial)
    names = [layer.name for layer in spatial]
    if name not in names:
        raise ValueError(
            f"{network.name} has no spatial layer {name!r}. Its spatial layers: {', '.join(names)}."
        )
    return name


def _last_at_resolution_of_last_convolution(spatial: Sequence[keras.Layer]) -> str:
    """Return a layer's name: the pooling after it would only make the map coarser."""
    indices = [index for index, layer in enumerate(spatial) if isinstance(layer, CONVOLUTIONS)]
    if not indices:
        return str(spatial[-1].name)
    size = spatial[indices[-1]].output.shape[1:-1]
    return str([layer.name for layer in spatial[indices[-1] :] if layer.output.shape[1:-1] == size][-1])


def _is_spatial(layer: keras.Layer, rank: int) -> bool:
    if isinstance(layer, keras.layers.InputLayer):
        return False
    shape = getattr(layer.output, "shape", ())  # several outputs are a list
    return len(shape) == rank and any(size != 1 for size in shape[1:-1])


def check_label(model: keras.Model, label: int) -> None:
    """Raise ValueError if a model has no class with this index.

    Args:
        model: A model to scores [B, classes].
        label: Index of the class.

    Raises:
        ValueError: If there is no such class.
    """
    classes = model.output_shape[-1]
    if not 0 <= label < classes:
        raise ValueError(f"{model.name}: expected a class from 0 to {classes - 1}, received {label}.")
