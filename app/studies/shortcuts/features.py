"""Features of the contestants that see only a part of what a file holds: a vector for each volume.

Prepared volumes are described on a grid of at most 8 x 8 x 8 cells, so that few training subjects are enough
for a small model of them, and a mark may move by a few voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxlift.app.data.cohort import Cohort
from voxlift.data_pipelines.audit.facts import tilt_degrees
from voxlift.data_pipelines.geometry import axcodes_of, ras_geometry
from voxlift.data_pipelines.preprocess.foreground import MAX_SAMPLES, otsu_threshold
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.volume import Stored, real_values

GRID = 8  # cells along each side
BORDER_FRACTION = 0.1  # of a side, at each end
BORDER_VOXELS = 2  # at least
LEAST_SIDE = 8  # a shorter side would be nearly all border
LEAST_BACKGROUND = 0.01  # of the voxels; below it there is none
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)  # and the standard deviation: eight numbers

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FileFacts:
    """Facts of the image files of a record, without their anatomy.

    Attributes:
        numbers: Header facts and the logarithm of the size, [F].
        words: Format, stored type and directions of the stored axes.
        histogram: Percentiles and standard deviation of the stored intensities, eight per image.
    """

    numbers: Values
    words: tuple[str, ...]
    histogram: Values


@dataclass(frozen=True, eq=False)
class VoxelFacts:
    """Facts of parts of a record's prepared volume.

    Attributes:
        border: Mean, minimum and maximum in the cells of the border.
        background: Mean in each cell outside the largest component; None where there is no background.
        silhouette: Share of the largest component in each cell.
        blurred: Mean in each cell.
    """

    border: Values
    background: Values | None
    silhouette: Values
    blurred: Values


def read_file_facts(record: Record, *, time_axis: str, prefer: str) -> FileFacts:
    """Return the facts of a record's image files; arguments as in `readers.read_stored`."""
    stored = [read_stored(path, time_axis=time_axis, prefer=prefer) for path in record.images]
    sizes = [math.log(max(1, _count_bytes(path))) for path in record.images]
    return FileFacts(
        numbers=np.concatenate(
            [[size, *_header_numbers(one)] for size, one in zip(sizes, stored, strict=True)]
        ),
        words=tuple(
            word for one in stored for word in (one.kind, one.voxels.dtype.name, axcodes_of(one.affine))
        ),
        histogram=np.concatenate([describe_histogram(real_values(one)) for one in stored]),
    )


def _count_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _header_numbers(stored: Stored) -> list[float]:
    """Return spacing, shape, channels, tilt, scale, and the position of the middle voxel."""
    shape, spacing = ras_geometry(stored.voxels.shape, stored.affine)
    middle = (np.array(stored.voxels.shape[:3]) - 1) / 2
    position = stored.affine[:3, :3] @ middle + stored.affine[:3, 3]
    channels = stored.voxels.shape[3] if stored.voxels.ndim == 4 else 1
    tilt = tilt_degrees(stored.affine)
    # Headers store float32: equal spacings must be equal here too.
    numbers = [*spacing, *shape, channels, tilt, stored.slope, stored.inter, *position]
    return [round(float(number), 4) for number in numbers]


def describe_histogram(values: NDArray[np.generic]) -> Values:
    """Return seven percentiles and the standard deviation of the finite values, of many those of a part."""
    flat = values.ravel(order="K")
    flat = flat[:: max(1, flat.size // MAX_SAMPLES)].astype(np.float64)
    finite = flat[np.isfinite(flat)]
    if finite.size == 0:
        return np.zeros(len(PERCENTILES) + 1)
    return np.array([*np.percentile(finite, PERCENTILES), finite.std()])


def describe_voxels(volume: NDArray[np.generic]) -> VoxelFacts:
    """Return the facts of parts of a prepared volume [D, H, W, C]."""
    values = np.asarray(volume, np.float64)
    foreground = find_foreground(values[..., 0])
    around = ~ndimage.binary_dilation(foreground)  # voxels at the rim hold some of the foreground
    has_background = around.mean() >= LEAST_BACKGROUND
    channels = range(values.shape[-1])
    return VoxelFacts(
        border=np.concatenate([_describe_border(values[..., c]) for c in channels]),
        background=np.concatenate([average_cells(values[..., c], around) for c in channels])
        if has_background
        else None,
        silhouette=average_cells(foreground.astype(np.float64)),
        blurred=np.concatenate([average_cells(values[..., c]) for c in channels]),
    )


def find_foreground(values: Values) -> Mask:
    """Return the largest connected component above Otsu's threshold [D, H, W], without holes."""
    if np.ptp(values) == 0:
        return np.zeros(values.shape, np.bool_)
    parts, count = ndimage.label(values > otsu_threshold(values))
    if count == 0:
        return np.zeros(values.shape, np.bool_)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()), np.bool_)


def find_border(shape: Sequence[int]) -> Mask:
    """Return the outer tenth on each side, at least two voxels, of a volume [D, H, W]."""
    is_border = np.zeros(shape, np.bool_)
    for axis, side in enumerate(shape):
        if side >= LEAST_SIDE:
            width = max(BORDER_VOXELS, round(BORDER_FRACTION * side))
            ends = np.zeros(side, np.bool_)
            ends[:width] = ends[-width:] = True
            is_border |= np.expand_dims(ends, [other for other in range(len(shape)) if other != axis])
    return is_border


def average_cells(values: Values, mask: Mask | None = None) -> Values:
    """Return the mean of each cell, over the voxels of a mask; the mask's mean in a cell without any.

    Args:
        values: [D, H, W].
        mask: Of the same shape; None: all voxels.
    """
    chosen = np.ones(values.shape, np.bool_) if mask is None else mask
    counts = _reduce_cells(chosen.astype(np.float64), np.add)
    sums = _reduce_cells(np.where(chosen, values, 0.0), np.add)
    means = np.full(counts.shape, values[chosen].mean())
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.ravel()


def _describe_border(values: Values) -> Values:
    """Return mean, minimum and maximum of the border in each cell that holds some of it."""
    is_border = find_border(values.shape)
    has_border = _reduce_cells(is_border.astype(np.float64), np.add).ravel() > 0
    lowest = _reduce_cells(np.where(is_border, values, np.inf), np.minimum).ravel()
    highest = _reduce_cells(np.where(is_border, values, -np.inf), np.maximum).ravel()
    return np.concatenate([one[has_border] for one in (average_cells(values, is_border), lowest, highest)])


def _reduce_cells(values: Values, reduce: np.ufunc) -> Values:
    for axis, side in enumerate(values.shape):
        cells = min(GRID, side)
        values = np.asarray(reduce.reduceat(values, np.arange(cells) * side // cells, axis=axis))
    return values


def build_header(facts: Sequence[FileFacts]) -> Values:
    """Return the header features [N, F] of records: numbers, and a column for each word."""
    columns = [np.stack([one.numbers for one in facts])]
    for place in range(len(facts[0].words)):
        own = np.array([one.words[place] for one in facts])
        columns.append((own[:, None] == np.unique(own)[None, 1:]).astype(np.float64))
    return np.concatenate(columns, axis=1)


def standardise(values: Values) -> Values:
    """Return columns [N, F] with mean 0 and standard deviation 1; constant columns become 0."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    is_constant = scale <= 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
    return np.where(is_constant, 0.0, centred / np.where(is_constant, 1.0, scale))


def describe_cohort(
    cohorts: Sequence[Cohort], *, advance: Callable[[], None] = lambda: None
) -> tuple[dict[str, FileFacts], dict[str, VoxelFacts]]:
    """Return the facts of each record of several cohorts, by its item; every record is read once."""
    files: dict[str, FileFacts] = {}
    voxels: dict[str, VoxelFacts] = {}
    for cohort in cohorts:
        for record, file in zip(cohort.records, cohort.files, strict=True):
            if record.item not in files:
                own = cohort.preprocess
                files[record.item] = read_file_facts(record, time_axis=own.time_axis, prefer=own.prefer)
                volume = np.fromfile(file, cohort.dtype).reshape(cohort.shape)
                voxels[record.item] = describe_voxels(volume)
                advance()
    return files, voxels
