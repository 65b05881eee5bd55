"""Grad-CAM: how much each voxel supports a class, by the gradient of the class's score."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import Tensor, value_and_gradients
from voxlift.models.explain.target import check_output, explained_score, find_layer
from voxlift.models.join import with_columns
from voxlift.models.layers.slices import AXES, FoldSlices
from voxlift.models.layers.upsampling import resize_volume
from voxlift.models.slice_model import find_slice_network, pools_features, unwrap_slices

Score = Callable[[Tensor], Tensor]


def grad_cam(
    model: keras.Model,
    inputs: np.ndarray,
    *,
    label: int,
    layer: str | None = None,
    kind: str = "class",
    columns: np.ndarray | None = None,
) -> np.ndarray:
    """Return how much each voxel supports a class, a finding or a grade above a cut, or raises a number.

    A layer's channels are weighted by the mean gradient of the class's score and summed, negative sums are
    set to zero, and the map is resized linearly to the input. For the slice model it is one 2D map per slice,
    stacked; maps along several axes are averaged, and slices that the model does not score are zero. Where
    the model pools features of slices, the score is that of the volume, and its attention is in the maps.

    Args:
        model: A Functional or Sequential model from [B, H, W, C] or [B, D, H, W, C] to scores [B, classes].
        inputs: Float32 array of that shape.
        label: Index of the class, finding or cut (above the grade of that index); 0 for a number.
        layer: Name of a spatial layer; by default the last one at the resolution of the last convolution,
            which includes its normalisation and activation.
        kind: What the scores are of: `class`, `finding`, `cut` or `number`.
        columns: [B, F] of a network that takes columns, too; they are held, and the map explains the image.

    Returns:
        Float32 array [B, H, W] or [B, D, H, W], 0 or more, without a unit.

    Raises:
        ValueError: The model has no such output or layer, or no spatial layers.

    Source:
        Selvaraju et al. (2017), Grad-CAM, doi:10.1109/ICCV.2017.74.
    """
    check_output(model, label, kind)

    def score(outputs: Tensor) -> Tensor:
        return explained_score(ops.cast(outputs, "float32"), label, kind)

    if find_slice_network(model):
        return _stack_slices(model, inputs, score, layer, columns)
    return _grad_cam(model, inputs, score, find_layer(model, layer), columns)


def _grad_cam(
    network: keras.Model, inputs: np.ndarray, score: Score, name: str, columns: np.ndarray | None = None
) -> np.ndarray:
    def run(added: Iterable[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs, features = _run_with_offset(network, with_columns(inputs, columns), name, next(iter(added)))
        return outputs, [features]

    (maps,) = _weigh_features(run, score)
    return _resize(maps, inputs.shape[1:-1])


def _weigh_features(
    run: Callable[[Iterable[Tensor]], tuple[Tensor, list[Tensor]]], score: Score
) -> list[Tensor]:
    """Return maps [B, ..., 1] of one or several features [B, ..., C].

    Args:
        run: Takes what is added to each of the features, and returns the scores and these features.
        score: From the outputs [B, K] to what is explained [B].
    """
    _, features = run(itertools.repeat(0.0))

    def total(*added: Tensor) -> Tensor:
        outputs, _ = run(added)
        return ops.sum(score(outputs))

    # The gradient with respect to an offset of zero is the gradient with respect to the layer's output.
    _, gradients = value_and_gradients(total, *(ops.zeros_like(one) for one in features))
    return [_weigh_channels(*pair) for pair in zip(features, gradients, strict=True)]


def _weigh_channels(features: Tensor, gradients: Tensor) -> Tensor:
    spatial = tuple(range(1, len(features.shape) - 1))
    weights = ops.mean(ops.cast(gradients, "float32"), axis=spatial, keepdims=True)
    return ops.relu(ops.sum(ops.cast(features, "float32") * weights, axis=-1, keepdims=True))


def _run_with_offset(network: keras.Model, inputs: Any, name: str, added: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - an array, or a list of them
    """Return the network's output with `added` added to one layer's output, and that layer's sum."""
    features = []

    def wrap(operation: keras.Operation) -> Callable[..., Tensor]:
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            outputs = operation(*args, **kwargs)
            if operation.name != name:
                return outputs
            features.append(outputs + added)
            return features[-1]

        return call

    graph = network._functional if isinstance(network, keras.Sequential) else network  # noqa: SLF001
    # Keras's own execution of the graph, which clone_model uses too.
    tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    outputs = graph._run_through_graph(tensors, operation_fn=wrap)  # noqa: SLF001
    return keras.tree.flatten(outputs)[0], features[-1]  # a loaded network may hold its one output in a list


def _resize(maps: Tensor, shape: Sequence[int]) -> np.ndarray:
    if len(shape) == 3:
        return np.asarray(ops.convert_to_numpy(resize_volume(maps, shape)))[..., 0]
    resized = ops.image.resize(maps, shape, interpolation="bilinear", data_format="channels_last")
    return np.asarray(ops.convert_to_numpy(resized))[..., 0]


def _stack_slices(
    model: keras.Model, inputs: np.ndarray, score: Score, layer: str | None, columns: np.ndarray | None
) -> np.ndarray:
    """Return the maps of a slice model's slices as maps of volumes, averaged over its axes."""
    name = find_layer(model, layer)
    folds = [fold for fold in model.layers if isinstance(fold, FoldSlices)]
    if pools_features(model):
        found = _map_pooled(model, with_columns(inputs, columns), score, name, folds)
    else:
        network = unwrap_slices(model)
        slices = (ops.convert_to_numpy(fold(inputs)) for fold in folds)
        held = (None if columns is None else np.repeat(columns, fold.count, axis=0) for fold in folds)
        found = [
            _grad_cam(network, images, score, name, own) for images, own in zip(slices, held, strict=True)
        ]
    total = np.zeros(inputs.shape[:-1], "float32")
    for fold, maps in zip(folds, found, strict=True):  # [B * count, h, w]
        volume = np.zeros_like(np.moveaxis(total, AXES[fold.axis], 1))
        volume[:, fold.first : fold.first + fold.count] = maps.reshape(
            len(inputs), fold.count, *maps.shape[1:]
        )
        total += np.moveaxis(volume, 1, AXES[fold.axis])
    return total / len(folds)


def _map_pooled(
    model: keras.Model,
    inputs: Any,  # noqa: ANN401 - volumes, or a list of volumes and columns
    score: Score,
    name: str,
    folds: Sequence[FoldSlices],
) -> list[np.ndarray]:
    """Return the maps [B * count, h, w] of the slices along each axis, by the score of the volume."""
    extractor = find_slice_network(model)

    def run(added: Iterable[Tensor]) -> tuple[Tensor, list[Tensor]]:
        offsets = {fold.axis: offset for fold, offset in zip(folds, added, strict=False)}
        axes, features = dict[int, str](), dict[str, Tensor]()  # axes by the id of the slices along them

        def wrap(operation: keras.Operation) -> Callable[..., Tensor]:
            def fold(volumes: Tensor) -> Tensor:
                slices = operation(volumes)
                axes[id(slices)] = operation.axis
                return slices

            def extract(slices: Tensor, **_: Tensor) -> Tensor:
                axis = axes[id(slices)]
                outputs, features[axis] = _run_with_offset(extractor, slices, name, offsets[axis])
                return outputs

            if isinstance(operation, FoldSlices):
                return fold
            return extract if operation is extractor else operation

        tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
        outputs = model._run_through_graph(tensors, operation_fn=wrap)  # noqa: SLF001
        return keras.tree.flatten(outputs)[0], [features[fold.axis] for fold in folds]

    maps = _weigh_features(run, score)
    shape = keras.tree.flatten(inputs)[0].shape
    sides = [[side or 0 for side in fold.compute_output_shape(shape)[1:3]] for fold in folds]
    return [_resize(*pair) for pair in zip(maps, sides, strict=True)]
