from itertools import product

import numpy as np
import pytest
from scipy import stats

from score_sets import build_scores
from voxlift.app.evaluation.mcnemar import mcnemar_test, sign_flip_p


def test_mcnemar_reproduces_a_published_example():
    # Fagerland, Lydersen and Laake 2013, table 1 (Bentur et al. 2009): a = 1, b = 1, c = 7, d = 12.
    labels = np.ones(21, dtype=int)
    outcomes = [(1, 1)] * 1 + [(1, 0)] * 1 + [(0, 1)] * 7 + [(0, 0)] * 12
    first, second = (build_scores(labels, [0.9 if pick[k] else 0.1 for pick in outcomes]) for k in (0, 1))
    found = mcnemar_test(first, second)
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (1, 1, 7, 12)
    assert found.exact_p == pytest.approx(0.0703, abs=5e-5)
    assert found.mid_p == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 3), (2, 9), (40, 25)])
def test_mcnemar_agrees_with_the_binomial(only_first, only_second):
    surplus = np.array([-1] * only_first + [1] * only_second + [0] * 5)
    exact, mid = sign_flip_p(surplus)
    n, least = only_first + only_second, min(only_first, only_second)
    assert exact == pytest.approx(stats.binomtest(least, n).pvalue if n else 1.0, abs=1e-10)
    pmf = stats.binom.pmf(least, n, 0.5)
    expected = 1 - 0.5 * pmf if only_first == only_second else 2 * stats.binom.cdf(least, n, 0.5) - pmf
    assert mid == pytest.approx(expected if n else 1.0, abs=1e-10)


def test_sign_flips_of_clusters_agree_with_brute_force():
    surplus = np.array([3, -1, 2, 2, 0, 1, -2])
    sums = [abs(np.dot(signs, surplus)) for signs in product((-1, 1), repeat=len(surplus))]
    exact, mid = sign_flip_p(surplus)
    assert exact == pytest.approx(np.mean([s >= 5 for s in sums]), abs=1e-12)
    assert mid == pytest.approx(np.mean([(s > 5) + 0.5 * (s == 5) for s in sums]), abs=1e-12)


def test_mcnemar_decides_each_model_at_its_own_threshold():
    labels = [0, 0, 1, 1]
    first = build_scores(labels, [0.1, 0.2, 0.3, 0.4], threshold=0.25)
    second = build_scores(labels, [0.1, 0.2, 0.3, 0.4])
    found = mcnemar_test(first, second)
    assert (found.both_right, found.only_first) == (2, 2)
