"""The study of the architecture with a stand-in: what is trained, from what, and what is recommended."""

import csv
import itertools
import json
from copy import deepcopy

import numpy as np
import pytest
from matplotlib.text import Text

from score_sets import build_scores
from voxlift.app.config import ModelSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import format_override, get_value
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.verdict import Verdict, decide
from voxlift.app.report.point_labels import label_points
from voxlift.app.studies.architecture import figures
from voxlift.app.studies.architecture.advice import pareto_front, recommend
from voxlift.app.studies.architecture.points import Variant, build_variants, is_same_value
from voxlift.app.studies.architecture.run import is_duplicate
from voxlift.app.studies.trainings import (
    PointDifference,
    PointScore,
    build_difference_columns,
    compare_with_reference,
    format_difference_columns,
)

STUDY = ["study=architecture", "study.seeds=[0,1]", "run_dir=out"]


def score(settings):
    """Flattening is bad; all else is alike."""
    return 0.1 if settings.model.head == "flatten" else 1.0


@pytest.fixture(scope="module")
def study_folder(study_once):
    return study_once(STUDY, score)


def rows_of(folder):
    with (folder / "table.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_every_value_that_is_not_the_base_is_trained_on_every_seed(study_folder):
    one, folder = study_folder
    rows = rows_of(folder)
    assert set(rows) == {
        "base", "depth_policy preserve", "depth_policy slicewise", "depth_kernel 1", "depth_kernel 5",
        "filter_scale 0.5", "filter_scale 2.0", "init centre", "init mean", "init acs",
        "head flatten",
    }  # fmt: skip
    assert len(one.trained) == 2 * (len(rows) + 1)  # and the slice model
    assert one.trained[:2] == ["slices-seed0", "slices-seed1"]


def test_inflated_kernels_start_from_the_slice_model_of_their_own_seed(study_folder):
    _, folder = study_folder
    for seed in (0, 1):
        config = (folder / "runs" / f"init-mean-seed{seed}" / "config.yaml").read_text(encoding="utf-8")
        assert f"runs/slices-seed{seed}" in config
    assert "kind: slice" in (folder / "runs" / "slices-seed0" / "config.yaml").read_text(encoding="utf-8")


def test_the_cheapest_of_those_that_score_alike_is_recommended(study_folder):
    _, folder = study_folder
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert "model.filter_scale=0.5:" in results["recommendation"]
    assert "1 of the other 10" in results["recommendation"]
    assert results["front"] == ["filter_scale-0-5"]
    assert any(
        finding.startswith("model.head: flatten") and "worse" in finding for finding in results["findings"]
    )


def test_the_same_network_is_trained_once_and_listed_as_a_finding(study_folder):
    _, folder = study_folder
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["same_network"] == {"depth_kernel-3": "base"}
    assert any("depth_kernel 3 is base" in finding for finding in results["findings"])


def test_another_training_of_the_same_network_is_no_duplicate():
    base = TrainSettings(model=ModelSettings(name="volume3d", kind="volume", init="random"))
    values = {"model.init": ("centre",), "model.depth_kernel": (3,), "trainer.batch_size": (4,)}
    variants = build_variants(values, base, design="one_at_a_time")
    settings = {variant.label: deepcopy(base) for variant in variants}
    settings["batch_size-4"].trainer.batch_size = 4
    built = {variant.label: {"fingerprint": "the same", "problem": ""} for variant in variants}
    duplicates = [one.label for one in variants[1:] if is_duplicate(one, variants[0], settings, built, base)]
    assert duplicates == ["depth_kernel-3"]  # centre starts from a trained slice model


def test_a_difference_needs_both_its_interval_and_its_adjusted_p_value():
    worse = PointDifference(-0.1, -0.2, -0.05, 0.004, Verdict("worse"))
    interval_only, neither = PointDifference(0.1, 0.02, 0.2, 0.2), PointDifference(0.1, -0.02, 0.2, 0.2)
    assert worse.explanation == "worse, p 0.004"
    assert len(interval_only.explanation) > len(neither.explanation)  # the disagreement is explained


def build_points(jitter):
    """Scores of three seeds of two points of many subjects, whose difference varies between seeds."""
    rng, labels = np.random.default_rng(0), np.arange(300) % 2
    quality = {"base": [1.0, 1.0, 1.0], "other": [1.6 - jitter, 1.6, 1.6 + jitter]}
    noise = rng.normal(size=300)
    return {
        name: [build_scores(labels, 1 / (1 + np.exp(-(labels - 0.5) * one - noise))) for one in own]
        for name, own in quality.items()
    }


def test_the_verdict_on_a_point_is_that_of_a_comparison_with_the_spread_between_seeds():
    steady, varied = (
        compare_with_reference(build_points(jitter), "base", margin=0.05)["other"] for jitter in (0.0, 0.6)
    )
    assert varied.high - varied.low > 2 * (steady.high - steady.low)
    assert steady.verdict.verdict == "better"
    assert varied.verdict.verdict == "cannot tell"
    pairs = compare_models(build_points(0.6), fit_seeds=[0, 1, 2], reference="base", margin=0.05)
    assert varied.verdict == decide(pairs[0])
    assert varied.verdict.more_seeds
    for one in (steady, varied):
        assert format_difference_columns(build_difference_columns(one))[-1] == one.verdict.text
    small = compare_with_reference(build_points(0.0), "base", margin=0.5)["other"]
    assert small.verdict.by_less_than_matters
    assert small.verdict.text in format_difference_columns(build_difference_columns(small))
    assert small.verdict.text in small.explanation


def test_without_significant_differences_a_cheaper_network_is_named():
    variants = (Variant("base"), Variant("large", {"model.filter_scale": 2.0}, "model.filter_scale"))
    scores = {
        label: PointScore(label, auc, 0.6, 0.9, (auc,), {"flops": cost})
        for label, auc, cost in (("base", 0.70, 1e6), ("large", 0.75, 4e6))
    }
    advice = recommend(variants, scores, {"base": PointDifference(0.05, -0.02, 0.12, 0.2)}, cost="flops")
    assert all(part in advice for part in ("model.filter_scale=2.0:", "0.750", ": base, at 0.25 times"))


def test_no_name_of_the_front_covers_another_or_leaves_the_axes(monkeypatch):
    """Ten networks of one cost and nearly one score, and one at each end."""
    names = [Variant(f"v{i}", {"model.init": f"init number {i}"}, "model.init") for i in range(12)]
    costs = [1e6, *[5e7] * 10, 1e9]
    scores = {
        one.label: PointScore(one.label, 0.9 + 0.001 * i, 0, 1, (0.9,), {"flops": costs[i]})
        for i, one in enumerate(names)
    }
    labels = []
    monkeypatch.setattr(
        figures, "label_points", lambda *given, **more: labels.extend(label_points(*given, **more))
    )
    figure = figures.draw_front(names, scores, ["v0", "v11"], cost="flops")
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(label) for label in labels]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    frame = figure.axes[0].bbox
    assert all(frame.containsx(box.x0) and frame.containsx(box.x1) for box in boxes)
    assert all(frame.containsy(box.y0) and frame.containsy(box.y1) for box in boxes)


def test_a_slice_model_has_no_depth_to_vary(stand_in, run_study):
    stand_in(score)
    with pytest.raises(SettingsError, match=r"model=slice2d: .*model=volume3d"):
        run_study(*STUDY, "model=slice2d")


def test_what_cannot_be_composed_is_a_finding_and_the_rest_is_trained(stand_in, run_study):
    stand_in(score)
    few = [f"study.vary.model.{key}=null" for key in ("init", "depth_policy", "depth_kernel", "filter_scale")]
    folder = run_study(*STUDY, "study.seeds=[0]", "study.vary.model.head=[pool,sphere]", *few)
    findings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["findings"]
    assert any(one.startswith("head sphere: model.head") for one in findings)
    assert "head sphere" not in rows_of(folder)


def test_a_grid_has_every_combination():
    base = TrainSettings(model=ModelSettings(name="volume3d", kind="volume"))
    values = {"model.head": ("pool", "flatten"), "model.depth_kernel": (1, 3)}
    labels = [variant.label for variant in build_variants(values, base, design="grid")]
    assert len(labels) == len(set(labels)) == 6
    assert labels[0] == "base"


def test_values_are_compared_by_what_they_mean():
    assert is_same_value(1, 1.0)
    assert not is_same_value("isotropic", "preserve")


def test_overrides_are_written_in_the_grammar_of_the_command_line():
    assert format_override("data.table", "a b.csv") == 'data.table="a b.csv"'
    assert format_override("model.filters", [1, 2]) == "model.filters=[1,2]"
    assert format_override("x", None) == "x=null"
    settings = TrainSettings(augment={"name": "light"})
    assert (get_value(settings, "augment"), get_value(settings, "model.dropout")) == ("light", 0.2)
    assert get_value(settings, "model.droput") is None


def test_the_pareto_front_holds_the_points_that_no_other_dominates():
    scores, costs = [0.7, 0.9, 0.9, 0.8, 0.95, 0.6], [1.0, 3.0, 2.0, 2.5, 9.0, 1.0]
    front = pareto_front(scores, costs)
    assert front == [0, 2, 4]
    for i in range(6):
        dominated = any(
            scores[j] >= scores[i] and costs[j] <= costs[i] and (scores[j], costs[j]) != (scores[i], costs[i])
            for j in range(6)
        )
        assert (i in front) != dominated


def test_of_equal_points_one_stays():
    assert pareto_front([0.9, 0.9], [1.0, 1.0]) == [0]
