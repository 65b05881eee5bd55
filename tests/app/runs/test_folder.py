"""Run folders: created without overwriting anything, and found again from a path that is nearly right."""

import pytest

from voxlift.app.config import DataSettings, ModelSettings, PreprocessSettings, SettingsError, TrainSettings
from voxlift.app.files import write_text
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder, create_run, open_finished_run, refuse_used_folder


def test_unnamed_runs_of_one_second_get_folders_of_their_own(tmp_path):
    made = {create_run(None, runs_folder=str(tmp_path), name="x").path for _ in range(5)}
    assert len(made) == 5
    assert all(path.is_dir() for path in made)


def test_a_folder_with_results_is_never_written_over(tmp_path):
    write_text(tmp_path / "metrics.json", "{}")
    with pytest.raises(SettingsError, match=r"metrics\.json|results"):
        create_run(str(tmp_path), runs_folder="unused", name="x")
    with pytest.raises(SettingsError, match=r"metrics\.json|results"):
        refuse_used_folder(str(tmp_path))


def test_a_new_or_empty_folder_is_taken(tmp_path):
    refuse_used_folder(None)
    assert create_run(str(tmp_path), runs_folder="unused", name="x").path == tmp_path
    assert create_run(str(tmp_path / "a" / "b"), runs_folder="unused", name="x").path.is_dir()


def test_what_is_not_a_run_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(SettingsError, match="nowhere"):
        open_finished_run(str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"config\.yaml, splits\.csv, model\.keras"):
        open_finished_run(str(tmp_path))


def test_settings_come_back_as_they_were(tmp_path):
    settings = TrainSettings(
        data=DataSettings(name="phantom", task="nodule", classes=["a", "b"]),
        preprocess=PreprocessSettings(name="ct", spacing=[2.0, 1.0, 1.0], shape=[5, 7, 11]),
        model=ModelSettings(name="volume3d", kind="volume"),
        augment={"flip_prob": [0.0, 0.0, 0.5]},
    )
    run = RunFolder(tmp_path)
    save_settings(settings, run)
    assert load_settings(run) == settings


def test_an_unknown_configuration_is_refused_by_its_file(tmp_path):
    run = RunFolder(tmp_path)
    write_text(run.config, "unheard_of: 1\n")
    with pytest.raises(SettingsError, match=r"config\.yaml.*unheard_of"):
        load_settings(run)


@pytest.fixture
def interrupted(tmp_path):
    """A run whose training was interrupted, in a comparison's folder."""
    run = tmp_path / "first" / "runs" / "slice2d-seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    return run


def test_a_used_folder_is_refused_by_what_it_holds(tmp_path, interrupted):
    def message_for(path):
        with pytest.raises(SettingsError) as found:
            refuse_used_folder(str(path))
        return str(found.value)

    (tmp_path / "a file").write_text("mine")
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(5):
        (scans / f"{index}.nii").touch()
    assert f"resume={interrupted}" in message_for(interrupted)
    assert "it is a file" in message_for(tmp_path / "a file")
    assert str(tmp_path / "a file") in message_for(tmp_path / "a file" / "run")
    assert "0.nii, 1.nii, 2.nii and more" in message_for(scans)


def test_a_folder_without_write_permission_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path)
    with pytest.raises(SettingsError, match=r"run_dir=.*new"):
        refuse_used_folder(str(tmp_path / "new" / "run"))


def test_a_path_that_is_nearly_a_run_is_refused_with_the_runs_nearby(tmp_path, interrupted):
    def message_for(path):
        with pytest.raises(SettingsError) as found:
            open_finished_run(str(path))
        return str(found.value)

    assert f"Did you mean {interrupted}?" in message_for(interrupted.parent / "slice2d-sed0")
    assert f"Did you mean {interrupted}?" in message_for(tmp_path / "frist" / "runs" / "slice2d-seed0")
    for folder in (interrupted.parent, interrupted.parent.parent, tmp_path):
        assert str(interrupted) in message_for(folder)
    assert f"voxlift-train resume={interrupted}" in message_for(interrupted)
    (interrupted / "config.yaml").write_text("custom: [mynets]")
    assert f"resume={interrupted} 'custom=[mynets]'" in message_for(interrupted)
    assert "it is a file" in message_for(interrupted / "config.yaml")
