"""From a record's files to voxels that a network takes: one resample, one function.

Order of the steps: read, non-finite voxels replaced, foreground box, axes, spacing, shape (all in one
resample), padding value, window or percentile clip, standard score. The affine follows each geometric step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import (
    Grid,
    crop_grid,
    fit_grid,
    grid_affine,
    reorient_grid,
    respace_grid,
    spacing_of,
    stored_grid,
    stretch_grid,
    to_tensor_axes,
)
from voxlift.data_pipelines.preprocess.foreground import record_box
from voxlift.data_pipelines.preprocess.intensity import check_same_grid, looking_at
from voxlift.data_pipelines.preprocess.sampling import finite_only, sample_channels
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.readers.inflate import MAX_BYTES
from voxlift.data_pipelines.volume import Stored, Volume, VolumeError

__all__ = ["Paths", "Preprocess", "plan_grid", "prepare_tensor", "prepare_volume"]

Paths = str | Path | Sequence[str | Path]


def prepare_tensor(paths: Paths, settings: Preprocess) -> NDArray[np.float32]:
    """Return one record as a tensor.

    Args:
        paths: One file, or one per channel.
        settings: With a `shape`.

    Returns:
        float32 `[depth, height, width, channels]`, contiguous, of shape `settings.shape + (channels,)`.

    Raises:
        VolumeError: A file cannot be used, or the channels do not share a grid.
        ValueError: The settings have no shape.
    """
    if settings.shape is None:
        raise ValueError("A tensor needs a fixed shape: set preprocess.shape (depth, height, width).")
    return np.ascontiguousarray(to_tensor_axes(prepare_volume(paths, settings).voxels))


def prepare_volume(paths: Paths, settings: Preprocess) -> Volume:
    """Return one record as a volume: reoriented, resampled, its intensities set.

    Args:
        paths: One file, or one per channel; a file with a fourth axis gives several channels.
        settings: What to do.

    Returns:
        Voxels `[R, A, S, C]` float32 (axes as `settings.axcodes`), and the affine of this grid; the source is
        the first file.

    Raises:
        VolumeError: A file cannot be used, or the channels do not share a grid.
    """
    return prepare_stored(read_record(paths, settings), settings)


def read_record(paths: Paths, settings: Preprocess) -> list[Stored]:
    """Return one record's images as stored, non-finite voxels replaced, their grids checked.

    Args:
        paths: One file, or one per channel.
        settings: What to do.

    Raises:
        VolumeError: A file cannot be used, or the channels do not share a grid.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    stored = [read_stored(path, time_axis=settings.time_axis, prefer=settings.prefer) for path in files]
    if not stored:
        raise VolumeError("A record without a file was given. Check the table's image columns.")
    stored = [finite_only(one, settings) for one in stored]
    if settings.same_grid:
        check_same_grid(stored)
    return stored


def prepare_stored(stored: Sequence[Stored], settings: Preprocess) -> Volume:
    """Return images that `read_record` gave as a prepared volume, as `prepare_volume` does.

    Args:
        stored: The record's images, see `read_record`; the first one's grid leads.
        settings: What to do.

    Raises:
        VolumeError: The output grid is beyond the limit, there is no foreground to crop to, or intensities
            have no scale.
    """
    first = stored[0]
    grid = plan_grid(stored, settings)
    _check_size(grid, first)
    channels = [
        channel for one in stored for channel in sample_channels(one, looking_at(one, first, grid), settings)
    ]
    return Volume(np.stack(channels, axis=-1), grid_affine(grid, first.affine), first.source)


def _check_size(grid: Grid, first: Stored) -> None:
    needed = 4.0 * grid.shape[0] * grid.shape[1] * grid.shape[2]
    if needed > MAX_BYTES:
        native = ", ".join(f"{mm:.4g}" for mm in spacing_of(first.affine))
        raise VolumeError(
            f"{first.source}: the output grid has {'x'.join(map(str, grid.shape))} voxels, beyond"
            f" {MAX_BYTES / 2**30:.0f} GiB. The file's own spacing is {native} mm: correct the header, or set"
            " preprocess.shape or a coarser preprocess.spacing."
        )


def plan_grid(stored: Sequence[Stored], settings: Preprocess) -> Grid:
    """Return the output grid of a record in the index space of its first image.

    Args:
        stored: The record's images, the first one leading.
        settings: Crop, axes, spacing and shape.

    Raises:
        VolumeError: There is no foreground to crop to.
    """
    first = stored[0]
    grid = stored_grid(first.voxels.shape)
    if settings.foreground_crop:
        grid = crop_grid(grid, *record_box(stored if settings.same_grid else [first], settings))
    if settings.axcodes is not None:
        grid = reorient_grid(grid, first.affine, settings.axcodes)
    if settings.spacing is not None:
        grid = respace_grid(grid, first.affine, settings.spacing)
    if settings.shape is not None:
        grid = (stretch_grid if settings.fit == "resize" else fit_grid)(grid, settings.shape)
    return grid
