"""Test-time augmentation: other views of the same volume whose scores are averaged, none of which may lie.

Mirroring along a single axis (or all three) turns a left lung into a right one. So such views are taken only
where the run's own training mirrored along that axis, and half turns, which no label minds, are taken from
pairs of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.data.augmentation import read_augment

NAMES = ("none", "flips", "half_turns", "shifts")
AXES = ("depth", "height", "width")
SHIFT = 1  # voxels: small beside anything that a network looks for

Voxels = NDArray[np.float32]
View = Callable[[Voxels], Voxels]


def build_views(name: str, augment: Mapping[str, Any]) -> tuple[View, ...]:
    """The views of a batch [B, D, H, W, C] that a choice stands for, the batch itself first.

    Args:
        name: `none`; `flips` (every combination of the axes that training mirrored); `half_turns` (by 180
            degrees about each axis); `shifts` (one voxel to and fro along each axis).
        augment: the settings of the run's own augmentation.

    Raises:
        SettingsError: `flips` with a run that was trained without mirroring.
    """
    if name == "none":
        return (_itself,)
    if name == "shifts":
        return (_itself, *(_shift(axis, step) for axis in (1, 2, 3) for step in (-SHIFT, SHIFT)))
    if name == "half_turns":
        return (_itself, *(_flip(pair) for pair in combinations((1, 2, 3), 2)))
    axes = mirrored_axes(augment)
    if not axes:
        raise SettingsError(
            "tta=flips: this run was not trained with mirroring, and a mirror image may belong to another "
            "class. Take tta=half_turns or tta=shifts, or train with augment.flip_prob."
        )
    return (_itself, *(_flip(chosen) for chosen in _subsets(axes)))


def mirrored_axes(augment: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes of [B, D, H, W, C] along which a run's training mirrored its volumes."""
    settings = read_augment(augment)
    if settings.keep_handedness:
        return ()
    return tuple(axis for axis, share in enumerate(settings.flip_prob, start=1) if share > 0)


def _subsets(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for count in range(1, len(axes) + 1):
        yield from combinations(axes, count)


def _itself(voxels: Voxels) -> Voxels:
    return voxels


def _flip(axes: tuple[int, ...]) -> View:
    return lambda voxels: np.ascontiguousarray(np.flip(voxels, axes))


def _shift(axis: int, step: int) -> View:
    """Move by whole voxels; what comes in repeats the edge, as a larger field of view would roughly show."""

    def move(voxels: Voxels) -> Voxels:
        places = np.clip(np.arange(voxels.shape[axis]) - step, 0, voxels.shape[axis] - 1)
        return np.take(voxels, places, axis=axis)

    return move
