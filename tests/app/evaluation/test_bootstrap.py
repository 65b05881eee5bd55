import json
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from score_sets import build_scores, random_scores
from voxlift.app.evaluation.bootstrap import (
    bootstrap_intervals,
    draw_subjects,
    percentile_interval,
    resample_models,
)
from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.scores import select_rows


def test_draws_keep_the_size_of_each_stratum():
    strata = np.array([0, 0, 0, 1, 1])
    drawn = np.concatenate(list(draw_subjects(strata, resamples=50, seed=1, block=7)))
    assert drawn.shape == (50, 5)
    np.testing.assert_array_equal(drawn[:, :3].sum(axis=1), 3)
    np.testing.assert_array_equal(drawn[:, 3:].sum(axis=1), 2)
    assert len(np.unique(drawn, axis=0)) > 10


def test_each_draw_equals_scikit_learn_on_the_resampled_rows():
    scores = random_scores(0, volumes=20)
    (draws,) = resample_models([[scores]], resamples=30, seed=4)
    strata = scores.labels
    weights = np.concatenate(list(draw_subjects(strata, resamples=30, seed=4, block=30))).astype(int)
    for draw, row in zip(draws["auc"], weights, strict=True):
        rows = np.repeat(np.arange(20), row)
        expected = roc_auc_score(scores.labels[rows], scores.probabilities[rows, 1])
        assert draw == pytest.approx(expected, abs=1e-12)


def test_interval_holds_the_estimate_and_narrows_with_more_subjects():
    few, many = random_scores(1, 40), random_scores(1, 400)
    widths = []
    for scores in (few, many):
        low, high = bootstrap_intervals(scores, resamples=500)["auc"]
        assert low < roc_auc_score(scores.labels, scores.probabilities[:, 1]) < high
        widths.append(high - low)
    assert 2 < widths[0] / widths[1] < 5  # the square root of 10, roughly


def test_volumes_of_a_subject_are_resampled_together():
    scores = random_scores(2)
    alone = bootstrap_intervals(scores, resamples=200, seed=3)
    copies = select_rows(scores, np.tile(np.arange(len(scores)), 3))
    tripled = bootstrap_intervals(copies, resamples=200, seed=3)
    assert tripled["auc"] == pytest.approx(alone["auc"], abs=1e-12)
    assert tripled["brier"] == pytest.approx(alone["brier"], abs=1e-12)


def test_order_of_rows_does_not_matter():
    scores = random_scores(5)
    shuffled = select_rows(scores, np.random.default_rng(0).permutation(len(scores)))
    first, second = (bootstrap_intervals(s, resamples=100, seed=9) for s in (scores, shuffled))
    for name, bounds in first.items():
        assert second[name] == pytest.approx(bounds, abs=1e-9), name


def test_blocks_do_not_change_the_draws(monkeypatch):
    scores = random_scores(6)
    whole = bootstrap_intervals(scores, resamples=100)
    monkeypatch.setattr("voxlift.app.evaluation.bootstrap.BLOCK_SIZE", 60 * 100)
    assert bootstrap_intervals(scores, resamples=100) == whole
    monkeypatch.setattr("voxlift.app.evaluation.bootstrap.BLOCK_SIZE", 60 * 7)
    in_blocks = bootstrap_intervals(scores, resamples=2000)["auc"]
    monkeypatch.undo()
    assert in_blocks == pytest.approx(bootstrap_intervals(scores, resamples=2000)["auc"], abs=0.02)


def test_undefined_draws_are_left_out_of_the_interval():
    assert percentile_interval(np.array([math.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in percentile_interval(np.array([math.nan])))


def test_block_of_metrics_json_is_strict_json_with_null_for_undefined():
    only_yes = build_scores([1, 1], [0.8, 0.4])
    block = json.loads(json.dumps(evaluate_scores(only_yes, resamples=20), allow_nan=False))
    assert block["auc"] is None
    assert block["intervals"]["auc"] == [None, None]
    assert block["n"] == 2
    assert block["accuracy"] == 0.5
    assert len(block["intervals"]["accuracy"]) == 2


@pytest.mark.parametrize("seed", [0, 1])
def test_seed_fixes_the_interval(seed):
    scores = random_scores(7)
    first = bootstrap_intervals(scores, resamples=50, seed=seed)
    assert first == bootstrap_intervals(scores, resamples=50, seed=seed)
    assert first != bootstrap_intervals(scores, resamples=50, seed=seed + 1)


@pytest.mark.slow
def test_intervals_cover_the_true_auc_about_as_often_as_they_say():
    truth = 0.760250  # Phi(1 / sqrt 2): two unit normals one apart
    hits = 0
    for seed in range(300):
        low, high = bootstrap_intervals(random_scores(seed, 120), resamples=400, seed=seed)["auc"]
        hits += low <= truth <= high
    assert 0.90 <= hits / 300 <= 0.98
