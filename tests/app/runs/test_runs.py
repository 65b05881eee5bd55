import pytest

from voxlift.app.config import DataSettings, ModelSettings, PreprocessSettings, SettingsError, TrainSettings
from voxlift.app.files import write_text
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder, create_run, open_run, refuse_used_folder


def test_unnamed_runs_of_one_second_get_folders_of_their_own(tmp_path):
    made = {create_run(None, runs_folder=str(tmp_path), name="x").path for _ in range(5)}
    assert len(made) == 5
    assert all(path.is_dir() for path in made)


def test_a_folder_with_results_is_never_written_over(tmp_path):
    write_text(tmp_path / "metrics.json", "{}")
    with pytest.raises(SettingsError, match="it holds results"):
        create_run(str(tmp_path), runs_folder="unused", name="x")
    with pytest.raises(SettingsError, match="it holds results"):
        refuse_used_folder(str(tmp_path))


def test_a_new_or_empty_folder_is_taken(tmp_path):
    refuse_used_folder(None)
    assert create_run(str(tmp_path), runs_folder="unused", name="x").path == tmp_path
    assert create_run(str(tmp_path / "a" / "b"), runs_folder="unused", name="x").path.is_dir()


def test_what_is_not_a_run_is_told(tmp_path):
    with pytest.raises(SettingsError, match="there is no such folder"):
        open_run(str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"config\.yaml, splits\.csv, model\.keras is not in it"):
        open_run(str(tmp_path))


def test_a_comparisons_folder_tells_the_runs_inside_it(tmp_path):
    run = tmp_path / "runs" / "volume3d-seed0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"a comparison's folder, which holds the runs .*volume3d-seed0"):
        open_run(str(tmp_path))


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


def test_a_foreign_configuration_is_told(tmp_path):
    run = RunFolder(tmp_path)
    write_text(run.config, "unheard_of: 1\n")
    with pytest.raises(SettingsError, match=r"config\.yaml: expected a configuration"):
        load_settings(run)


@pytest.fixture
def broken_off(tmp_path):
    """A run that began and did not end, in a comparison's folder."""
    run = tmp_path / "first" / "runs" / "slice2d-seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    return run


def test_a_used_folder_is_told_by_what_it_holds(tmp_path, broken_off):
    def told(path):
        with pytest.raises(SettingsError) as found:
            refuse_used_folder(str(path))
        return str(found.value)

    (tmp_path / "a file").write_text("mine")
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(5):
        (scans / f"{index}.nii").touch()
    assert f"resume={broken_off} goes on with it" in told(broken_off)
    assert "it is a file" in told(tmp_path / "a file")
    assert "is a file, so nothing can be made below it" in told(tmp_path / "a file" / "run")
    assert "it holds 0.nii, 1.nii, 2.nii and more; choose another run_dir" in told(scans)


def test_a_folder_that_may_not_be_written_to_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path)
    with pytest.raises(SettingsError, match=r"may not be written to by you; choose another place"):
        refuse_used_folder(str(tmp_path / "new" / "run"))


def test_what_is_nearly_a_run_is_told_with_the_runs_that_are_there(tmp_path, broken_off):
    def told(path):
        with pytest.raises(SettingsError) as found:
            open_run(str(path))
        return str(found.value)

    assert f"Did you mean {broken_off}?" in told(broken_off.parent / "slice2d-sed0")
    assert f"Did you mean {broken_off}?" in told(tmp_path / "frist" / "runs" / "slice2d-seed0")
    assert f"It holds the runs {broken_off}: name one" in told(broken_off.parent)
    assert f"Below it are the runs {broken_off}" in told(tmp_path)
    assert f"voxlift-train resume={broken_off}" in told(broken_off)
    assert "it is a file" in told(broken_off / "config.yaml")
