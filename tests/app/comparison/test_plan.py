"""The plan of a comparison, composed from the real configuration and checked before any training."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from commands import compose_command
from voxlift.app.cli.compare import read_settings
from voxlift.app.comparison.plan import plan_comparison
from voxlift.app.config import SettingsError, register_schemas
from voxlift.app.files import read_rows


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: plans the comparison of some overrides, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def plan_one(*overrides):
        register_schemas()
        with initialize_config_module("voxlift.conf", version_base="1.3"):
            cfg = compose("compare", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            return plan_comparison(read_settings(cfg))

    return plan_one


@pytest.mark.parametrize("shape", ["[8,12,16]", "[12,12,12]"])
def test_slices_along_all_axes_are_a_candidate_where_the_volumes_are_cubes(shape, plan):
    found = plan("models=[best_slice,volume3d]", f"preprocess.shape={shape}", "trainer.epochs=1")
    candidates = found.candidates["best_slice"]
    assert ("slice2d_axes" in candidates) is (shape == "[12,12,12]")
    assert candidates[:3] == ("slice2d", "slice2d_height", "slice2d_width")
    assert {trial.model for trial in found.trials} == {*candidates, "volume3d"}
    assert all("best_of" not in override for trial in found.trials for override in trial.overrides)
    assert all(values.trainer.epochs == 1 for values in found.settings)


def test_the_last_of_a_repeated_key_names_the_folder_and_is_trained(plan):
    once, twice, reversed_ = (
        plan("models=[slice2d,volume3d]", *(f"trainer.epochs={epochs}" for epochs in given))
        for given in ([1], [2, 1], [1, 2])
    )
    assert once.folder == twice.folder != reversed_.folder
    assert {values.trainer.epochs for values in twice.settings} == {1}
    assert {values.trainer.epochs for values in reversed_.settings} == {2}


def test_a_group_that_is_removed_and_added_again_is_composed_as_for_a_training(plan):
    overrides = ("~logger", "+logger=none")
    wanted = dict(compose_command("train", *overrides).logger)
    found = plan("models=[slice2d,volume3d]", *overrides)
    assert [vars(values.logger) for values in found.settings] == [wanted, wanted]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["models=[volume3d]"], "models"),
        (["models=[volume3d,volume3d]"], "models"),
        (["models=[volume3d,nonsense]"], "models"),
        (["models=[slice2d,volume3d]", "seeds=[1,1]"], "seeds"),
        (["models=[slice2d,volume3d]", "seed=3"], "seed"),
        (["models=[best_slice,volume3d]", "best_of.best_slice=[slice2d]"], "best_of.best_slice"),
        (["models=[slice2d,volume3d]", "model.depth_policy=sideways"], "model"),
        (["models=[slice2d,volume3d]", "strategy=hosts"], "strategy"),
    ],
)
def test_a_setting_that_no_comparison_can_have_is_refused_by_its_key(overrides, key, plan, tmp_path):
    with pytest.raises(SettingsError, match=rf"\b{key}\b"):
        plan(*overrides)
    assert not list(tmp_path.iterdir())


def test_only_models_that_join_columns_or_are_a_table_read_them(plan):
    found = plan("models=[covariates,volume3d,volume3d_columns]", "model.columns=[age,sex]")
    columns = {
        trial.model: one.model.columns for trial, one in zip(found.trials, found.settings, strict=True)
    }
    assert columns == {"covariates": ["age", "sex"], "volume3d": [], "volume3d_columns": ["age", "sex"]}
    image_alone = next(trial for trial in found.trials if trial.model == "volume3d")
    assert [one for one in image_alone.overrides if "model.columns" in one] == ["model.columns=[]"]


def test_every_site_is_a_fold_where_sites_are_left_out(plan):
    line = [
        "data.subjects=24",
        "models=[slice2d,volume3d]",
        "splits.leave_out=site",
        "preprocess.shape=[8,12,16]",
    ]
    found = plan(*line)
    table = next(Path("data").glob("nodule-24*/labels.csv"))
    sites = {row["site"] for row in read_rows(table)}
    assert len(sites) > 1
    assert {trial.fold for trial in found.trials} == set(range(len(sites)))
    assert {values.splits.fold for values in found.settings} == set(range(len(sites)))
