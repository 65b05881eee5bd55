"""Occlusion: how much a class suffers when a box around each voxel is covered."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.explain.places import check_label

COVERED_AT_ONCE = 16  # volumes scored together: enough to keep a processor busy, few enough for any memory


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
    check_label(model, label)
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
