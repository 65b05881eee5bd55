"""Can the class be told from the scanner's geometry alone? A test that asks it of one number per record."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, mannwhitneyu

from voxlift.data_pipelines.volume import Array


def separation(values: NDArray[np.float64], labels: Array, label: int) -> tuple[float, float]:
    """Return how well one number tells a class from the rest, and how likely chance does as well.

    Args:
        values: One number per record, finite.
        labels: Class index per record.
        label: The class to tell from the others.

    Returns:
        The area under the ROC curve, at least 0.5 whichever way the number points, and the two-sided p value
        of the Mann-Whitney test (exact for small data without ties). (0.5, 1.0) where there is nothing to
        compare.

    Source:
        Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    inside, outside = values[labels == label], values[labels != label]
    if inside.size == 0 or outside.size == 0 or np.ptp(values) == 0:
        return 0.5, 1.0
    result = mannwhitneyu(inside, outside, alternative="two-sided")
    area = float(result.statistic) / (inside.size * outside.size)
    return max(area, 1 - area), float(result.pvalue)


def exact_association(has: Array, labels: Array, label: int) -> float:
    """Return Fisher's exact p value for a yes-or-no property and a class; 1.0 with nothing to compare.

    Args:
        has: Bool per record: the property.
        labels: Class index per record.
        label: The class to tell from the others.

    Source:
        Fisher 1922, doi:10.2307/2340521.
    """
    cells = [
        [int(np.sum(has & (labels == label))), int(np.sum(has & (labels != label)))],
        [int(np.sum(~has & (labels == label))), int(np.sum(~has & (labels != label)))],
    ]
    table = np.array(cells)
    if min(np.sum(table, axis=0)) == 0 or min(np.sum(table, axis=1)) == 0:
        return 1.0
    return float(fisher_exact(table).pvalue)
