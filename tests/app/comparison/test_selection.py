"""Which trials are compared: the best candidates on validation, in folds and seeds that all finished."""

import math

import pytest

from voxlift.app.comparison.page import mark_resumed
from voxlift.app.comparison.plan import Plan, expand_names
from voxlift.app.comparison.selection import describe_selections, select_models, select_trials
from voxlift.app.comparison.trial import Outcome, build_trials
from voxlift.app.config import TrainSettings
from voxlift.app.files import write_json
from voxlift.app.runs.configuration import write_extension

CANDIDATES = {"best": ("a", "b")}
FULL = {
    ("a", 0): (0.8, 0.5),
    ("b", 0): (0.9, 0.6),
    ("a", 1): (0.7, 0.5),
    ("b", 1): (0.7, 0.4),
    ("c", 0): (0.5, 0.7),
    ("c", 1): (0.5, 0.7),
}


def planned(folder, *, scores):
    """A plan of `best` and `c` on two folds, and outcomes with the AUC and log loss per model and fold."""
    names = ["best", "c"]
    trials = build_trials(
        expand_names(names, CANDIDATES), [0], folds=(0, 1), folder=folder, model_overrides=lambda name: [name]
    )
    for trial in trials:
        if (trial.model, trial.fold) in scores:
            trial.run.path.mkdir(parents=True)
            auc, loss = scores[trial.model, trial.fold]
            write_json(trial.run.metrics, {"val": {"auc": auc, "log_loss": loss}, "test": {"auc": 1.0}})
    plan = Plan(folder, tuple(trials), tuple(TrainSettings() for _ in trials), tuple(names), CANDIDATES)
    outcomes = [Outcome(t, 0 if t.run.is_finished else 70, "why" * (not t.run.is_finished)) for t in trials]
    return plan, outcomes


def test_candidates_are_trained_once_each():
    assert expand_names(["best", "b", "c"], CANDIDATES) == ["a", "b", "c"]
    assert expand_names(["c", "a"], {}) == ["c", "a"]


def test_each_fold_takes_its_own_best_on_validation_and_ties_go_to_the_lower_loss(tmp_path):
    _, outcomes = planned(tmp_path, scores=FULL)
    trials, selections = select_models(["best", "c"], outcomes, CANDIDATES)
    assert [one.model for one in selections] == ["b", "b"]
    assert [(t.model, t.fold, t.run.path.name[0]) for t in trials] == [
        ("best", 0, "b"), ("best", 1, "b"), ("c", 0, "c"), ("c", 1, "c"),
    ]  # fmt: skip
    _, outcomes = planned(tmp_path / "other", scores=FULL | {("a", 1): (0.7, 0.1)})
    assert [one.model for one in select_models(["best"], outcomes, CANDIDATES)[1]] == ["b", "a"]


def test_trainings_that_were_resumed_for_more_epochs_are_named_and_marked_in_the_table(tmp_path):
    plan, outcomes = planned(tmp_path, scores=FULL)
    resumed = next(one.trial for one in outcomes if (one.trial.model, one.trial.fold) == ("c", 1))
    settings = TrainSettings()
    write_extension(resumed.run, settings, planned=settings.trainer.epochs - 2, trained=3)
    mark = f"{settings.trainer.epochs - 2} to {settings.trainer.epochs} epochs"
    selected = select_trials(plan, outcomes)
    (note,) = [note for note in selected.notes if "Resumed" in note]
    assert note.startswith("c, fold 1")
    runs = [trial.run for trial in selected.trials]
    rows = mark_resumed([{}] * len(runs), runs)
    assert [mark in str(row["resumed"]) for row in rows] == [run == resumed.run for run in runs]
    assert mark_resumed([{}], runs[:1]) == [{}]


def test_the_selection_is_described_with_mean_aucs_and_counts(tmp_path):
    _, outcomes = planned(tmp_path, scores=FULL)
    selections = select_models(["best"], outcomes, CANDIDATES)[1]
    (several,) = describe_selections(selections)
    assert all(part in several for part in ("best", "a 0.750", "b 0.800", "2 of 2"))
    (single,) = describe_selections(selections[:1])
    assert single.startswith("best is b,")


def test_a_failed_candidate_leaves_the_selection_to_the_others(tmp_path):
    scores = {key: value for key, value in FULL.items() if key != ("b", 0)}
    selected = select_trials(*planned(tmp_path, scores=scores))
    assert len(selected.trials) == 4
    assert [trial.run.path.name[0] for trial in selected.trials if trial.model == "best"] == ["a", "b"]
    assert any("b-fold0-seed0" in note and "70" in note for note in selected.notes)


def test_an_undefined_validation_score_loses_to_any_other(tmp_path):
    plan, outcomes = planned(tmp_path, scores=FULL | {("b", 0): (None, 0.1)})
    selected = select_trials(plan, outcomes)
    first = next(trial for trial in selected.trials if trial.fold_and_seed == (0, 0))
    assert first.run.path.name.startswith("a")
    (selection, _) = select_models(["best"], outcomes, CANDIDATES)[1]
    assert selection.scores["b"] == -math.inf


def test_without_a_finished_training_nothing_is_selected(tmp_path):
    selected = select_trials(*planned(tmp_path, scores={}))
    assert selected.trials == ()
    assert not selected.is_comparison


def test_a_fold_that_one_model_did_not_finish_is_left_out_for_all(tmp_path):
    scores = {key: value for key, value in FULL.items() if key != ("c", 1)}
    selected = select_trials(*planned(tmp_path, scores=scores))
    assert [(trial.model, trial.fold) for trial in selected.trials] == [("best", 0), ("c", 0)]
    with pytest.raises(StopIteration):
        next(note for note in selected.notes if "2 of 2" in note)  # only shared folds are described
