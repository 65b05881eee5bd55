"""A run as an object: what its files hold, and the predictions and maps of `voxlift-predict`."""

import json

import keras
import nibabel as nib
import numpy as np
import pytest

from commands import compose_command, run_python
from voxlift.app.cli.predict import predict, read_settings
from voxlift.app.config import SettingsError
from voxlift.app.files import read_rows
from voxlift.app.inference.run import open_run
from voxlift.data_pipelines.volume import VolumeError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def run(runs):
    return open_run(runs["volume3d"].path)


@pytest.fixture
def images(run):
    return [row["image"] for row in run.prediction_rows if row["split"] == "test"]


def test_settings_metrics_history_and_predictions_are_those_of_the_files(run):
    assert run.settings.model.name == "volume3d"
    assert run.classes == ("vessel", "nodule")
    assert run.metrics == json.loads(run.folder.metrics.read_text(encoding="utf-8"))
    assert run.history["epoch"].tolist() == [1.0]
    assert run.history["val_auc"].dtype == np.float64
    rows, arrays = run.prediction_rows, run.predictions
    assert list(rows[0]) == ["subject", "image", "split", "label", "p_vessel", "p_nodule"]
    assert [row["subject"] for row in rows] == arrays["subject"].tolist()
    np.testing.assert_allclose(arrays["p_vessel"] + arrays["p_nodule"], 1, atol=1e-6)
    test = run.scores("test")
    assert test.threshold == run.metrics["threshold"]
    np.testing.assert_array_equal(test.probabilities[:, 1], arrays["p_nodule"][arrays["split"] == "test"])


def test_only_the_network_needs_tensorflow(run):
    code = (
        "import sys; from voxlift.app.inference.run import open_run; run = open_run(sys.argv[1]); "
        "run.settings, run.metrics, run.history, run.predictions, run.scores('val'); "
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    done = run_python("-c", code, run.folder.path)
    assert done.returncode == 0, done.stderr


def test_the_model_takes_volumes_and_returns_logits(run):
    network = run.model()
    assert isinstance(network, keras.Model)
    assert network.input_shape == (None, 8, 12, 16, 1)
    assert network(np.zeros((2, 8, 12, 16, 1), np.float32)).shape == (2, 2)


def test_predictions_are_those_of_the_command(run, images, tmp_path):
    cfg = compose_command(
        "predict", f"run={run.folder.path}", f"input={images[0]}", f"output={tmp_path / 'out.csv'}"
    )
    assert predict(read_settings(cfg)) == 0
    (row,) = read_rows(tmp_path / "out.csv")
    found = run.predict(images[0])
    assert (found.subjects, found.images, found.decisions) == (
        (row["subject"],),
        (images[0],),
        (row["decision"],),
    )
    assert found.probabilities.tolist() == [[float(row["p_vessel"]), float(row["p_nodule"])]]
    assert found.calibrated.tolist() == [[float(row["calibrated_vessel"]), float(row["calibrated_nodule"])]]


def test_several_scans_are_predicted_in_order_and_unusable_ones_give_nan_and_a_reason(run, images, tmp_path):
    (tmp_path / "damaged.nii").write_bytes(b"not an image")
    found = run.predict([*images[:2], tmp_path / "damaged.nii"], batch_size=2)
    assert len(found) == 3
    assert found.probabilities.shape == found.calibrated.shape == (3, 2)
    assert np.isnan(found.probabilities[2]).all()
    assert "damaged.nii" in found.reasons[2]
    assert found.decisions[2] == ""
    own = run.scores("test").probabilities[:2]
    np.testing.assert_allclose(found.probabilities[:2], own, atol=1e-6)


def test_a_map_has_the_grid_of_the_network_and_is_written_on_that_of_the_scan(run, images):
    found = run.explain(images[0], class_name="nodule", method="both")
    assert found.heat.shape == (8, 12, 16)
    assert found.heat.dtype == np.float32
    assert found.affine.shape == (4, 4)
    assert (found.class_name, found.method) == ("nodule", "gradcam")
    image, source = found.to_image(), nib.load(images[0])
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)


def test_a_map_explains_the_predicted_class_by_default(run, images):
    assert run.explain(images[0], method="occlusion").class_name == run.predict(images[0]).decisions[0]


def test_what_cannot_be_explained_is_refused_by_name(run, images, tmp_path):
    with pytest.raises(SettingsError, match="wart"):
        run.explain(images[0], class_name="wart")
    with pytest.raises(SettingsError, match="one scan"):
        run.explain(run.folder.path.parent / "data")
    (tmp_path / "damaged.nii").write_bytes(b"not an image")
    with pytest.raises(VolumeError, match="damaged"):
        run.explain(tmp_path / "damaged.nii")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        open_run(tmp_path)
