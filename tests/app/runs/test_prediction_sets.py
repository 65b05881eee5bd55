"""Prediction sets from a training to new scans and external data, by commands."""

import json

import pytest

from commands import call_command
from tiny import train_tiny
from voxlift.app.files import read_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    calibrated = train_tiny(
        folder, "sets", "model=linear", "data.subjects=80", "splits.calibration=0.3", "splits.val=0.15"
    )
    return folder, calibrated


def test_calibration_subjects_are_used_for_nothing_else(trained):
    folder, run = trained
    rows = read_rows(run.splits)
    splits = {
        name: {row["subject"] for row in rows if row["split"] == name} for name in ("train", "calibration")
    }
    assert len(splits["calibration"]) == 24
    assert not splits["train"] & splits["calibration"]
    plain = train_tiny(folder, "plain", "model=linear", "data.subjects=80", "splits.val=0.15")
    before = {row["subject"]: row["split"] for row in read_rows(plain.splits)}
    assert "prediction_sets" not in json.loads(plain.metrics.read_text(encoding="utf-8"))
    for row in rows:  # val and test are those of a run without calibration
        expected = "train" if row["split"] == "calibration" else row["split"]
        assert before[row["subject"]] == expected


def test_metrics_and_page_have_coverage_and_set_sizes(trained):
    _, run = trained
    saved = json.loads(run.metrics.read_text(encoding="utf-8"))["prediction_sets"]
    rows = [row for row in read_rows(run.predictions) if row["split"] == "test"]
    names = list(saved["limits"])
    sets = [
        {n for n in names if saved["limits"][n] is None or 1 - float(row[f"p_{n}"]) <= saved["limits"][n]}
        for row in rows
    ]
    hits = sum(row["label"] in held for row, held in zip(rows, sets, strict=True))
    assert saved["test"]["coverage"] == hits / len(rows)
    assert saved["test"]["mean_size"] == sum(map(len, sets)) / len(sets)
    text = run.report.read_text(encoding="utf-8")
    assert 'id="sets"' in text
    assert f"{saved['test']['coverage']:.3f}" in text


def test_new_scans_have_their_set_in_a_column(trained, tmp_path):
    folder, run = trained
    saved = json.loads(run.metrics.read_text(encoding="utf-8"))["prediction_sets"]["limits"]
    images = next((folder / "data").glob("nodule-*[0-9]"))
    out = tmp_path / "out.csv"
    assert call_command("predict", f"run={run.path}", f"input={images}", f"output={out}") == 0
    rows = read_rows(out)
    assert {"set"} <= set(rows[0])
    for row in rows:
        held = [n for n in saved if saved[n] is None or 1 - float(row[f"p_{n}"]) <= saved[n]]
        assert row["set"] == "|".join(held)


def test_sets_are_scored_on_external_data_and_calibration_subjects_are_refused_there(trained, tmp_path):
    folder, run = trained
    table = next((folder / "data").glob("nodule-*/*.csv"))
    arguments = [f"run={run.path}", f"data.table={table}", f"output={tmp_path / 'same'}"]
    assert call_command("evaluate", *arguments) == 2
    lines = table.read_text(encoding="utf-8").splitlines()
    held = [row["subject"] for row in read_rows(run.splits) if row["split"] == "calibration"]
    only = table.with_name("only.csv")
    only.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in held)]))
    arguments = [f"run={run.path}", f"data.table={only}", f"output={tmp_path / 'held'}"]
    assert call_command("evaluate", *arguments) == 2
    held = [row["subject"] for row in read_rows(run.splits) if row["split"] == "test"]
    only.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in held)]))
    arguments = [f"run={run.path}", f"data.table={only}", f"output={tmp_path / 'new'}"]
    assert call_command("evaluate", *arguments, "evaluation.prevalence=0.05") == 0
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8"))
    saved = json.loads(run.metrics.read_text(encoding="utf-8"))
    assert metrics["prediction_sets"]["external"] == saved["prediction_sets"]["test"]  # the same subjects
    assert (metrics["use"]["prevalence"], saved["use"]["prevalence"]) == (0.05, 0.5)
    assert metrics["use"]["lr_positive"] == saved["use"]["lr_positive"]
    assert 'id="sets"' in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_settings_of_sets_are_checked(capsys):
    line = ["splits.calibration=0.6", "evaluation.coverage=1.2", "evaluation.prevalence=0"]
    assert call_command("train", *line) == 2
    message = capsys.readouterr().err
    assert all(setting.partition("=")[0] in message for setting in line)
