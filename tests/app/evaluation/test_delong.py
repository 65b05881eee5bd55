import math

import numpy as np
import pytest
from scipy import stats

from score_sets import build_scores, correlated_pair, three_class_pair
from voxlift.app.evaluation.delong import (
    auc_variance,
    delong_difference,
    structural_components,
    subject_components,
)
from voxlift.app.evaluation.scores import ScoresError, select_rows


def brute_force_delong(first, second):
    """DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6, written out."""
    y = first.labels == 1
    tens, ones, aucs = [], [], []
    for scores in (first, second):
        p = scores.probabilities[:, 1]
        psi = (p[y][:, None] > p[~y]) + 0.5 * (p[y][:, None] == p[~y])
        tens.append(psi.mean(axis=1))
        ones.append(psi.mean(axis=0))
        aucs.append(psi.mean())
    covariance = np.cov(tens) / y.sum() + np.cov(ones) / (~y).sum()
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return aucs, error, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("seed", range(3))
def test_delong_agrees_with_the_definition(seed):
    first, second = correlated_pair(seed, separations=(0.5, 1.2))
    rounded = build_scores(first.labels, np.round(first.probabilities[:, 1], 1))
    aucs, error, own = brute_force_delong(rounded, second)
    found = delong_difference(rounded, second)
    assert (found.auc_first, found.auc_second) == pytest.approx(aucs, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(aucs[1] - aucs[0]) / error), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * stats.norm.ppf(0.975) * error, abs=1e-12)
    alone = subject_components([rounded])
    variance = auc_variance(alone.positive, alone.negative, counts=alone)
    assert math.sqrt(variance) == pytest.approx(own[0], abs=1e-12)


def test_structural_components_count_what_they_outrank():
    above, below = structural_components(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    np.testing.assert_allclose(above, [1.0, 0.75])
    np.testing.assert_allclose(below, [0.75, 1.0])


def test_copies_of_a_volume_add_no_evidence():
    first, second = correlated_pair(4, separations=(0.5, 1.2))
    rows = np.tile(np.arange(len(first)), 3)
    alone = delong_difference(first, second)
    tripled = delong_difference(select_rows(first, rows), select_rows(second, rows))
    assert tripled.standard_error == pytest.approx(alone.standard_error, abs=1e-12)
    assert tripled.subjects == alone.subjects == 60


def test_equal_seeds_add_no_evidence():
    first, second = correlated_pair(4, separations=(0.5, 1.2))
    alone, seeds = delong_difference(first, second), delong_difference([first] * 3, [second] * 3)
    assert seeds.standard_error == pytest.approx(alone.standard_error, abs=1e-12)


def test_delong_of_a_model_with_itself_is_no_evidence():
    first, _ = correlated_pair(5)
    found = delong_difference(first, first)
    assert (found.difference, found.standard_error, found.p_value) == (0, 0, 1)


def test_delong_refuses_three_classes_and_a_single_positive_subject():
    with pytest.raises(ScoresError, match="3"):
        delong_difference(*three_class_pair(0))
    single = build_scores([0, 0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ScoresError, match="1 positive and 2 negative"):
        delong_difference(single, single)
