"""Findings, grades and numbers go through every command: one tiny training each, which is resumed."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score, roc_auc_score

from commands import call_command, compose_command
from tiny import train_tiny
from voxlift.app.cli.audit import read_settings as read_audit_settings
from voxlift.app.cli.evaluate import score_again
from voxlift.app.comparison.results import write_comparison
from voxlift.app.comparison.selection import SelectedTrials
from voxlift.app.comparison.trial import Trial
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.files import read_json, read_rows, write_rows
from voxlift.app.inference.run import open_run
from voxlift.app.report.dataset_audit import audit_dataset, write_audit
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_scores

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CASES = {
    "number": ("data.task=pitch", "task.unit=mm"),
    "grades": ("data.task=winding",),
    "findings": ("data.task=signs", "data.subjects=24"),
}
MODELS = {  # with what balances volumes, which depends on the task
    "number": ("experiment=inflated", "trainer.balance=sample", "augment.mixup_alpha=0.2"),
    "grades": ("model=volume3d", "trainer.balance=weights"),
    "findings": ("model=slice2d_attention", "trainer.balance=sample"),
}
GRADES, SIGNS = ("loose", "medium", "tight"), ("nodule", "calcified")


@dataclass
class Trained:
    """A task, its run, and the rows of its test subjects in predictions.csv."""

    task: str
    run: RunFolder
    overrides: tuple[str, ...]

    @property
    def rows(self):
        return [row for row in read_rows(self.run.predictions) if row["split"] == "test"]

    @property
    def metrics(self):
        return read_json(self.run.metrics)

    def floats(self, column):
        return np.array([float(row[column] or "nan") for row in self.rows])


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    overrides = (f"task={request.param}", *CASES[request.param], f"data.folder={folder}/data")
    options = ("augment=none", *MODELS[request.param], "trainer.epochs=1", "preflight.enabled=false")
    run = train_tiny(folder, "run", *options, "logger=none", *overrides)
    assert call_command("train", f"resume={run.path}", "trainer.epochs=2") == 0
    return Trained(request.param, run, overrides)


@pytest.fixture
def table(trained, tmp_path):
    """A table of the test subjects without labels."""
    rows = [{"participant_id": row["subject"], "file": row["image"]} for row in trained.rows]
    write_rows(tmp_path / "test.csv", rows)
    return tmp_path / "test.csv"


def test_metrics_agree_with_scikit_learn_and_scipy_on_the_predictions(trained):
    block = trained.metrics["test"]
    if trained.task == "number":
        truth, predicted = trained.floats("label"), trained.floats("prediction")
        assert block["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
        assert block["r2"] == pytest.approx(r2_score(truth, predicted))
        assert block["pearson"] == pytest.approx(stats.pearsonr(truth, predicted).statistic)
        training = [float(row["label"]) for row in read_rows(trained.run.splits) if row["split"] == "train"]
        assert trained.metrics["training"] == pytest.approx(
            {"mean": np.mean(training), "median": np.median(training)}
        )
        assert block["baseline_mae_median"] == pytest.approx(np.abs(truth - np.median(training)).mean())
        assert trained.metrics["unit"] == "mm"
        assert predicted.min() > 0  # not standardised
    elif trained.task == "grades":
        p = np.stack([trained.floats(f"p_{name}") for name in GRADES], axis=1)
        truth = np.array([GRADES.index(row["label"]) for row in trained.rows])
        median = (p[:, ::-1].cumsum(axis=1)[:, :-1] >= 0.5).sum(axis=1)
        assert p.sum(axis=1) == pytest.approx(1)
        assert block["mae_grades"] == pytest.approx(mean_absolute_error(truth, median))
        expected = cohen_kappa_score(truth, median, weights="quadratic")
        assert block["kappa_quadratic"] == pytest.approx(expected, nan_ok=True)
    else:
        aucs = {}
        for name in SIGNS:
            truth, p = trained.floats(f"label_{name}"), trained.floats(f"p_{name}")
            known = ~np.isnan(truth)
            aucs[name] = roc_auc_score(truth[known], p[known])
            assert block[f"auc[{name}]"] == pytest.approx(aucs[name])
        assert block["auc"] == pytest.approx(np.mean(list(aucs.values())))
        assert set(trained.metrics["thresholds"]) == set(SIGNS)
    assert len(read_rows(trained.run.history)) == 2
    assert trained.metrics["task"] == trained.task
    assert "calibration" not in trained.metrics
    assert block["n"] == len(trained.rows)


def test_scores_are_read_back_as_the_tasks_own_and_evaluate_repeats_them(trained):
    scores = read_scores(trained.run, split="test")
    kinds = {"number": Numbers, "grades": Grades, "findings": Findings}
    assert type(scores) is kinds[trained.task]
    again = score_again(trained.run, split="test")["test"]
    for name, value in trained.metrics["test"].items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, abs=1e-4), name


def test_page_shows_what_the_task_has_and_nothing_else(trained):
    page = trained.run.report.read_text(encoding="utf-8")
    shown = {
        "number": {"scatter", "agreement", "measured label (mm)"},
        "grades": {"grid-roc", "confusion", "&gt;loose"},
        "findings": {"grid-roc", "grid-pr", "delong"},
    }
    text = page.lower()
    for name in shown[trained.task]:
        assert name in text, name
    hidden = {"number": {"confusion matrix", "calibration error"}, "findings": {"confusion matrix"}}
    for name in {"temperature", "mcnemar"} | hidden.get(trained.task, set()):
        assert name not in text, name


def test_predict_repeats_the_run_with_maps_and_averages_members_and_views(trained, table, tmp_path):
    columns = {
        "number": ["prediction"],
        "grades": [f"p_{name}" for name in GRADES],
        "findings": [f"p_{name}" for name in SIGNS],
    }[trained.task]
    output = tmp_path / "out.csv"
    assert (
        call_command(
            "predict", f"run={trained.run.path}", f"input={table}", f"output={output}", "explain=both"
        )
        == 0
    )
    rows = read_rows(output)
    for column in columns:
        found = [float(row[column]) for row in rows]
        np.testing.assert_allclose(found, trained.floats(column), rtol=1e-4, atol=1e-5)
    assert not any(column.startswith("calibrated") for column in rows[0])
    assert all(nib.load(tmp_path / row["map"]).ndim == 3 for row in rows)
    described = read_json(output.with_suffix(".json"))
    assert described["task"] == trained.task
    assert ("thresholds" in described) == (trained.task == "findings")
    if trained.task == "findings":
        for name, threshold in described["thresholds"].items():
            decided = [int(float(row[f"p_{name}"]) >= threshold) for row in rows]
            assert [int(row[f"decision_{name}"]) for row in rows] == decided
    pair = f"run=[{trained.run.path},{trained.run.path}]"
    again = tmp_path / "again.csv"
    assert call_command("predict", pair, f"input={table}", f"output={again}", "tta=shifts") == 0
    rows = read_rows(again)
    assert all(float(row["spread"]) == pytest.approx(0, abs=1e-6) for row in rows)


def test_python_interface_gives_predictions_and_maps(trained):
    run = open_run(trained.run.path)
    row = trained.rows[0]
    found = run.predict(row["image"])
    assert (run.task, len(found)) == (trained.task, 1)
    named = {"number": None, "grades": "tight", "findings": "calcified"}[trained.task]
    explained = run.explain(row["image"], class_name=named)
    assert (
        explained.class_name
        == {"number": "label", "grades": "above medium", "findings": "calcified"}[trained.task]
    )
    assert explained.heat.shape == tuple(run.settings.preprocess.shape)
    if trained.task == "number":
        assert found.values[0] == pytest.approx(float(row["prediction"]), rel=1e-4)
        assert found.probabilities.shape == (1, 0)
        assert found.decisions == ("",)
        return
    columns = [f"p_{name}" for name in run.classes]
    np.testing.assert_allclose(found.probabilities[0], [float(row[name]) for name in columns], atol=1e-4)
    assert found.calibrated.shape == (1, 0)
    assert set(found.decisions[0].split("; ")) <= {"", *run.classes}


@pytest.mark.slow
def test_export_says_what_the_outputs_are_and_its_example_repeats_the_run(trained, tmp_path):
    folder = tmp_path / "out"
    assert call_command("export", f"run={trained.run.path}", f"output={folder}", "format=saved_model") == 0
    contract = read_json(folder / "contract.json")
    jsonschema.validate(contract, read_json(folder / "contract.schema.json"))
    activations = {"number": "linear", "grades": "softmax", "findings": "sigmoid"}
    assert contract["contract"] == 3
    assert contract["task"]["name"] == trained.task
    assert contract["task"]["activation"] == activations[trained.task]
    assert contract["task"]["unit"] == ("mm" if trained.task == "number" else None)
    assert contract["task"]["thresholds"] == trained.metrics.get("thresholds")
    assert (contract["threshold"], contract["temperature"]) == (None, None)
    row = trained.rows[0]
    done = subprocess.run(
        [sys.executable, str(folder / "score_image.py"), row["image"]],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = dict(line.split("\t")[:2] for line in done.stdout.splitlines())
    column = {"number": "prediction", "grades": "p_tight", "findings": "p_calcified"}[trained.task]
    name = {"number": "label", "grades": "tight", "findings": "calcified"}[trained.task]
    assert float(printed[name]) == pytest.approx(float(row[column]), rel=1e-3, abs=1e-3)


def test_audit_reports_the_distribution_of_the_target(trained, tmp_path):
    overrides = [one for one in trained.overrides if not one.startswith("data.folder")]
    folder = next(one for one in trained.overrides if one.startswith("data.folder"))
    subjects = [] if any("data.subjects" in one for one in overrides) else ["data.subjects=16"]
    cfg = compose_command("audit", *overrides, *subjects, folder, f"output={tmp_path / 'audit'}")
    found = audit_dataset(read_audit_settings(cfg))
    write_audit(found, tmp_path / "audit")
    summary = read_json(tmp_path / "audit" / "audit.json")
    if trained.task == "grades":
        assert set(summary["classes"]) == set(GRADES)
        return
    assert summary["task"] == trained.task
    rows = read_rows(trained.run.splits)
    if trained.task == "number":
        values = [float(row["label"]) for row in rows]
        assert (summary["targets"][0]["minimum"], summary["targets"][0]["maximum"]) == (
            min(values),
            max(values),
        )
    else:
        unknown = sum(row["label_calcified"] == "" for row in rows)
        assert summary["targets"][1]["unknown"] == unknown > 0
        assert any(
            "calcified" in one["message"] for one in summary["findings"] if one["kind"] == "unknown_cells"
        )


def test_comparison_tests_pairs_as_the_task_asks(trained, tmp_path, capsys):
    other = RunFolder(tmp_path / "other")
    shutil.copytree(trained.run.path, other.path)
    rows = read_rows(other.predictions)
    columns = [name for name in rows[0] if name.startswith("p_") or name == "prediction"]
    for index, row in enumerate(rows):  # other predictions for the same subjects
        values = [float(row[name]) for name in columns]
        values = values[1:] + values[:1] if len(values) > 1 else [values[0] + (-1) ** index * 3]
        row |= dict(zip(columns, values, strict=True))
    write_rows(other.predictions, rows)
    trials = tuple(Trial(name, 0, 0, (), run) for name, run in (("volume3d", trained.run), ("other", other)))
    write_comparison(SelectedTrials(trials, ()), folder=tmp_path)
    found = read_json(tmp_path / "comparison.json")
    (pair,) = found["pairs"]
    primary = {"number": "mae", "grades": "kappa_quadratic", "findings": "auc"}[trained.task]
    assert pair["primary"] == primary
    assert (pair["mcnemar"], pair["delong"]) == (None, None)
    one = pair["differences"][primary]
    assert one["difference"] == pytest.approx(one["second"] - one["first"], nan_ok=True)
    assert (pair["wilcoxon"] is not None) == (trained.task == "number")
    if trained.task == "number":
        before, after = (np.abs(trained.floats("label") - values) for values in (
            trained.floats("prediction"), [row["prediction"] for row in rows if row["split"] == "test"],
        ))  # fmt: skip
        expected = stats.wilcoxon(after - before)
        assert pair["wilcoxon"]["p_value"] == pytest.approx(expected.pvalue)
        assert pair["margin"] == pytest.approx(trained.metrics["test"]["baseline_mae_median"] / 10)
        assert pair["unit"] == "mm"
    if trained.task == "findings":
        assert set(pair["findings"]) == set(SIGNS)
    page = (tmp_path / "report.html").read_text(encoding="utf-8").lower()
    assert "mcnemar" not in page
    assert "temperature" not in page
    assert {"number": "bland-altman", "grades": "each cut", "findings": "each finding"}[trained.task] in page
    assert f"validation_{primary}" in found["models"]["volume3d"]
    assert json.dumps(found["verdict"]) in (tmp_path / "comparison.json").read_text(encoding="utf-8")
    capsys.readouterr()
