import numpy as np
import pytest
from sklearn import metrics as oracle

from voxlift.app.evaluation.curves import precision_recall_curve, roc_curve
from voxlift.app.evaluation.scores import Scores, ScoresError


@pytest.fixture(name="scores")
def scores_with_ties():
    rng = np.random.default_rng(0)
    labels = np.arange(70) % 2
    chance = np.round(np.clip(0.5 + 0.2 * (labels - 0.5) + 0.15 * rng.normal(size=70), 0, 1), 2)
    names = [f"s{i}" for i in range(70)]
    return Scores(names, labels, np.stack([1 - chance, chance], axis=1), ("no", "yes"))


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
    alone = Scores("ab", [1, 1], [[0.2, 0.8], [0.6, 0.4]], ("no", "yes"))
    with pytest.raises(ScoresError, match="volumes of class yes and of another class"):
        roc_curve(alone)
