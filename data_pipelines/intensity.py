"""What the numbers mean: windows, percentiles, standard scores, and where the body is."""

import numpy as np
from numpy.typing import NDArray

from data_pipelines.volume import Array

Values = NDArray[np.float32]
SAMPLE = 200_000
"""So many voxels, evenly spread, are enough for a histogram threshold."""


def apply_window(values: Values, low: float, high: float) -> Values:
    """Return the values with `low` .. `high` (HU for CT) mapped to [0, 1], clipped, float32, any shape."""
    scaled: Values = (values - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def clip_to_percentiles(values: Values, among: Values, low: float, high: float) -> Values:
    """Return the values clipped to two percentiles (0 .. 100) of the values in `among`."""
    bounds = np.percentile(among, [low, high]).astype(np.float32)
    return np.clip(values, bounds[0], bounds[1])


def standard_scores(values: Values, among: Values) -> Values:
    """Return the values less the mean, over the standard deviation, of the values in `among`.

    Raises:
        ValueError: The values in `among` are constant, so that they have no scale.
    """
    mean, deviation = float(among.mean(dtype=np.float64)), float(among.std(dtype=np.float64))
    if not deviation > 1e-6 * max(abs(mean), 1e-30):
        raise ValueError(f"every voxel is {mean:.6g}, so a standard score has no scale")
    scores: Values = (values - np.float32(mean)) * np.float32(1 / deviation)
    return scores


def foreground_threshold(values: Array) -> float:
    """Return the value above which a voxel counts as foreground, found from the values themselves.

    A masked image (a tenth of it or more holds its minimum, as after skull stripping) has its minimum as the
    threshold; any other has the one that best parts its histogram in two.

    Args:
        values: Finite values of any shape.

    Source:
        Otsu 1979, A threshold selection method from gray-level histograms, doi:10.1109/TSMC.1979.4310076.
    """
    flat = values.ravel(order="K")
    sample = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    lowest = float(sample.min())
    if (sample == lowest).mean() >= 0.1:
        return lowest
    counts, edges = np.histogram(sample, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def foreground_box(mask: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return start and stop (exclusive) of the smallest box around a 3D mask, None where nothing is set."""
    start, stop = [], []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size == 0:
            return None
        start.append(int(hit[0]))
        stop.append(int(hit[-1]) + 1)
    return tuple(start), tuple(stop)
