"""Prediction sets: limits by hand, coverage by simulation, every task, and subjects of several volumes."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from score_sets import build_scores, three_class_pair
from voxlift.app.evaluation.conformal import evaluate_sets, find_limits, measure_coverage, read_limits
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.numbers import Numbers


def simulated(seed, volumes, separation=1.5, share=0.2):
    rng = np.random.default_rng(seed)
    labels = (np.arange(volumes) < share * volumes).astype(int)
    logits = rng.normal(separation * (labels - 0.5), 1)
    return build_scores(labels, 1 / (1 + np.exp(-logits)))


def test_the_limit_is_the_order_statistic_and_below_nine_subjects_there_is_none():
    for count, rank in ((9, 9), (10, 10), (19, 18), (99, 90)):
        nonconformity = np.random.default_rng(count).random((count, 1))
        names = tuple(map(str, range(count)))
        limits, counts = find_limits(nonconformity, np.ones((count, 1), bool), names, coverage=0.9)
        assert (limits[0], counts[0]) == (np.sort(nonconformity[:, 0])[rank - 1], count)
    limits, _ = find_limits(nonconformity[:8], np.ones((8, 1), bool), names[:8], coverage=0.9)
    assert limits[0] == math.inf


def test_a_class_of_fewer_than_nine_subjects_is_in_every_set_and_the_file_says_null():
    block = evaluate_sets(
        {"calibration": simulated(0, 40, share=0.2), "test": simulated(1, 50)}, coverage=0.9
    )["prediction_sets"]
    assert block["counts"] == {"no": 32, "yes": 8}
    assert block["limits"]["yes"] is None
    assert block["test"]["by_label"]["yes"]["coverage"] == 1
    assert block["test"]["sizes"]["0"] == 0


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_each_class_is_covered_as_promised_over_many_draws(share):
    found = {"no": [], "yes": []}
    for seed in range(200):
        own = evaluate_sets({"calibration": simulated(seed, 100, share=share)}, coverage=0.9)
        limits = read_limits(own["prediction_sets"])
        block = measure_coverage(simulated(10_000 + seed, 200, share=share), limits)
        for name, values in found.items():
            values.append(block["by_label"][name]["coverage"])
    for name, values in found.items():
        count = 100 * (share if name == "yes" else 1 - share)
        expected = math.ceil((count + 1) * 0.9) / (count + 1)  # exactly, for continuous scores
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(len(values)))


def test_intervals_are_exact_and_sizes_count_every_volume():
    calibration, test = simulated(0, 100), simulated(1, 60)
    block = evaluate_sets({"calibration": calibration, "test": test}, coverage=0.9)["prediction_sets"]
    limits, found = read_limits(block), block["test"]
    in_set = 1 - test.probabilities <= [limits["no"], limits["yes"]]
    hits = int(in_set[np.arange(60), test.labels].sum())
    assert found["coverage"] == hits / 60
    assert found["interval"] == pytest.approx(
        [beta.ppf(0.025, hits, 61 - hits), beta.ppf(0.975, hits + 1, 60 - hits)]
    )
    assert found["sizes"] == {str(k): int((in_set.sum(axis=1) == k).sum()) for k in range(3)}
    assert found["mean_size"] == pytest.approx(in_set.sum() / 60)


def test_of_a_subject_with_several_volumes_one_counts():
    labels, p = [0] * 12 + [1] * 12, np.linspace(0.01, 0.9, 24)
    several = build_scores(labels, p, subjects=[f"s{i // 2}" for i in range(24)])
    block = evaluate_sets({"calibration": several, "test": several}, coverage=0.8)["prediction_sets"]
    assert (block["subjects"], block["counts"]) == (12, {"no": 6, "yes": 6})
    low, high = block["test"]["interval"]
    assert low <= block["test"]["coverage"] <= high


def test_several_classes_findings_and_numbers_have_sets():
    weak, strong = three_class_pair(0, 180)
    sizes = [
        evaluate_sets({"calibration": one, "test": one}, coverage=0.9)["prediction_sets"]["test"]["mean_size"]
        for one in (weak, strong)
    ]
    assert sizes[1] < sizes[0] <= 3
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 2)).astype(float)
    labels[:5, 0] = np.nan
    names = [f"s{i}" for i in range(80)]
    findings = Findings(
        names,
        labels,
        np.clip(0.3 + 0.4 * np.nan_to_num(labels) + rng.normal(0, 0.1, (80, 2)), 0, 1),
        ("a", "b"),
    )
    block = evaluate_sets({"calibration": findings, "test": findings}, coverage=0.9)["prediction_sets"]
    assert set(block["limits"]) == {"a=0", "a=1", "b=0", "b=1"}
    assert block["counts"]["a=0"] + block["counts"]["a=1"] == 75
    assert block["test"]["n"] == 155
    assert sum(block["test"]["sizes"].values()) == 160
    values = rng.normal(size=60)
    numbers = Numbers(names[:60], values + rng.normal(0, 1, 60), values)
    block = evaluate_sets({"calibration": numbers, "test": numbers}, coverage=0.9)["prediction_sets"]
    errors = np.sort(np.abs(numbers.labels - numbers.values))
    assert block["limits"] == {"half width": errors[math.ceil(61 * 0.9) - 1]}
    assert block["test"]["width"] == 2 * block["limits"]["half width"]


def test_nothing_is_promised_without_calibration_subjects():
    assert evaluate_sets({"val": simulated(0, 50), "test": simulated(1, 50)}, coverage=0.9) == {}


def test_the_volumes_of_folds_are_counted_together_each_by_its_own_limits():
    tests = [simulated(seed, 60) for seed in (1, 2)]
    limits = [
        read_limits(evaluate_sets({"calibration": simulated(seed, 100)}, coverage=0.9)["prediction_sets"])
        for seed in (3, 4)
    ]
    singles = [measure_coverage(one, own) for one, own in zip(tests, limits, strict=True)]
    both = measure_coverage(tests, limits)
    assert both["coverage"] == pytest.approx(np.mean([one["coverage"] for one in singles]))
    assert both["n"] == 120
    assert both["sizes"] == {size: sum(one["sizes"][size] for one in singles) for size in singles[0]["sizes"]}
    low, high = both["interval"]
    assert low < both["coverage"] < high
