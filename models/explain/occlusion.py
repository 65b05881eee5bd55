"""Occlusion: how much a class's probability falls when a box around each voxel is covered."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from voxlift.models.explain.target import check_output, explained_log_probability
from voxlift.models.join import with_columns

Box: TypeAlias = tuple[slice, ...]  # along each spatial axis

BATCH_SIZE = 16  # covered inputs scored together


def occlusion_map(
    model: keras.Model,
    inputs: np.ndarray,
    *,
    label: int,
    kind: str = "class",
    size: int | Sequence[int] = 8,
    stride: int | Sequence[int] | None = None,
    fill: float | None = None,
    columns: np.ndarray | None = None,
) -> np.ndarray:
    """Return how much the log-probability of a class falls when a box around each voxel is covered.

    For a number, it is how much the number itself falls.

    Args:
        model: As in `grad_cam`; its scores are logits or log-probabilities.
        inputs: Float32 array of its input's shape.
        label: As in `grad_cam`.
        kind: As in `grad_cam`.
        size: Voxels of the box, one number or one per spatial axis.
        stride: Voxels from box to box; by default half the box.
        fill: Value of covered voxels; by default the mean of each input.
        columns: As in `grad_cam`.

    Returns:
        Float32 array [B, H, W] or [B, D, H, W]: the mean fall over all boxes that cover a voxel.

    Raises:
        ValueError: The model has no such output, or a size is below 1.

    Source:
        Zeiler and Fergus (2014), doi:10.1007/978-3-319-10590-1_53.
    """
    check_output(model, label, kind)
    shape = inputs.shape[1:-1]
    sizes = _per_axis(size, len(shape), "size")
    strides = _per_axis(
        [max(side // 2, 1) for side in sizes] if stride is None else stride, len(shape), "stride"
    )
    means = inputs.mean(axis=tuple(range(1, inputs.ndim)), keepdims=True)
    fill_values = means if fill is None else np.full_like(means, fill)
    reference = _log_probability(model, inputs, columns, label=label, kind=kind)
    falls, visits = np.zeros(inputs.shape[:-1]), np.zeros(shape)
    boxes = list(_boxes(shape, sizes, strides))
    boxes_per_batch = max(1, BATCH_SIZE // len(inputs))
    for first in range(0, len(boxes), boxes_per_batch):
        batch = boxes[first : first + boxes_per_batch]
        held = None if columns is None else np.tile(columns, (len(batch), 1))
        scores = _log_probability(model, _cover(inputs, batch, fill_values), held, label=label, kind=kind)
        for box, score in zip(batch, scores.reshape(-1, len(inputs)), strict=True):
            falls[(slice(None), *box)] += (reference - score).reshape(-1, *[1] * len(shape))
            visits[box] += 1
    return (falls / np.maximum(visits, 1)).astype("float32")


def _boxes(shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> Iterator[Box]:
    counts = [-(-side // stride) for side, stride in zip(shape, strides, strict=True)]
    for corner in np.ndindex(*counts):
        starts = [index * stride for index, stride in zip(corner, strides, strict=True)]
        yield tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _cover(inputs: np.ndarray, boxes: Sequence[Box], fill_values: np.ndarray) -> np.ndarray:
    """Return the inputs once per box, with that box covered: [boxes * B, ..., C]."""
    covered = np.repeat(inputs[None], len(boxes), axis=0)
    for copy, box in zip(covered, boxes, strict=True):
        copy[(slice(None), *box)] = fill_values
    return covered.reshape(-1, *inputs.shape[1:])


def _log_probability(
    model: keras.Model, inputs: np.ndarray, columns: np.ndarray | None, *, label: int, kind: str
) -> np.ndarray:
    scores = ops.cast(model.predict_on_batch(with_columns(inputs, columns)), "float32")
    return np.asarray(ops.convert_to_numpy(explained_log_probability(scores, label, kind)))


def _per_axis(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or min(values) < 1:
        raise ValueError(f"Expected one positive integer or {rank} of them for {name}, received {value!r}.")
    return values
