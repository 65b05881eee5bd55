"""One image onto one grid: finite, resampled, padded, its intensities set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from voxlift.data_pipelines.geometry import Grid, field_of_view
from voxlift.data_pipelines.preprocess.foreground import foreground_threshold
from voxlift.data_pipelines.preprocess.intensity import (
    Values,
    apply_window,
    clip_to_percentiles,
    each_channel,
    standard_scores,
)
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array, Stored, VolumeError

LARGEST = float(np.finfo(np.float32).max)


def finite_only(stored: Stored, settings: Preprocess) -> Stored:
    """Return the image with NaN and infinity replaced by the value that pads, before they spread.

    Args:
        stored: The image as read.
        settings: What pads, and whether such voxels are refused.

    Raises:
        VolumeError: No voxel is finite (as float32), or some are not and the settings refuse that.
    """
    if stored.voxels.dtype.kind != "f":
        return stored
    # Numbers beyond float32 would turn into infinity a step later: they count as infinite already.
    finite = np.abs(stored.voxels) <= LARGEST
    if finite.all():
        return stored
    bad = int(finite.size - finite.sum())
    if bad == finite.size:
        raise VolumeError(f"{stored.source}: every voxel is NaN or infinite. Repair the image, or remove it.")
    if settings.nonfinite == "error":
        raise VolumeError(
            f"{stored.source}: {bad:,} of {finite.size:,} voxels are NaN or infinite."
            " Repair the image, or set preprocess.nonfinite=pad."
        )
    value = settings.pad if settings.window_hu is None or settings.pad is not None else settings.window_hu[0]
    if value is None:
        known = stored.voxels[finite]
        filled = known.min() if stored.slope > 0 else known.max()
    else:
        filled = np.clip((value - stored.inter) / stored.slope, -LARGEST, LARGEST)
    return replace(stored, voxels=np.where(finite, stored.voxels, np.asarray(filled, stored.voxels.dtype)))


def sample_channels(stored: Stored, grid: Grid, settings: Preprocess) -> list[Values]:
    """Return each channel of an image as the grid shows it, `[R, A, S]` float32, its intensities set.

    Args:
        stored: The image, finite.
        grid: The output grid in its index space.
        settings: Interpolation, padding and intensity.

    Raises:
        VolumeError: The image does not overlap the grid, its scaling exceeds float32, or a channel is
            constant and has no scale.
    """
    scanned = field_of_view(grid, stored.voxels.shape)
    return [_prepare(voxels, stored, grid, scanned, settings) for voxels in each_channel(stored)]


def _prepare(voxels: Array, stored: Stored, grid: Grid, scanned: Array, settings: Preprocess) -> Values:
    """Return one channel `[R, A, S]`, resampled and with its intensities set."""
    values = resample(voxels, grid, interpolation=settings.interpolation, antialias=settings.antialias)
    if stored.is_scaled:
        values = _scaled(values, stored)
    whole = bool(scanned.all())
    if not whole:
        scanned = np.broadcast_to(scanned, values.shape)
        values = np.where(scanned, values, np.float32(_padding(values, scanned, settings, stored)))
    return _set_intensity(values, None if whole else scanned, stored, settings)


def _scaled(values: Values, stored: Stored) -> Values:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Values = values * np.float32(stored.slope) + np.float32(stored.inter)
    if not np.isfinite(scaled).all():
        raise VolumeError(
            f"{stored.source}: with the header's scaling ({stored.slope:g} x + {stored.inter:g}) the voxels"
            " are too large for float32. Correct the header."
        )
    return scaled


def _padding(values: Values, scanned: Array, settings: Preprocess, stored: Stored) -> float:
    if settings.pad is not None:
        return settings.pad
    if settings.window_hu is not None:
        return settings.window_hu[0]
    if not scanned.any():
        raise VolumeError(f"{stored.source}: this channel does not overlap the first one's field of view.")
    return float(values[scanned].min())


def _set_intensity(values: Values, scanned: Array | None, stored: Stored, settings: Preprocess) -> Values:
    """Return the values after window, percentiles and standard score, by what was scanned."""
    # The foreground is found in the image's own units, before a window changes them.
    chosen = _foreground_among(values, scanned, settings) if settings.zscore == "foreground" else scanned
    if settings.window_hu is not None:
        values = apply_window(values, *settings.window_hu)
    if settings.clip_percentiles is not None:
        values = clip_to_percentiles(values, _among(values, scanned), *settings.clip_percentiles)
    if settings.zscore == "none":
        return values
    try:
        return standard_scores(values, _among(values, chosen))
    except ValueError as error:
        raise VolumeError(
            f"{stored.source}: {error}. Leave the image out, or set preprocess.zscore=none."
        ) from None


def _foreground_among(values: Values, scanned: Array | None, settings: Preprocess) -> Array | None:
    threshold = settings.foreground_threshold
    above = values > (foreground_threshold(_among(values, scanned)) if threshold is None else threshold)
    chosen = above if scanned is None else above & scanned
    return chosen if chosen.any() else scanned


def _among(values: Values, chosen: Array | None) -> Values:
    return values.ravel(order="K") if chosen is None else values[chosen]
