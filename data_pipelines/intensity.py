"""What the numbers mean: windows, percentiles, standard scores."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]


def apply_window(values: Values, low: float, high: float) -> Values:
    """Return the values with `low` .. `high` (HU for CT) mapped to [0, 1], clipped, float32, any shape.

    Args:
        values: Float32, in the image's own units.
        low: What becomes 0.
        high: What becomes 1, above `low`.
    """
    scaled: Values = (values - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def clip_to_percentiles(values: Values, among: Values, low: float, high: float) -> Values:
    """Return the values clipped to two percentiles (0 .. 100) of the values in `among`.

    Args:
        values: Float32 of any shape.
        among: The values that the percentiles are of.
        low: Percentile, 0 to 100.
        high: Percentile, above `low`.

    Returns:
        Float32 of the shape of `values`, in their units.
    """
    bounds = np.percentile(among, [low, high]).astype(np.float32)
    return np.clip(values, bounds[0], bounds[1])


def standard_scores(values: Values, among: Values) -> Values:
    """Return the values less the mean, over the standard deviation, of the values in `among`.

    Args:
        values: Float32 of any shape.
        among: The values that mean and standard deviation are of.

    Returns:
        Float32 of the shape of `values`, without unit.

    Raises:
        ValueError: The values in `among` are constant, so that they have no scale.
    """
    mean, deviation = float(among.mean(dtype=np.float64)), float(among.std(dtype=np.float64))
    if not deviation > 1e-6 * max(abs(mean), 1e-30):
        raise ValueError(f"every voxel is {mean:.6g}, so a standard score has no scale")
    scores: Values = (values - np.float32(mean)) * np.float32(1 / deviation)
    return scores
