"""`voxlift-evaluate`: score a finished run again, or finished runs and comparisons on external data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import (
    SPLIT_NAMES,
    EvaluateSettings,
    EvaluationSettings,
    find_choice_problems,
    find_count_problems,
    find_evaluation_problems,
    find_report_problems,
)
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.files import (
    find_output_folder_problems,
    find_run_problems,
    read_json,
    refuse_unwritable,
    write_json,
)
from voxlift.app.inference.options import ENGINES, find_engine_problems
from voxlift.app.progress import phase, print_line
from voxlift.app.runs.configuration import describe_extensions, load_settings
from voxlift.app.runs.folder import RunFolder, open_finished_run
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.runtime.setup import import_user_modules
from voxlift.app.tasks.base import task_of


def main() -> None:
    """Run the console script."""
    run_command("evaluate", read=read_settings, job=evaluate, is_supervised=True)


def read_settings(cfg: DictConfig) -> EvaluateSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, EvaluateSettings)
    refuse_problems(find_problems(settings))
    return settings


def find_problems(settings: EvaluateSettings) -> list[str]:
    """Return one sentence for each problem in the settings."""
    return [
        *find_choice_problems("on", settings.on, SPLIT_NAMES),
        *find_run_problems(settings.run),
        *find_count_problems("batch_size", settings.batch_size),
        *find_choice_problems("engine", settings.engine, ENGINES),
        *find_engine_problems(settings.engine),
        *find_evaluation_problems(settings.evaluation),
        *find_report_problems(settings.report),
        *_find_external_problems(settings),
    ]


def _find_external_problems(settings: EvaluateSettings) -> list[str]:
    """Return one sentence for each problem of the keys of external data."""
    given = [key for key, value in vars(settings.data).items() if value is not None]
    if settings.data.table is None:
        problems = [f"data.{key}: expected data.table, too, the table of the external data." for key in given]
        if settings.output is not None:
            problems.append("output: only results on external data go there; set data.table=TABLE, too.")
        if isinstance(settings.run, list):
            problems.append("run: expected one run; several are averaged on external data only.")
        return problems
    if settings.output is None:
        return ["output: expected a folder for the results on external data; set output=FOLDER."]
    return find_output_folder_problems(settings.output)


def evaluate(settings: EvaluateSettings) -> int:
    """Score one split of a finished run, or external data; print the metrics and write them.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: The folder is not a finished run, or no subject is in the split.
    """
    if settings.data.table is not None:
        return _evaluate_external(settings)
    run = open_finished_run(str(settings.run))
    refuse_unwritable(run.metrics, setting=f"run={settings.run}")
    import_user_modules(settings.custom)
    with phase(f"Evaluating the {settings.on} subjects"):
        metrics = score_again(
            run,
            split=settings.on,
            batch_size=settings.batch_size,
            engine=settings.engine,
            evaluation=settings.evaluation,
        )
    from voxlift.app.report.terminal import print_split_metrics, print_subgroups

    target = run.evaluation(settings.on)
    write_json(target, metrics)
    print_split_metrics(metrics, name=load_settings(run).model.name)
    print_subgroups(metrics.get("subgroups", {}))
    for sentence in describe_extensions(run):
        print_line(sentence)
    print_line(f"Results in {target}")
    return DONE


def _evaluate_external(settings: EvaluateSettings) -> int:
    runs = [str(run) for run in (settings.run if isinstance(settings.run, list) else [settings.run])]
    import_user_modules(settings.custom)
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()  # before the imports below bring TensorFlow in
    from voxlift.app.external.comparison import evaluate_comparison, is_comparison
    from voxlift.app.external.run import evaluate_runs

    if len(runs) == 1 and is_comparison(Path(runs[0]).expanduser()):
        return evaluate_comparison(settings, Path(runs[0]).expanduser())
    return evaluate_runs(settings, runs)


def score_again(
    run: RunFolder,
    *,
    split: str,
    batch_size: int | None = None,
    engine: str = "tensorflow",
    evaluation: EvaluationSettings | None = None,
) -> dict[str, Any]:
    """Return the metrics of one split, `{split: {...}}`, from a run's model and its images.

    Args:
        run: A finished run.
        split: `train`, `val` or `test`.
        batch_size: Volumes scored at once; None: as in the training.
        engine: What computes the scores, see `choose_engine`.
        evaluation: With the groups that are scored apart, under `subgroups`; None: none.

    Raises:
        SettingsError: No subject is in the split.
    """
    settings = load_settings(run)
    saved = read_json(run.metrics)
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()  # before the imports below bring TensorFlow in
    from voxlift.app.evaluation.evaluate import evaluate_scores
    from voxlift.app.external.score import score_run
    from voxlift.app.inference.groups import evaluate_subgroups
    from voxlift.app.runs.cohort import reopen_split
    from voxlift.app.runs.subjects import check_saved_columns

    evaluation = evaluation or EvaluationSettings()
    is_paired = evaluation.paired_within or settings.evaluation.paired_within
    settings = replace(settings, evaluation=replace(evaluation, paired_within=is_paired))
    columns = check_saved_columns(run, settings, evaluation)
    batch_size = batch_size or settings.trainer.batch_size
    with translate_failures(build_scoring_hint(batch_size)):
        cohort = reopen_split(settings, run, split=split)
        scores = score_run(run, settings, cohort, split, batch_size=batch_size, engine=engine)
    decided = task_of(settings).decide(scores, saved)
    metrics: dict[str, Any] = {split: evaluate_scores(decided)}
    if columns is not None:
        metrics["subgroups"] = evaluate_subgroups([decided], columns, evaluation)
    return metrics


if __name__ == "__main__":
    main()
