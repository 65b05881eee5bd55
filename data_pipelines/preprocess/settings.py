"""The preprocessing settings and their presets; all wrong settings are reported together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxlift.data_pipelines.readers.decompress import MAX_BYTES
from voxlift.data_pipelines.readers.header_checks import TimeAxis
from voxlift.data_pipelines.readers.nifti import Prefer

Interpolation = Literal["linear", "nearest"]
_CHOICES = {
    "fit": ("pad_crop", "resize"),
    "interpolation": get_args(Interpolation),
    "zscore": ("none", "whole", "foreground"),
    "nonfinite": ("pad", "error"),
    "time_axis": get_args(TimeAxis),
    "prefer": get_args(Prefer),
    "mask_components": ("union", "largest"),
}
MASK_USES = ("crop", "channel", "blank")


@dataclass(frozen=True)
class Preprocess:
    """Every setting that changes voxels, as plain values: two equal settings give equal tensors.

    Attributes:
        spacing: Target mm, ordered (depth, height, width); None keeps the native spacing.
        shape: Target voxels, ordered (depth, height, width); None keeps what the spacing gives.
        fit: How the shape is reached: "pad_crop" about the centre, or "resize" (stretches; needs no spacing).
        axcodes: World directions of the three axes; depth is the last. None keeps the stored axes.
        interpolation: "linear" or "nearest".
        antialias: Blur before resampling to coarser voxels, against aliasing (linear only).
        window_hu: Lower and upper bound in the image's own units (HU for CT), mapped to [0, 1] and clipped.
        clip_percentiles: Lower and upper percentile (0 .. 100) of the scanned voxels to clip to.
        zscore: "none", "whole" (over the scanned voxels) or "foreground" (over those above the threshold).
        foreground_crop: Crop to the box around the foreground before anything else.
        foreground_threshold: Values above it are foreground; None finds one for each image.
        foreground_margin_mm: Margin around the foreground box.
        pad: Value outside the scanned field, before the intensity steps; None takes the window's lower bound
            (air, as a scanner would show) and, without a window, the image's own minimum.
        nonfinite: "pad" gives NaN and infinite voxels the padding value; "error" refuses the image.
        same_grid: Whether channels must share a grid; False resamples every later channel onto the first's.
        time_axis: What a fourth axis becomes: "error", "channels", "depth" or "first".
        prefer: "sform" or "qform": which affine is used where a NIfTI header sets both.
        mask: What each record's mask or centre is for, any of "crop" (to its box with the margin; the
            outside counts as not scanned), "channel" (the mask is the last channel, 0 or 1) and "blank" (the
            outside of the mask counts as not scanned); a centre can only crop. Empty: not used.
        mask_margin_mm: Margin around the box of the mask, or around the centre; None: the crop has the size
            of the shape, about the middle of that box.
        mask_components: "union", or "largest": only the largest connected part of the mask counts.

    Raises:
        ValueError: Settings that are invalid or contradict each other, all of them in one message.
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
    mask: tuple[str, ...] = ()
    mask_margin_mm: float | None = 10.0
    mask_components: str = "union"

    def __post_init__(self) -> None:
        for name in ("spacing", "shape", "window_hu", "clip_percentiles"):
            value = getattr(self, name)
            # Lists from a configuration file become tuples, so that the settings can be hashed and compared.
            object.__setattr__(self, name, None if value is None else tuple(value))
        object.__setattr__(self, "mask", tuple(self.mask))
        check_preprocess(self)


def check_preprocess(settings: Preprocess) -> None:
    """Raise if settings are invalid or contradict each other.

    Raises:
        ValueError: Names every wrong setting, what was expected and what was received.
    """
    problems = [
        f"{name} is {getattr(settings, name)!r}, expected one of {', '.join(choices)}"
        for name, choices in _CHOICES.items()
        if getattr(settings, name) not in choices
    ]
    problems += _grid_problems(settings) + _intensity_problems(settings) + _mask_problems(settings)
    if problems:
        raise ValueError(f"preprocess: {'; '.join(problems)}.")


def _grid_problems(settings: Preprocess) -> list[str]:
    problems = []
    for name in ("spacing", "shape"):
        value = getattr(settings, name)
        if value is not None and (len(value) != 3 or not all(_is_positive(part) for part in value)):
            problems.append(
                f"{name} is {list(value)}, expected three positive numbers (depth, height, width)"
            )
    if settings.fit == "resize" and settings.spacing is not None:
        problems.append(
            "fit=resize stretches to the shape, so that spacing has no effect: set spacing=native"
        )
    if not problems and settings.shape is not None and 4 * math.prod(settings.shape) > MAX_BYTES:
        problems.append(
            f"shape is {list(settings.shape)}, expected at most {MAX_BYTES / 1e9:.1f} GB a volume; it "
            f"takes {4 * math.prod(settings.shape) / 1e9:,.0f}"
        )
    if settings.fit == "resize" and settings.shape is None:
        problems.append("fit=resize needs a shape")
    if settings.axcodes is not None and not is_axcodes(settings.axcodes):
        problems.append(f"axcodes is {settings.axcodes!r}, expected three codes such as RAS or LPI")
    if not settings.foreground_margin_mm >= 0:
        problems.append(f"foreground_margin_mm is {settings.foreground_margin_mm}, expected 0 or more")
    return problems


def is_axcodes(text: str) -> bool:
    """Return whether the text names one direction on each of the three world axes."""
    axes = sorted("RAS"["RLAPSI".find(code) // 2] for code in text if code in "RLAPSI")
    return axes == ["A", "R", "S"] and len(text) == 3


def _intensity_problems(settings: Preprocess) -> list[str]:
    problems = []
    for name, least, most in (("window_hu", -math.inf, math.inf), ("clip_percentiles", 0, 100)):
        value = getattr(settings, name)
        if value is None:
            continue
        if len(value) != 2 or not least <= value[0] < value[1] <= most or not math.isfinite(sum(value)):
            problems.append(f"{name} is {list(value)}, expected a lower and a higher bound")
    if settings.pad is not None and not math.isfinite(settings.pad):
        problems.append(f"pad is {settings.pad}, expected a finite number")
    return problems


def _mask_problems(settings: Preprocess) -> list[str]:
    problems = []
    if not set(settings.mask) <= set(MASK_USES) or len(set(settings.mask)) < len(settings.mask):
        problems.append(f"mask is {list(settings.mask)}, expected each once of {', '.join(MASK_USES)}")
    if "crop" not in settings.mask:
        return problems
    margin = settings.mask_margin_mm
    if margin is not None and not 0 <= margin < math.inf:
        problems.append(f"mask_margin_mm is {margin}, expected 0 or more, or null")
    if margin is None and (settings.shape is None or settings.fit == "resize"):
        problems.append("mask_margin_mm=null crops to the shape: it needs a shape, and fit=pad_crop")
    if settings.foreground_crop:
        problems.append("foreground_crop and the crop to the mask or centre exclude each other: choose one")
    return problems


def _is_positive(number: float) -> bool:
    return math.isfinite(number) and number > 0


PRESETS: dict[str, dict[str, Any]] = {
    # Wide enough for lung and soft tissue; the outside of the scan is padded with air, the lower bound.
    "ct": {"window_hu": (-1000.0, 1000.0), "foreground_threshold": -500.0},
    # Scanner units are arbitrary: outliers are clipped, then each image is scaled by its own statistics.
    "mri": {"clip_percentiles": (0.5, 99.5), "zscore": "foreground"},
    # Labels must not be mixed, and the outside of a mask is background.
    "mask": {"interpolation": "nearest", "pad": 0.0, "foreground_threshold": 0.0},
    "none": {},
}


def preset(name: str, **overrides: Any) -> Preprocess:  # noqa: ANN401 - each setting has its own type
    """Return the settings of a preset with some of them overridden.

    Args:
        name: "ct" (window -1000 .. 1000 HU to [0, 1], padded with air), "mri" (percentile clip, standard
            score of the foreground, padded with the image's minimum), "mask" (nearest neighbour, padded
            with 0) or "none".
        overrides: Any setting of `Preprocess`.

    Raises:
        ValueError: An unknown preset, or invalid settings.
    """
    if name not in PRESETS:
        raise ValueError(f"preprocess is {name!r}; expected one of {', '.join(PRESETS)}.")
    return Preprocess(**{**PRESETS[name], **overrides})
