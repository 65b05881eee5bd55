"""New scans get the scores of the run itself; unusable ones do not stop the others, seen ones are named."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from commands import compose_command
from voxlift.app.cli.predict import predict, read_settings
from voxlift.app.config import SettingsError
from voxlift.app.evaluation.calibration import apply_calibration
from voxlift.app.files import read_rows, write_json, write_rows
from voxlift.app.inference import predictor
from voxlift.app.inference.ensemble import open_ensemble
from voxlift.app.inference.predict import find_seen
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_calibration, read_scores
from voxlift.data_pipelines.parallel import map_in_order
from voxlift.data_pipelines.scans import Scan

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def settings_for(*overrides):
    return read_settings(compose_command("predict", *overrides))


def predicted(run, source, output, *overrides, status=0):
    names = run if isinstance(run, list) else [run]
    runs = f"run=[{','.join(str(one.path) for one in names)}]"
    assert predict(settings_for(runs, f"input={source}", f"output={output}", *overrides)) == status
    return read_rows(output)


def own_rows(run, split="test"):
    return [row for row in read_rows(run.predictions) if row["split"] == split]


@pytest.fixture
def table(runs, tmp_path):
    """A table of the test subjects without labels."""
    rows = own_rows(runs["volume3d"])
    write_rows(tmp_path / "test.csv", [{"participant_id": r["subject"], "file": r["image"]} for r in rows])
    return tmp_path / "test.csv"


@pytest.mark.parametrize("name", ["slice2d", "slice2d_attention", "slab25d", "volume3d"])
def test_predictions_of_the_test_subjects_are_the_runs_own(name, runs, table, tmp_path):
    rows, own = predicted(runs[name], table, tmp_path / "out.csv"), own_rows(runs[name])
    assert [row["subject"] for row in rows] == [row["subject"] for row in own]
    for column in ("p_vessel", "p_nodule"):
        np.testing.assert_allclose(
            [float(row[column]) for row in rows], [float(row[column]) for row in own], atol=1e-6, rtol=0
        )
    threshold = json.loads(runs[name].metrics.read_text(encoding="utf-8"))["threshold"]
    assert all((row["decision"] == "nodule") == (float(row["p_nodule"]) >= threshold) for row in rows)
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["threshold"] == pytest.approx(
        threshold
    )


def test_a_run_of_two_channels_finds_both_in_a_table(runs, train_once, tmp_path):
    kept = {"participant_id": "subject", "t1": "image", "flair": "image", "label": "label", "split": "split"}
    rows = [
        {name: row[column] for name, column in kept.items()} for row in read_rows(runs["volume3d"].splits)
    ]
    write_rows(tmp_path / "two.csv", rows)
    columns = ["data.label_column=label", "data.subject_column=participant_id", "data.split_column=split"]
    data = ["data=manifest", f"data.table={tmp_path / 'two.csv'}", "data.image_columns=[t1,flair]", *columns]
    run = train_once("two_channels", *data, "model=volume3d")
    unlabelled = [{name: row[name] for name in ("participant_id", "t1", "flair")} for row in rows]
    write_rows(tmp_path / "new.csv", unlabelled)
    found = {row["subject"]: row for row in predicted(run, tmp_path / "new.csv", tmp_path / "out.csv")}
    assert len(found) == len(rows)
    for row in own_rows(run):
        assert float(found[row["subject"]]["p_nodule"]) == pytest.approx(float(row["p_nodule"]), abs=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_with_their_spread(runs, table, tmp_path):
    members = [runs["slice2d"], runs["volume3d"]]
    rows = predicted(members, table, tmp_path / "out.csv")
    alone = np.array([[float(row["p_nodule"]) for row in own_rows(run)] for run in members])
    np.testing.assert_allclose([float(row["p_nodule"]) for row in rows], alone.mean(0), atol=1e-6)
    np.testing.assert_allclose([float(row["spread"]) for row in rows], alone.std(0), atol=1e-6)


def test_calibrated_probabilities_are_those_of_the_runs_temperature(runs, table, tmp_path):
    run = runs["volume3d"]
    rows = predicted(run, table, tmp_path / "out.csv")
    expected = apply_calibration(read_scores(run, split="test"), read_calibration(run)).probabilities[:, 1]
    np.testing.assert_allclose([float(row["calibrated_nodule"]) for row in rows], expected, atol=1e-6)


def test_bad_files_end_as_rows_with_their_reason_and_the_others_are_scored(runs, table, tmp_path):
    rows = read_rows(table)
    (tmp_path / "torn.nii").write_bytes(b"not an image")
    bad = [{"participant_id": "torn", "file": str(tmp_path / "torn.nii")}]
    bad += [{"participant_id": "gone", "file": str(tmp_path / "gone.nii")}]
    bad += [{"participant_id": "none", "file": ""}]
    write_rows(table, [rows[0], *bad, *rows[1:]])
    found = predicted(runs["volume3d"], table, tmp_path / "out.csv")
    assert [row["subject"] for row in found[1:4]] == ["torn", "gone", "none"]
    assert "torn.nii" in found[1]["reason"]
    assert "gone.nii" in found[2]["reason"]
    assert "row" in found[3]["reason"]
    own = [float(row["p_nodule"]) for row in own_rows(runs["volume3d"])]
    good = [float(row["p_nodule"]) for row in found if not row["reason"]]
    np.testing.assert_allclose(good, own, atol=1e-6)
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["failed"] == 3


def test_missing_files_of_a_table_are_reported_with_the_setting_root(runs, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("file\nnowhere.nii.gz\n")
    predicted(runs["volume3d"], tmp_path / "new.csv", tmp_path / "out.csv", status=2)
    assert "root=FOLDER" in capsys.readouterr().out


def test_status_2_and_a_table_when_no_scan_could_be_scored(runs, tmp_path):
    (tmp_path / "torn.nii").write_bytes(b"not an image")
    (row,) = predicted(runs["volume3d"], tmp_path / "torn.nii", tmp_path / "out.csv", status=2)
    assert row["reason"]
    assert row["p_nodule"] == ""


def test_a_scan_outside_the_training_range_is_scored_with_a_warning(runs, tmp_path, capsys):
    image = nib.load(own_rows(runs["volume3d"])[0]["image"])
    affine = image.affine @ np.diag([4, 1, 1, 1])
    (tmp_path / "in" / "deep").mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "in" / "deep" / "odd.nii.gz")
    nib.save(image, tmp_path / "in" / "same.nii.gz")
    same, odd = predicted(runs["volume3d"], tmp_path / "in", tmp_path / "out.csv")
    assert (same["subject"], odd["subject"]) == ("same.nii.gz", "deep/odd.nii.gz")
    assert "spacing" in odd["warning"]
    assert odd["decision"]
    assert "spacing" not in same["warning"]
    shown = capsys.readouterr().out
    assert "deep/odd.nii.gz" in shown
    assert shown.rstrip().endswith(f"Results in {tmp_path}/out.csv")


def test_an_older_run_without_a_training_range_predicts_without_warnings(runs, table, tmp_path, capsys):
    old = RunFolder(tmp_path / "old")
    shutil.copytree(runs["slice2d"].path, old.path)
    old.training_range.unlink()
    rows = predicted(old, table, tmp_path / "out.csv")
    assert all(row["decision"] and not row["warning"] for row in rows)
    assert "training_range.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["slice2d", "volume3d"])
def test_maps_are_written_on_the_grid_of_the_source_image(name, runs, table, tmp_path):
    rows = predicted(runs[name], table, tmp_path / "out.csv", "explain=both", "batch_size=3")
    for row in rows:
        over, source = nib.load(tmp_path / row["map"]), nib.load(row["image"])
        assert over.shape == source.shape
        np.testing.assert_allclose(over.affine, source.affine, atol=1e-4)
        assert imread(tmp_path / row["picture"]).shape[1] > 1000
        assert row["agreement"] == "" or -1 <= float(row["agreement"]) <= 1
    assert len({row["map"] for row in rows}) == len(rows)


def test_an_interrupted_prediction_resumes_where_it_stopped(runs, table, tmp_path, monkeypatch):
    batches = []
    score_batch = predictor.score_batch

    def interrupt_third_batch(ensemble, networks, voxels, views, **columns):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(voxels))
        return score_batch(ensemble, networks, voxels, views, **columns)

    arguments = (runs["volume3d"], table, tmp_path / "out.csv", "batch_size=1")
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "score_batch", interrupt_third_batch)
        with pytest.raises(KeyboardInterrupt):
            predicted(*arguments)
    assert not (tmp_path / "out.csv").exists()
    batches.clear()

    def count_batch(*given, **columns):
        batches.append(1)
        return score_batch(*given, **columns)

    monkeypatch.setattr(predictor, "score_batch", count_batch)
    rows, own = predicted(*arguments), own_rows(runs["volume3d"])
    assert len(batches) == len(own) - 2
    np.testing.assert_allclose(
        [float(row["p_nodule"]) for row in rows], [float(row["p_nodule"]) for row in own], atol=1e-6
    )
    assert not list(tmp_path.glob(".*partial"))


def test_views_are_averaged_and_flips_refused_without_mirroring_in_training(runs, table, tmp_path):
    plain = predicted(runs["volume3d"], table, tmp_path / "plain.csv")
    turned = predicted(runs["volume3d"], table, tmp_path / "turned.csv", "tta=half_turns")
    assert [row["p_nodule"] for row in plain] != [row["p_nodule"] for row in turned]
    with pytest.raises(SettingsError, match="tta=flips"):
        predicted(runs["volume3d"], table, tmp_path / "flips.csv", "tta=flips")


def changed_run(run, folder, old, new):
    shutil.copytree(run.path, folder)
    other = RunFolder(folder)
    other.config.write_text(other.config.read_text(encoding="utf-8").replace(old, new))
    return other


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("interpolation: linear", "interpolation: nearest", "preprocess.interpolation: linear"),
        ("time_axis: error", "time_axis: first", "preprocess.time_axis: error"),
        ("  - vessel\n  - nodule", "  - nodule\n  - vessel", "classes: vessel, nodule"),
    ],
)
def test_incompatible_runs_are_refused_with_what_differs(old, new, named, runs, tmp_path):
    other = changed_run(runs["slice2d"], tmp_path / "other", old, new)
    with pytest.raises(SettingsError, match=re.escape(named)):
        open_ensemble([str(runs["slice2d"].path), str(other.path)])


def test_all_mistakes_are_reported_at_once_before_anything_is_read(tmp_path):
    with pytest.raises(SettingsError) as caught:
        settings_for("tta=sideways", "explain=maybe", f"output={tmp_path}/no/out.csv", "batch_size=0")
    for key in ("run:", "input:", "tta:", "explain:", "batch_size:", "output="):
        assert key in str(caught.value)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(SettingsError, match="overwrite=true"):
        settings_for("run=a", "input=b", f"output={tmp_path}/out.csv")


def test_an_unknown_layer_or_class_is_refused_by_name(runs, table, tmp_path):
    with pytest.raises(SettingsError, match="nose"):
        predicted(runs["volume3d"], table, tmp_path / "o.csv", "explain=true", "explain_layer=nose")
    with pytest.raises(SettingsError, match=r"vessel, nodule.*wart"):
        predicted(runs["volume3d"], table, tmp_path / "o.csv", "explain=true", "explain_class=wart")


def test_memory_holds_a_few_scans_whatever_their_number():
    taken = []

    def endless():
        for number in range(1000):
            taken.append(number)
            yield number

    made = map_in_order(lambda number: number * 2, endless(), workers=2, ahead=4)
    assert [next(made) for _ in range(10)] == [2 * number for number in range(10)]
    assert len(taken) <= 10 + 4 + 1
    made.close()


def test_every_column_of_the_table_is_there_once(runs, table, tmp_path):
    predicted(runs["slice2d"], table, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == [
        "subject",
        "image",
        "decision",
        "p_vessel",
        "p_nodule",
        "calibrated_vessel",
        "calibrated_nodule",
        "warning",
        "reason",
    ]


def test_scans_of_the_training_split_are_found_by_their_files(tmp_path):
    run, files = RunFolder(tmp_path / "run"), [tmp_path / f"{name}.nii.gz" for name in ("a", "b", "c")]
    run.path.mkdir()
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    sizes = {str(file): {"files": [[str(file.resolve()), file.stat().st_size, 0]]} for file in files[:2]}
    write_json(run.images, sizes)
    splits = [("train", files[0]), ("test", files[1])]
    write_rows(run.splits, [{"subject": "s", "image": str(file), "split": split} for split, file in splits])
    link = tmp_path / "link.nii.gz"
    link.symlink_to(files[0])
    ensemble = SimpleNamespace(members=[SimpleNamespace(run=run)])
    scans = [Scan("s", (file,)) for file in (*files, link)]
    assert find_seen(scans, ensemble) == {str(files[0]), str(link)}
    files[0].write_bytes(b"another image")
    assert find_seen(scans, ensemble) == frozenset()
