"""The study of complexity with a stand-in whose costs follow known laws, and the fit of such a power law."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from voxlift.app.studies.complexity.laws import ModelCost, compute_ratios, fit_laws, fit_power_law

STUDY = ["study=complexity", "study.scales=[0.5,1.0,2.0]", "run_dir=out"]


def answer_size(request, place):
    name = place.path.name.partition("-")[0]
    shape = [round(side * request["scale"]) for side in (8, 12, 16)] + [1]
    voxels = shape[0] * shape[1] * shape[2]
    factor, power = {"slice2d": (1.0, 1.0), "slab25d": (1.2, 1.0), "volume3d": (0.5, 1.5)}[name]
    return {
        "shape": shape,
        "parameters": 100,
        "flops": round(10 * voxels),
        "activation_bytes": 4 * voxels,
        "train_seconds": 1e-6 * factor * voxels**power,
        "infer_seconds": 1e-7 * factor * voxels**power,
        "peak_memory_bytes": 2**30,
        "load_per_core": 0.9,
    }


@pytest.fixture(scope="module")
def folder(study_once):
    return study_once(STUDY, lambda _: 1.0, {"size": answer_size})[1]


def test_the_exponents_are_those_of_the_laws(folder):
    with (folder / "exponents.csv").open(newline="") as file:
        rows = {(row["quantity"], row["model"]): float(row["exponent"]) for row in csv.DictReader(file)}
    assert rows["train_seconds", "volume3d"] == pytest.approx(1.5)
    assert rows["train_seconds", "slice2d"] == pytest.approx(1.0)
    assert rows["parameters", "volume3d"] == pytest.approx(0.0, abs=1e-9)


def test_the_recommendation_compares_with_the_baseline_at_the_largest_size(folder):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    factor = 0.5 * (16 * 24 * 32) ** 0.5
    assert f"volume3d {factor:.2g} times" in results["recommendation"]
    assert "slab25d, volume3d only" in results["recommendation"]  # both cost more than the baseline
    assert "volume3d 23" in results["recommendation"]  # 8 ** 1.5: every side doubled
    assert any("up to 0.9 per core" in finding for finding in results["findings"])  # the machine was busy


def test_a_model_that_fails_at_a_size_is_a_finding_and_left_out_there(stand_in, run_study):
    def answer(request, place):
        if place.path.name == "volume3d-x0.5":
            return {"failed": True, "reason": "depth would reach 0"}
        return answer_size(request, place)

    stand_in(lambda _: 1.0, {"size": answer})
    findings = json.loads((run_study(*STUDY) / "results.json").read_text(encoding="utf-8"))["findings"]
    assert "volume3d at 0.5 times the size: depth would reach 0" in findings


def test_ratios_are_taken_at_the_same_size():
    costs = [
        ModelCost(model, (size, size, size, 1), 1, 10, 10, seconds * size**3, 0.1, 1, 0.0)
        for model, seconds in (("slice2d", 2.0), ("volume3d", 5.0))
        for size in (4, 8)
    ]
    assert compute_ratios(costs, "slice2d", "train_seconds")["volume3d", 512] == pytest.approx(2.5)
    assert fit_laws(costs, "train_seconds")["volume3d"].exponent == pytest.approx(1.0)


def test_the_fit_is_ordinary_least_squares_of_the_logarithms():
    rng = np.random.default_rng(3)
    sizes = np.array([512, 4096, 13824, 32768, 110592])
    costs = 1e-6 * sizes**1.2 * np.exp(rng.normal(0, 0.1, len(sizes)))
    law = fit_power_law(sizes, costs)
    design = np.stack([np.ones(5), np.log(sizes)], axis=1)
    (intercept, slope), (rss,), *_ = np.linalg.lstsq(design, np.log(costs))
    variance = rss / 3 * np.linalg.inv(design.T @ design)[1, 1]
    half_width = stats.t.ppf(0.975, 3) * np.sqrt(variance)
    assert law.exponent == pytest.approx(slope)
    assert (law.low, law.high) == pytest.approx((slope - half_width, slope + half_width))
    assert law.predict(1000) == pytest.approx(np.exp(intercept) * 1000**slope)


def test_the_interval_holds_the_true_exponent_as_often_as_it_states():
    rng = np.random.default_rng(0)
    sizes = np.geomspace(100, 10_000, 5)
    laws = [fit_power_law(sizes, sizes**1.5 * np.exp(rng.normal(0, 0.2, 5))) for _ in range(400)]
    held = np.mean([law.low <= 1.5 <= law.high for law in laws])
    assert 0.92 <= held <= 0.98


def test_a_constant_cost_has_the_exponent_0_with_certainty():
    law = fit_power_law([10, 20, 30], [774, 774, 774])
    assert (law.exponent, law.low, law.high) == pytest.approx((0, 0, 0))


def test_two_points_give_an_exponent_without_an_interval():
    law = fit_power_law([10, 1000], [1, 100])
    assert law.exponent == pytest.approx(1.0)
    assert np.isnan(law.low)
    assert np.isnan(law.high)


@pytest.mark.parametrize(("sizes", "costs"), [([10], [1]), ([10, 10], [1, 2]), ([10, 20], [0, 5])])
def test_no_law_without_two_sizes_or_with_a_cost_of_nothing(sizes, costs):
    assert fit_power_law(sizes, costs) is None
