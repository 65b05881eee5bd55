"""Which settings suit a data set, from the facts of its files: what kind of values, spacing and shape."""

from collections.abc import Sequence

import numpy as np

from voxlift.data_pipelines.audit.facts import Facts

ANISOTROPIC = 3.0
SIDE_STEP = 8
MASK_LABELS = 20
MASK_SHARE = 0.25
MOSTLY = 0.9
AIR_HU = -200.0  # only CT reaches so far below 0: the lung and what is around the body


def are_masks(files: Sequence[Facts]) -> bool:
    """Return whether nearly all files are masks: zero almost everywhere, few small values elsewhere."""
    telling = [one for one in files if not one.error and one.minimum < one.maximum]
    masks = [one for one in telling if one.minimum == 0 and one.maximum <= MASK_LABELS]
    sparse = [one for one in masks if one.mean < MASK_SHARE * one.maximum]
    return bool(telling) and len(sparse) > MOSTLY * len(telling)


def suggest_preprocess(facts: Sequence[Facts]) -> str | None:
    """Return the preprocessing that suits the values: mask, ct or mri (which fits any scale of grey)."""
    known = [one for one in facts if not one.error]
    if not known:
        return None
    if are_masks(known):
        return "mask"
    return "ct" if np.median([one.minimum for one in known]) <= AIR_HU else "mri"


def suggest_spacing(facts: Sequence[Facts]) -> tuple[float, ...] | None:
    """Return the spacing that suits the data: the median on each axis, finer along a coarse depth.

    Where one axis is more than three times coarser than the others, its tenth percentile is taken, so that
    the thin slices that some files have are not thrown away.

    Source:
        Isensee et al. 2021, nnU-Net, doi:10.1038/s41592-020-01008-z.
    """
    values = np.array([one.spacing for one in facts if not one.error])
    if values.size == 0:
        return None
    middle = np.median(values, axis=0)
    coarse = int(np.argmax(middle))
    if middle[coarse] > ANISOTROPIC * np.delete(middle, coarse).max():
        middle[coarse] = max(np.percentile(values[:, coarse], 10), np.delete(middle, coarse).max())
    return tuple(float(f"{value:.3g}") for value in middle)


def suggest_shape(facts: Sequence[Facts], spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the shape, ordered (depth, height, width), that holds the median extent, in multiples of 8.

    Args:
        facts: Of all files; those that could not be read are passed over, one must be left.
        spacing: mm, ordered (depth, height, width).
    """
    extents = np.array([np.multiply(one.shape, one.spacing) for one in facts if not one.error])
    sides = np.median(extents, axis=0) / np.array(spacing)
    return tuple(int(np.ceil(round(side, 3) / SIDE_STEP)) * SIDE_STEP for side in sides)
