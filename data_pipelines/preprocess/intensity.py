"""Intensities of one channel: non-finite voxels, padding, windows, percentiles and standard scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.preprocess.foreground import foreground_threshold
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array, Stored, VolumeError

Values = NDArray[np.float32]
FLOAT32_MAX = float(np.finfo(np.float32).max)


def replace_nonfinite(stored: Stored, settings: Preprocess) -> Stored:
    """Return the image with NaN and infinity replaced by the padding value, before interpolation.

    Args:
        stored: The image as read.
        settings: The padding value, and whether such voxels are refused.

    Raises:
        VolumeError: No voxel is finite (as float32), or some are not and the settings refuse that.
    """
    if stored.voxels.dtype.kind != "f":
        return stored
    # Numbers beyond float32 would turn into infinity a step later: they count as infinite already.
    finite = np.abs(stored.voxels) <= FLOAT32_MAX
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
        filled = np.clip((value - stored.inter) / stored.slope, -FLOAT32_MAX, FLOAT32_MAX)
    return replace(stored, voxels=np.where(finite, stored.voxels, np.asarray(filled, stored.voxels.dtype)))


def apply_scaling(values: Values, stored: Stored) -> Values:
    """Return stored values of any shape as real values, float32.

    Args:
        values: Resampled stored values.
        stored: The image whose slope and offset apply.

    Raises:
        VolumeError: The real values exceed float32.
    """
    if not stored.is_scaled:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Values = values * np.float32(stored.slope) + np.float32(stored.inter)
    if not np.isfinite(scaled).all():
        raise VolumeError(
            f"{stored.source}: with the header's scaling ({stored.slope:g} x + {stored.inter:g}) the voxels"
            " are too large for float32. Correct the header."
        )
    return scaled


def padding_value(values: Values, scanned: Array, settings: Preprocess, stored: Stored) -> float:
    """Return the value outside the scanned field, in the image's own units.

    Args:
        values: Real values `[R, A, S]`.
        scanned: Bool of the same shape: which voxels lie in the scanned field.
        settings: Padding and window.
        stored: The image, for the message.

    Raises:
        VolumeError: Nothing was scanned within the grid, so that the image has no minimum there.
    """
    if settings.pad is not None:
        return settings.pad
    if settings.window_hu is not None:
        return settings.window_hu[0]
    if not scanned.any():
        raise VolumeError(f"{stored.source}: this channel does not overlap the first one's field of view.")
    return float(values[scanned].min())


def normalise(values: Values, scanned: Array | None, stored: Stored, settings: Preprocess) -> Values:
    """Return the values after window, percentile clip and standard score.

    Args:
        values: Real values `[R, A, S]`, padded.
        scanned: Bool of the same shape: which voxels the statistics are of; None for all.
        stored: The image, for the message.
        settings: Which steps apply.

    Raises:
        VolumeError: The image is constant, so that a standard score has no scale.
    """
    # The foreground is found in the image's own units, before a window changes them.
    chosen = _foreground_mask(values, scanned, settings) if settings.zscore == "foreground" else scanned
    if settings.window_hu is not None:
        values = apply_window(values, *settings.window_hu)
    if settings.clip_percentiles is not None:
        values = clip_to_percentiles(values, _select(values, scanned), *settings.clip_percentiles)
    if settings.zscore == "none":
        return values
    try:
        return standardise(values, _select(values, chosen))
    except ValueError as error:
        raise VolumeError(
            f"{stored.source}: {error}. Leave the image out, or set preprocess.zscore=none."
        ) from None


def apply_window(values: Values, low: float, high: float) -> Values:
    """Return the values with `low` .. `high` (HU for CT) mapped to [0, 1] and clipped.

    Args:
        values: Float32 of any shape, in the image's own units.
        low: What becomes 0.
        high: What becomes 1, above `low`.
    """
    scaled: Values = (values - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def clip_to_percentiles(values: Values, reference: Values, low: float, high: float) -> Values:
    """Return the values clipped to two percentiles of the reference values.

    Args:
        values: Float32 of any shape.
        reference: The values that the percentiles are of.
        low: Percentile, 0 to 100.
        high: Percentile, above `low`.
    """
    bounds = np.percentile(reference, [low, high]).astype(np.float32)
    return np.clip(values, bounds[0], bounds[1])


def standardise(values: Values, reference: Values) -> Values:
    """Return the standard scores of the values: less the mean, over the deviation, of the reference values.

    Args:
        values: Float32 of any shape.
        reference: The values that mean and standard deviation are of.

    Raises:
        ValueError: The reference values are constant.
    """
    mean, deviation = float(reference.mean(dtype=np.float64)), float(reference.std(dtype=np.float64))
    if not deviation > 1e-6 * max(abs(mean), 1e-30):
        raise ValueError(f"every voxel is {mean:.6g}, so a standard score has no scale")
    scores: Values = (values - np.float32(mean)) * np.float32(1 / deviation)
    return scores


def _foreground_mask(values: Values, scanned: Array | None, settings: Preprocess) -> Array | None:
    threshold = settings.foreground_threshold
    above = values > (foreground_threshold(_select(values, scanned)) if threshold is None else threshold)
    chosen = above if scanned is None else above & scanned
    return chosen if chosen.any() else scanned


def _select(values: Values, chosen: Array | None) -> Values:
    return values.ravel(order="K") if chosen is None else values[chosen]
