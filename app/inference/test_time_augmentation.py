"""Test-time augmentation: views of a volume whose scores are averaged, and that keep its class.

A mirror image along one axis (or all three) turns a left lung into a right one. Such views are used only
where the run's own training mirrored along that axis; half turns keep the handedness and are always allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.data.sources import read_augment

SPATIAL_AXES = (1, 2, 3)  # depth, height, width of [B, D, H, W, C]
SHIFT = 1  # voxels: small compared with any structure of interest

Voxels = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A flip or a shift of a batch of volumes; without either, the batch itself.

    Attributes:
        flipped: Axes of [B, D, H, W, C] that are reversed.
        shifted: Axis that is shifted; None for none.
        step: Voxels of the shift, towards higher indices.
    """

    flipped: tuple[int, ...] = ()
    shifted: int | None = None
    step: int = 0

    def __call__(self, voxels: Voxels) -> Voxels:
        """Return the view of a batch [B, D, H, W, C]; a shift repeats the edge."""
        if self.flipped:
            return np.ascontiguousarray(np.flip(voxels, self.flipped))
        if self.shifted is None:
            return voxels
        size = voxels.shape[self.shifted]
        return np.take(voxels, np.clip(np.arange(size) - self.step, 0, size - 1), axis=self.shifted)


def build_views(name: str, augment: Mapping[str, Any]) -> tuple[View, ...]:
    """Return the views that a choice of `tta` stands for, the unchanged volume first.

    Args:
        name: `none`; `flips` (every combination of the axes that training mirrored); `half_turns` (by 180
            degrees about each axis); `shifts` (one voxel in both directions along each axis).
        augment: Settings of the run's own augmentation.

    Raises:
        SettingsError: `flips` for a run that was trained without mirroring.
    """
    unchanged = View()
    if name == "none":
        return (unchanged,)
    if name == "shifts":
        steps = (-SHIFT, SHIFT)
        return (unchanged, *(View(shifted=axis, step=step) for axis in SPATIAL_AXES for step in steps))
    if name == "half_turns":
        return (unchanged, *(View(flipped=pair) for pair in combinations(SPATIAL_AXES, 2)))
    axes = mirrored_axes(augment)
    if not axes:
        raise SettingsError(
            "tta=flips: this run was trained without mirroring, and a mirror image may belong to another "
            "class. Use tta=half_turns or tta=shifts, or train with augment.flip_prob."
        )
    counts = range(1, len(axes) + 1)
    return (unchanged, *(View(flipped=chosen) for count in counts for chosen in combinations(axes, count)))


def mirrored_axes(augment: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the axes of [B, D, H, W, C] along which a run's training mirrored its volumes."""
    settings = read_augment(augment)
    if settings.keep_handedness:
        return ()
    return tuple(axis for axis, share in zip(SPATIAL_AXES, settings.flip_prob, strict=True) if share > 0)
