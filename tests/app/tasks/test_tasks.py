"""Each task reads and writes its labels without loss, and refuses what it cannot use."""

import math
from dataclasses import replace

import numpy as np
import pytest

from commands import compose_command
from task_predictions import build_findings, build_grades, build_numbers
from voxlift.app.cli.train import read_settings
from voxlift.app.config import DataSettings, SettingsError, TrainerSettings, TrainSettings
from voxlift.app.config.overrides import list_changes
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.runs.results import prediction_rows, scores_from_rows
from voxlift.app.tasks.base import TASK_NAMES, LinearOptions, ScoredRows, find_task, task_of
from voxlift.data_pipelines.tables.manifest import Record

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("findings", build_findings(0)),
        ("grades", build_grades(0)),
        ("number", build_numbers(0, training_mean=60.0, training_median=61.0)),
    ],
)
def test_predictions_are_written_and_read_without_loss(name, scores):
    task, names = find_task(name), scores.outputs or ("age",)
    scores = replace(scores, items=tuple(f"{index}.nii" for index in range(len(scores))))
    rows = [{key: str(value) for key, value in row.items()} for row in prediction_rows({"val": scores}, task)]
    again = scores_from_rows(rows, names, split="val", task=task)
    assert again.subjects == scores.subjects
    np.testing.assert_array_equal(again.labels, scores.labels)
    first, second = score_metrics(scores), score_metrics(again)
    shared = [key for key in first if "baseline" not in key and key != "mae_gain"]
    np.testing.assert_allclose([second[key] for key in shared], [first[key] for key in shared], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "names", "records"),
    [
        ("classes", ("a", "b"), [(1, ()), (0, ())]),
        ("grades", ("a", "b", "c"), [(2, ()), (0, ())]),
        ("findings", ("x", "y"), [(0, (1.0, math.nan)), (0, (0.0, 1.0))]),
        ("number", ("age",), [(0, (67.3,)), (0, (1 / 3,))]),
    ],
)
def test_labels_of_records_are_written_and_read_without_loss(name, names, records):
    task = find_task(name)
    rows = [task.label_cells(label, targets, names) for label, targets in records]
    assert str([task.read_label(row, names) for row in rows]) == str(records)
    labels = task.labels([Record("s", (), label, None, 1, targets) for label, targets in records])
    assert len(labels) == 2
    assert task.strata(labels).min() >= 0


def test_grades_start_from_the_frequencies_and_findings_from_the_log_odds_in_training():
    grades = find_task("grades").plan_head(("a", "b", "c"), np.array([0, 0, 1, 2]))
    assert grades.units == 1
    assert grades.start[0] == pytest.approx(math.log(2.5 / 3), abs=1e-6)
    assert grades.start[0] < grades.start[1]
    labels = np.array([[1.0, math.nan], [0.0, 1.0], [0.0, math.nan]])
    findings = find_task("findings").plan_head(("x", "y"), labels)
    assert findings.start == pytest.approx((math.log(1.5 / 2.5), math.log(1.5 / 0.5)))
    number = find_task("number").plan_head(("age",), np.array([[50.0], [70.0]]))
    assert number.start == (60.0, 10.0)


def test_volumes_of_the_rarest_finding_are_a_group_of_their_own():
    labels = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [0, math.nan]], float)
    groups = find_task("findings").strata(labels)
    assert groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


@pytest.mark.parametrize("name", ["classes", "grades", "findings", "number"])
def test_a_linear_model_of_each_task_finds_a_planted_signal(name):
    task, features = find_task(name), RNG.normal(size=(120, 3))
    signal = features[:, 0]
    labels = {
        "classes": (signal > 0).astype(np.int64),
        "grades": np.digitize(signal, (-0.5, 0.5)),
        "findings": np.stack(
            [signal > 0, np.where(np.arange(120) % 3, features[:, 1] > 0, math.nan)], axis=1
        ),
        "number": 60 + 10 * signal[:, None],
    }[name]
    coefficients, intercept = task.fit_linear(features, np.asarray(labels), LinearOptions(1e3, balance=True))
    predicted = task.predict_linear(features @ coefficients + intercept)
    if name == "number":
        np.testing.assert_allclose(predicted[:, 0], labels[:, 0], atol=0.1)
    elif name == "findings":
        known = np.isfinite(labels)
        assert ((predicted > 0.5) == (labels == 1))[known].mean() > 0.95
    else:
        assert (predicted.argmax(axis=1) == labels).mean() > 0.85


@pytest.mark.parametrize("name", ["classes", "grades", "findings", "number"])
def test_the_loss_of_validation_is_the_loss_that_is_trained(name):
    task, names, rng = find_task(name), ("a", "b", "c"), np.random.default_rng(3)
    labels = rng.integers(0, 3, 20)
    outputs = np.log(rng.dirichlet(np.ones(3), 20))
    if name == "findings":
        labels = np.where(rng.random((20, 3)) < 0.2, math.nan, rng.integers(0, 2, (20, 3)))
    elif name == "number":
        names, labels, outputs = ("age",), rng.normal(60, 10, (20, 1)), rng.normal(60, 10, (20, 1))
    head = task.plan_head(names, labels)
    loss = task.build_loss(TrainerSettings(), names, head, soft_labels=False)
    trained = float(np.mean(loss(labels, outputs.astype(np.float32))))
    rows = ScoredRows(tuple(f"s{i}" for i in range(20)), tuple("abcdefghijklmnopqrst"), labels, labels)
    scores = task.build_scores(rows, task.predict(outputs), names)
    assert task.validation_metrics(scores, head)["loss"] == pytest.approx(trained, rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task=findings", "data=manifest", "data.table=t.csv"], "data.label_columns"),
        (["task=findings", "data.task=signs", "data.classes=[a,b]"], "data.classes"),
        (["task=number", "data.task=pitch", "data.label_bins=[40]"], "data.label_bins"),
        (["task=number", "data.task=pitch", "trainer.loss=focal"], "trainer.loss"),
        (["task=number", "data.task=pitch", "trainer.monitor=auc"], "trainer.monitor"),
        (["task=number", "data.task=pitch", "trainer.label_smoothing=0.1"], "trainer.label_smoothing"),
        (["trainer.loss=huber"], "trainer.loss"),
        (["data.label_columns=[a,b]"], "task=findings"),
        (["task=grades", "data.task=winding", "data.classes=[loose,tight]"], "data.classes"),
        (["task=number"], "data.task=pitch"),
        (["data.task=signs"], "task=findings"),
        (["task=findings", "data=medmnist3d", "data.npz=a.npz"], "task=classes"),
    ],
)
def test_what_a_task_cannot_use_is_refused_by_its_key(overrides, named):
    with pytest.raises(SettingsError) as error:
        read_settings(compose_command("train", *overrides))
    assert named in str(error.value)


def test_auto_is_the_task_s_own_and_equals_it_in_a_comparison_of_settings():
    chosen = {}
    for name, task in (
        ("classes", "nodule"),
        ("findings", "signs"),
        ("grades", "winding"),
        ("number", "pitch"),
    ):
        settings = read_settings(compose_command("train", f"task={name}", f"data.task={task}"))
        chosen[name] = (settings.trainer.loss, settings.trainer.monitor)
    assert chosen == {
        "classes": ("cross_entropy", "auc"),
        "findings": ("binary_cross_entropy", "auc"),
        "grades": ("cumulative", "kappa_quadratic"),
        "number": ("huber", "mae"),
    }
    old = TrainSettings()
    old.trainer.loss, old.trainer.monitor = "cross_entropy", "auc"  # as a run before the group has saved it
    assert list_changes(old, TrainSettings()) == []
    assert task_of(old).name == "classes"


def test_the_names_of_the_outputs_are_saved_in_the_keys_that_order_them():
    for name, outputs in zip(TASK_NAMES, (("a", "b"), ("x", "y"), ("a", "b", "c"), ("age",)), strict=True):
        task = find_task(name)
        saved = task.with_names(DataSettings(name="manifest"), outputs)
        assert task.names(saved) == outputs
        assert find_task(name).find_data_problems(saved) == []
