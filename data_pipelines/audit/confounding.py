"""Find classes that the scanner's geometry or the file format predicts, without any voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import scipy  # its submodules are imported when they are used
from numpy.typing import NDArray

from voxlift.data_pipelines.audit.findings import Case, Finding
from voxlift.data_pipelines.volume import Array

CONFOUNDED_AUC = 0.8
SPOILING_AUC = 0.95
CONFOUNDED_DIFFERENCE = 0.5
SIGNIFICANCE_LEVEL = 0.01  # after Bonferroni's correction
AXES = ("depth", "height", "width")


def check_confounding(cases: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    """Yield the classes that can be predicted from spacing, shape, type or stored axes, without any voxel.

    Args:
        cases: All images of the data set.
        classes: Class names; a case's label is the index.
    """
    known = [case for case in cases if not case.facts.error]
    labels = np.array([case.label for case in known])
    tested = range(len(classes)) if len(classes) > 2 else (1,)  # with two classes, one test is about both
    tests = list(product(tested, ("spacing", "shape"), range(3)))
    for label, name, axis in tests:
        # Headers store float32: equal spacings must be equal here too.
        values = np.round([getattr(case.facts, name)[axis] for case in known], 4).astype(float)
        auc, p_value = separation(values, labels, label)
        if auc >= CONFOUNDED_AUC and p_value * len(tests) < SIGNIFICANCE_LEVEL:
            source = f"{name} along {AXES[axis]} alone (AUC {auc:.2f}, p {p_value:.2g})"
            yield _confounded(classes[label], source, spoils=auc >= SPOILING_AUC)
    for label, name in product(tested, ("axcodes", "dtype", "kind")):
        yield from _check_category(known, labels, label, name, classes)


def _check_category(
    known: Sequence[Case], labels: Array, label: int, name: str, classes: Sequence[str]
) -> Iterator[Finding]:
    values = [getattr(case.facts, name) for case in known]
    for value in sorted(set(values)):
        has_value = np.array([other == value for other in values])
        p_value = exact_association(has_value, labels, label)
        if p_value * len(classes) * len(set(values)) >= SIGNIFICANCE_LEVEL:
            continue
        inside, outside = has_value[labels == label].mean(), has_value[labels != label].mean()
        if abs(inside - outside) >= CONFOUNDED_DIFFERENCE:
            source = f"{name} {value} ({inside:.0%} of it against {outside:.0%}, p {p_value:.2g})"
            yield _confounded(classes[label], source, spoils=False)


def _confounded(name: str, source: str, *, spoils: bool) -> Finding:
    severity = "error" if spoils else "warning"
    return Finding("confounded", severity, f"class {name} can be predicted from {source}", (), spoils)


def separation(values: NDArray[np.float64], labels: Array, label: int) -> tuple[float, float]:
    """Return how well one number separates a class from the others, and the p value of the separation.

    Args:
        values: One number per record, finite.
        labels: Class index per record.
        label: The class to separate from the others.

    Returns:
        The area under the ROC curve, at least 0.5 whichever class has the larger numbers, and the two-sided p
        value of the Mann-Whitney test (exact for small data without ties). (0.5, 1.0) where there is nothing
        to compare.

    Source:
        Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    inside, outside = values[labels == label], values[labels != label]
    if inside.size == 0 or outside.size == 0 or np.ptp(values) == 0:
        return 0.5, 1.0
    result = scipy.stats.mannwhitneyu(inside, outside, alternative="two-sided")
    area = float(result.statistic) / (inside.size * outside.size)
    return max(area, 1 - area), float(result.pvalue)


def exact_association(has_property: Array, labels: Array, label: int) -> float:
    """Return Fisher's exact p value for a yes-or-no property and a class; 1.0 with nothing to compare.

    Args:
        has_property: Bool per record.
        labels: Class index per record.
        label: The class to compare with the others.

    Source:
        Fisher 1922, doi:10.2307/2340521.
    """
    is_label = labels == label
    table = np.array(
        [[np.sum(row & is_label), np.sum(row & ~is_label)] for row in (has_property, ~has_property)]
    )
    if min(table.sum(axis=0)) == 0 or min(table.sum(axis=1)) == 0:
        return 1.0
    return float(scipy.stats.fisher_exact(table).pvalue)
