"""The map of one prepared volume: Grad-CAM, occlusion, and how far the two agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.inference.ensemble import Ensemble
from voxlift.app.inference.overlay import draw_planes, save_planes
from voxlift.app.inference.scans import Prepared
from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.volume import VolumeError
from voxlift.data_pipelines.writers import save_over

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


METHOD_NAMES = {"gradcam": "Grad-CAM", "occlusion": "Occlusion"}


@dataclass(frozen=True)
class Explaining:
    """How predictions are explained, and where the files go.

    Attributes:
        folder: takes one NIfTI file and one picture per scan.
        method: `gradcam`, `occlusion` or `both`.
        layer: for Grad-CAM; None is the last convolution.
        label: class index that is explained; None is the decided one.
    """

    folder: Path
    method: str
    layer: str | None = None
    label: int | None = None


def explain_scan(
    prepared: Prepared,
    *,
    how: Explaining,
    ensemble: Ensemble,
    networks: Sequence[Any],
    decided: int,
    probability: Sequence[float],
    number: int,
) -> dict[str, Any]:
    """Write the map and the picture of one scan; the row's cells that name them.

    Args:
        prepared: the scan, usable.
        how: method, layer, class and folder.
        ensemble: the runs.
        networks: theirs.
        decided: the class index that was decided.
        probability: [K].
        number: of the scan in the list, from 1: it makes file names unique.
    """
    if prepared.voxels is None or prepared.affine is None:
        raise ValueError(f"{prepared.scan.subject}: a scan that cannot be used has no map.")
    label = decided if how.label is None else how.label
    found = ensemble_explanation(
        [
            explain_volume(one, prepared.voxels, label=label, method=how.method, layer=how.layer)
            for one in networks
        ]
    )
    name = ensemble.classes[label]
    stem = how.folder / f"{number:04d}_{_safe(prepared.scan.subject)}_{_safe(name)}_{found.method}"
    source, prefer = prepared.scan.images[0], ensemble.preprocess.prefer
    heat = Path(f"{stem}.nii.gz")
    try:
        save_over(found.heat, prepared.affine, source, heat, prefer=prefer)
    except VolumeError as error:
        return {"warning": f"no map could be written: {error}"}
    picture = _write_picture(
        Path(f"{stem}.png"), prepared, found, f"{name} at {probability[label]:.3f}", ensemble
    )
    # Relative to the table, so that both can be moved together.
    cells: dict[str, Any] = {
        "map": f"{how.folder.name}/{heat.name}",
        "picture": f"{how.folder.name}/{picture.name}",
    }
    if found.agreement is not None:
        cells["agreement"] = round(found.agreement, 4)
    warning = _doubt(found, how.method)
    return {**cells, "warning": warning} if warning else cells


def _write_picture(path: Path, prepared: Prepared, found: Explanation, said: str, ensemble: Ensemble) -> Path:
    assert prepared.voxels is not None  # noqa: S101 - explain_scan has looked
    assert prepared.affine is not None  # noqa: S101
    note = METHOD_NAMES[found.method]
    if found.agreement is not None:
        note += f"; rank agreement with occlusion {found.agreement:.2f}"
    figure = draw_planes(
        prepared.voxels[..., 0],
        found.shown,
        at=found.peak,
        spacing=spacing_of(prepared.affine),
        title=f"{prepared.scan.subject}: {said}",
        note=note,
        lettered=ensemble.preprocess.axcodes == "RAS",
    )
    return save_planes(figure, path)


def _doubt(found: Explanation, method: str) -> str:
    """What a reader of the map must know."""
    if not np.any(found.heat):
        return "the map is zero throughout: nothing speaks for this class"
    if found.agreement is not None and found.agreement < AGREES_FROM:
        return f"Grad-CAM and occlusion agree little ({found.agreement:.2f}): do not lean on the map"
    if method == "both" and found.agreement is None:
        return "covering any part changes nothing: the map cannot be checked"
    return ""


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", re.sub(r"\.(nii(\.gz)?|mg[hz]|n?hdr|nrrd|mh[ad])$", "", name)).strip("-")[
        -80:
    ]
