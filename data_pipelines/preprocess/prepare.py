"""Prepare a record's files for a network: read, reorient, resample once, normalise.

Order of the steps: read, non-finite voxels replaced, box of the foreground, mask or centre, axes, spacing,
shape (all in one resample), padding value, window or percentile clip, standard score. The affine follows each
geometric step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import (
    Grid,
    corner_distance_mm,
    crop_grid,
    field_of_view,
    fit_grid,
    grid_affine,
    is_same_grid,
    reorient_grid,
    respace_grid,
    spacing_of,
    stored_grid,
    stretch_grid,
    to_tensor_axes,
)
from voxlift.data_pipelines.preprocess.foreground import find_foreground_box
from voxlift.data_pipelines.preprocess.intensity import (
    Values,
    apply_scaling,
    normalise,
    padding_value,
    replace_nonfinite,
)
from voxlift.data_pipelines.preprocess.region import (
    PlacedRegion,
    find_crop_box,
    is_in_box,
    place_region,
    resample_mask,
)
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.readers.decompress import MAX_BYTES
from voxlift.data_pipelines.tables.regions import Region
from voxlift.data_pipelines.volume import Array, Stored, Volume, VolumeError, channels_of

__all__ = ["Paths", "Preprocess", "plan_grid", "prepare_tensor", "prepare_volume"]

Paths = str | Path | Sequence[str | Path]


def prepare_tensor(paths: Paths, settings: Preprocess, region: Region | None = None) -> NDArray[np.float32]:
    """Return one record as a tensor for a network.

    Args:
        paths: One file, or one per channel.
        settings: The preprocessing, with a `shape`.
        region: The record's mask or centre, which `settings.mask` needs.

    Returns:
        float32 `[depth, height, width, channels]`, contiguous, of shape `settings.shape + (channels,)`.

    Raises:
        VolumeError: A file cannot be used, or the channels do not share a grid.
        ValueError: The settings have no shape.
    """
    if settings.shape is None:
        raise ValueError("A tensor needs a fixed shape: set preprocess.shape (depth, height, width).")
    return np.ascontiguousarray(to_tensor_axes(prepare_volume(paths, settings, region).voxels))


def prepare_volume(paths: Paths, settings: Preprocess, region: Region | None = None) -> Volume:
    """Return one record as a volume: reoriented, resampled to spacing and shape, its intensities normalised.

    Args:
        paths: One file, or one per channel; a file with a fourth axis gives several channels.
        settings: The preprocessing: spacing in mm and shape in voxels are ordered (depth, height, width).
        region: The record's mask or centre, which `settings.mask` needs.

    Returns:
        A `Volume` with `voxels` float32 `[R, A, S, C]`, the axes as `settings.axcodes` (`to_tensor_axes`
        gives `[D, H, W, C]`), in the units that the intensity steps leave (window: 0 to 1; standard score:
        deviations; else the image's own, such as HU; a mask as the last channel: 0 and 1), `affine` 4x4 from
        this grid's index to world mm, RAS+, and `source`, the first file.

    Raises:
        VolumeError: A file cannot be used, the channels do not share a grid, there is no foreground to crop
            to, the mask is empty, or it or the centre is outside the image, a channel is constant and has no
            standard score, or the output grid exceeds the size limit.
    """
    return prepare_stored(read_record(paths, settings), settings, region)


def read_record(paths: Paths, settings: Preprocess) -> list[Stored]:
    """Return one record's images as stored.

    Args:
        paths: One file, or one per channel.
        settings: How a fourth axis is read, and which affine is used.

    Raises:
        VolumeError: A file cannot be used, or none was given.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not files:
        raise VolumeError("A record without a file was given. Check the table's image columns.")
    return [read_stored(path, time_axis=settings.time_axis, prefer=settings.prefer) for path in files]


def prepare_stored(stored: Sequence[Stored], settings: Preprocess, region: Region | None = None) -> Volume:
    """Return images from `read_record` as a prepared volume, as `prepare_volume` does.

    Args:
        stored: The record's images; the output grid is planned on the first one.
        settings: The preprocessing.
        region: The record's mask or centre.

    Raises:
        VolumeError: As for `prepare_volume`.
    """
    stored = [replace_nonfinite(one, settings) for one in stored]
    if settings.same_grid:
        _check_same_grid(stored)
    first = stored[0]
    placed = place_region(region, first, settings) if settings.mask else None
    grid = plan_grid(stored, settings, placed)
    _check_size(grid, first)
    inside = _resample_region(placed, grid, first, settings)
    visible = _find_visible(placed, inside, grid, first, settings)
    channels = [
        values
        for one in stored
        for values in _prepare_channels(one, _grid_in(one, first, grid), settings, visible)
    ]
    if inside is not None and "channel" in settings.mask:
        channels.append(inside.astype(np.float32))
    return Volume(np.stack(channels, axis=-1), grid_affine(grid, first.affine), first.source)


def plan_grid(stored: Sequence[Stored], settings: Preprocess, placed: PlacedRegion | None = None) -> Grid:
    """Return the output grid of a record in the index space of its first image.

    Args:
        stored: The record's images.
        settings: Crop, axes, spacing and shape.
        placed: The record's mask or centre, where there is one.

    Raises:
        VolumeError: There is no foreground to crop to.
    """
    first = stored[0]
    grid = stored_grid(first.voxels.shape)
    if settings.foreground_crop:
        grid = crop_grid(grid, *find_foreground_box(stored if settings.same_grid else [first], settings))
    if placed is not None and "crop" in settings.mask:
        grid = crop_grid(grid, *find_crop_box(placed.edges, first, settings.mask_margin_mm or 0.0))
    if settings.axcodes is not None:
        grid = reorient_grid(grid, first.affine, settings.axcodes)
    if settings.spacing is not None:
        grid = respace_grid(grid, first.affine, settings.spacing)
    if settings.shape is not None:
        grid = (stretch_grid if settings.fit == "resize" else fit_grid)(grid, settings.shape)
    return grid


def _resample_region(
    placed: PlacedRegion | None, grid: Grid, first: Stored, settings: Preprocess
) -> NDArray[np.bool_] | None:
    """Return which voxels of the grid are inside the mask; None where it is not needed."""
    if placed is None or placed.mask is None or not {"channel", "blank"} & set(settings.mask):
        return None
    return resample_mask(placed.mask, grid, first)


def _find_visible(
    placed: PlacedRegion | None,
    inside: NDArray[np.bool_] | None,
    grid: Grid,
    first: Stored,
    settings: Preprocess,
) -> Array | None:
    """Return which voxels of the grid the crop and the mask leave, broadcastable; None for all."""
    visible = None
    if placed is not None and "crop" in settings.mask and settings.mask_margin_mm is not None:
        visible = is_in_box(grid, *find_crop_box(placed.edges, first, settings.mask_margin_mm))
    if inside is not None and "blank" in settings.mask:
        visible = inside if visible is None else visible & inside
    return visible


def _check_same_grid(stored: Sequence[Stored]) -> None:
    """Raise if the images of a record do not share a grid, with all that differ from the first."""
    first = stored[0]
    shape = first.voxels.shape
    wrong = [
        f"{one.source} ({'x'.join(map(str, one.voxels.shape[:3]))}, corners up to"
        f" {corner_distance_mm(first.affine, one.affine, shape):.3g} mm away)"
        for one in stored[1:]
        if not is_same_grid(one.voxels.shape, one.affine, shape, first.affine)
    ]
    if wrong:
        raise VolumeError(
            f"{first.source}: the channels of a record must share a grid"
            f" ({'x'.join(map(str, shape[:3]))}); these do not: {'; '.join(wrong)}."
            " Register them, or set preprocess.same_grid=false to resample them onto the first."
        )


def _check_size(grid: Grid, first: Stored) -> None:
    needed = 4.0 * grid.shape[0] * grid.shape[1] * grid.shape[2]
    if needed > MAX_BYTES:
        native = ", ".join(f"{mm:.4g}" for mm in spacing_of(first.affine))
        raise VolumeError(
            f"{first.source}: the output grid has {'x'.join(map(str, grid.shape))} voxels, beyond"
            f" {MAX_BYTES / 1e9:.1f} GB. The file's own spacing is {native} mm: correct the header, or set"
            " preprocess.shape or a coarser preprocess.spacing."
        )


def _grid_in(one: Stored, first: Stored, grid: Grid) -> Grid:
    """Return the grid, given in the index space of the first image, in that of another."""
    if is_same_grid(one.voxels.shape, one.affine, first.voxels.shape, first.affine):
        return grid
    return replace(grid, to_source=np.linalg.inv(one.affine) @ first.affine @ grid.to_source)


def _prepare_channels(
    stored: Stored, grid: Grid, settings: Preprocess, visible: Array | None
) -> list[Values]:
    """Return each channel of an image on a grid in its index space, `[R, A, S]` float32, normalised."""
    scanned = field_of_view(grid, stored.voxels.shape)
    if visible is not None:
        scanned = scanned & visible
    return [_prepare_channel(voxels, stored, grid, scanned, settings) for voxels in channels_of(stored)]


def _prepare_channel(
    voxels: Array, stored: Stored, grid: Grid, scanned: Array, settings: Preprocess
) -> Values:
    values = resample(voxels, grid, interpolation=settings.interpolation, antialias=settings.antialias)
    values = apply_scaling(values, stored)
    if scanned.all():
        return normalise(values, None, stored, settings)
    scanned = np.broadcast_to(scanned, values.shape)
    values = np.where(scanned, values, np.float32(padding_value(values, scanned, settings, stored)))
    return normalise(values, scanned, stored, settings)
