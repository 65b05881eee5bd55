"""What preprocessing settings must hold, checked once and reported together."""

import math
from typing import TYPE_CHECKING, get_args

from data_pipelines.geometry import is_axcodes
from data_pipelines.readers.axes import TimeAxis
from data_pipelines.readers.nifti import Prefer
from data_pipelines.resample import Interpolation

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess

_CHOICES = {
    "fit": ("pad_crop", "resize"),
    "interpolation": get_args(Interpolation),
    "zscore": ("none", "whole", "foreground"),
    "nonfinite": ("pad", "error"),
    "time_axis": get_args(TimeAxis),
    "prefer": get_args(Prefer),
}


def check_settings(settings: "Preprocess") -> None:
    """Raise ValueError, naming every wrong setting, unless all of them make sense."""
    problems = [
        f"{name} is {getattr(settings, name)!r}, expected one of {', '.join(choices)}"
        for name, choices in _CHOICES.items()
        if getattr(settings, name) not in choices
    ]
    problems += _wrong_grid(settings) + _wrong_intensity(settings)
    if problems:
        raise ValueError(f"preprocess: {'; '.join(problems)}.")


def _wrong_grid(settings: "Preprocess") -> list[str]:
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
    if settings.fit == "resize" and settings.shape is None:
        problems.append("fit=resize needs a shape")
    if settings.axcodes is not None and not is_axcodes(settings.axcodes):
        problems.append(f"axcodes is {settings.axcodes!r}, expected three codes such as RAS or LPI")
    if not settings.foreground_margin_mm >= 0:
        problems.append(f"foreground_margin_mm is {settings.foreground_margin_mm}, expected 0 or more")
    return problems


def _wrong_intensity(settings: "Preprocess") -> list[str]:
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


def _is_positive(number: float) -> bool:
    return math.isfinite(number) and number > 0
