"""The layer and the output that an explanation map is made for."""

from collections.abc import Sequence

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, SeparableConv3D
from voxlift.models.slice_model import find_slice_network

KINDS = ("class", "finding", "cut", "number")
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
        ValueError: No spatial layer has that name, or there is no spatial layer.
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


def check_output(model: keras.Model, label: int, kind: str) -> None:
    """Raise ValueError if a model has no such output.

    Args:
        model: A model to scores [B, outputs].
        label: Index of the class, finding or cut.
        kind: One of `KINDS`.

    Raises:
        ValueError: There is no such output, or kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected one of {', '.join(KINDS)}, received {kind!r}.")
    outputs = model.output_shape[-1] - (kind == "cut")
    if not 0 <= label < outputs:
        raise ValueError(f"{model.name}: expected a {kind} from 0 to {outputs - 1}, received {label}.")


def explained_score(scores: Tensor, label: int, kind: str) -> Tensor:
    """Return what a gradient explains, [B]: a logit, a number, or the log odds of a cut.

    Args:
        scores: Of the model, float32 [B, outputs]. Of grades they are log-probabilities, or the one value
            [B, 1] of which every cut's log odds is a shift.
        label: Index of the class, finding or cut; a cut lies above the grade of that index.
        kind: One of `KINDS`.
    """
    if kind != "cut":
        return scores[:, label]
    if scores.shape[-1] == 1:
        return scores[:, 0]
    above, below = scores[:, label + 1 :], scores[:, : label + 1]
    return ops.logsumexp(above, axis=-1) - ops.logsumexp(below, axis=-1)


def explained_log_probability(scores: Tensor, label: int, kind: str) -> Tensor:
    """Return the log-probability [B] of a class, of a finding, or of a grade above a cut; a number as it is.

    Arguments as in `explained_score`.
    """
    if kind == "class":
        return ops.log_softmax(scores, axis=-1)[:, label]
    score = explained_score(scores, label, kind)
    return score if kind == "number" else ops.log_sigmoid(score)
