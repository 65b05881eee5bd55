import numpy as np
import pytest

from score_sets import build_scores, correlated_pair, three_class_pair
from voxlift.app.evaluation.bootstrap import model_intervals, point_metrics
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.mcnemar import mcnemar_test
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.paired_tests import holm
from voxlift.app.evaluation.scores import Scores, ScoresError, select_rows


def bootstrap(first, second, **options):
    """The differences of every metric, second minus first."""
    (found,) = compare_models({"first": first, "second": second}, **options)
    return found.differences


def test_rows_in_another_order_are_paired_by_subject_and_item():
    first, second = correlated_pair(6, separations=(0.3, 1.5))
    shuffled = select_rows(second, np.random.default_rng(0).permutation(len(second)))
    assert delong_difference(first, shuffled) == delong_difference(first, second)
    a, b = (bootstrap(first, other, resamples=100)["brier"] for other in (second, shuffled))
    assert a == b


def test_unequal_volumes_labels_classes_and_folds_are_refused():
    first, second = correlated_pair(7, volumes=6)
    with pytest.raises(ScoresError, match="s005"):
        delong_difference(first, select_rows(second, range(5)))
    with pytest.raises(ScoresError, match="s000"):
        delong_difference(first, build_scores([1, 1, 0, 1, 0, 1], second.probabilities[:, 1]))
    other = Scores(first.subjects, first.labels, first.probabilities, ("a", "b"))
    with pytest.raises(ScoresError, match=r"no, yes.*a, b"):
        delong_difference(first, other)
    with pytest.raises(ScoresError, match="2 and 1"):
        bootstrap([first, first], [second])
    doubled = Scores(first.subjects, first.labels, first.probabilities, first.classes, items=["x"] * 6)
    twice = select_rows(doubled, [0, 0, 1, 2, 3, 4, 5])
    with pytest.raises(ScoresError, match="twice"):
        delong_difference(twice, twice)


def test_paired_bootstrap_agrees_with_delong_on_the_error():
    first, second = correlated_pair(8, volumes=200, separations=(0.6, 1.3))
    boot = bootstrap(first, second, resamples=4000)["auc"]
    exact = delong_difference(first, second)
    assert boot.difference == pytest.approx(exact.difference, abs=1e-12)
    assert boot.high - boot.low == pytest.approx(exact.high - exact.low, rel=0.08)


def test_folds_are_averaged_and_the_same_subject_is_drawn_in_every_seed():
    first, second = correlated_pair(9, separations=(0.4, 1.4))
    once = bootstrap(first, second, resamples=200)
    thrice = bootstrap([first] * 3, [second] * 3, resamples=200)
    assert thrice["auc"].low == pytest.approx(once["auc"].low, abs=1e-12)
    halves = [select_rows(first, range(30)), select_rows(first, range(30, 60))]
    mean = np.mean([point_metrics(half)["auc"] for half in halves])
    assert point_metrics(halves)["auc"] == pytest.approx(mean)


def test_planted_difference_is_found_and_the_signs_are_second_minus_first():
    weak, strong = correlated_pair(10, volumes=160, separations=(0.3, 2.5))
    (found,) = compare_models({"weak": weak, "strong": strong}, resamples=500)
    assert found.differences["auc"].low > 0.05
    assert found.delong.p_value < 1e-3
    assert found.mcnemar.only_second > found.mcnemar.only_first
    assert found.mcnemar.mid_p < 0.01
    assert found.differences["auc"].p_value == pytest.approx(2 / 501)
    assert (found.subjects, found.cells) == (160, 1)


def test_three_classes_are_compared_by_the_bootstrap_alone():
    weak, strong = three_class_pair(1)
    (found,) = compare_models({"weak": weak, "strong": strong}, resamples=300)
    assert found.delong is None
    assert "delong" not in found.adjusted
    assert found.differences["auc"].low > 0.1


def test_three_models_are_compared_in_all_pairs_or_with_a_reference():
    a, b = correlated_pair(11)
    c, _ = correlated_pair(11, separations=(1.5, 1))
    models = {"a": a, "b": b, "c": c}
    every = compare_models(models, resamples=100)
    assert [(one.first, one.second) for one in every] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = [one.mcnemar.mid_p for one in every]
    assert [one.adjusted["mcnemar"] for one in every] == pytest.approx(holm(raw))
    against = compare_models(models, reference="b", resamples=100)
    assert [(one.first, one.second) for one in against] == [("b", "a"), ("b", "c")]
    assert set(model_intervals(models, resamples=50)) == {"a", "b", "c"}


def test_errors_name_the_model_the_reference_and_the_metric():
    a, b = correlated_pair(12, volumes=10)
    with pytest.raises(ScoresError, match="1"):
        compare_models({"a": a})
    with pytest.raises(ScoresError, match=r"'z'.*a, b"):
        compare_models({"a": a, "b": b}, reference="z")
    with pytest.raises(ScoresError, match=r"'acu'.*a, b.*auc"):
        compare_models({"a": a, "b": b}, primary="acu", resamples=10)


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.5, 0.6], [1.0, 1.0]), ([0.03], [0.03])],
)
def test_holm_steps_down(raw, adjusted):
    assert holm(raw) == pytest.approx(adjusted)


@pytest.mark.parametrize("test", ["delong", "bootstrap", "mcnemar"])
def test_equal_models_rarely_differ_significantly(test):
    rejected = 0
    for seed in range(100):
        first, second = correlated_pair(1000 + seed, volumes=100)
        p_value = {
            "delong": lambda a, b: delong_difference(a, b).p_value,
            "bootstrap": lambda a, b: bootstrap(a, b, resamples=200)["auc"].p_value,
            "mcnemar": lambda a, b: mcnemar_test(a, b).mid_p,
        }[test](first, second)
        rejected += p_value < 0.05
    assert rejected <= 12  # binomial(100, 0.05) lies above with chance 0.001


@pytest.mark.slow
@pytest.mark.parametrize("test", ["delong", "bootstrap", "mcnemar"])
def test_equal_models_differ_significantly_in_about_five_percent(test):
    rejected = 0
    for seed in range(1000):
        first, second = correlated_pair(seed, volumes=160)
        if test == "bootstrap":
            p_value = bootstrap(first, second, resamples=500)["auc"].p_value
        else:
            p_value = (delong_difference(first, second).p_value, mcnemar_test(first, second).mid_p)[
                test == "mcnemar"
            ]
        rejected += p_value < 0.05
    assert 0.03 <= rejected / 1000 <= 0.075
