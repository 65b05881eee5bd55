"""The study of the sample size, on comparisons whose scores are written by the test."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.sample_size import DifferenceVariance, required_subjects
from voxlift.app.files import write_json, write_rows
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_scores

STUDY = ["study=sample_size", "study.resamples=200"]


def write_run(path, quality, *, seed, subjects, fold=0, shift=0.0, classes="ab"):
    """A finished run of two classes whose scores share a part with those of other models."""
    shared, own = (
        np.random.default_rng(key).normal(size=subjects) for key in ((1, fold), (seed, *path.name.encode()))
    )
    labels = np.arange(subjects) % len(classes)
    logits = quality * (labels - 0.5) + 0.7 * shared + 0.7 * own + shift
    shares = 1 / (1 + np.exp(-logits))
    settings = TrainSettings()
    settings.data.classes = list(classes)
    path.mkdir(parents=True)
    run = RunFolder(path)
    save_settings(settings, run)
    rest = dict.fromkeys((f"p_{name}" for name in classes[2:]), 0.0)
    rows = [
        {"subject": f"f{fold}-{i}", "image": f"{i}.nii", "split": "test", "label": classes[y]}
        | {"p_a": 1 - p, "p_b": p} | rest
        for i, (y, p) in enumerate(zip(labels, shares, strict=True))
    ]  # fmt: skip
    write_rows(run.predictions, rows)
    write_json(run.metrics, {"threshold": 0.5, "cost": {}})
    return run


def write_comparison(
    folder, *, qualities=None, seeds=(0,), folds=(0,), subjects=60, jitter=0.0, classes="ab"
):
    rows = []
    rng = np.random.default_rng(3)
    for fold in folds:
        for seed in seeds:
            for name, quality in (qualities or {"slice2d": 1.2, "volume3d": 1.6}).items():
                path = folder / "runs" / f"{name}-fold{fold}-seed{seed}"
                moved = quality + rng.normal(0, jitter)
                write_run(
                    path, moved, seed=seed, subjects=subjects, fold=fold, shift=3.0 * fold, classes=classes
                )
                rows.append({"model": name, "fold": fold, "seed": seed, "run": str(path)})
    write_json(folder / "comparison.json", {"trainings": rows})
    return [RunFolder(Path(row["run"])) for row in rows]


def run_and_read(run_study, *overrides):
    folder = run_study(*STUDY, *overrides)
    return folder, json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_the_number_follows_from_delongs_variance_of_the_comparison(stand_in, run_study, tmp_path):
    stand_in(None)
    runs = write_comparison(tmp_path / "cmp")
    folder, found = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=out")
    test = delong_difference(*(read_scores(run, split="test") for run in runs))
    variance = DifferenceVariance(30 * test.standard_error**2)
    assert found["margin"] == 0.05
    for power in (80, 90):
        n = found[f"n_per_class_{power}"]
        assert n == required_subjects(variance, 0.05, power=power / 100)
        low, high = found[f"n_per_class_{power}_interval"]
        assert low < n < high
        assert found[f"n_in_all_{power}"] == pytest.approx(2 * n, abs=2)
    assert found["n_per_class_90"] > found["n_per_class_80"]
    assert found["present"] == {"positive": 30, "negative": 30}
    assert found["width_now"] == pytest.approx(test.high - test.low)
    widths = [row["width"] for row in found["widths"]]
    assert widths == sorted(widths, reverse=True)
    for name in ("report.html", "table.csv", "widths.csv", "figures/power.png", "figures/width.png"):
        assert (folder / name).is_file()
    _, wider = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=wider", "verdict.margin=0.1")
    assert wider["n_per_class_80"] == pytest.approx(found["n_per_class_80"] / 4, rel=0.02)


def test_folds_count_together_and_are_never_pooled(stand_in, run_study, tmp_path):
    stand_in(None)
    runs = write_comparison(tmp_path / "cmp", folds=range(3), subjects=40)
    _, found = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=out")
    scores = [read_scores(run, split="test") for run in runs]
    own = [
        delong_difference(a, b).standard_error ** 2 for a, b in zip(scores[::2], scores[1::2], strict=True)
    ]
    assert found["present"] == {"positive": 60, "negative": 60}
    assert found["variance_per_subject_of_each_class"] == pytest.approx(60 * sum(own) / 9)


def test_where_the_spread_between_seeds_forbids_the_power_seeds_are_given(stand_in, run_study, tmp_path):
    stand_in(None)
    write_comparison(tmp_path / "cmp", seeds=(0, 1), jitter=0.2)
    _, found = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=out")
    assert found["n_per_class_80"] is None
    assert found["seeds"] == 2
    assert found["seeds_80"] > 2
    assert found["n_per_class_80_with_seeds"] > 10
    assert f"{found['seeds_80']} seeds" in found["recommendation"]
    assert max(row["width"] for row in found["widths"]) <= 2


def test_of_several_pairs_all_are_listed_and_the_hardest_counts(stand_in, run_study, tmp_path):
    stand_in(None)
    write_comparison(tmp_path / "cmp", qualities={"a": 1.0, "b": 1.4, "c": 2.0})
    _, found = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=out")
    needs = [row["n_per_class"] for row in found["rows"] if row["difference"] == 0.05 and row["power"] == 0.8]
    assert len(needs) == 3
    assert found["n_per_class_80"] == max(needs)
    assert found["alpha"] == pytest.approx(0.05 / 3)
    _, one = run_and_read(run_study, f"run={tmp_path / 'cmp'}", "run_dir=one", "study.pair=[a,c]")
    assert one["pair"] == ["a", "c"]
    assert one["alpha"] == 0.05


def test_planned_values_need_no_comparison(stand_in, run_study):
    stand_in(None)
    _, found = run_and_read(run_study, "study.auc=[0.8,0.85]", "study.prevalence=0.2", "run_dir=out")
    assert found["n_in_all_80"] > 2 * found["n_per_class_80"]
    _, close = run_and_read(run_study, "study.auc=[0.8,0.85]", "study.correlation=0.9", "run_dir=close")
    assert close["n_per_class_80"] < found["n_per_class_80"]


def test_a_comparison_that_was_moved_is_found_and_other_folders_are_refused(stand_in, run_study, tmp_path):
    stand_in(None)
    write_comparison(tmp_path / "cmp")
    shutil.move(tmp_path / "cmp", tmp_path / "moved")
    _, found = run_and_read(run_study, f"run={tmp_path / 'moved'}", "run_dir=out")
    assert found["n_per_class_80"]
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / "comparison.json", {"verdict": ""})
    write_comparison(tmp_path / "three", classes="abc")
    write_comparison(tmp_path / "same", qualities={"a": 40.0, "b": 40.0})
    for name, words in (
        ("none", "comparison.json"),
        ("old", "voxlift-compare"),
        ("three", "classes"),
        ("same", "alike"),
    ):
        with pytest.raises(SettingsError, match=words):
            run_study(*STUDY, f"run={tmp_path / name}", f"run_dir=out-{name}")
    with pytest.raises(SettingsError, match=r"study\.pair"):
        run_study(*STUDY, f"run={tmp_path / 'moved'}", "study.pair=[slice2d,other]", "run_dir=out2")
