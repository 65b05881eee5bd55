"""Every file under conf/study composes, every budget is whole, and each mistake gets its sentence."""

from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from voxlift.app.config import SettingsError, TrainerSettings
from voxlift.app.config.commands import STUDIES
from voxlift.app.studies import folder as folder_room
from voxlift.app.studies.folder import open_folder
from voxlift.app.studies.space import Choices, Range, read_space, read_values

CONF = Path(__file__).parents[3] / "conf" / "study"
BUDGETS = ("small", "medium", "full")


def test_every_study_has_a_file():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(STUDIES)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", STUDIES)
def test_every_budget_of_every_study_leaves_nothing_open(name, budget, composed):
    with composed(f"study={name}", f"study.budget={budget}") as settings:
        study = settings.study
        assert isinstance(study, STUDIES[name])
        assert set(study.budgets) == set(BUDGETS)
        left_open = {key for key, value in vars(study).items() if value is None}
        assert left_open <= {"memory_gb"}


def test_what_the_user_says_wins_over_the_budget(composed):
    with composed("study=batch_size", "study.batch_sizes=[2,4]", "trainer.epochs=3") as settings:
        assert (settings.study.batch_sizes, settings.study.epochs) == ([2, 4], 3)
    with composed("study=batch_size", "study.epochs=5", "trainer.epochs=3") as settings:
        assert settings.study.epochs == 5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["study=batch_size", "study.budget=huge"], "study.budget: expected one of small"),
        (["study=batch_size", "study.batch_sizes=[4,4]"], "study.batch_sizes: expected different"),
        (["study=batch_size", "study.scaling=[cubic]"], "study.scaling: expected one of"),
        (["study=batch_size", "study.seeds=[]"], "study.seeds: expected different"),
        (["study=complexity", "study.scales=[1.0]"], "study.scales: expected two or more"),
        (["study=architecture", "study.cost=money"], "study.cost: expected one of flops"),
        (["study=architecture", "study.vary.model.head=pool"], "study.vary.model.head: expected a list"),
        (["study=search", "study.space.model.dropout={low:1,high:0}"], "expected low below high"),
        (
            ["study=search", "study.space.model.axis=depth"],
            "study.space.model.axis: expected a list of choices",
        ),
        (["study=search", "study.trials=0"], "study.trials: expected 1"),
    ],
)
def test_a_mistake_is_named_with_its_key(overrides, words, composed):
    with pytest.raises(SettingsError, match="study") as caught, composed(*overrides):
        pass
    assert words in str(caught.value)


def test_a_misspelt_key_of_a_study_is_an_error(composed):
    with pytest.raises(ConfigCompositionException), composed("study=batch_size", "study.batch_size=[2]"):
        pass


def test_a_space_needs_no_plus_sign_and_null_leaves_a_setting_out(composed):
    told = ["study.space.model.baseline=[cnn,resnet]", "study.space.optimizer.weight_decay=null"]
    with composed("study=search", *told) as settings:
        space = read_space(settings.study.space, where="study.space")
    assert space["model.baseline"] == Choices(("cnn", "resnet"))
    assert space["optimizer.learning_rate"] == Range(2e-4, 2e-2, log=True)
    assert "optimizer.weight_decay" not in space


def test_whole_ends_make_a_range_of_whole_numbers():
    assert Range(1, 8).is_whole
    assert not Range(1, 8.5).is_whole
    assert Range(1, 8).holds(8)
    assert not Range(1, 8).holds("8")


def test_values_may_be_mappings():
    value = {"model": {"depth_policy": ["isotropic", {"kernel": 1, "stride": "height"}]}}
    assert read_values(value, where="x")["model.depth_policy"][1] == {"kernel": 1, "stride": "height"}


def test_the_same_study_finds_its_folder_again_and_another_is_refused(tmp_path, composed):
    place = f"runs_folder={tmp_path}"
    with composed("study=search", place) as settings:
        first = open_folder(settings)
    with composed("study=search", place, "study.trials=99") as settings:
        assert open_folder(settings).path == first.path  # a search goes on with more trials
    with composed("study=search", place, "study.epochs=1") as settings:
        assert open_folder(settings).path != first.path
    with (
        composed("study=search", f"run_dir={first.path}", "study.epochs=1") as settings,
        pytest.raises(SettingsError, match="holds a study with other settings"),
    ):
        open_folder(settings)


def test_a_folder_of_something_else_is_refused(tmp_path, composed):
    (tmp_path / "letters.txt").write_text("dear")
    with (
        composed("study=search", f"run_dir={tmp_path}") as settings,
        pytest.raises(SettingsError, match=r"it holds letters\.txt"),
    ):
        open_folder(settings)


def test_a_study_of_a_version_without_some_keys_goes_on_in_its_folder(tmp_path, composed):
    place = f"runs_folder={tmp_path}"
    with composed("study=search", place, "study.epochs=3") as settings:
        first = open_folder(settings)
        saved = OmegaConf.load(first.config)
        for group, key in (("trainer", "ema"), ("study", "warmup_epochs"), ("augment", "mixup_alpha")):
            assert saved[group].pop(key) is not None
        del saved["hosts"]
        OmegaConf.save(saved, first.config)
        assert open_folder(settings).path == first.path
        assert OmegaConf.load(first.config).trainer.ema == 0.0
        OmegaConf.save(saved, first.config)
    with (
        composed("study=search", f"run_dir={first.path}", "study.epochs=3", "trainer.ema=0.9") as settings,
        pytest.raises(SettingsError, match=r"\(trainer\.ema: 0\.9 instead of 0\.0\)"),
    ):
        open_folder(settings)


def test_a_key_that_an_upgrade_adds_leaves_the_names_of_studies_as_they_are(tmp_path, composed, monkeypatch):
    upgraded = make_dataclass("Upgraded", [("drift", float, 0.0)], bases=(TrainerSettings,))
    defaults_of = folder_room._defaults
    with composed("study=search", f"runs_folder={tmp_path}") as settings:
        before = open_folder(settings)
    monkeypatch.setattr(folder_room, "_defaults", lambda one: replace(defaults_of(one), trainer=upgraded()))
    grown = replace(settings, trainer=upgraded(**vars(settings.trainer)))
    assert folder_room._choose_path(grown) == before.path
    grown.trainer.drift = 0.5
    assert folder_room._choose_path(grown) != before.path


@pytest.mark.parametrize("text", ["study: {name: knitting}", "[1, 2]", "study: {name: search, yarn: 3}", "{"])
def test_a_folder_with_another_configuration_is_refused_in_words(text, tmp_path, composed):
    (tmp_path / "config.yaml").write_text(text)
    with (
        composed("study=search", f"run_dir={tmp_path}") as settings,
        pytest.raises(SettingsError, match="expected a study's configuration"),
    ):
        open_folder(settings)
