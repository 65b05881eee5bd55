"""Trains what is not trained yet, each trial in a child process, and uses again what is.

A child process for each: its peak memory is its own, and a crash of one leaves the others' results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.run_trial import run_trial
from voxlift.app.comparison.trial import Outcome, outcome_row
from voxlift.app.files import write_rows
from voxlift.app.runs.reuse import TRIALS
from voxlift.app.runtime.exit_status import USER_ERROR


def run_trials(plan: Plan, *, runs_folder: Path, arguments: Sequence[str] = ()) -> list[Outcome]:
    """Train every trial that has no finished run; one that fails does not keep the others from theirs.

    `trials.csv` in the comparison's folder is brought up to date after each. Where all models of the first
    fold and seed are refused (a table that cannot be read, say), the rest is not tried.

    Args:
        plan: the comparison.
        runs_folder: finished runs with the same settings are looked for here too.
        arguments: further arguments of each training, such as the user's own configuration folder.

    Raises:
        KeyboardInterrupt: the user interrupted a training.
    """
    outcomes: list[Outcome] = []
    models = len({trial.model for trial in plan.trials})
    for number, (trial, wanted) in enumerate(zip(plan.trials, plan.settings, strict=True), start=1):
        label = f"{number}/{len(plan.trials)}  {trial.run.path.name}"
        outcomes.append(run_trial(trial, wanted, label=label, runs_folder=runs_folder, arguments=arguments))
        write_rows(plan.folder / TRIALS, [outcome_row(outcome) for outcome in outcomes])
        if number == models and all(outcome.status == USER_ERROR for outcome in outcomes):
            break
    return outcomes
