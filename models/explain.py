"""Where a network looks: Grad-CAM and occlusion, for slices, volumes and the wrapped slice model."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from models.aggregation import is_slice_model
from models.backend import Tensor, value_and_gradients
from models.layers import ACSConv3D, DepthwiseConv3D, SeparableConv3D
from models.layers.upsampling import resize_volume
from models.slicing import AXES, FoldSlices

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
COVERED_AT_ONCE = 16  # volumes scored together: enough to keep a processor busy, few enough for any memory


def grad_cam(model: keras.Model, inputs: np.ndarray, *, label: int, layer: str | None = None) -> np.ndarray:
    """Return how much each voxel speaks for a class, by the gradient of its logit.

    A layer's channels are weighted by their mean gradient and summed, negative sums are dropped, and the map
    is resized linearly to the input. For the slice model it is one 2D map per slice, stacked; over several
    axes the maps are averaged, and slices that the model leaves out stay zero.

    Args:
        model: A Functional or Sequential model from [B, H, W, C] or [B, D, H, W, C] to scores [B, classes].
        inputs: Float32 array of that shape.
        label: Index of the class.
        layer: Name of a spatial layer. Unless told otherwise what the last convolution gives, after the
            normalisation and activation that follow it at the same resolution.

    Returns:
        Float32 array [B, H, W] or [B, D, H, W], 0 or more, in no particular unit.

    Raises:
        ValueError: A class or layer that the model has not, or a model without spatial layers.

    Source: Selvaraju et al. (2017), Grad-CAM, doi:10.1109/ICCV.2017.74.
    """
    _check_label(model, label)
    if is_slice_model(model):
        return _stack_slices(model, inputs, label, layer)
    return _grad_cam(model, inputs, label, _find_layer(model, layer))


def occlusion_map(
    model: keras.Model,
    inputs: np.ndarray,
    *,
    label: int,
    size: int | Sequence[int] = 8,
    stride: int | Sequence[int] | None = None,
    fill: float | None = None,
) -> np.ndarray:
    """Return how much the log-probability of a class falls when a box around each voxel is covered.

    Args:
        model: As in `grad_cam`; its scores are logits or log-probabilities.
        inputs: Float32 array of its input's shape.
        label: Index of the class.
        size: Voxels of the box, one number or one per spatial axis.
        stride: Voxels from box to box, half the box unless told otherwise.
        fill: Value of covered voxels; each input's mean unless told otherwise.

    Returns:
        Float32 array [B, H, W] or [B, D, H, W]: the mean fall over all boxes that cover a voxel.

    Raises:
        ValueError: A class that the model has not, or sizes below 1.

    Source: Zeiler and Fergus (2014), doi:10.1007/978-3-319-10590-1_53.
    """
    _check_label(model, label)
    sides = inputs.shape[1:-1]
    boxes = _sides(size, sides, "size")
    steps = _sides(stride if stride is not None else [max(box // 2, 1) for box in boxes], sides, "stride")
    reference = _log_probability(model, inputs, label)
    cover = inputs.mean(axis=tuple(range(1, inputs.ndim)), keepdims=True) if fill is None else fill
    falls, visits = np.zeros(inputs.shape[:-1]), np.zeros(sides)
    places = list(_boxes(sides, boxes, steps))
    at_once = max(1, COVERED_AT_ONCE // len(inputs))
    for first in range(0, len(places), at_once):
        chosen = places[first : first + at_once]
        scores = _log_probability(model, _covered(inputs, chosen, cover), label)
        for box, score in zip(chosen, scores.reshape(-1, len(inputs)), strict=True):
            falls[(slice(None), *box)] += (reference - score).reshape(-1, *[1] * len(sides))
            visits[box] += 1
    return (falls / np.maximum(visits, 1)).astype("float32")


def _boxes(sides: Sequence[int], boxes: Sequence[int], steps: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    for corner in np.ndindex(*(-(-side // step) for side, step in zip(sides, steps, strict=True))):
        yield tuple(
            slice(place * step, place * step + extent)
            for place, step, extent in zip(corner, steps, boxes, strict=True)
        )


def _covered(inputs: np.ndarray, places: Sequence[tuple[slice, ...]], cover: Tensor) -> np.ndarray:
    """Return the inputs once per box, that box covered: [boxes * B, ..., C]."""
    covered = np.repeat(inputs[None], len(places), axis=0)
    for copy, box in zip(covered, places, strict=True):
        copy[(slice(None), *box)] = cover
    return covered.reshape(-1, *inputs.shape[1:])


def _grad_cam(network: keras.Model, inputs: np.ndarray, label: int, name: str) -> np.ndarray:
    _, features = _run_with_offset(network, inputs, name, 0.0)

    def score(added: Tensor) -> Tensor:
        outputs, _ = _run_with_offset(network, inputs, name, added)
        return ops.sum(ops.cast(outputs[:, label], "float32"))

    # The gradient for an offset of zero is the gradient for the layer's output.
    offset = ops.zeros_like(features)
    _, (gradients,) = value_and_gradients(score, offset)
    spatial = tuple(range(1, len(features.shape) - 1))
    weights = ops.mean(ops.cast(gradients, "float32"), axis=spatial, keepdims=True)
    found = ops.relu(ops.sum(ops.cast(features, "float32") * weights, axis=-1, keepdims=True))
    return _resize(found, inputs.shape[1:-1])


def _run_with_offset(
    network: keras.Model, inputs: np.ndarray, name: str, added: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the network's outputs, and one layer's with `added` added to them on the way."""
    found = []

    def account(operation: keras.Operation) -> Tensor:
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            outputs = operation(*args, **kwargs)
            if operation.name != name:
                return outputs
            found.append(outputs + added)
            return found[-1]

        return call

    graph = network._functional if isinstance(network, keras.Sequential) else network  # noqa: SLF001
    # Keras's own walk of the graph, which clone_model uses too.
    outputs = graph._run_through_graph(ops.convert_to_tensor(inputs), operation_fn=account)  # noqa: SLF001
    return keras.tree.flatten(outputs)[0], found[-1]  # a loaded network may hold its one output in a list


def _resize(found: Tensor, sides: Sequence[int]) -> np.ndarray:
    if len(sides) == 3:
        return np.asarray(ops.convert_to_numpy(resize_volume(found, sides)))[..., 0]
    resized = ops.image.resize(found, sides, interpolation="bilinear", data_format="channels_last")
    return np.asarray(ops.convert_to_numpy(resized))[..., 0]


def _stack_slices(model: keras.Model, inputs: np.ndarray, label: int, layer: str | None) -> np.ndarray:
    network = _slice_network(model)
    name = _find_layer(network, layer)
    folds = [part for part in model.layers if isinstance(part, FoldSlices)]
    total = np.zeros(inputs.shape[:-1], "float32")
    for fold in folds:
        slices = ops.convert_to_numpy(fold(inputs))
        maps = _grad_cam(network, slices, label, name)  # [B * count, h, w]
        volume = np.zeros_like(np.moveaxis(total, AXES[fold.axis], 1))
        volume[:, fold.first : fold.first + fold.count] = maps.reshape(
            len(inputs), fold.count, *maps.shape[1:]
        )
        total += np.moveaxis(volume, 1, AXES[fold.axis])
    return total / len(folds)


def find_layer(model: keras.Model, name: str | None = None) -> str:
    """Return the name of the layer that `grad_cam` looks at: of a slice model, within its 2D network.

    Raises:
        ValueError: A name that no spatial layer has, or no spatial layer at all.
    """
    return _find_layer(_slice_network(model) if is_slice_model(model) else model, name)


def _slice_network(model: keras.Model) -> keras.Model:
    network = next(part for part in model.layers if isinstance(part, keras.Model))
    if len(network.outputs) == 1:
        return network
    return keras.Model(network.inputs[0], network.outputs[0], name=network.name)


def _find_layer(model: keras.Model, name: str | None) -> str:
    """Return the name of a spatial layer; where none is named, the end of the last convolution's block."""
    spatial = [part for part in model.layers if _is_spatial(part, len(model.inputs[0].shape))]
    if not spatial:
        raise ValueError(f"{model.name} has no layer with spatial outputs: Grad-CAM has nothing to show.")
    if name is None:
        return _end_of_convolutions(spatial)
    if name not in {part.name for part in spatial}:
        known = ", ".join(part.name for part in spatial)
        raise ValueError(f"{model.name} has no spatial layer {name!r}. It has {known}.")
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


def _check_label(model: keras.Model, label: int) -> None:
    classes = model.output_shape[-1]
    if not 0 <= label < classes:
        raise ValueError(f"{model.name} has classes 0 to {classes - 1}, received {label}.")


def _log_probability(model: keras.Model, inputs: np.ndarray, label: int) -> np.ndarray:
    scores = ops.log_softmax(ops.cast(model.predict_on_batch(inputs), "float32"), axis=-1)
    return np.asarray(ops.convert_to_numpy(scores))[:, label]


def _sides(value: int | Sequence[int], sides: Sequence[int], name: str) -> tuple[int, ...]:
    values = (value,) * len(sides) if isinstance(value, int) else tuple(value)
    if len(values) != len(sides) or min(values) < 1:
        raise ValueError(
            f"Expected one positive integer or {len(sides)} of them for {name}, received {value!r}."
        )
    return values
