"""Maps of predicted scans: NIfTI on the source image's own grid, and a picture beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlift.app.explaining.maps import AGREES_FROM, Explanation, ensemble_explanation, explain_volume
from voxlift.app.prediction.ensemble import Ensemble
from voxlift.app.prediction.preparing import Prepared
from voxlift.app.report.overlay import draw_planes, save_planes
from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.volume import VolumeError
from voxlift.data_pipelines.writers import save_over

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
