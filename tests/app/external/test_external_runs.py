"""External validation: nobody who was trained on is in it, and its figures are those of the new subjects."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from commands import call_command
from tiny import train_tiny
from voxlift.app.comparison.results import write_comparison
from voxlift.app.comparison.selection import SelectedTrials
from voxlift.app.comparison.trial import Outcome, Trial, build_trial_row
from voxlift.app.files import read_json, read_rows, write_json, write_rows
from voxlift.app.inference.run import open_run
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_scores
from voxlift.data_pipelines.phantom.write import write_phantom

OPTIONS = ("trainer.epochs=1", "logger=none", "preflight.enabled=false", "data.subjects=24")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("external")


@pytest.fixture(scope="module")
def run(work):
    return train_tiny(work, "volume3d", *OPTIONS, "model=volume3d")


@pytest.fixture(scope="module")
def other_run(work):
    return train_tiny(work, "slice2d", *OPTIONS, "model=slice2d")


@pytest.fixture(scope="module")
def table(work):
    """The table of 28 other subjects; their names do not occur in the run."""
    source = write_phantom(work / "other", task="nodule", subjects=28, seed=7)
    rows = [row | {"participant_id": f"new-{row['participant_id']}"} for row in read_rows(source)]
    write_rows(source.with_name("new.csv"), rows)
    return source.with_name("new.csv")


def evaluate(run, table, output, *overrides):
    runs = f"[{','.join(map(str, run))}]" if isinstance(run, list) else run
    return call_command("evaluate", f"run={runs}", f"data.table={table}", f"output={output}", *overrides)


@pytest.fixture(scope="module")
def folder(run, table, work):
    options = ("evaluation.recalibrate=0.3", "evaluation.by=[sex,'age:50']", "evaluation.min_subjects=4")
    assert evaluate(run.path, table, work / "out", *options) == 0
    return RunFolder(work / "out")


def test_the_scores_are_those_that_predict_gives_and_have_a_runs_own_form(run, folder, table):
    rows = read_rows(folder.predictions)
    files = [row["image"] for row in rows]
    predicted = open_run(run.path).predict(table)
    probability = dict(zip(predicted.images, predicted.probabilities[:, 1], strict=True))
    found = np.array([float(row["p_nodule"]) for row in rows])
    np.testing.assert_allclose(found, [probability[file] for file in files], atol=1e-5)
    labels = [row["label"] == "nodule" for row in rows]
    metrics = read_json(folder.metrics)
    assert metrics["external"]["auc"] == pytest.approx(roc_auc_score(labels, found))
    assert metrics["external"]["subjects"] == len(rows) == 28
    assert read_scores(folder, split="external").threshold == metrics["threshold"]
    assert load_settings(folder).data.table == str(table)
    assert {path.name for path in folder.path.iterdir()} >= {
        "report.html",
        "subjects.csv",
        "flow.csv",
        "table1.csv",
    }


def test_the_threshold_and_the_internal_test_are_the_runs_own(run, folder):
    metrics, own = read_json(folder.metrics), read_json(run.metrics)
    assert metrics["threshold"] == own["threshold"] == metrics["external"]["threshold"]
    assert metrics["internal"]["auc"] == pytest.approx(own["test"]["auc"])
    difference = metrics["difference"]["auc"]
    assert difference["difference"] == pytest.approx(metrics["external"]["auc"] - own["test"]["auc"])
    assert difference["low"] < difference["difference"] < difference["high"]
    assert (
        metrics["threshold_comparison"]["nodule"]["own"]["balanced_accuracy"]
        >= metrics["external"]["balanced_accuracy"]
    )
    found = metrics["recalibration"]
    assert found["fitted_on_subjects"] + found["scored_subjects"] == 28


def test_the_page_shows_every_part_and_subgroups_are_those_of_the_table(folder, table):
    page = folder.report.read_text(encoding="utf-8")
    assert set(re.findall(r'section id="(\w+)"', page)) >= {
        "metrics",
        "external",
        "subgroups",
        "subjects",
        "cases",
    }
    groups = {one["group"]: one["n"] for one in read_json(folder.metrics)["subgroups"]["sex"]["groups"]}
    rows = read_rows(table)
    assert groups == {sex: sum(row["sex"] == sex for row in rows) for sex in "FM"}
    header = list(read_rows(folder.table_one)[0])
    assert header[:7] == ["variable", "level", "statistic", "train", "val", "test", "external"]


def leaking_table(folder, run, table, split, change):
    """The new table with one row of a split of the run in it, changed by a function."""
    row = next(row for row in read_rows(run.splits) if row["split"] == split)
    rows = [one | {"file": str(table.parent / one["file"])} for one in read_rows(table)]
    leak = rows[0] | {"participant_id": row["subject"], "file": row["image"], "label": row["label"]}
    path = folder / "leak.csv"
    write_rows(path, [*rows[1:], leak | change(row)])
    return path, row["subject"]


def copy_turned(row, folder):
    """A copy of an image in another file, format and axis order."""
    image = nib.load(row["image"])
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SPL"))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), folder / "copy.nii")
    return str(folder / "copy.nii")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_leak_of_one_subject_is_refused_by_name_by_file_and_by_voxels(run, table, tmp_path, capsys, split):
    changes = {
        "name": lambda _: {"file": str(table.parent / read_rows(table)[0]["file"])},
        "file": lambda _: {"participant_id": "somebody"},
        "voxels": lambda row: {"participant_id": "somebody", "file": copy_turned(row, tmp_path)},
    }
    for kind, change in changes.items():
        leaking, subject = leaking_table(tmp_path, run, table, split, change)
        assert evaluate(run.path, leaking, tmp_path / "out") == 2, kind
        assert subject in capsys.readouterr().err, kind
        assert not (tmp_path / "out").exists()


def test_equal_names_may_be_ignored_but_not_equal_voxels(run, table, tmp_path):
    change = {"file": str(table.parent / read_rows(table)[0]["file"])}
    leaking, _ = leaking_table(tmp_path, run, table, "train", lambda _: change)
    assert evaluate(run.path, leaking, tmp_path / "out", "evaluation.same_names=ignore") == 0
    copied, _ = leaking_table(tmp_path, run, table, "train", lambda row: {"file": copy_turned(row, tmp_path)})
    assert evaluate(run.path, copied, tmp_path / "out2", "evaluation.same_names=ignore") == 2


def test_a_run_of_an_older_version_is_compared_by_voxels_all_the_same(run, table, tmp_path):
    old = RunFolder(tmp_path / "old")
    shutil.copytree(run.path, old.path)
    for path in (old.images, old.subjects, old.training_range):
        path.unlink()
    copied, _ = leaking_table(
        tmp_path, run, table, "train", lambda row: {"participant_id": "x", "file": copy_turned(row, tmp_path)}
    )
    assert evaluate(old.path, copied, tmp_path / "out") == 2
    assert evaluate(old.path, table, tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "metrics.json")["training_range"]["compared"] is False


def test_hashes_that_an_earlier_version_saved_are_computed_anew(run, table, tmp_path):
    old = RunFolder(tmp_path / "old")
    shutil.copytree(run.path, old.path)
    saved = read_json(old.images)
    write_json(old.images, {image: known | {"voxels": "0" * 32} for image, known in saved.items()})
    copied, _ = leaking_table(
        tmp_path, run, table, "train", lambda row: {"participant_id": "x", "file": copy_turned(row, tmp_path)}
    )
    assert evaluate(old.path, copied, tmp_path / "out") == 2
    assert evaluate(old.path, table, tmp_path / "out") == 0


def test_a_planted_shift_is_found(run, table, tmp_path):
    rows = read_rows(table)
    for index, row in enumerate(rows):
        image = nib.load(table.parent / row["file"])
        file = tmp_path / row["file"]
        if index % 2:  # half of the scans: another grid and another orientation
            voxels = np.asarray(image.dataobj)[::3, ::3, ::3]
            image = nib.Nifti1Image(voxels, image.affine @ np.diag([3, 3, 3, 1]))
            image = image.as_reoriented(nib.orientations.axcodes2ornt("SAR"))
        nib.save(image, file)
        row["file"] = str(file)
    write_rows(tmp_path / "shifted.csv", rows)
    assert evaluate(run.path, tmp_path / "shifted.csv", tmp_path / "out") == 0
    found = read_json(tmp_path / "out" / "metrics.json")["training_range"]
    assert found["outside"] >= 14
    assert {"stored axes", "spacing along depth", "voxels along height"} <= set(found["reasons"])
    flagged = [row["warning"] != "" for row in read_rows(tmp_path / "out" / "predictions.csv")]
    assert all(flagged[1::2])
    if found["outside"] < 28:
        assert found["inside"]["n"] == 28 - found["outside"]


def test_columns_and_classes_may_have_other_names_and_runs_are_averaged(
    run, other_run, table, tmp_path, capsys
):
    rows = [
        {
            "id": row["participant_id"],
            "scan": row["file"],
            "diagnosis": {"vessel": "0", "nodule": "1"}[row["label"]],
        }
        for row in read_rows(table)
    ]
    write_rows(tmp_path / "renamed.csv", rows)
    names = (
        "data.image_column=scan",
        "data.label_column=diagnosis",
        "data.subject_column=id",
        "data.classes=[0,1]",
        f"data.root={table.parent}",
    )
    assert evaluate([run.path, other_run.path], tmp_path / "renamed.csv", tmp_path / "out", *names) == 0
    assert "0 counts as vessel, 1 counts as nodule" in " ".join("".join(capsys.readouterr()).split())
    singles = []
    for one in (run, other_run):
        assert evaluate(one.path, table, tmp_path / one.path.name) == 0
        singles.append(
            [float(row["p_nodule"]) for row in read_rows(tmp_path / one.path.name / "predictions.csv")]
        )
    both = [float(row["p_nodule"]) for row in read_rows(tmp_path / "out" / "predictions.csv")]
    np.testing.assert_allclose(both, np.mean(singles, axis=0), atol=1e-6)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["internal"]["subjects"] == read_json(run.metrics)["test"]["subjects"]  # averaged, too


def test_a_table_without_one_of_the_classes_is_scored_without_an_auc(run, table, tmp_path, capsys):
    rows = [
        row | {"file": str(table.parent / row["file"]), "label": row["label"].replace("vessel", "Gefäß")}
        for row in read_rows(table)
    ]
    write_rows(tmp_path / "one.csv", rows)
    assert evaluate(run.path, tmp_path / "one.csv", tmp_path / "out") == 0
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "Gefäß" in shown
    assert "set data.classes to the table's names of vessel, nodule" in shown
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["external"]["auc"] is None
    assert metrics["external"]["sensitivity"] is not None
    assert "own" not in metrics["threshold_comparison"]["nodule"]


@pytest.mark.slow
def test_a_comparison_repeats_its_paired_verdict(run, other_run, table, tmp_path):
    comparison = tmp_path / "comparison"
    comparison.mkdir()
    trials = tuple(Trial(one.path.name, 0, 0, (), one) for one in (other_run, run))
    write_rows(comparison / "trials.csv", [build_trial_row(Outcome(trial)) for trial in trials])
    write_comparison(SelectedTrials(trials, ()), folder=comparison)
    assert (
        evaluate(comparison, table, tmp_path / "out", "evaluation.by=[sex]", "evaluation.min_subjects=4") == 0
    )
    results = read_json(tmp_path / "out" / "comparison.json")
    internal = read_json(comparison / "comparison.json")
    assert results["internal_verdict"] == internal["verdict"] != results["verdict"]
    pair = results["pairs"][0]
    assert (pair["first"], pair["second"], pair["subjects"]) == ("slice2d", "volume3d", 28)
    aucs = {name: model["external"]["auc"] for name, model in results["models"].items()}
    assert pair["differences"]["auc"]["difference"] == pytest.approx(aucs["volume3d"] - aucs["slice2d"])
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert {row["model"] for row in rows} == {"slice2d", "volume3d"}
    assert len(rows) == 56
    assert set(results["subgroups"]) == {"slice2d", "volume3d"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert {"differences", "external", "subgroups"} <= set(re.findall(r'section id="(\w+)"', page))
    leaking, _ = leaking_table(tmp_path, run, table, "train", lambda _: {})
    assert evaluate(comparison, leaking, tmp_path / "leak") == 2


def test_a_finished_run_is_scored_by_groups_again(run):
    before = run.metrics.read_text(encoding="utf-8")
    options = ("evaluation.by=[site,'header.spacing.depth:1.8']", "evaluation.min_subjects=2")
    assert call_command("evaluate", f"run={run.path}", *options) == 0
    found = json.loads(run.evaluation("test").read_text(encoding="utf-8"))["subgroups"]
    assert {name: sum(one["n"] for one in block["groups"]) for name, block in found.items()} == {
        "site": 6,
        "header.spacing.depth:1.8": 6,
    }
    assert run.metrics.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.table=x.csv",),
        ("output=out",),
        ("data.root=here",),
        ("evaluation.by=['age:9,5']",),
        ("evaluation.by=[agee]",),
        ("data.table=x.csv", "output=out", "evaluation.recalibrate=2"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call_command("evaluate", f"run={run.path}", *overrides) == 2
    assert list(tmp_path.iterdir()) == []


def own_test_table(run, data, path):
    """The rows of a run's own test subjects, on whom nothing was chosen, as another table."""
    tested = {row["subject"] for row in read_rows(run.splits) if row["split"] == "test"}
    rows = [row for row in read_rows(data / "labels.csv") if row["participant_id"] in tested]
    write_rows(path, [row | {"file": str(data / row["file"])} for row in rows])
    return path


@pytest.mark.parametrize(
    "case",
    [
        ("number", "pitch", "mae", "prediction"),
        ("grades", "winding", "kappa_quadratic", "p_loose"),
        ("findings", "signs", "auc", "p_nodule"),
    ],
    ids=lambda case: case[0],
)
def test_every_task_gives_its_own_test_scores_again_and_takes_its_decisions_over(work, tmp_path, case):
    task, data, metric, column = case
    options = ("preflight.enabled=false", "logger=none", "data.subjects=40", "splits.calibration=0.2")
    run = train_tiny(work, f"of-{task}", *options, f"task={task}", f"data.task={data}", "model=linear")
    table = own_test_table(run, work / "data" / f"{data}-40subjects-seed0-v1", tmp_path / "own.csv")
    asked = ("evaluation.recalibrate=0.4", "evaluation.by=[sex]", "evaluation.min_subjects=2")
    assert evaluate(run.path, table, tmp_path / "out", *asked) == 0
    folder, own = RunFolder(tmp_path / "out"), read_json(run.metrics)
    metrics = read_json(folder.metrics)
    before = {
        row["image"]: float(row[column]) for row in read_rows(run.predictions) if row["split"] == "test"
    }
    found = {row["image"]: float(row[column]) for row in read_rows(folder.predictions)}
    assert found == pytest.approx(before, abs=1e-6)
    assert metrics["external"][metric] == pytest.approx(own["test"][metric])
    assert metrics["difference"][metric]["difference"] == pytest.approx(0, abs=1e-6)
    assert metrics["task"] == task
    for key in ("training", "thresholds"):
        assert metrics.get(key) == own.get(key)
    assert metrics["prediction_sets"]["external"] == own["prediction_sets"]["test"]
    assert {one["group"] for one in metrics["subgroups"]["sex"]["groups"]} <= {"F", "M"}
    assert {"before", "after"} <= set(metrics["recalibration"]) or metrics["recalibration"]["problem"]
    assert read_scores(folder, split="external").keys == read_scores(run, split="test").keys
    page = folder.report.read_text(encoding="utf-8")
    assert set(re.findall(r'section id="(\w+)"', page)) >= {"metrics", "external", "subgroups", "sets"}


@pytest.fixture(scope="module")
def compared(work):
    """A comparison of a regression on columns with a linear model of the voxels."""
    options = (*OPTIONS, "splits.calibration=0.2", "preflight.enabled=false")
    runs = (
        train_tiny(work, "covariates", *options, "model=covariates", "model.columns=[age,sex]"),
        train_tiny(work, "linear", *options, "model=linear"),
    )
    folder = work / "compared"
    folder.mkdir()
    trials = tuple(Trial(one.path.name, 0, 0, (), one) for one in runs)
    write_rows(folder / "trials.csv", [build_trial_row(Outcome(trial)) for trial in trials])
    write_comparison(SelectedTrials(trials, ()), folder=folder)
    return folder


def test_models_without_a_network_are_compared_on_external_data(compared, work, table, tmp_path):
    run = RunFolder(work / "covariates")
    own = own_test_table(run, work / "data" / "nodule-24subjects-seed0-v1", tmp_path / "own.csv")
    assert evaluate(compared, own, tmp_path / "own") == 0
    rows = [row for row in read_rows(tmp_path / "own" / "predictions.csv") if row["model"] == "covariates"]
    before = {row["image"]: row["p_nodule"] for row in read_rows(run.predictions) if row["split"] == "test"}
    assert {row["image"]: float(row["p_nodule"]) for row in rows} == pytest.approx(
        {image: float(value) for image, value in before.items()}
    )
    assert evaluate(compared, table, tmp_path / "new", "evaluation.prevalence=0.1") == 0
    results = read_json(tmp_path / "new" / "comparison.json")
    assert [(pair["first"], pair["second"]) for pair in results["pairs"]] == [("covariates", "linear")]
    for model in results["models"].values():
        assert model["use"]["prevalence"] == 0.1
        assert model["prediction_sets"]["external"]["n"] == 28
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'section id="(\w+)"', page)) >= {"external", "use", "sets"}


def test_a_model_whose_columns_the_table_lacks_is_left_out_with_a_sentence(compared, table, tmp_path, caplog):
    rows = [row | {"file": str(table.parent / row["file"])} for row in read_rows(table)]
    write_rows(tmp_path / "bare.csv", [{key: row[key] for key in row if key != "age"} for row in rows])
    assert evaluate(compared, tmp_path / "bare.csv", tmp_path / "out") == 0
    assert "covariates" in caplog.text
    assert "age" in caplog.text
    metrics = read_json(tmp_path / "out" / "metrics.json")  # of the only model that is left
    assert [path.rpartition("/")[2] for path in metrics["runs"]] == ["linear"]
