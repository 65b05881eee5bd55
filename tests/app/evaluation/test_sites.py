"""Sites are detected where features hold them, and not where only the label differs between sites."""

import numpy as np
import pytest
from scipy.stats import rankdata

from voxlift.app.evaluation.sites import _auc_within_labels, predict_sites, select_sites


def site_data(seed, *, shift, prevalence=(0.5, 0.5), volumes=160):
    rng = np.random.default_rng(seed)
    sites = np.arange(volumes) % 2
    labels = (rng.random(volumes) < np.array(prevalence)[sites]).astype(np.int64)
    score = labels + rng.normal(0, 1, volumes) + shift * sites
    return score[:, None], [f"site{s}" for s in sites], [f"s{i}" for i in range(volumes)], labels


def test_a_shift_between_sites_is_found_and_other_prevalence_alone_is_not():
    found = predict_sites(*site_data(0, shift=1.5))
    assert found["can_be_told"]
    assert found["interval"][0] < found["auc"] < found["interval"][1]
    told = [
        predict_sites(*site_data(seed, shift=0, prevalence=(0.2, 0.8)))["can_be_told"] for seed in range(10)
    ]
    assert sum(told) <= 2


def test_without_labels_the_auc_is_the_rank_statistic():
    rng = np.random.default_rng(0)
    told, codes = rng.normal(size=(50, 2)), np.arange(50) % 2
    told[:, 1] = -told[:, 0]
    ranks = rankdata(told[:, 0])
    first = ranks[codes == 0]
    expected = (first.sum() - len(first) * (len(first) + 1) / 2) / (25 * 25)
    value = _auc_within_labels(told, codes, np.zeros(50, np.int64), np.ones((1, 50)))
    assert value[0] == pytest.approx(expected)


def test_two_labels_are_averaged_by_their_pairs():
    rng = np.random.default_rng(1)
    told, codes, labels = (
        rng.normal(size=(60, 2)),
        np.arange(60) % 2,
        (np.arange(60) // 2 % 3 == 0).astype(np.int64),
    )
    told[:, 1] = -told[:, 0]
    hits = total = 0.0
    for i in np.flatnonzero(codes == 0):
        for j in np.flatnonzero(codes == 1):
            if labels[i] == labels[j]:
                total += 1
                hits += float(told[i, 0] > told[j, 0])
    assert _auc_within_labels(told, codes, labels, np.ones((1, 60)))[0] == pytest.approx(hits / total)


def test_small_sites_are_left_out_and_one_site_is_none():
    sites, subjects = ["a"] * 6 + ["b"] * 6 + ["c"] * 2, [f"s{i}" for i in range(14)]
    assert select_sites(sites, subjects, least=5).sum() == 12
    assert not select_sites(sites, subjects, least=7).any()
