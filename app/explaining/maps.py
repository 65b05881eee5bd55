"""The map of one prepared volume: Grad-CAM, occlusion, and how far the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("gradcam", "occlusion", "both")
BOXES_PER_SIDE = 6  # covered in turn: 216 scores for a volume, a few seconds, and boxes that hold a finding
AGREES_FROM = 0.3  # a rank correlation below it is told as a warning

Heat = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a network looked.

    Attributes:
        heat: [D, H, W] float32, 0 or more: how much each voxel speaks for the class, in no particular unit.
        method: `gradcam` or `occlusion`.
        agreement: Spearman's rank correlation of Grad-CAM with occlusion over boxes; None where one of them
            was not asked for, or is constant.
    """

    heat: Heat
    method: str
    agreement: float | None = None

    @property
    def peak(self) -> tuple[int, int, int]:
        """Index (depth, height, width) of the largest value; the middle of a map that is zero throughout."""
        if not self.heat.any():
            depth, height, width = self.heat.shape
            return depth // 2, height // 2, width // 2
        depth, height, width = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return int(depth), int(height), int(width)

    @property
    def shown(self) -> Heat:
        """The map in 0..1, for pictures."""
        return self.heat / max(float(self.heat.max()), 1e-30)


def explain_volume(
    network: Any,  # noqa: ANN401 - untyped Keras
    voxels: NDArray[np.float32],
    *,
    label: int,
    method: str = "gradcam",
    layer: str | None = None,
) -> Explanation:
    """Where a network looks for the class `label` in one volume.

    Args:
        network: from [B, D, H, W, C] to logits, a slice model too.
        voxels: [D, H, W, C] as prepared.
        label: class index.
        method: `gradcam`, `occlusion`, or `both`: Grad-CAM's map, with its agreement with occlusion.
        layer: for Grad-CAM, a spatial layer's name; None is the last convolution.

    Raises:
        ValueError: the network has no such layer.
    """
    from voxlift.models.explain import grad_cam, occlusion_map

    batch = voxels[None].astype(np.float32)
    if method == "gradcam":
        return Explanation(grad_cam(network, batch, label=label, layer=layer)[0], method)
    box = box_of(voxels.shape)
    if method == "occlusion":
        halves = [max(1, side // 2) for side in box]
        falls = occlusion_map(network, batch, label=label, size=box, stride=halves)[0]
        return Explanation(np.maximum(falls, 0), method)
    falls = occlusion_map(network, batch, label=label, size=box, stride=box)[0]
    heat = grad_cam(network, batch, label=label, layer=layer)[0]
    return Explanation(heat, "gradcam", agreement(heat, falls, box=box))


def ensemble_explanation(found: list[Explanation]) -> Explanation:
    """The mean of several networks' maps, each scaled to its own largest value first."""
    if len(found) == 1:
        return found[0]
    agreements = [one.agreement for one in found if one.agreement is not None]
    heat = np.mean([one.shown for one in found], axis=0).astype(np.float32)
    return Explanation(heat, found[0].method, float(np.mean(agreements)) if agreements else None)


def box_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Sides of the box that occlusion covers: a sixth of the volume's, rounded up.

    >>> box_of((8, 12, 48, 1))
    (2, 2, 8)
    """
    depth, height, width = (-(-side // BOXES_PER_SIDE) for side in shape[:3])
    return depth, height, width


def agreement(heat: Heat, falls: Heat, *, box: tuple[int, int, int]) -> float | None:
    """Spearman's rank correlation of two maps' means over boxes; None where a map is constant.

    Args:
        heat: [D, H, W] Grad-CAM.
        falls: [D, H, W] the fall of the class's log-probability where a box is covered.
        box: voxels of a box, as covered.

    Source: the check by occlusion follows Adebayo et al. (2018), Sanity Checks for Saliency Maps, NeurIPS 31.
    """
    from scipy.stats import spearmanr

    # A covered background changes nothing: falls below rounding would rank noise.
    first = _box_means(heat, box)
    second = np.round(np.maximum(_box_means(falls, box), 0), 6)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _box_means(values: Heat, box: tuple[int, int, int]) -> NDArray[np.float64]:
    """Means over boxes, flat; boxes at the rim may be smaller."""
    starts = [np.arange(0, side, step) for side, step in zip(values.shape, box, strict=True)]
    sums, counts = values.astype(np.float64), np.ones(values.shape)
    for axis, start in enumerate(starts):
        sums, counts = np.add.reduceat(sums, start, axis), np.add.reduceat(counts, start, axis)
    return np.asarray(sums / counts).ravel()
