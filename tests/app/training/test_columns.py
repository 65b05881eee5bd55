"""Images and columns of a table in one network: trained, predicted, explained, ablated and compared."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from commands import call_command, compose_command
from tiny import train_tiny
from voxlift.app.cli.evaluate import score_again
from voxlift.app.cli.train import read_settings
from voxlift.app.comparison.results import write_comparison
from voxlift.app.comparison.selection import SelectedTrials
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import ModelSettings, SettingsError
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.ablation import mean_volume
from voxlift.app.inference.run import open_run
from voxlift.app.runs.cohort import reopen_split
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import load_network
from voxlift.app.tasks.base import find_task
from voxlift.app.training.baseline import check_slice_run
from voxlift.app.training.networks import InputSpec, build_networks
from voxlift.app.training.stages import build_stages, slice_settings
from voxlift.app.training.train import train
from voxlift.data_pipelines.errors import ManifestError

SUBJECTS = 24
QUICK = ("logger=none", "preflight.enabled=false", "trainer.batch_size=4", "precision=float32")
MODEL = ("model.filters=[4,6,8]", "model.columns=[volume,site,gap]")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("columns")


@pytest.fixture(scope="module")
def table(work):
    """Noise images; the column `volume` predicts the label, `site` and `gap` do not; with its own splits."""
    rng = np.random.default_rng(5)
    with (work / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "volume", "site", "gap", "split"])
        for number in range(SUBJECTS):
            ill, split = number % 2, ["train", "val", "test"][max(0, number // 6 - 1)]
            voxels = rng.normal(size=(6, 12, 10)).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), work / f"{number}.nii")
            volume = 1000 + number if split == "test" else 100 * ill + number
            gap = "" if number % 5 == 0 else f"{rng.normal():.3f}"
            writer.writerow([f"{number}.nii", ["well", "ill"][ill], volume, "abc"[number % 3], gap, split])
    return work / "labels.csv"


def settings_for(table, *overrides):
    shared = (
        *("data=manifest", f"data.table={table}", "data.image_column=file", "data.classes=[well,ill]"),
        *("data.split_column=split", "preprocess=none", f"cache.folder={table.parent}/cache"),
    )
    return read_settings(compose_command("train", *shared, *QUICK, *overrides))


def fit(table, name, *overrides):
    run = table.parent / name
    assert train(settings_for(table, f"run_dir={run}", *overrides)) == 0
    return open_run(run)


@pytest.fixture(scope="module")
def joined(table):
    return fit(table, "joined", "model=volume3d_columns", *MODEL, "trainer.epochs=2")


def test_columns_are_fitted_on_training_subjects_alone(joined, table):
    rows = [row for row in read_rows(table) if row["split"] == "train"]
    volume, site, gap = read_json(joined.folder.columns)["columns"]
    assert volume["median"] == np.median([float(row["volume"]) for row in rows])
    assert volume["high"] < 1000  # of the test subjects alone
    assert site["words"] == ["a", "b", "c"]
    assert gap["gap"] is not None
    volumes, columns = joined.model().inputs
    assert len(volumes.shape) == 5
    assert columns.shape[1] == len(("volume", "gap", "gap missing", "site=a", "site=b", "site=c"))


def test_the_saved_run_predicts_what_its_training_predicted(joined, table, work):
    saved = {row["image"]: row for row in joined.prediction_rows}
    found = joined.predict(table)
    assert set(found.reasons) == {""}
    for image, (well, ill) in zip(found.images, found.probabilities, strict=True):
        assert [well, ill] == pytest.approx([saved[image]["p_well"], saved[image]["p_ill"]], abs=1e-5)
    assert all(
        "volume" in text
        for text, row in zip(found.warnings, saved.values(), strict=True)
        if row["split"] == "test"
    )
    both = [str(joined.folder.path)] * 2
    command = (f"run=[{','.join(both)}]", f"input={table}", f"output={work / 'both.csv'}")
    assert call_command("predict", *command) == 0
    rows = read_rows(work / "both.csv")
    np.testing.assert_allclose([float(row["p_ill"]) for row in rows], found.probabilities[:, 1], atol=1e-6)


def test_an_evaluation_needs_the_files_of_the_run_alone(joined, table):
    content = table.read_text()
    try:
        table.unlink()
        again = score_again(joined.folder, split="test")
    finally:
        table.write_text(content)
    assert again["test"]["auc"] == pytest.approx(joined.metrics["test"]["auc"])
    assert again["test"]["log_loss"] == pytest.approx(joined.metrics["test"]["log_loss"], abs=1e-5)


def test_a_scan_without_its_columns_is_refused_in_words(joined, work):
    for source in (work / "0.nii", work):
        with pytest.raises(ManifestError, match="volume, site, gap"):
            joined.predict(source)
    (work / "few.csv").write_text("file,volume,site\n0.nii,5,a\n")
    with pytest.raises(ManifestError, match="'gap'"):
        joined.predict(work / "few.csv")
    (work / "gaps.csv").write_text("file,volume,site,gap\n0.nii,,new,\n")
    (warning,) = joined.predict(work / "gaps.csv").warnings
    assert "volume is missing" in warning
    assert "site new is new" in warning
    assert "gap" not in warning  # training has gaps there


def test_a_map_explains_the_image_of_a_row(joined, work):
    (work / "one.csv").write_text("file,volume,site,gap\n0.nii,50,a,0.5\n")
    found = joined.explain(work / "one.csv", method="both")
    assert found.heat.shape == joined.model().inputs[0].shape[1:4]
    assert "Cases" in joined.folder.report.read_text(encoding="utf-8")


def test_the_ablation_blanks_one_input_and_keeps_the_other(joined):
    run, settings = joined.folder, load_settings(joined.folder)
    rows = read_rows(run.ablation)
    tests = {row["image"]: row for row in joined.prediction_rows if row["split"] == "test"}
    assert {row["split"] for row in rows} == {"image_blanked", "table_blanked"}
    assert len(rows) == 2 * len(tests)
    network, cohort = load_network(run.model), reopen_split(settings, run, split="test")
    mean = mean_volume(reopen_split(settings, run, split="train").prepared("train"))
    gaps = np.zeros((len(tests), 6), np.float32) + cohort.columns.encoder.encode_gaps(1).astype(np.float32)
    volumes = np.stack([*cohort.prepared("test").arrays()]).astype(np.float32)
    expected = {
        "image_blanked": [np.repeat(mean[None], len(tests), axis=0), cohort.columns.features],
        "table_blanked": [volumes, gaps],
    }
    for name, inputs in expected.items():
        logits = np.asarray(network.predict_on_batch(inputs), np.float64)
        p_ill = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        saved = [float(row["p_ill"]) for row in rows if row["split"] == name]
        np.testing.assert_allclose(saved, p_ill, atol=1e-4)
    block = joined.metrics["ablation"]
    assert block["split"] == "test"
    assert block["inputs"]["all_inputs"]["auc"] == pytest.approx(joined.metrics["test"]["auc"])
    assert set(block["inputs"]["table_blanked"]["difference"]) == {"difference", "low", "high"}
    assert 'id="ablation"' in run.report.read_text(encoding="utf-8")


def test_a_resumed_training_takes_the_columns_of_the_run(joined, table):
    before = joined.folder.predictions.read_bytes()
    table_before, settings = table.read_text(), load_settings(joined.folder)
    joined.folder.metrics.unlink()
    joined.folder.predictions.unlink()
    try:
        table.write_text(table_before.replace(",1018,", ",5,"))
        assert train(settings, joined.folder) == 0
    finally:
        table.write_text(table_before)
    assert joined.folder.predictions.read_bytes() == before


@pytest.mark.slow
def test_a_comparison_says_what_each_input_adds(joined, table, work):
    alone = fit(table, "alone", "model=volume3d", "model.filters=[4,6,8]", "trainer.epochs=1")
    covariates = settings_for(table, f"run_dir={work / 'table'}", "model=covariates", MODEL[1])
    assert train(covariates) == 0
    folders = {"covariates": work / "table", "volume3d": work / "alone", "volume3d_columns": work / "joined"}
    trials = tuple(
        Trial(name, 0, 0, (), replace(joined.folder, path=folder)) for name, folder in folders.items()
    )
    write_comparison(SelectedTrials(trials, ()), folder=work)
    found = read_json(work / "comparison.json")
    added = {one["adds"]: one for one in found["added"]}
    assert {key: (one["model"], one["without"]) for key, one in added.items()} == {
        "image": ("volume3d_columns", "covariates"),
        "table": ("volume3d_columns", "volume3d"),
    }
    auc = {name: model["test"]["auc"] for name, model in found["models"].items()}
    assert added["table"]["difference"] == pytest.approx(auc["volume3d_columns"] - auc["volume3d"])
    assert found["models"]["volume3d_columns"]["ablation"]["inputs"] == joined.metrics["ablation"]["inputs"]
    assert "ablation" not in found["models"]["volume3d"]
    assert 'id="ablation"' in (work / "report.html").read_text(encoding="utf-8")
    assert not alone.folder.columns.exists()


@pytest.mark.slow
def test_slices_of_joined_columns_train_and_cannot_be_lifted(table):
    slices = fit(table, "slices", "model=slice2d_columns", *MODEL, "trainer.epochs=1", "augment=strong")
    saved = {row["image"]: row["p_ill"] for row in slices.prediction_rows}
    found = slices.predict(table)
    np.testing.assert_allclose(found.probabilities[:, 1], [saved[image] for image in found.images], atol=1e-5)
    (problem,) = check_slice_run(slices.folder.path, key="model.baseline")
    assert "model.columns" in problem


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("model=volume3d_columns",), "model.columns: expected columns"),
        (("model=linear", "model.join_columns=true", "model.columns=[volume]"), "model.join_columns=true"),
    ],
)
def test_settings_that_cannot_be_joined_are_refused(overrides, named, table):
    with pytest.raises(SettingsError, match=named):
        settings_for(table, *overrides)


@pytest.mark.parametrize(("column", "named"), [("label", "the label itself"), ("volum", "'volume'")])
def test_columns_that_cannot_be_are_refused_before_a_folder_is_made(column, named, table):
    with pytest.raises((SettingsError, ManifestError), match=named):
        fit(table, "none", "model=volume3d_columns", f"model.columns=[{column}]")
    assert not (table.parent / "none").exists()


@pytest.mark.parametrize(("model", "preset"), [("slab25d", "slice2d_columns"), ("acs", "volume3d_columns")])
def test_a_model_of_images_alone_names_the_preset_that_reads_columns(model, preset, tmp_path, capsys):
    command = (f"model={model}", "model.columns=[age]", f"run_dir={tmp_path / 'run'}")
    assert call_command("train", *command) == 2
    error = capsys.readouterr().err
    assert f"model={preset}" in error
    assert "model=covariates" in error


@pytest.mark.parametrize("task", ["classes", "findings", "grades", "number"])
@pytest.mark.parametrize("kind", ["slice", "volume", "inflated", "frozen"])
def test_networks_of_every_task_join_columns(kind, task):
    chosen = find_task(task)
    names = {"number": ("age",), "findings": ("a", "b")}.get(task, ("x", "y", "z"))
    labels = {"number": [[20.0], [40.0]], "findings": [[0.0, 1.0], [1.0, 0.0]]}.get(task, [0, 1, 2])
    spec = InputSpec(
        (5, 12, 16, 1), names, task=chosen, head=chosen.plan_head(names, np.array(labels)), columns=3
    )
    own = {
        "slice": {"kind": "slice"},
        "volume": {"kind": "volume", "init": "random"},
        "inflated": {"kind": "volume", "pretrain": True, "depth_policy": "preserve"},
        "frozen": {"kind": "slice", "aggregate": "gated_attention", "frozen": True, "pretrain": True},
    }[kind]
    model = ModelSettings(name=kind, filters=[4, 6, 8], columns=["age"], join_columns=True, **own)
    settings = replace(read_settings(compose_command("train")), model=model)
    networks = build_networks(model, spec)
    if kind in {"inflated", "frozen"}:
        first, last = build_stages(settings, spec)
        assert len(first.take_networks().trained.inputs) == 1
        assert not slice_settings(settings).model.reads_columns
        networks = last.take_networks()
    inputs = [np.zeros((2, 5, 12, 16, 1), np.float32), np.eye(2, 3, dtype=np.float32)]
    outputs = np.asarray(networks.volume(inputs))
    assert outputs.shape == (2, len(names))
    assert not np.array_equal(outputs[0], outputs[1])  # by their columns alone
    assert type(networks.trained.layers[-1]).__name__ == (chosen.output_layer or "Dense") or kind == "slice"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "phantom"), [("findings", "signs"), ("grades", "winding"), ("number", "pitch")]
)
def test_every_task_trains_with_columns(task, phantom, tmp_path):
    own = (f"task={task}", f"data.task={phantom}", "model=slice2d_columns", "model.columns=[sex,site]")
    run = train_tiny(tmp_path, "run", *own, "logger=none", "preflight.enabled=false")
    assert set(json.loads(run.metrics.read_text())["ablation"]["inputs"]) == {
        *("all_inputs", "image_blanked", "table_blanked")
    }
