import math

import pytest

from commands import compose_command
from voxlift.app.comparison.comparable import pick_comparable
from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.selection import describe_choices, expand_names, settle_contests
from voxlift.app.comparison.trial import Outcome, lay_out_trials
from voxlift.app.config import TrainSettings
from voxlift.app.files import write_json

CONTESTS = {"best": ("a", "b")}


def planned(folder, names, *, folds=(0, 1), scores):
    """A plan, and outcomes with the validation AUC and log loss given per model and fold."""
    trials = lay_out_trials(
        expand_names(names, CONTESTS), [0], folds=folds, folder=folder, choice_of=lambda name: [name]
    )
    for trial in trials:
        if (trial.model, trial.fold) in scores:
            trial.run.path.mkdir(parents=True)
            auc, loss = scores[trial.model, trial.fold]
            write_json(trial.run.metrics, {"val": {"auc": auc, "log_loss": loss}, "test": {"auc": 1.0}})
    plan = Plan(folder, tuple(trials), tuple(TrainSettings() for _ in trials), tuple(names), CONTESTS)
    outcomes = [Outcome(t, 0 if t.run.is_finished else 70, "why" * (not t.run.is_finished)) for t in trials]
    return plan, outcomes


FULL = {
    ("a", 0): (0.8, 0.5),
    ("b", 0): (0.9, 0.6),
    ("a", 1): (0.7, 0.5),
    ("b", 1): (0.7, 0.4),
    ("c", 0): (0.5, 0.7),
    ("c", 1): (0.5, 0.7),
}


def test_candidates_are_trained_once_each():
    assert expand_names(["best", "b", "c"], CONTESTS) == ["a", "b", "c"]
    assert expand_names(["c", "a"], {}) == ["c", "a"]


def test_each_fold_takes_its_own_best_on_validation_and_ties_go_to_the_lower_loss(tmp_path):
    _, outcomes = planned(tmp_path, ["best", "c"], scores=FULL)
    trials, choices = settle_contests(["best", "c"], outcomes, CONTESTS)
    assert [choice.chosen for choice in choices] == ["b", "b"]
    assert [(t.model, t.fold, t.run.path.name[0]) for t in trials] == [
        ("best", 0, "b"), ("best", 1, "b"), ("c", 0, "c"), ("c", 1, "c"),
    ]  # fmt: skip
    scores = FULL | {("a", 1): (0.7, 0.1)}
    _, outcomes = planned(tmp_path / "other", ["best", "c"], scores=scores)
    assert [choice.chosen for choice in settle_contests(["best"], outcomes, CONTESTS)[1]] == ["b", "a"]


def test_the_choice_is_told(tmp_path):
    _, outcomes = planned(tmp_path, ["best", "c"], scores=FULL)
    (told,) = describe_choices(settle_contests(["best"], outcomes, CONTESTS)[1])
    assert told == (
        "best is the best of 2 models, chosen on validation "
        "(ROC AUC, then log loss; AUCs: a 0.750; b 0.800, chosen 2 of 2 times)."
    )
    (told,) = describe_choices(settle_contests(["best"], outcomes, CONTESTS)[1][:1])
    assert told.startswith("best is b, the best of 2 models, chosen on validation (")


def test_a_failed_candidate_leaves_the_contest_to_the_others(tmp_path):
    scores = {key: value for key, value in FULL.items() if key != ("b", 0)}
    plan, outcomes = planned(tmp_path, ["best", "c"], scores=scores)
    found = pick_comparable(plan, outcomes)
    assert len(found.trials) == 4
    assert [trial.run.path.name[0] for trial in found.trials if trial.model == "best"] == ["a", "b"]
    assert any("b-fold0-seed0 failed with status 70" in note for note in found.notes)


def test_an_undefined_validation_score_loses_to_any_other(tmp_path):
    plan, outcomes = planned(tmp_path, ["best", "c"], scores=FULL | {("b", 0): (None, 0.1)})
    found = pick_comparable(plan, outcomes)
    assert next(trial for trial in found.trials if trial.cell == (0, 0)).run.path.name.startswith("a")
    (choice, _) = settle_contests(["best"], outcomes, CONTESTS)[1]
    assert choice.scores["b"] == -math.inf


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plans the comparison of these overrides, in a folder of its own."""
    from hydra import compose, initialize_config_module
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from voxlift.app.cli.compare import read_settings
    from voxlift.app.comparison.plan import plan_comparison
    from voxlift.app.config import register_schemas

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
def test_slices_along_all_axes_enter_the_contest_where_the_volumes_are_cubes(shape, plan):
    found = plan("models=[best_slice,volume3d]", f"preprocess.shape={shape}", "trainer.epochs=1")
    assert ("slice2d_axes" in found.contests["best_slice"]) is (shape == "[12,12,12]")
    assert found.contests["best_slice"][:3] == ("slice2d", "slice2d_height", "slice2d_width")
    assert {trial.model for trial in found.trials} == {*found.contests["best_slice"], "volume3d"}
    assert all("best_of" not in override for trial in found.trials for override in trial.overrides)
    assert all(values.trainer.epochs == 1 for values in found.settings)


def test_of_a_key_given_twice_the_last_word_names_the_folder_and_is_trained(plan):
    once, twice, turned = (
        plan("models=[slice2d,volume3d]", *(f"trainer.epochs={epochs}" for epochs in given))
        for given in ([1], [2, 1], [1, 2])
    )
    assert once.folder == twice.folder != turned.folder
    assert {values.trainer.epochs for values in twice.settings} == {1}
    assert {values.trainer.epochs for values in turned.settings} == {2}


def test_what_is_taken_out_and_put_in_again_are_two_words(plan):
    """As for a training: Hydra takes the group out, and adds it again in another place."""
    words = ("~logger", "+logger=none")
    wanted = dict(compose_command("train", *words).logger)
    found = plan("models=[slice2d,volume3d]", *words)
    assert [vars(values.logger) for values in found.settings] == [wanted, wanted]
