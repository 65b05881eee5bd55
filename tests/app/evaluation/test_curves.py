import numpy as np
import pytest
from sklearn import metrics as oracle

from score_sets import build_scores, random_scores
from voxlift.app.evaluation.curves import macro_roc_curve, precision_recall_curve, roc_curve
from voxlift.app.evaluation.scores import Scores, ScoresError


@pytest.fixture(name="scores")
def scores_with_ties():
    scores = random_scores(0, volumes=70)
    return build_scores(scores.labels, np.round(scores.probabilities[:, 1], 2))


def test_roc_points_agree_with_scikit_learn(scores):
    curve = roc_curve(scores, resamples=50)
    false, hits, _ = oracle.roc_curve(scores.labels, scores.probabilities[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(curve.x, false)
    np.testing.assert_allclose(curve.y, hits)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(
        oracle.roc_auc_score(scores.labels, scores.probabilities[:, 1])
    )


def test_precision_recall_points_agree_with_scikit_learn(scores):
    curve = precision_recall_curve(scores, resamples=50)
    precision, recall, _ = oracle.precision_recall_curve(scores.labels, scores.probabilities[:, 1])
    np.testing.assert_allclose(curve.x[1:], recall[-2::-1])
    np.testing.assert_allclose(curve.y[1:], precision[-2::-1])


@pytest.mark.parametrize("build", [roc_curve, precision_recall_curve])
def test_band_is_ordered_within_the_unit_square_and_around_most_of_the_curve(scores, build):
    curve = build(scores, resamples=200)
    assert (curve.low <= curve.high).all()
    assert curve.low.min() >= 0
    assert curve.high.max() <= 1
    inner = (curve.x > 0.1) & (curve.x < 0.9)
    low, high = (np.interp(curve.x[inner], curve.grid, side) for side in (curve.low, curve.high))
    assert np.mean((curve.y[inner] >= low - 0.05) & (curve.y[inner] <= high + 0.05)) > 0.9


def test_curve_of_an_absent_class_is_refused():
    with pytest.raises(ScoresError, match="class yes"):
        roc_curve(build_scores([1, 1], [0.8, 0.4]))


def test_the_mean_curve_of_classes_has_the_mean_of_their_areas_and_of_their_points():
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 5
    p = rng.dirichlet(np.ones(5), 60) + 0.4 * np.eye(5)[labels]
    scores = Scores([f"s{i}" for i in range(60)], labels, p / p.sum(axis=1, keepdims=True), tuple("abcde"))
    curve = macro_roc_curve(scores, classes=range(5), resamples=50)
    areas = oracle.roc_auc_score(labels, scores.probabilities, multi_class="ovr", average="macro")
    assert abs(oracle.auc(curve.x, curve.y) - areas) < 5e-3  # of the grid
    points = [
        oracle.roc_curve(labels == k, scores.probabilities[:, k], drop_intermediate=False)[:2]
        for k in range(5)
    ]
    inner = curve.x[(curve.x * 48 % 1 > 1e-9)]  # between the steps, where a curve has one value
    expected = np.mean([np.interp(inner, *one) for one in points], axis=0)
    np.testing.assert_allclose(np.interp(inner, curve.x, curve.y), expected, atol=1e-9)
    assert np.all(curve.low <= curve.high)
