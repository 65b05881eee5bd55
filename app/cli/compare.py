"""`voxlift-compare`: train several models on the same subjects, folds and seeds, with a paired test.

The folder of a comparison is named after its settings, so the same command resumes it.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.comparison.check import check_plan
from voxlift.app.comparison.compose import config_dir_arguments
from voxlift.app.comparison.plan import Plan, plan_comparison
from voxlift.app.comparison.run import run_trials
from voxlift.app.comparison.selection import select_trials
from voxlift.app.config import CompareSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import find_cluster_problems, format_job_script
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.setup import import_user_modules


def main() -> None:
    """Run the console script."""
    run_command("compare", read=read_settings, job=compare)


def read_settings(cfg: DictConfig) -> CompareSettings:
    """Return the settings of a composed configuration; those of each training are checked later.

    Raises:
        SettingsError: The cluster cannot be used.
    """
    settings = to_settings(cfg, CompareSettings)
    refuse_problems(find_cluster_problems(settings.cluster))
    return settings


def compare(settings: CompareSettings) -> int:
    """Train what is not trained yet, then compare the models.

    Returns:
        The exit status: 0, or that of the first failed training. The others are compared all the same.

    Raises:
        SettingsError: There is nothing to compare, the folder holds another comparison, or the training of a
            model cannot start.
    """
    plan = plan_comparison(settings)
    if settings.cluster.dry_run:
        print_line(format_job_script(settings.cluster))
        return DONE
    check_plan(plan)
    from voxlift.app.comparison.visible_difference import describe_visible_difference  # numpy: not for --help

    if planned := describe_visible_difference(plan, margin=settings.verdict.margin):
        print_line(planned)
    _print_budgets(settings, plan)
    outcomes = run_trials(
        plan,
        runs_folder=Path(settings.runs_folder),
        arguments=tuple(config_dir_arguments()),
        cluster=settings.cluster,
    )
    selected = select_trials(plan, outcomes)
    for note in selected.notes:
        print_line(note)
    if selected.is_comparison:
        from voxlift.app.comparison.results import write_comparison

        import_user_modules(settings.custom)
        write_comparison(
            selected,
            folder=plan.folder,
            margin=settings.verdict.margin,
            evaluation=settings.evaluation,
            page=settings.report,
        )
    else:
        trials = plan.folder / "trials.csv"
        print_line(f"Too few trainings finished for a comparison; see {trials} for each of them.")
    return next((outcome.status for outcome in outcomes if outcome.status), 0)


def _print_budgets(settings: CompareSettings, plan: Plan) -> None:
    """Print memory and time by `preprocess.budget` where `auto` decides and nothing is trained yet."""
    if settings.preprocess.name != "auto" or any(trial.run.path.exists() for trial in plan.trials):
        return
    from voxlift.app.data.cohort import list_subjects
    from voxlift.app.data.sources import decide_grid  # numpy: not for --help
    from voxlift.app.training.preflight.budgets import describe_costs, measure_budgets

    choice = decide_grid(settings)
    if choice is None:
        return
    trainings = {trial.model: own for trial, own in zip(plan.trials, plan.settings, strict=True)}
    manifest, splits = list_subjects(plan.settings[0])
    costs = measure_budgets(
        trainings,
        {budget: own.shape for budget, own in choice.others.items()},
        volumes=splits.count("train"),
        channels=len(manifest.records[0].images),
    )
    for line in describe_costs(costs):
        print_line(line)


if __name__ == "__main__":
    # Launchers of sweeps pickle the job by the name of its module, which must not be __main__.
    from voxlift.app.cli.compare import main as importable_main

    importable_main()
