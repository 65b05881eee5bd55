"""The grid of trials: folders, overrides and rows."""

from voxlift.app.comparison.trial import Outcome, build_trial_row, build_trials
from voxlift.app.config.overrides import quote_override


def build(folder, folds):
    return build_trials(
        ["a"], [0], folds=folds, folder=folder, shared=["x=1"], model_overrides=lambda name: [f"model={name}"]
    )


def test_a_trial_has_its_model_seed_and_folder_among_its_overrides(tmp_path):
    (trial,) = build(tmp_path, [0])
    assert trial.overrides == ("x=1", "model=a", "seed=0", f'run_dir="{tmp_path}/runs/a-seed0"')
    assert build_trial_row(Outcome(trial, 2, "why"))["state"] == "failed"
    assert quote_override('a "b"') == '"a \\"b\\""'


def test_with_folds_each_trial_has_its_fold_in_overrides_and_folder(tmp_path):
    trials = build(tmp_path, [0, 1])
    assert [trial.run.path.name for trial in trials] == ["a-fold0-seed0", "a-fold1-seed0"]
    assert [trial.overrides[-1] for trial in trials] == ["splits.fold=0", "splits.fold=1"]
