"""From a record's files to voxels that a network takes: settings as one value, one resample, one function.

Order of the steps: read, non-finite voxels replaced, foreground box, axes, spacing, shape (all in one
resample), padding value, window or percentile clip, standard score. The affine follows each geometric step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipelines.channels import check_same_grid, looking_at
from data_pipelines.foreground import record_box
from data_pipelines.geometry import (
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
from data_pipelines.readers import read_stored
from data_pipelines.readers.inflate import MAX_BYTES
from data_pipelines.sampling import finite_only, sample_channels
from data_pipelines.settings_checks import check_settings
from data_pipelines.volume import Stored, Volume, VolumeError

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
    stored = [finite_only(one, settings) for one in stored]
    if settings.same_grid:
        check_same_grid(stored)
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
    """Return the output grid of a record in the index space of its first image."""
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
