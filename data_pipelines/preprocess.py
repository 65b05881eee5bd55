"""From a record's files to voxels that a network takes: settings as one value, one resample, one function.

Order of the steps: read, non-finite voxels replaced, foreground box, axes, spacing, shape (all in one
resample), padding value, window or percentile clip, standard score. The affine follows each geometric step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipelines.geometry import (
    Grid,
    corners_off_mm,
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
from data_pipelines.intensity import (
    Values,
    apply_window,
    clip_to_percentiles,
    foreground_box,
    foreground_threshold,
    standard_scores,
)
from data_pipelines.readers import read_stored
from data_pipelines.resample import resample
from data_pipelines.settings_checks import check_settings
from data_pipelines.volume import Array, Stored, Volume, VolumeError

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Preprocess:
    """Every setting that changes voxels, as plain values: two equal settings give equal tensors.

    Attributes:
        spacing: Target mm, ordered (depth, height, width); None keeps the native spacing.
        shape: Target voxels, ordered (depth, height, width); None keeps what the spacing gives.
        fit: How the shape is reached: "pad_crop" about the centre, or "resize" (stretches; no spacing).
        axcodes: Where the three axes point; depth is the last. None keeps the stored axes.
        interpolation: "linear" or "nearest".
        antialias: Blur before thinning out, so that fine texture leaves no false patterns (linear only).
        window_hu: Lower and upper bound in the image's own units (HU for CT), mapped to [0, 1] and clipped.
        clip_percentiles: Lower and upper percentile (0 .. 100) of the scanned voxels to clip to.
        zscore: "none", "whole" (over the scanned voxels) or "foreground" (over those above the threshold).
        foreground_crop: Crop to the box around the foreground before anything else.
        foreground_threshold: Values above it are foreground; None finds one in each image.
        foreground_margin_mm: Left around the foreground box.
        pad: Value outside the scanned field, before the intensity steps; None takes the window's lower bound
            (air, as a scanner would show) and, without a window, the image's own minimum.
        nonfinite: "pad" gives NaN and infinite voxels the padding value; "error" refuses the image.
        same_grid: Whether channels must share a grid; False resamples every later channel onto the first's.
        time_axis: What becomes of a fourth axis: "error", "channels", "depth" or "first".
        prefer: "sform" or "qform": which affine is believed where a NIfTI header sets both.

    Raises:
        ValueError: Settings that make no sense, all of them in one message.
    """

    spacing: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None
    fit: str = "pad_crop"
    axcodes: str | None = "RAS"
    interpolation: str = "linear"
    antialias: bool = False
    window_hu: tuple[float, float] | None = None
    clip_percentiles: tuple[float, float] | None = None
    zscore: str = "none"
    foreground_crop: bool = False
    foreground_threshold: float | None = None
    foreground_margin_mm: float = 5.0
    pad: float | None = None
    nonfinite: str = "pad"
    same_grid: bool = True
    time_axis: str = "error"
    prefer: str = "sform"

    def __post_init__(self) -> None:
        for name in ("spacing", "shape", "window_hu", "clip_percentiles"):
            value = getattr(self, name)
            # Lists from a configuration file become tuples, so that the settings can be hashed and compared.
            object.__setattr__(self, name, None if value is None else tuple(value))
        check_settings(self)


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
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    stored = [read_stored(path, time_axis=settings.time_axis, prefer=settings.prefer) for path in files]
    if not stored:
        raise VolumeError("A record without a file was given. Check the table's image columns.")
    stored = [_finite(one, settings) for one in stored]
    if settings.same_grid:
        _check_same_grid(stored)
    first = stored[0]
    grid = plan_grid(stored, settings)
    channels = [
        channel for one in stored for channel in _channels(one, _looking_at(one, first, grid), settings)
    ]
    return Volume(np.stack(channels, axis=-1), grid_affine(grid, first.affine), first.source)


def plan_grid(stored: Sequence[Stored], settings: Preprocess) -> Grid:
    """Return the output grid of a record in the index space of its first image."""
    first = stored[0]
    grid = stored_grid(first.voxels.shape)
    if settings.foreground_crop:
        grid = crop_grid(grid, *_foreground(stored if settings.same_grid else [first], settings))
    if settings.axcodes is not None:
        grid = reorient_grid(grid, first.affine, settings.axcodes)
    if settings.spacing is not None:
        grid = respace_grid(grid, first.affine, settings.spacing)
    if settings.shape is not None:
        grid = (stretch_grid if settings.fit == "resize" else fit_grid)(grid, settings.shape)
    return grid


def _finite(stored: Stored, settings: Preprocess) -> Stored:
    """Return the image with NaN and infinity replaced by the value that pads, before they spread."""
    if stored.voxels.dtype.kind != "f":
        return stored
    finite = np.isfinite(stored.voxels)
    if finite.all():
        return stored
    bad = int(finite.size - finite.sum())
    if settings.nonfinite == "error" or bad == finite.size:
        raise VolumeError(
            f"{stored.source}: {bad:,} of {finite.size:,} voxels are NaN or infinite."
            " Repair the image, or set preprocess.nonfinite=pad (which needs at least one finite voxel)."
        )
    known = stored.voxels[finite]
    lowest = known.min() if stored.slope > 0 else known.max()
    value = lowest if settings.pad is None else (settings.pad - stored.inter) / stored.slope
    return replace(stored, voxels=np.where(finite, stored.voxels, np.asarray(value, stored.voxels.dtype)))


def _check_same_grid(stored: Sequence[Stored]) -> None:
    first = stored[0]
    shape = first.voxels.shape
    wrong = [
        f"{one.source} ({'x'.join(map(str, one.voxels.shape[:3]))}, corners up to"
        f" {corners_off_mm(first.affine, one.affine, shape):.3g} mm away)"
        for one in stored[1:]
        if not is_same_grid(one.voxels.shape, one.affine, shape, first.affine)
    ]
    if wrong:
        raise VolumeError(
            f"{first.source}: the channels of a record must share a grid"
            f" ({'x'.join(map(str, shape[:3]))}); these do not: {'; '.join(wrong)}."
            " Register them, or set preprocess.same_grid=false to resample them onto the first."
        )


def _looking_at(one: Stored, first: Stored, grid: Grid) -> Grid:
    """Return the grid as seen from another image of the record, through the world where grids differ."""
    if is_same_grid(one.voxels.shape, one.affine, first.voxels.shape, first.affine):
        return grid
    return replace(grid, to_source=np.linalg.inv(one.affine) @ first.affine @ grid.to_source)


def _foreground(
    stored: Sequence[Stored], settings: Preprocess
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return start and stop of the box around all channels' foreground, margin in, within the image."""
    boxes = [box for one in stored for box in _foreground_boxes(one, settings)]
    if not boxes:
        raise VolumeError(
            f"{stored[0].source}: no voxel is above foreground_threshold={settings.foreground_threshold}."
            " Lower preprocess.foreground_threshold, or set preprocess.foreground_crop=false."
        )
    spacing = np.array(spacing_of(stored[0].affine)[::-1])
    margin = np.round(settings.foreground_margin_mm / spacing).astype(int)
    start = np.maximum(np.min([box[0] for box in boxes], axis=0) - margin, 0)
    stop = np.minimum(np.max([box[1] for box in boxes], axis=0) + margin, stored[0].voxels.shape[:3])
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def _foreground_boxes(stored: Stored, settings: Preprocess) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    boxes = []
    for voxels in _each_channel(stored):
        if settings.foreground_threshold is not None:
            threshold = (settings.foreground_threshold - stored.inter) / stored.slope
        else:
            threshold = foreground_threshold(voxels if stored.slope > 0 else -voxels.astype(np.float64))
            threshold = threshold if stored.slope > 0 else -threshold
        boxes.append(foreground_box(voxels > threshold if stored.slope > 0 else voxels < threshold))
    return [box for box in boxes if box is not None]


def _each_channel(stored: Stored) -> list[Array]:
    if stored.voxels.ndim == 3:
        return [stored.voxels]
    return [stored.voxels[..., channel] for channel in range(stored.voxels.shape[3])]


def _channels(stored: Stored, grid: Grid, settings: Preprocess) -> list[Values]:
    scanned = field_of_view(grid, stored.voxels.shape)
    return [_prepare(voxels, stored, grid, scanned, settings) for voxels in _each_channel(stored)]


def _prepare(voxels: Array, stored: Stored, grid: Grid, scanned: Array, settings: Preprocess) -> Values:
    """Return one channel `[R, A, S]`, resampled and with its intensities set."""
    values = resample(voxels, grid, interpolation=settings.interpolation, antialias=settings.antialias)
    if stored.is_scaled:
        values = values * np.float32(stored.slope) + np.float32(stored.inter)
    whole = bool(scanned.all())
    if not whole:
        scanned = np.broadcast_to(scanned, values.shape)
        values = np.where(scanned, values, np.float32(_padding(values, scanned, settings, stored)))
    return _set_intensity(values, None if whole else scanned, stored, settings)


def _padding(values: Values, scanned: Array, settings: Preprocess, stored: Stored) -> float:
    if settings.pad is not None:
        return settings.pad
    if settings.window_hu is not None:
        return settings.window_hu[0]
    if not scanned.any():
        raise VolumeError(f"{stored.source}: this channel does not overlap the first one's field of view.")
    return float(values[scanned].min())


def _set_intensity(values: Values, scanned: Array | None, stored: Stored, settings: Preprocess) -> Values:
    """Return the values after window, percentiles and standard score, statistics over the scanned voxels."""
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
