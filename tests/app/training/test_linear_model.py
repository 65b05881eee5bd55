"""A linear model of voxels or vectors leaves a run that the commands treat as that of a network."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from commands import call_command, compose_command
from tiny import places_in, train_tiny
from voxlift.app.cli.evaluate import score_again
from voxlift.app.cli.predict import predict
from voxlift.app.cli.predict import read_settings as read_predict_settings
from voxlift.app.cli.train import read_settings
from voxlift.app.config import SettingsError
from voxlift.app.files import read_rows, write_rows
from voxlift.app.inference.run import open_run
from voxlift.app.runs.cohort import reopen_split
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runs.linear import LinearWeights
from voxlift.app.training import linear_head
from voxlift.app.training.linear_head import fit_linear_head
from voxlift.app.training.without_network import Vectors
from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.tables.manifest import Record

CLASSES = ("vessel", "nodule")
SHORT = ("trainer.epochs=1", "logger=none", "preflight.enabled=false")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("linear")


@pytest.fixture(scope="module")
def run(work):
    return train_tiny(work, "linear", "model=linear", "logger=none")


@pytest.fixture(scope="module")
def slices(work):
    return train_tiny(work, "slice2d", "model=slice2d", *SHORT)


def probabilities(rows):
    return np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])


def own_rows(run, split="test"):
    return [row for row in read_rows(run.predictions) if row["split"] == split]


def predict_scans(run, source, output, *overrides):
    overrides = [f"run={run.path}", f"input={source}", f"output={output}", *overrides]
    assert predict(read_predict_settings(compose_command("predict", *overrides))) == 0
    return read_rows(output) if str(output).endswith(".csv") else None


def test_the_run_has_the_files_of_a_run_and_its_weights_as_arrays_and_as_nifti(run):
    names = {path.name for path in run.path.iterdir()}
    expected = {"config.yaml", "splits.csv", "predictions.csv", "metrics.json", "report.html", "linear.npz"}
    assert expected | {"weights.nii.gz"} <= names
    assert "model.keras" not in names
    cost = json.loads(run.metrics.read_text(encoding="utf-8"))["cost"]
    saved = LinearWeights.read(run.linear)
    assert cost["strength"] == saved.strength
    assert cost["strength"] in linear_head.STRENGTHS
    assert cost["parameters"] == saved.weights.size + 2
    assert saved.weights.shape == (8, 12, 16, 1, 2)
    cohort = reopen_split(load_settings(run), run, split="train")
    image = nib.load(run.path / "weights.nii.gz")
    expected = prepare_volume(cohort.records[0].images, cohort.preprocess).affine
    np.testing.assert_allclose(image.affine, expected, atol=1e-4)
    difference = saved.weights[..., 0, 1] - saved.weights[..., 0, 0]
    np.testing.assert_allclose(image.get_fdata(), difference.transpose(2, 1, 0), atol=1e-7)


def test_evaluate_predict_and_the_network_give_the_scores_of_the_run(run, tmp_path):
    own = own_rows(run)
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    assert score_again(run, split="test")["test"]["auc"] == metrics["test"]["auc"]
    table = tmp_path / "scans.csv"
    write_rows(table, [{"participant_id": row["subject"], "file": row["image"]} for row in own])
    rows = predict_scans(run, table, tmp_path / "out.csv")
    np.testing.assert_allclose(probabilities(rows), probabilities(own), atol=1e-5)
    predicted = open_run(run.path).predict(table)
    np.testing.assert_allclose(predicted.probabilities, probabilities(own), atol=1e-5)


def test_explain_by_occlusion_works_and_grad_cam_is_refused(run, tmp_path):
    image = own_rows(run)[0]["image"]
    (row,) = predict_scans(run, image, tmp_path / "a.csv", "explain=occlusion")
    assert (tmp_path / row["map"]).exists()
    with pytest.raises(SettingsError, match="explain=gradcam"):
        predict_scans(run, image, tmp_path / "b.csv", "explain=true")
    with pytest.raises(SettingsError, match="explain=gradcam"):
        open_run(run.path).explain(image)


def test_the_run_is_exported(run, tmp_path):
    assert call_command("export", f"run={run.path}", f"output={tmp_path / 'export'}") == 0
    assert (tmp_path / "export" / "contract.json").exists()


def test_a_fit_that_was_interrupted_ends_with_the_same_predictions(run, tmp_path):
    interrupted = RunFolder(shutil.copytree(run.path, tmp_path / "again"))
    interrupted.metrics.unlink()
    interrupted.predictions.unlink()
    assert call_command("train", f"resume={interrupted.path}") == 0
    assert interrupted.predictions.read_bytes() == run.predictions.read_bytes()


def test_several_classes_and_small_blocks_give_the_regression_on_all_features(run, monkeypatch):
    count, classes = 24, ("a", "b", "c")
    values = np.random.default_rng(3).normal(size=(count, 5)) * [1, 10, 2, 5, 1] + 100
    records = [Record(f"sub-{row:02}", (Path(f"{row}.nii"),), row % 3, None, row) for row in range(count)]
    splits = tuple("train" if row < 15 else "val" for row in range(count))
    opened = reopen_split(load_settings(run), run, split="train")
    cohort = replace(opened, records=tuple(records), splits=splits, classes=classes)
    monkeypatch.setattr(linear_head, "STRENGTHS", (1.0,))
    monkeypatch.setattr(linear_head, "BLOCK_BYTES", 2 * 8 * count)  # two features at a time
    found = fit_linear_head(Vectors(values), cohort, balance=False)
    train = cohort.indices("train")
    scaled = (values - values[train].mean(axis=0)) / values[train].std(axis=0)
    scaled /= np.sqrt(np.mean((scaled[train] ** 2).sum(axis=1)))
    expected = LogisticRegression(max_iter=10_000).fit(scaled[train], cohort.labels("train"))
    np.testing.assert_allclose(found.logits, expected.decision_function(scaled), atol=1e-3)
    again = linear_head.predict_linear(Vectors(values), found.weights)
    np.testing.assert_allclose(again, found.logits, atol=1e-4)


def test_a_model_of_vectors_is_fitted_scored_again_and_refused_for_images(run, work, tmp_path):
    rows = [row for split in ("train", "val", "test") for row in own_rows(run, split)]
    rng = np.random.default_rng(5)
    file, names = tmp_path / "vectors.npz", [row["subject"] for row in rows]
    vectors = rng.normal(size=(len(rows), 3))
    vectors[:, 1] += [4 * (row["label"] == "nodule") for row in rows]
    np.savez(file, subject=np.array(names), vectors=vectors)
    embedded = train_tiny(work, "embedding", "model=embedding", f"data.embeddings={file}")
    metrics = json.loads(embedded.metrics.read_text(encoding="utf-8"))
    assert metrics["test"]["auc"] > 0.9
    assert LinearWeights.read(embedded.linear).weights.shape == (3, 2)
    assert score_again(embedded, split="test")["test"]["auc"] == metrics["test"]["auc"]
    with pytest.raises(SettingsError, match=r"data\.embeddings"):
        load_network(embedded.network)
    scan = ("predict", f"run={embedded.path}", f"input={rows[0]['image']}", f"output={tmp_path / 'p.csv'}")
    for explain in ("false", "true", "occlusion"):
        assert call_command(*scan, f"explain={explain}") == 2
    assert not (tmp_path / "p.csv").exists()
    assert call_command("export", f"run={embedded.path}", f"output={tmp_path / 'export'}") == 2
    assert not (tmp_path / "export").exists()


def test_missing_vectors_are_reported_before_a_folder_is_made(run, work, tmp_path):
    names = [row["subject"] for row in own_rows(run)]
    write_rows(tmp_path / "few.csv", [{"subject": name, "a": 1.0, "b": 2.0} for name in names])
    with pytest.raises(ManifestError, match=r"data\.embeddings") as caught:
        train_tiny(work, "few", "model=embedding", f"data.embeddings={tmp_path / 'few.csv'}")
    assert own_rows(run, "train")[0]["subject"] in str(caught.value)
    assert not (work / "few").exists()


def test_a_model_of_vectors_needs_a_file():
    with pytest.raises(SettingsError, match=r"data\.embeddings"):
        read_settings(compose_command("train", "model=embedding"))


def test_features_of_a_network_can_be_used_as_vectors(run, slices, work, tmp_path):
    everyone = tmp_path / "all.csv"
    rows = read_rows(slices.splits)
    write_rows(everyone, [{"participant_id": row["subject"], "file": row["image"]} for row in rows])
    output = tmp_path / "vectors.csv"
    predict_scans(slices, everyone, output, "embed=true")
    assert json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))["vectors"] == len(rows)
    trained = train_tiny(work, "features", "model=embedding", f"data.embeddings={output}")
    assert LinearWeights.read(trained.linear).weights.shape == (8, 2)  # the last of model.filters
    with pytest.raises(SettingsError, match="embed=true"):
        predict_scans(run, everyone, tmp_path / "none.csv", "embed=true")


@pytest.mark.parametrize("wrong", ["run=[a,b]", "tta=flips", "explain=true"])
def test_what_features_cannot_be_combined_with_is_refused(wrong, tmp_path):
    shared = ["run=a", "input=b", f"output={tmp_path / 'v.csv'}", "embed=true"]
    with pytest.raises(SettingsError, match="embed=true"):
        read_predict_settings(compose_command("predict", *shared, wrong))


@pytest.mark.slow
def test_it_is_compared_with_networks(work):
    shared = [*places_in(work), f"run_dir={work / 'compared'}", *SHORT]
    sizes = ["data.subjects=16", "preprocess.shape=[8,12,16]", "preprocess.spacing=[8,5,4]"]
    network = ["model.filters=[4,6,8]", "trainer.batch_size=4", "splits.val=0.25", "splits.test=0.25"]
    status = call_command("compare", "models=[linear,slice2d,volume3d]", *shared, *sizes, *network)
    assert status == 0
    named = json.loads((work / "compared" / "comparison.json").read_text(encoding="utf-8"))
    assert set(named["models"]) == {"linear", "slice2d", "volume3d"}


def test_a_study_of_its_training_is_refused(work):
    shared = [*places_in(work), f"run_dir={work / 'study'}", "data.subjects=16", "logger=none"]
    assert call_command("study", "study=complexity", "study.models=[linear,volume3d]", *shared) == 2


def write_pairs(folder, subjects=10):
    """Write two scans of each subject, the one of class b with a brighter block, and return their table."""
    rng, rows = np.random.default_rng(5), ["file,label,subject"]
    for subject in range(subjects):
        for name, added in (("a", 0.0), ("b", 2.0)):
            values = rng.normal(size=(6, 5, 4)) + subject  # subjects differ more than the classes
            values[2:4, 2:4, 1:3] += added
            nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / f"{subject}{name}.nii")
            rows.append(f"{subject}{name}.nii,{name},p{subject}")
    table = folder / "pairs.csv"
    table.write_text("\n".join(rows))
    return table


def test_the_forced_choice_is_reported_where_a_subject_has_scans_of_both_classes(tmp_path):
    table = write_pairs(tmp_path)
    keys = (
        "model=linear",
        "data=manifest",
        f"data.table={table}",
        "data.image_column=file",
        "preprocess=none",
    )
    keys += ("data.label_column=label", "logger=none", "splits.folds=2", "splits.fold=0", "report.cases=0")
    keys += ("evaluation.paired_within=subject", f"run_dir={tmp_path / 'run'}", *places_in(tmp_path))
    assert call_command("train", *keys, "data.subject_column=subject") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= metrics["test"]["forced_choice"] <= 1
    assert len(metrics["test"]["intervals"]["forced_choice"]) == 2
    assert score_again(open_run(tmp_path / "run").folder, split="test")["test"][
        "forced_choice"
    ] == pytest.approx(metrics["test"]["forced_choice"])


def test_pairs_without_subjects_of_both_classes_are_refused(tmp_path):
    table = write_pairs(tmp_path)
    table.write_text(table.read_text().replace("subject", "scan"))
    keys = (
        "model=linear",
        "data=manifest",
        f"data.table={table}",
        "data.image_column=file",
        "preprocess=none",
    )
    keys += ("data.label_column=label", "logger=none", f"run_dir={tmp_path / 'run'}", *places_in(tmp_path))
    assert call_command("train", *keys, "evaluation.paired_within=subject") == 2
    assert not (tmp_path / "run").exists()
