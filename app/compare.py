"""`voxlift-compare`: several models on the same subjects, folds and seeds, and a paired test.

A comparison's folder is named by its settings, so the same command finds finished trainings again and goes
on where it was stopped.
"""

from __future__ import annotations

from omegaconf import DictConfig

from app.cli import run_command
from app.comparison.planning import config_dir_arguments, plan_comparison
from app.comparison.running import run_trial


def main() -> None:
    """The console script."""
    run_command("compare", compare)


def compare(cfg: DictConfig) -> int:
    """Train what is not trained yet, then set the models side by side.

    Returns:
        The exit status, 0; that of a training which failed.

    Raises:
        SettingsError: the settings name no comparison, or the folder holds another one.
    """
    plan = plan_comparison(cfg)
    arguments = tuple(config_dir_arguments())
    for number, (trial, wanted) in enumerate(zip(plan.trials, plan.settings, strict=True), start=1):
        status = run_trial(trial, wanted, label=f"{number}/{len(plan.trials)}", arguments=arguments)
        if status:
            return status
    from app.comparison.summary import summarise_comparison

    summarise_comparison(plan.trials, folder=plan.folder)
    return 0


if __name__ == "__main__":
    main()
