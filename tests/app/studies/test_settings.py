"""Settings of studies: every file composes, every budget is complete, each mistake is reported by its key."""

from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from voxlift.app.config import SettingsError, TrainerSettings
from voxlift.app.config.studies import STUDIES
from voxlift.app.studies import folder as study_folder
from voxlift.app.studies.folder import open_study_folder
from voxlift.app.studies.settings import Choices, Range, read_space, read_values

CONF = Path(__file__).parents[3] / "conf" / "study"
BUDGETS = ("small", "medium", "full")


def test_every_study_has_a_file():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_every_budget_of_every_study_is_complete(name, composed):
    for budget in BUDGETS:
        own = ["study.auc=[0.8,0.9]"] if name == "sample_size" else []
        with composed(f"study={name}", f"study.budget={budget}", *own) as settings:
            study = settings.study
            assert isinstance(study, STUDIES[name])
            assert set(study.budgets) == set(BUDGETS)
            assert {key for key, value in vars(study).items() if value is None} <= {"memory_gb", "prevalence"}


def test_the_users_values_override_the_budget(composed):
    with composed("study=batch_size", "study.batch_sizes=[2,4]", "trainer.epochs=3") as settings:
        assert (settings.study.batch_sizes, settings.study.epochs) == ([2, 4], 3)
    with composed("study=batch_size", "study.epochs=5", "trainer.epochs=3") as settings:
        assert settings.study.epochs == 5


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["study=batch_size", "study.budget=huge"], "study.budget"),
        (["study=batch_size", "study.batch_sizes=[4,4]"], "study.batch_sizes"),
        (["study=batch_size", "study.scaling=[cubic]"], "study.scaling"),
        (["study=batch_size", "study.seeds=[]"], "study.seeds"),
        (["study=complexity", "study.scales=[1.0]"], "study.scales"),
        (["study=architecture", "study.cost=money"], "study.cost"),
        (["study=architecture", "study.vary.model.head=pool"], "study.vary.model.head"),
        (["study=search", "study.space.model.dropout={low:1,high:0}"], "study.space.model.dropout"),
        (["study=search", "study.space.model.axis=depth"], "study.space.model.axis"),
        (["study=search", "study.trials=0"], "study.trials"),
        (["study=search", "model=linear"], "model=linear"),
        (["study=search", "study.vary.model.head=[pool]"], "study.vary"),
        (["study=sample_size"], "study=sample_size"),
        (["study=sample_size", "run=x", "study.auc=[0.8,0.9]"], "study=sample_size"),
        (["study=sample_size", "study.auc=[0.8,1.2]"], "study.auc"),
        (["study=sample_size", "study.auc=[0.8,0.9]", "study.prevalence=1"], "study.prevalence"),
        (["study=sample_size", "study.auc=[0.8,0.9]", "study.pair=[a]"], "study.pair"),
        (["study=sample_size", "study.auc=[0.8,0.9]", "verdict.margin=0"], "verdict.margin"),
        (["study=search", "run=x"], "run=x"),
        (["study=learning_curve", "study.models=[volume3d]"], "study.models"),
        (["study=learning_curve", "study.fractions=[0.5]"], "study.fractions"),
        (["study=learning_curve", "study.equal=hours"], "study.equal"),
        (["study=shortcuts", "study.contestants=[shape]"], "study.contestants"),
        (["study=shortcuts", "study.permutations=0"], "study.permutations"),
        (["study=shortcuts", "task=number", "data.task=pitch"], "study=shortcuts"),
        (["study=shortcuts", "run=x"], "run=x"),
    ],
)
def test_a_mistake_is_reported_with_its_key(overrides, key, composed):
    with pytest.raises(SettingsError, match=rf"^{key}: ") as caught, composed(*overrides):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_a_misspelt_key_of_a_study_is_an_error(composed):
    with pytest.raises(ConfigCompositionException), composed("study=batch_size", "study.batch_size=[2]"):
        pass


def test_a_space_needs_no_plus_sign_and_null_leaves_a_setting_out(composed):
    overrides = ["study.space.model.baseline=[cnn,resnet]", "study.space.optimizer.weight_decay=null"]
    with composed("study=search", *overrides) as settings:
        space = read_space(settings.study.space, where="study.space")
    assert space["model.baseline"] == Choices(("cnn", "resnet"))
    assert space["optimizer.learning_rate"] == Range(2e-4, 2e-2, log=True)
    assert "optimizer.weight_decay" not in space


def test_whole_ends_make_a_range_of_whole_numbers():
    assert Range(1, 8).is_whole
    assert not Range(1, 8.5).is_whole
    assert Range(1, 8).contains(8)
    assert not Range(1, 8).contains("8")


def test_values_may_be_mappings():
    value = {"model": {"depth_policy": ["isotropic", {"kernel": 1, "stride": "height"}]}}
    assert read_values(value, where="x")["model.depth_policy"][1] == {"kernel": 1, "stride": "height"}


def test_the_same_study_opens_its_folder_again_and_another_is_refused(tmp_path, composed):
    place = f"runs_folder={tmp_path}"
    with composed("study=search", place) as settings:
        first = open_study_folder(settings)
    with composed("study=search", place, "study.trials=99") as settings:
        assert open_study_folder(settings).path == first.path  # a search may be extended
    with composed("study=search", place, "study.epochs=1") as settings:
        assert open_study_folder(settings).path != first.path
    with (
        composed("study=search", f"run_dir={first.path}", "study.epochs=1") as settings,
        pytest.raises(SettingsError, match=r"study\.epochs: 1 instead of"),
    ):
        open_study_folder(settings)


def test_a_folder_of_something_else_is_refused(tmp_path, composed):
    (tmp_path / "letters.txt").write_text("dear")
    with (
        composed("study=search", f"run_dir={tmp_path}") as settings,
        pytest.raises(SettingsError, match=r"letters\.txt"),
    ):
        open_study_folder(settings)


def test_a_study_of_a_version_without_some_keys_is_resumed_in_its_folder(tmp_path, composed):
    place = f"runs_folder={tmp_path}"
    with composed("study=search", place, "study.epochs=3") as settings:
        first = open_study_folder(settings)
        saved = OmegaConf.load(first.config)
        for group, key in (("trainer", "ema"), ("study", "warmup_epochs"), ("augment", "mixup_alpha")):
            assert saved[group].pop(key) is not None
        del saved["hosts"]
        OmegaConf.save(saved, first.config)
        assert open_study_folder(settings).path == first.path
        assert OmegaConf.load(first.config).trainer.ema == 0.0
        OmegaConf.save(saved, first.config)
    with (
        composed("study=search", f"run_dir={first.path}", "study.epochs=3", "trainer.ema=0.9") as settings,
        pytest.raises(SettingsError, match=r"\(trainer\.ema: 0\.9 instead of 0\.0\)"),
    ):
        open_study_folder(settings)


def test_a_key_that_an_upgrade_adds_leaves_the_names_of_studies_as_they_are(tmp_path, composed, monkeypatch):
    upgraded = make_dataclass("Upgraded", [("drift", float, 0.0)], bases=(TrainerSettings,))
    defaults_of = study_folder._default_settings
    with composed("study=search", f"runs_folder={tmp_path}") as settings:
        before = open_study_folder(settings)
    monkeypatch.setattr(
        study_folder, "_default_settings", lambda one: replace(defaults_of(one), trainer=upgraded())
    )
    grown = replace(settings, trainer=upgraded(**vars(settings.trainer)))
    assert study_folder._choose_path(grown) == before.path
    grown.trainer.drift = 0.5
    assert study_folder._choose_path(grown) != before.path


def test_a_study_of_a_comparison_is_named_after_it(tmp_path, composed):
    with composed("study=sample_size", "study.auc=[0.8,0.9]", f"runs_folder={tmp_path}") as settings:
        of_run = replace(settings, run="runs/first")
    assert study_folder._choose_path(of_run).name.startswith("study-sample_size-first-")


@pytest.mark.parametrize("text", ["study: {name: knitting}", "[1, 2]", "study: {name: search, yarn: 3}", "{"])
def test_a_folder_with_another_configuration_is_refused_by_its_file(text, tmp_path, composed):
    (tmp_path / "config.yaml").write_text(text)
    with (
        composed("study=search", f"run_dir={tmp_path}") as settings,
        pytest.raises(SettingsError, match=r"config\.yaml"),
    ):
        open_study_folder(settings)
