"""A trial's overrides and its row, as they are read again."""

from voxlift.app.comparison.trial import Outcome, lay_out_trials, outcome_row
from voxlift.app.config.overrides import quote_override


def test_rows_and_paths_are_written_as_they_must_be_read(tmp_path):
    (trial,) = lay_out_trials(
        ["a"], [0], folds=[0], folder=tmp_path, choice_of=lambda name: [f"model={name}"]
    )
    assert outcome_row(Outcome(trial, 2, "why"))["state"] == "failed"
    assert quote_override('a "b"') == '"a \\"b\\""'
    assert trial.overrides == ("model=a", "seed=0", f'run_dir="{tmp_path}/runs/a-seed0"')
