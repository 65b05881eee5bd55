"""`voxlift-compare`: several models on the same subjects, folds and seeds, and a paired test.

A comparison's folder is named by its settings, so the same command finds finished trainings again and goes
on where it was stopped.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from voxlift.app.cli.command import open_command
from voxlift.app.comparison.comparable import pick_comparable
from voxlift.app.comparison.compare import run_trials
from voxlift.app.comparison.compose import config_dir_arguments
from voxlift.app.comparison.plan import plan_comparison
from voxlift.app.config import CompareSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.progress import say


def main() -> None:
    """The console script."""
    open_command("compare", read=read_settings, job=compare)


def read_settings(cfg: DictConfig) -> CompareSettings:
    """The composed configuration as values; each training's are checked when the comparison is planned."""
    return to_settings(cfg, CompareSettings)


def compare(settings: CompareSettings) -> int:
    """Train what is not trained yet, then set the models side by side.

    Returns:
        The exit status: 0, or that of the first training which failed. The others are compared even so.

    Raises:
        SettingsError: the settings name no comparison, or the folder holds another one.
    """
    plan = plan_comparison(settings)
    outcomes = run_trials(
        plan, runs_folder=Path(settings.runs_folder), arguments=tuple(config_dir_arguments())
    )
    found = pick_comparable(plan, outcomes)
    for note in found.notes:
        say(note)
    if found.is_enough:
        from voxlift.app.comparison.results import summarise_comparison

        summarise_comparison(found, folder=plan.folder)
    else:
        trials = plan.folder / "trials.csv"
        say(f"Too few trainings finished for a comparison; {trials} tells of each.")
    return next((outcome.status for outcome in outcomes if outcome.status), 0)


if __name__ == "__main__":
    from voxlift.app.cli.compare import (
        main as main_by_name,  # a launcher hands the job on by its module's name
    )

    main_by_name()
