"""Decide the preprocessing by the images: their values, where their content is, and a budget of voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import (
    Grid,
    crop_grid,
    grid_affine,
    reorient_grid,
    spacing_of,
    stored_grid,
)
from voxlift.data_pipelines.preprocess.foreground import MAX_SAMPLES, find_foreground_box
from voxlift.data_pipelines.preprocess.intensity import replace_nonfinite
from voxlift.data_pipelines.preprocess.prepare import read_record
from voxlift.data_pipelines.preprocess.region import find_crop_box, place_region
from voxlift.data_pipelines.preprocess.settings import PRESETS, Preprocess
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.volume import Stored, VolumeError, channels_of

MAX_PROBED = 24  # records that are read, evenly spread over the table
KINDS = ("ct", "mri", "signed", "mask")  # where channels differ, the first of these counts
AIR_HU = -200.0  # only CT has whole numbers so far below 0: the lung, and the air around the body
MASK_LABELS = 20  # largest value of a mask: whole numbers above it are intensities
SIGNED_SHARE = 0.05  # of the largest value: smaller negative values are ringing of an interpolation
WORTH_CROPPING = 0.8  # a box of content above this part of the image saves too little
COVERED = 95  # percentile of the extents that the grid covers
ANISOTROPY = 2.0  # up to which a grid may stay anisotropic
STEP = 1.01  # factor by which a spacing grows until the budget is met


@dataclass(frozen=True)
class Probe:
    """What one record says about grid and intensities.

    Attributes:
        kind: `ct`, `mri`, `signed` (a map around 0) or `mask`.
        spacing: mm, ordered (depth, height, width).
        image_mm: Sides of the image, ordered (depth, height, width).
        content_mm: Sides of the box around its content, with the margin.
        largest: 99.5th percentile of the absolute values.
    """

    kind: str
    spacing: tuple[float, ...]
    image_mm: tuple[float, ...]
    content_mm: tuple[float, ...]
    largest: float


@dataclass(frozen=True)
class AutoPreprocess:
    """The decided preprocessing.

    Attributes:
        kind: As in `Probe`.
        preset: The name of the preset that it starts from.
        values: What differs from the preset, as fields of `Preprocess`.
        cropped: Number of probed records whose content is larger than the grid.
        probed: Number of probed records.
        content: Median part of the image that its content fills.
        others: Kinds that some of the probed records are, other than `kind`, with their number.
    """

    kind: str
    preset: str
    values: dict[str, Any]
    cropped: int
    probed: int
    content: float
    others: dict[str, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels, ordered (depth, height, width)."""
        depth, height, width = self.values["shape"]
        return depth, height, width

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing in mm, ordered (depth, height, width)."""
        depth, height, width = self.values["spacing"]
        return depth, height, width


def probe_records(records: Sequence[Record], settings: Preprocess, *, workers: int = 2) -> list[Probe]:
    """Return probes of some records; those that cannot be read are left out.

    Args:
        records: Of which at most `MAX_PROBED` are read, evenly spread.
        settings: How files are read, and what masks and centres are for.
        workers: Files that are read at a time.

    Raises:
        VolumeError: None of them can be read.
    """
    chosen = [records[i] for i in spread_evenly(len(records), MAX_PROBED)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(pool.map(lambda record: _try_probe(record, settings), chosen))
    probes = [one for one in found if isinstance(one, Probe)]
    if not probes:
        raise VolumeError(f"preprocess=auto: none of {len(chosen)} images could be read. {found[0]}")
    return probes


def spread_evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of the positions below `count`, evenly spread.

    >>> spread_evenly(3, 5), spread_evenly(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _try_probe(record: Record, settings: Preprocess) -> Probe | VolumeError:
    try:
        return probe_record(record, settings)
    except VolumeError as error:
        return error


def probe_record(record: Record, settings: Preprocess) -> Probe:
    """Return what one record says; its files are read.

    Raises:
        VolumeError: A file cannot be used.
    """
    stored = [replace_nonfinite(one, settings) for one in read_record(record.images, settings)]
    samples = [_sample(voxels, one) for one in stored for voxels in channels_of(one)]
    kind = min((recognise_kind(values) for values in samples), key=KINDS.index)
    first, whole = stored[0], stored_grid(stored[0].voxels.shape)
    box = _find_content(record, stored, kind, settings)
    content = whole if box is None else crop_grid(whole, *box)
    spacing, image_mm = _measure(whole, first, settings.axcodes)
    _, content_mm = _measure(content, first, settings.axcodes)
    largest = max(float(np.percentile(np.abs(values), 99.5)) for values in samples)
    return Probe(kind, spacing, image_mm, content_mm, largest)


def recognise_kind(values: NDArray[np.floating[Any]]) -> str:
    """Return what the values of an image are: `ct`, `mri`, `signed` or `mask`.

    Args:
        values: Finite real values of any shape.
    """
    low, high = float(values.min()), float(values.max())
    is_whole = bool(np.all(values == np.round(values)))
    if is_whole and low == 0 and high <= MASK_LABELS:
        return "mask"
    if low <= AIR_HU and (is_whole or float((values <= AIR_HU).mean()) >= SIGNED_SHARE):
        return "ct"
    return "signed" if low < -SIGNED_SHARE * high and not (is_whole and low > AIR_HU) else "mri"


def _sample(voxels: NDArray[Any], stored: Stored) -> NDArray[np.float64]:
    flat = voxels.ravel(order="K")
    sample = flat[:: max(1, flat.size // MAX_SAMPLES)].astype(np.float64)
    # Extremes may be few voxels: they belong to every sample.
    sample = np.concatenate([sample, [float(flat.min()), float(flat.max())]])
    return np.asarray(sample * stored.slope + stored.inter)


def _find_content(
    record: Record, stored: Sequence[Stored], kind: str, settings: Preprocess
) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """Return the box that is cropped to: that of the mask or centre, else of the content; None for all."""
    if "crop" in settings.mask:
        placed = place_region(record.region, stored[0], settings)
        return (
            None if placed is None else find_crop_box(placed.edges, stored[0], settings.mask_margin_mm or 0.0)
        )
    if kind == "signed":  # its background is 0, in the middle of its values
        return None
    threshold = PRESETS[kind].get("foreground_threshold")
    images = stored if settings.same_grid else stored[:1]
    try:
        return find_foreground_box(images, replace(settings, foreground_threshold=threshold))
    except VolumeError:  # nothing is above the threshold: an empty mask
        return None


def _measure(grid: Grid, first: Stored, axcodes: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return spacing and sides of a grid in mm, both ordered (depth, height, width)."""
    turned = grid if axcodes is None else reorient_grid(grid, first.affine, axcodes)
    spacing = spacing_of(grid_affine(turned, first.affine))
    return spacing, tuple(float(n * mm) for n, mm in zip(turned.shape[::-1], spacing, strict=True))


def decide_preprocess(probes: Sequence[Probe], budget: int, *, has_region: bool = False) -> AutoPreprocess:
    """Return the preprocessing that suits the probed records.

    Args:
        probes: At least one.
        budget: The grid has at most this number cubed of voxels.
        has_region: Whether records are cropped to their masks or centres, whose boxes the probes hold.
    """
    counts = Counter(one.kind for one in probes)
    kind = max(counts, key=lambda name: (counts[name], -KINDS.index(name)))
    content = float(np.median([np.prod(one.content_mm) / np.prod(one.image_mm) for one in probes]))
    crops = not has_region and content < WORTH_CROPPING
    extents = np.array([one.content_mm if crops or has_region else one.image_mm for one in probes])
    native = np.median([one.spacing for one in probes], axis=0)
    covered = np.percentile(extents, COVERED, axis=0)
    spacing, shape = fit_budget(covered, native, budget)
    is_coarser = bool((np.array(spacing) > 1.02 * native).any())
    values: dict[str, Any] = {"spacing": spacing, "shape": shape}
    values |= {"foreground_crop": True} if crops else {}
    values |= {"antialias": True} if is_coarser else {}
    values |= _choose_intensities(kind, probes, is_coarser=is_coarser)
    too_large = (extents > np.array(shape) * spacing * 1.001).any(axis=1)
    preset = "none" if kind == "signed" else kind
    others = {name: count for name, count in counts.items() if name != kind}
    return AutoPreprocess(kind, preset, values, int(too_large.sum()), len(probes), content, others)


def _choose_intensities(kind: str, probes: Sequence[Probe], *, is_coarser: bool) -> dict[str, Any]:
    if kind == "signed":
        largest = float(f"{np.median([one.largest for one in probes]):.3g}") or 1.0
        return {"window_hu": (-largest, largest), "pad": 0.0}  # 0 stays in the middle, for background too
    # Of a mask the covered part of each coarse voxel: nearest neighbours would lose what is thin.
    return {"interpolation": "linear"} if kind == "mask" and is_coarser else {}


def fit_budget(
    extent_mm: Sequence[float] | NDArray[np.floating[Any]],
    native: Sequence[float] | NDArray[np.floating[Any]],
    budget: int,
) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Return the finest spacing, and its shape, with which an extent has at most `budget` cubed voxels.

    The spacing is never finer than the native one. Axes more than twice as fine as the coarsest are coarsened
    first; then all, so that the grid keeps that anisotropy.

    Args:
        extent_mm: Ordered (depth, height, width), as is all below.
        native: Spacing of the files, mm.
        budget: Side of a cube of as many voxels.

    Returns:
        Spacing in mm and shape in voxels, in multiples of 8 (of 4 below 32).

    Source:
        Isensee et al. 2021, nnU-Net, doi:10.1038/s41592-020-01008-z (its low resolution).
    """
    extent, spacing = np.asarray(extent_mm, float), np.array(native, float)
    while np.prod(_count_voxels(extent, spacing)) > budget**3:
        is_fine = spacing.max() / spacing > ANISOTROPY
        spacing[is_fine if is_fine.any() else slice(None)] *= STEP
    # Rounding up keeps the budget.
    digits = 10.0 ** (2 - np.floor(np.log10(spacing)))
    spacing = np.where(
        np.isclose(spacing, native, rtol=1e-6), spacing, np.ceil(spacing * digits - 1e-9) / digits
    )
    depth, height, width = (int(n) for n in _count_voxels(extent, spacing))
    in_mm = tuple(float(f"{value:.6g}") for value in spacing)
    return (in_mm[0], in_mm[1], in_mm[2]), (depth, height, width)


def _count_voxels(extent: NDArray[Any], spacing: NDArray[Any]) -> NDArray[np.int64]:
    sides = np.ceil(np.round(extent / spacing, 3))
    multiple = np.where(sides > 32, 8, 4)
    return np.asarray(np.maximum(multiple * np.ceil(sides / multiple), 4), np.int64)
