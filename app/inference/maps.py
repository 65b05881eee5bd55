"""Explanation maps: Grad-CAM, occlusion and their agreement, as arrays, NIfTI files and pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.inference.ensemble import Ensemble
from voxlift.app.inference.overlay import draw_planes, save_planes
from voxlift.app.inference.scans import PreparedScan
from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import VolumeError
from voxlift.data_pipelines.writers import save_on_source_grid

METHOD_NAMES = {"gradcam": "Grad-CAM", "occlusion": "Occlusion"}
BOXES_PER_SIDE = 6  # 216 scores per volume take a few seconds, and such a box can hold a finding
MIN_AGREEMENT = 0.3  # a lower rank correlation gives a warning

Heat = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of the evidence for a class, a finding or a grade above a cut, or of what raises a number.

    Attributes:
        heat: [D, H, W] float32, 0 or more: the evidence of each voxel, in arbitrary units.
        method: `gradcam` or `occlusion`.
        agreement: Spearman's rank correlation of Grad-CAM with occlusion over boxes; None where one of them
            was not computed, or is constant.
    """

    heat: Heat
    method: str
    agreement: float | None = None

    @property
    def peak(self) -> tuple[int, int, int]:
        """Index (depth, height, width) of the largest value; the centre of a map that is zero throughout."""
        if not self.heat.any():
            depth, height, width = self.heat.shape
            return depth // 2, height // 2, width // 2
        depth, height, width = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return int(depth), int(height), int(width)

    @property
    def scaled(self) -> Heat:
        """The map in 0..1, for pictures."""
        return self.heat / max(float(self.heat.max()), 1e-30)


@dataclass(frozen=True)
class MapOptions:
    """How the scans of a prediction are explained, and where the files are written.

    Attributes:
        folder: Receives one NIfTI file and one picture per scan.
        method: `gradcam`, `occlusion` or `both`.
        layer: Name of a spatial layer for Grad-CAM; None is the last convolution.
        label: Index of the class, grade or finding that is explained; None: see `Task.map_output`.
    """

    folder: Path
    method: str
    layer: str | None = None
    label: int | None = None


def explain_volume(
    network: Any,  # noqa: ANN401 - untyped Keras
    voxels: NDArray[np.float32],
    *,
    label: int,
    kind: str = "class",
    method: str = "gradcam",
    layer: str | None = None,
    columns: NDArray[np.float32] | None = None,
    occluded: Any | None = None,  # noqa: ANN401 - as above
) -> Explanation:
    """Return the map of a network's evidence for one of its outputs in one volume.

    Args:
        network: From [B, D, H, W, C] to logits, also a slice model.
        voxels: [D, H, W, C] as prepared.
        label: Index of the class, finding or cut; 0 for a number.
        kind: What the network's outputs are of, see `models.explain.grad_cam`.
        method: `gradcam`, `occlusion`, or `both`: Grad-CAM's map, with its agreement with occlusion.
        layer: For Grad-CAM, the name of a spatial layer; None is the last convolution.
        columns: [F] of a network that takes columns, too; they are held, and the map explains the image.
        occluded: What scores the volumes with covered boxes: the network in another engine, which has no
            gradients for Grad-CAM; None: the network itself.

    Raises:
        ValueError: The network has no such layer.
    """
    from voxlift.models.explain import grad_cam, occlusion_map

    batch = voxels[None].astype(np.float32)
    asked: dict[str, Any] = {"label": label, "kind": kind}
    asked["columns"] = None if columns is None else columns[None]
    if method == "gradcam":
        return Explanation(grad_cam(network, batch, layer=layer, **asked)[0], method)
    box, scorer = occlusion_box(voxels.shape), network if occluded is None else occluded
    if method == "occlusion":
        stride = [max(1, side // 2) for side in box]
        drops = occlusion_map(scorer, batch, size=box, stride=stride, **asked)[0]
        return Explanation(np.maximum(drops, 0), method)
    drops = occlusion_map(scorer, batch, size=box, stride=box, **asked)[0]
    heat = grad_cam(network, batch, layer=layer, **asked)[0]
    return Explanation(heat, "gradcam", rank_agreement(heat, drops, box=box))


def refuse_gradcam_of_linear(ensemble: Ensemble, method: str) -> None:
    """Raise an error if Grad-CAM, which needs a convolution, is asked of a linear model.

    Raises:
        SettingsError: It is.
    """
    linear = [member.run for member in ensemble.members if not member.settings.model.has_network]
    if linear and method != "occlusion":
        raise SettingsError(
            f"explain={method}: {linear[0].path} is a linear model, without a convolution for Grad-CAM. Its "
            "weights are weights*.nii.gz in the run folder; explain=occlusion shows their effect in one scan."
        )


def average_explanations(explanations: Sequence[Explanation]) -> Explanation:
    """Return the mean of several networks' maps, each scaled to its own largest value first."""
    if len(explanations) == 1:
        return explanations[0]
    agreements = [one.agreement for one in explanations if one.agreement is not None]
    heat = np.mean([one.scaled for one in explanations], axis=0).astype(np.float32)
    return Explanation(heat, explanations[0].method, float(np.mean(agreements)) if agreements else None)


def occlusion_box(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the sides of the box that occlusion covers: a sixth of the volume's, rounded up.

    >>> occlusion_box((8, 12, 48, 1))
    (2, 2, 8)
    """
    depth, height, width = (-(-side // BOXES_PER_SIDE) for side in shape[:3])
    return depth, height, width


def count_passes(method: str) -> int:
    """Return about how many covered volumes are scored for the map of one volume.

    >>> [count_passes(method) for method in ("gradcam", "both", "occlusion")]
    [0, 216, 1728]
    """
    return {"gradcam": 0, "both": BOXES_PER_SIDE**3}.get(method, (2 * BOXES_PER_SIDE) ** 3)


def rank_agreement(heat: Heat, drops: Heat, *, box: tuple[int, int, int]) -> float | None:
    """Return Spearman's rank correlation of two maps' means over boxes; None where a map is constant.

    Args:
        heat: [D, H, W] Grad-CAM.
        drops: [D, H, W] drop of the class's log-probability where a box is covered.
        box: Voxels of a box (depth, height, width), as covered.

    Source:
        comparison with occlusion after Adebayo et al. 2018, Sanity Checks for Saliency Maps, NeurIPS 31.
    """
    from scipy.stats import spearmanr

    # Covering the background changes nothing: drops below rounding would rank noise.
    first = _box_means(heat, box)
    second = np.round(np.maximum(_box_means(drops, box), 0), 6)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _box_means(values: Heat, box: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return means over boxes, flat; the last box along an axis may be smaller."""
    starts = [np.arange(0, side, step) for side, step in zip(values.shape, box, strict=True)]
    sums, counts = values.astype(np.float64), np.ones(values.shape)
    for axis, start in enumerate(starts):
        sums, counts = np.add.reduceat(sums, start, axis), np.add.reduceat(counts, start, axis)
    return np.asarray(sums / counts).ravel()


def explain_scan(
    scan: PreparedScan,
    ensemble: Ensemble,
    networks: Sequence[Any],
    *,
    label: int,
    method: str,
    layer: str | None,
    occluded: Sequence[Any] | None = None,
) -> Explanation:
    """Return the map of a usable prepared scan, averaged over the networks of an ensemble.

    Arguments as in `explain_volume`.

    Raises:
        ValueError: The scan cannot be used, or as in `explain_volume`.
    """
    if scan.voxels is None:
        raise ValueError(f"{scan.scan.subject}: a scan that cannot be used has no map.")
    found = []
    scorers = [None] * len(networks) if occluded is None else occluded
    for member, network, scorer in zip(ensemble.members, networks, scorers, strict=True):
        columns = ensemble.encode(member, [scan.scan.cells])
        found.append(
            explain_volume(
                network,
                scan.voxels,
                label=label,
                kind=ensemble.task.map_kind,
                method=method,
                layer=layer,
                columns=None if columns is None else columns[0],
                occluded=scorer,
            )
        )
    return average_explanations(found)


def write_scan_map(
    scan: PreparedScan,
    *,
    options: MapOptions,
    ensemble: Ensemble,
    networks: Sequence[Any],
    output: int,
    titles: tuple[str, str],
    number: int,
    occluded: Sequence[Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Write the map and the picture of one scan; return the row's columns about them, and a warning or "".

    Args:
        scan: A usable scan.
        options: Method, layer and folder.
        ensemble: The runs.
        networks: Their networks.
        output: Index of what is explained, see `Task.map_output`.
        titles: What that is, for the file's name and for the picture, see `Task.map_title`.
        number: Of the scan in the list, from 1: it makes the names of files unique.
        occluded: As in `explain_volume`, for each of the networks.
    """
    found = explain_scan(
        scan,
        ensemble,
        networks,
        label=output,
        method=options.method,
        layer=options.layer,
        occluded=occluded,
    )
    stem = f"{number:04d}_{_file_name(scan.scan.subject)}_{_file_name(titles[0])}_{found.method}"
    source, prefer = scan.scan.images[0], ensemble.preprocess.prefer
    target = options.folder / f"{stem}.nii.gz"
    try:
        save_on_source_grid(found.heat, _affine_of(scan), source, target, prefer=prefer)
    except VolumeError as error:
        return {}, f"no map could be written: {error}"
    picture = options.folder / f"{stem}.png"
    title = f"{scan.scan.subject}: {titles[1]}"
    _write_picture(picture, scan, found, title, ensemble.preprocess)
    # Relative to the table, so that both can be moved together.
    columns: dict[str, Any] = {
        "map": f"{options.folder.name}/{target.name}",
        "picture": f"{options.folder.name}/{picture.name}",
    }
    if found.agreement is not None:
        columns["agreement"] = round(found.agreement, 4)
    return columns, _map_warning(found, options.method)


def _affine_of(scan: PreparedScan) -> NDArray[np.float64]:
    if scan.affine is None:
        raise ValueError(f"{scan.scan.subject}: a scan that cannot be used has no grid.")
    return scan.affine


def _write_picture(
    path: Path, scan: PreparedScan, found: Explanation, title: str, preprocess: Preprocess
) -> None:
    if scan.voxels is None:
        raise ValueError(f"{scan.scan.subject}: a scan that cannot be used has no picture.")
    note = METHOD_NAMES[found.method]
    if found.agreement is not None:
        note += f"; rank agreement with occlusion {found.agreement:.2f}"
    has_mask = "channel" in preprocess.mask
    note += "; green: edge of the mask" if has_mask else ""
    figure = draw_planes(
        scan.voxels[..., 0],
        found.scaled,
        at=found.peak,
        spacing=spacing_of(_affine_of(scan)),
        title=title,
        note=note,
        with_sides=preprocess.axcodes == "RAS",
        mask=scan.voxels[..., -1] if has_mask else None,
    )
    save_planes(figure, path)


def _map_warning(found: Explanation, method: str) -> str:
    if not np.any(found.heat):
        return "the map is zero throughout: no evidence for what is explained"
    if found.agreement is not None and found.agreement < MIN_AGREEMENT:
        return f"Grad-CAM and occlusion agree little ({found.agreement:.2f}): interpret the map with caution"
    if method == "both" and found.agreement is None:
        return "covering any part changes nothing: the map cannot be checked by occlusion"
    return ""


def _file_name(name: str) -> str:
    stem = re.sub(r"\.(nii(\.gz)?|mg[hz]|n?hdr|nrrd|mh[ad])$", "", name)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-")[-80:]
