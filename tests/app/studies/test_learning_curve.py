"""The learning curve: its power law, crossing and bands, and what the study trains and writes."""

import csv
import json

import numpy as np
import pytest

from score_sets import build_scores
from voxlift.app.config import SettingsError
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.studies.learning_curve.curves import build_curves, find_crossing, fit_power_law

SIZES = np.array([20.0, 40.0, 80.0, 160.0])
STUDY = ["study=learning_curve", "study.seeds=[0,1]", "study.epochs=2", "study.resamples=100", "run_dir=out"]


@pytest.mark.parametrize(("metric", "sign"), [("auc", 1), ("mae", -1)])
def test_the_law_is_found_again_from_its_own_points(metric, sign):
    scores = 0.6 - sign * 0.2 * (SIZES / 160) ** -0.7
    law = fit_power_law(SIZES, scores, metric=metric)
    assert (law.limit, law.distance, law.exponent) == pytest.approx((0.6, 0.2, 0.7), rel=1e-3)
    assert law.predict(320) == pytest.approx(0.6 - sign * 0.2 * 2**-0.7, rel=1e-4)


def test_a_score_never_gets_worse_with_more_subjects_nor_leaves_its_range():
    falling = fit_power_law(SIZES, np.array([0.8, 0.75, 0.7, 0.7]), metric="auc")
    assert np.ptp(falling.predict(SIZES)) == pytest.approx(0, abs=1e-4)
    steep = fit_power_law(SIZES, np.array([0.6, 0.75, 0.9, 0.99]), metric="auc")
    assert steep.predict(1e9) <= 1
    assert (np.diff(steep.predict(SIZES)) > 0).all()


def build_fits(separations, *, subjects=600, seeds=2, spread=0.0):
    """Test scores of each model and size; the classes lie so many standard deviations apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(subjects) % 2
    return {
        (model, int(size)): [
            build_scores(
                labels,
                1 / (1 + np.exp(-(labels - 0.5) * (own + rng.normal(0, spread)) - rng.normal(size=subjects))),
            )
            for _ in range(seeds)
        ]
        for model, values in separations.items()
        for size, own in zip(SIZES, values, strict=True)
    }


def crossing_of(first, second, **options):
    fits = build_fits({"a": first, "b": second}, **options)
    seeds = list(range(len(next(iter(fits.values())))))
    return find_crossing(*build_curves(fits, metric="auc", fit_seeds=seeds, resamples=120).values())


def test_a_planted_crossing_is_found_and_others_are_named_for_what_they_are():
    flat, rising = [1.2] * 4, [0.2, 0.9, 1.6, 2.2]  # equal at about 55 subjects
    found = crossing_of(flat, rising)
    assert found.kind == "cross"
    assert found.low <= found.at <= found.high
    assert 40 < found.at < 80
    assert crossing_of(flat, [2.6] * 4).kind == "above"
    assert crossing_of(flat, [0.2] * 4).kind == "below"
    assert crossing_of(flat, flat).kind == "cannot tell"


def test_the_spread_between_seeds_widens_the_points_and_the_band():
    narrow, wide = (
        build_curves(
            build_fits({"a": [0.6, 1.0, 1.3, 1.5]}, seeds=3, spread=spread),
            metric="auc", fit_seeds=[0, 1, 2], resamples=150,
        )["a"]
        for spread in (0.0, 0.6)
    )  # fmt: skip
    assert (np.ptp(wide.intervals, axis=0) > 1.2 * np.ptp(narrow.intervals, axis=0)).all()
    assert wide.gains.std() > narrow.gains.std()
    assert narrow.grid[0] == 20
    assert narrow.grid[-1] == 320
    low, high = np.quantile(narrow.band, [0.025, 0.975], axis=0)
    assert ((low <= narrow.law.predict(narrow.grid)) & (narrow.law.predict(narrow.grid) <= high)).mean() > 0.9


def score(settings):
    """The volume model gains more from more subjects."""
    gain = 0.8 if settings.model.kind == "volume" else 0.2
    return 0.2 + gain * settings.splits.train_fraction**0.5


@pytest.fixture(scope="module")
def finished(study_once):
    return study_once([*STUDY, "data.subjects=40"], score)


def test_both_models_are_trained_on_every_fraction_and_seed_with_equal_steps(finished):
    one, folder = finished
    assert len(one.trained) == 2 * 4 * 2
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["slice2d"] * 4 + ["volume3d"] * 4
    for row in rows:
        label = f"{row['model']}-{row['fraction'].removesuffix('.0')}".replace(".", "-")
        settings = load_settings(RunFolder(folder / "runs" / f"{label}-seed1"))
        assert settings.splits.train_fraction == float(row["fraction"])
        assert settings.trainer.epochs == int(row["epochs"])
        assert (settings.seed, settings.model.name) == (1, row["model"])
    subjects = [int(row["subjects"]) for row in rows[:4]]
    assert subjects == sorted(set(subjects))
    assert int(rows[0]["epochs"]) > int(rows[3]["epochs"]) == 2


def test_results_hold_the_laws_what_twice_the_subjects_bring_and_the_crossing(finished):
    _, folder = finished
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert set(results["laws"]) == {"slice2d", "volume3d"}
    for law in results["laws"].values():
        twice = law["twice"]
        assert twice["gain_interval"][0] <= twice["gain"] <= twice["gain_interval"][1]
        assert twice["score_interval"][0] <= twice["score_interval"][1]
    assert results["crossing"]["kind"] in ("above", "below", "cross", "cannot tell")
    assert len(results["differences"]) == 4
    words = {row["verdict"] for row in results["differences"]}
    assert words <= {"better", "worse", "equivalent", "cannot tell"}
    assert results["differences"][-1]["verdict"] == "better"
    for name in ("curves", "difference"):
        assert (folder / "figures" / f"{name}.png").is_file()
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_stopped_study_resumes_and_a_size_that_one_model_lacks_is_left_out(stand_in, run_study):
    def fail_half(settings):
        is_missing = settings.splits.train_fraction == 0.5 and settings.model.kind == "slice"
        return None if is_missing else score(settings)

    one = stand_in(fail_half)
    folder = run_study(*STUDY, "data.subjects=40", "study.seeds=[0]")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert {row["fraction"] for row in results["rows"]} == {0.125, 0.25, 1.0}
    assert any("slice2d-0-5" in finding for finding in results["findings"])
    assert len(one.trained) == 7
    one.score = score
    run_study(*STUDY, "data.subjects=40", "study.seeds=[0]")
    assert one.trained[7:] == ["slice2d-0-5-seed0"]


def test_fewer_than_three_sizes_and_keys_that_the_study_sets_are_refused(stand_in, run_study):
    stand_in(lambda settings: None if settings.splits.train_fraction < 0.5 else score(settings))
    with pytest.raises(SettingsError, match="three"):
        run_study(*STUDY, "data.subjects=40", "study.seeds=[0]")
    with pytest.raises(SettingsError, match=r"splits\.train_fraction"):
        run_study(*STUDY, "splits.train_fraction=0.5", "run_dir=other")


@pytest.mark.slow
def test_every_point_is_trained_with_each_site_left_out_and_scored_over_all_of_them(study_once):
    sites = [
        "study=learning_curve",
        "study.seeds=[0]",
        "study.epochs=2",
        "study.resamples=100",
        "run_dir=sites",
    ]
    one, folder = study_once([*sites, "data.subjects=40", "splits.leave_out=site"], score)
    assert len(one.trained) == 2 * 4 * 3  # the phantom has three sites
    settings = [load_settings(RunFolder(folder / "runs" / name)) for name in one.trained]
    assert {own.splits.fold for own in settings} == {0, 1, 2}
    with (folder / "table.csv").open(newline="") as file:
        subjects = [int(row["subjects"]) for row in csv.DictReader(file)]
    assert subjects[:4] == sorted(set(subjects[:4]))
