"""Which layer and which class an explanation is about."""

from collections.abc import Sequence

import keras

from voxlift.models.aggregation import unwrap_slices
from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, SeparableConv3D

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
    """Return the name of the layer that `grad_cam` looks at: of a slice model, within its 2D network.

    Args:
        model: A Functional or Sequential model from slices, or volumes, to scores.
        name: Of a spatial layer. Unless told otherwise the end of the last convolution's block: the layer
            behind it at the same resolution.

    Raises:
        ValueError: A name that no spatial layer has, or no spatial layer at all.
    """
    network = unwrap_slices(model)
    spatial = [part for part in network.layers if _is_spatial(part, len(network.inputs[0].shape))]
    if not spatial:
        raise ValueError(f"{network.name} has no layer with spatial outputs: Grad-CAM has nothing to show.")
    if name is None:
        return _end_of_convolutions(spatial)
    if name not in {part.name for part in spatial}:
        known = ", ".join(part.name for part in spatial)
        raise ValueError(f"{network.name} has no spatial layer {name!r}. It has {known}.")
    return name


def _end_of_convolutions(spatial: Sequence[keras.Layer]) -> str:
    """Return the last layer at the last convolution's resolution: pooling beyond it only coarsens a map."""
    places = [place for place, part in enumerate(spatial) if isinstance(part, CONVOLUTIONS)]
    if not places:
        return str(spatial[-1].name)
    sides = spatial[places[-1]].output.shape[1:-1]
    return str([part.name for part in spatial[places[-1] :] if part.output.shape[1:-1] == sides][-1])


def _is_spatial(layer: keras.Layer, rank: int) -> bool:
    if isinstance(layer, keras.layers.InputLayer):
        return False
    shape = getattr(layer.output, "shape", ())  # several outputs are a list
    return len(shape) == rank and any(size != 1 for size in shape[1:-1])


def check_label(model: keras.Model, label: int) -> None:
    """Pass when a model has a class of this index.

    Args:
        model: A model to scores [B, classes].
        label: The index.

    Raises:
        ValueError: It has not.
    """
    classes = model.output_shape[-1]
    if not 0 <= label < classes:
        raise ValueError(f"{model.name} has classes 0 to {classes - 1}, received {label}.")
