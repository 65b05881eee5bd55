"""The four presets of preprocessing: `ct`, `mri`, `mask`, `none`; every setting can be overridden."""

from typing import Any

from voxlift.data_pipelines.preprocess_settings import Preprocess

PRESETS: dict[str, dict[str, Any]] = {
    # Wide enough for lung and soft tissue; air, the lower bound, is what lies outside the scan.
    "ct": {"window_hu": (-1000.0, 1000.0), "foreground_threshold": -500.0},
    # Scanner units are arbitrary: bright outliers go first, then each image is its own scale.
    "mri": {"clip_percentiles": (0.5, 99.5), "zscore": "foreground"},
    # Labels must not be mixed, and outside a mask is nothing.
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
        ValueError: An unknown preset, or settings that make no sense.
    """
    if name not in PRESETS:
        raise ValueError(f"preprocess is {name!r}; expected one of {', '.join(PRESETS)}.")
    return Preprocess(**{**PRESETS[name], **overrides})
