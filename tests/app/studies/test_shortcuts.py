"""Shortcuts: planted ones are caught, clean volumes are not, and what the study writes."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from commands import compose_command
from scans import write_nifti
from score_sets import build_scores, three_class_pair
from tiny import places_in
from voxlift.app.cli.train import read_settings as read_training
from voxlift.app.comparison.compose import compose_training
from voxlift.app.comparison.trial import Outcome, Trial
from voxlift.app.config.studies import CONTESTANTS
from voxlift.app.data.cohort import gather_cohort
from voxlift.app.report import pages
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_scores
from voxlift.app.studies.shortcuts import contestants
from voxlift.app.studies.shortcuts import run as shortcuts_run
from voxlift.app.studies.shortcuts.contestants import (
    FITTED,
    Facts,
    SeedRun,
    fit_contestant,
    fit_shuffled_labels,
    fit_site,
    rescore,
    shuffle_labels,
    shuffle_slices,
)
from voxlift.app.studies.shortcuts.features import (
    average_cells,
    describe_cohort,
    find_border,
    find_foreground,
)
from voxlift.app.studies.shortcuts.report import recommend
from voxlift.app.studies.shortcuts.results import (
    Interval,
    Result,
    associate_sites,
    compare_contestants,
    separation_p_value,
)
from voxlift.app.training.train import train
from voxlift.data_pipelines.phantom.scenes import Field, draw_scene
from voxlift.data_pipelines.phantom.tasks import Truth

SUBJECTS = 48
FIELD = Field((12, 20, 16), (5.0, 3.2, 4.0))


def plant_nothing(voxels, spacing, _):
    return voxels, spacing


def plant_spacing(voxels, spacing, label):
    return voxels, spacing * (1.1 if label else 1.0)


def plant_padding(voxels, spacing, label):
    voxels[:, :2] = voxels[:, -2:] = -900 if label else -1000
    return voxels, spacing


def plant_mark(voxels, spacing, label):
    if label:
        voxels[:3, -3:, :2] = 700
    return voxels, spacing


def plant_mark_of_first(voxels, spacing, label):
    return plant_mark(voxels, spacing, label == 0)


def plant_offset(voxels, spacing, label):
    return voxels + (60 if label else 0), spacing


def plant_rim(voxels, spacing, label):
    if label:
        voxels[find_border(voxels.shape)] += 150
    return voxels, spacing


def write_planted(folder, plant, *, classes=("row", "nodule")):
    """Write phantom volumes with something planted into one class, and their table; return its path."""
    rows = [("participant_id", "file", "label")]
    for number in range(SUBJECTS):
        label = number % len(classes)
        truth = Truth(label=number % 2)
        voxels = draw_scene(FIELD, np.random.default_rng(number), task="nodule", truth=truth)
        # Saved as a scanner does: whole numbers along [i, j, k].
        stored, spacing = plant(np.round(voxels).T.astype(np.int16), np.array(FIELD.spacing[::-1]), label)
        write_nifti(folder / f"{number}.nii.gz", stored, np.diag([*spacing, 1.0]))
        rows.append((f"s{number}", f"{number}.nii.gz", classes[label]))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "table.csv"


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    """Small forests, since the sets are small."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(contestants, "TREES", 50)
        yield


def planted_data(table):
    """Overrides for a table of planted volumes."""
    data = ["data=manifest", f"data.table={table}", "data.label_column=label", "data.image_column=file"]
    sizes = ["preprocess=ct", "preprocess.shape=[12,20,16]", "preprocess.spacing=[5,3.2,4]"]
    return [*data, *sizes, "splits.val=0.25", "splits.test=0.25"]


def find_caught(folder, plant, *, names=FITTED, permutations=0):
    """Return the results of fitted contestants by name."""
    table = write_planted(folder, plant)
    settings = read_training(compose_command("train", *planted_data(table), *places_in(folder)))
    runs = [SeedRun(0, RunFolder(folder), settings, gather_cohort(settings), None)]
    facts = Facts(*describe_cohort([runs[0].cohort]))
    fitted = [fit_contestant(name, facts, runs) for name in names]
    if permutations:
        fitted.append(fit_shuffled_labels(facts, runs, permutations=permutations))
    model = fitted[0].fits  # any scores of the same subjects: the p-values do not depend on the model
    _, results = compare_contestants(fitted, model, [0], resamples=200, margin=None)
    return {one.name: one for one in results}


@pytest.mark.parametrize(
    ("plant", "catching"),
    [
        (plant_spacing, {"header"}),
        (plant_padding, {"histogram", "border"}),
        (plant_mark, {"border"}),
        (plant_offset, {"histogram", "blurred"}),
        (plant_rim, {"border"}),
    ],
)
def test_a_planted_shortcut_is_caught(plant, catching, tmp_path):
    results = find_caught(tmp_path, plant, names=sorted(catching))
    assert catching <= {name for name, one in results.items() if one.is_caught}
    assert all(results[name].auc.value > 0.9 for name in catching)


def test_clean_volumes_are_not_caught(tmp_path):
    results = find_caught(tmp_path, plant_nothing)
    assert {name for name, one in results.items() if one.is_caught} == set()
    assert set(results) == set(FITTED)


def test_shuffled_labels_are_chance_also_where_a_shortcut_is_planted(tmp_path):
    results = find_caught(tmp_path, plant_rim, names=["border"], permutations=6)
    control = results["shuffled_labels"]
    assert control.auc.low <= 0.5 <= control.auc.high
    assert control.auc.high < results["border"].auc.value
    assert not control.is_caught


def train_here(trials, *_, **__):
    """Train in this process, in place of child processes."""
    for trial in trials:
        assert train(compose_training(trial.overrides)) == 0
    return [Outcome(trial) for trial in trials]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run_study):
    """The folder of a study of the linear model."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("shortcuts"))
        monkeypatch.setattr(shortcuts_run, "run_trainings", train_here)
        monkeypatch.setattr(pages, "DOTS_PER_INCH", 30)
        own = ["study=shortcuts", "model=linear", "study.seeds=[0,1]", "study.resamples=100"]
        yield run_study(*own, "study.permutations=1", "run_dir=out")


def test_the_results_are_a_list_of_all_contestants(finished):
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert [row["contestant"] for row in rows] == list(CONTESTANTS)
    for row in rows:
        if row["reason"]:
            assert row["auc"] is None
        else:
            assert 0 <= row["low"] <= row["auc"] <= row["high"] <= 1
        assert (row["caught"] is not None) == (row["contestant"] in FITTED and not row["reason"])
    scored = {row["contestant"] for row in rows if not row["reason"]}
    assert scored >= {"header", "histogram", "border", "shuffled_slices", "mirrored", "shuffled_labels"}
    with (finished / "table.csv").open(newline="") as file:
        assert [row["contestant"] for row in csv.DictReader(file)] == list(CONTESTANTS)
    assert (finished / "report.html").is_file()
    assert (finished / "figures" / "contestants.png").is_file()


def test_the_model_is_scored_on_the_subjects_of_its_own_run(finished):
    runs = [RunFolder(finished / "runs" / f"linear-seed{seed}") for seed in (0, 1)]
    scores = [read_scores(run, split="test") for run in runs]
    mean = np.mean([roc_auc_score(one.labels, one.probabilities[:, 1]) for one in scores])
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert [row["model_auc"] for row in rows] == pytest.approx([mean] * len(rows))
    assert load_settings(runs[1]).seed == 1


def test_of_three_classes_the_auc_is_the_mean_of_each_against_the_rest(run_study, tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts_run, "run_trainings", train_here)
    monkeypatch.setattr(pages, "DOTS_PER_INCH", 30)
    table = write_planted(tmp_path, plant_mark_of_first, classes=("low", "middle", "high"))
    own = ["study=shortcuts", "model=linear", "study.seeds=[0]", "study.resamples=100"]
    few = ["study.permutations=1", "study.contestants=[border,mirrored,shuffled_labels]"]
    folder = run_study(*own, *few, *planted_data(table), f"run_dir={tmp_path / 'out'}")
    rows = {row["contestant"]: row for row in json.loads((folder / "results.json").read_text("utf-8"))}
    scores = read_scores(RunFolder(folder / "runs" / "linear-seed0"), split="test")
    expected = roc_auc_score(scores.labels, scores.probabilities, multi_class="ovr", average="macro")
    assert rows["border"]["model_auc"] == pytest.approx(expected)
    assert rows["border"]["caught"]
    assert 0.7 < rows["border"]["auc"] < 1  # the two other classes are not told from each other
    assert rows["mirrored"]["auc"] is not None
    low, high = rows["shuffled_labels"]["low"], rows["shuffled_labels"]["high"]
    assert low <= 0.5 <= high
    assert (folder / "report.html").is_file()


def test_the_first_sentence_names_what_cannot_be_anatomy_before_what_can():
    def caught(name, auc):
        pair_free = Interval(auc, auc - 0.1, auc + 0.05)
        return Result(name, pair_free, p=0.001, adjusted=0.001)

    model = Interval(0.84, 0.75, 0.92)
    first = recommend(model, [caught("header", 0.81), caught("blurred", 0.9)])
    assert 0 < first.index("header") < first.index("blurred")
    assert "0.81" in first
    assert "0.84" in first
    none = Result("header", Interval(0.5, 0.4, 0.62), p=0.5, adjusted=0.5)
    only = recommend(model, [none, caught("silhouette", 0.8)])
    assert only.index("silhouette") < only.index("header")
    assert "0.62" in only  # what cannot be excluded
    assert "header" in recommend(model, [none])


def open_second(folder):
    """The second training of the study."""
    run = RunFolder(folder / "runs" / "linear-seed1")
    return shortcuts_run.open_trial(Trial("linear", 0, 1, (), run))


def test_unchanged_volumes_get_the_models_own_scores_and_changed_ones_others(finished, tmp_path):
    one = open_second(finished)
    same = rescore(one, lambda volume, _: volume, tmp_path)
    assert same.keys == one.scores.keys
    assert same.probabilities == pytest.approx(one.scores.probabilities, abs=1e-7)
    other = rescore(one, shuffle_slices, tmp_path)
    assert np.abs(other.probabilities - one.scores.probabilities).max() > 1e-6
    assert list(tmp_path.iterdir()) == []


def test_shuffled_slices_are_the_same_slices():
    volume = np.arange(8 * 3 * 2 * 1).reshape(8, 3, 2, 1)
    shuffled = shuffle_slices(volume, 0)
    assert not np.array_equal(shuffled, volume)
    assert {one.tobytes() for one in shuffled} == {one.tobytes() for one in volume}


def test_labels_are_shuffled_by_subject_within_training_and_validation(finished):
    cohort = open_second(finished).cohort
    shuffled = shuffle_labels(cohort, np.random.default_rng(0))
    for split in ("train", "val", "test"):
        assert sorted(shuffled.labels(split)) == sorted(cohort.labels(split))
    assert list(shuffled.labels("train")) != list(cohort.labels("train"))
    assert list(shuffled.labels("test")) == list(cohort.labels("test"))


def test_a_site_that_brightens_the_images_is_told_from_them_and_from_the_class(finished):
    one = open_second(finished)
    records, bright = one.cohort.records, {}
    facts = Facts(*describe_cohort([one.cohort]))
    voxels = dict(facts.voxels)
    for number, record in enumerate(records):
        bright[record.item] = "AB"[number // 2 % 2]
        if bright[record.item] == "B":
            voxels[record.item] = replace(voxels[record.item], blurred=voxels[record.item].blurred + 1)
    site = fit_site(replace(facts, voxels=voxels), [one], bright)
    assert site.fits[0].classes == ("A", "B")
    assert roc_auc_score(site.fits[0].labels, site.fits[0].probabilities[:, 1]) > 0.9
    rare = one.cohort.indices("train")[:3]  # a site that has no test subjects with this seed
    three = bright | {records[i].item: "C" for i in rare}
    both = fit_site(replace(facts, voxels=voxels), [one, one], three)
    assert [fit.classes for fit in both.fits] == [("A", "B")] * 2
    by_class = {record.item: "AB"[record.label] for record in records}
    assert associate_sites([one.cohort], by_class)[0] == pytest.approx(1)
    assert associate_sites([one.cohort], by_class)[1] < 0.01
    assert fit_site(facts, [one], {}, reason="none").reason == "none"
    assert fit_site(facts, [one], dict.fromkeys(bright, "A")).reason


def test_the_border_is_a_tenth_of_a_side_and_at_least_two_voxels():
    border = find_border((40, 12, 6))
    inside = ~border
    assert inside.any(axis=(1, 2)).sum() == 32
    assert inside.any(axis=(0, 2)).sum() == 8
    assert inside.any(axis=(0, 1)).sum() == 6  # too short for a border


def test_the_foreground_is_the_largest_component_and_cells_average_what_is_chosen():
    values = np.zeros((10, 12, 14))
    values[2:6, 2:6, 2:8] = 5
    values[3, 3, 3] = 0  # a hole
    values[8, 9, 10:12] = 5
    found = find_foreground(values)
    assert found.sum() == 4 * 4 * 6
    assert found[3, 3, 3]
    assert average_cells(values, found).max() == 5
    assert average_cells(np.ones((5, 9, 16))) == pytest.approx(np.ones(5 * 8 * 8))
    assert not find_foreground(np.ones((4, 4, 4))).any()


def test_the_p_value_is_that_of_the_mann_whitney_test_of_subjects():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    p_yes = np.clip(0.5 + 0.1 * labels + rng.normal(0, 0.2, 30), 0, 1)
    expected = mannwhitneyu(p_yes[labels == 1], p_yes[labels == 0], alternative="greater").pvalue
    assert separation_p_value(build_scores(labels, p_yes)) == pytest.approx(expected)
    twice = build_scores(np.tile(labels, 2), np.tile(p_yes, 2), subjects=[f"s{i}" for i in range(30)] * 2)
    assert separation_p_value(twice) == pytest.approx(expected)
    three = three_class_pair(0)[0]  # each class against the rest, Bonferroni
    own = [
        mannwhitneyu(values[three.labels == k], values[three.labels != k], alternative="greater").pvalue
        for k, values in enumerate(three.probabilities.T)
    ]
    assert separation_p_value(three) == pytest.approx(min(1, 3 * min(own)))


@pytest.mark.slow
def test_the_whole_study_of_a_network_runs_and_resumes(run_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ["study=shortcuts", "study.seeds=[0]", "study.epochs=1", "study.resamples=100", "run_dir=out"]
    folder = run_study(*own, "preflight.enabled=false", "study.permutations=2")
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert {row["contestant"] for row in rows if not row["reason"]} >= {"shuffled_slices", "mirrored"}
    written = (folder / "runs" / "volume3d-seed0" / "metrics.json").stat().st_mtime
    run_study(*own, "preflight.enabled=false", "study.permutations=2")
    assert (folder / "runs" / "volume3d-seed0" / "metrics.json").stat().st_mtime == written
