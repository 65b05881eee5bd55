"""`voxlift-evaluate`: scores a finished run again, from the files in its folder alone."""

from __future__ import annotations

from typing import Any

from voxlift.app.cli.command import open_command, reader
from voxlift.app.config import SPLIT_NAMES, EvaluateSettings, choice_problem, count_problem
from voxlift.app.files import finished_run_problems, read_json, refuse_unwritable, write_json
from voxlift.app.progress import say
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import open_run
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.failures import scoring_need, told_in_sentences


def main() -> None:
    """The console script."""
    open_command("evaluate", read=reader(EvaluateSettings, find_problems), job=evaluate, is_supervised=True)


def find_problems(settings: EvaluateSettings) -> list[str]:
    """One sentence for each thing wrong with the settings, before anything is read."""
    return [
        *choice_problem("on", settings.on, SPLIT_NAMES),
        *finished_run_problems(settings.run),
        *count_problem("batch_size", settings.batch_size),
    ]


def evaluate(settings: EvaluateSettings) -> int:
    """Score one split of a finished run and print the metrics.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: the folder is no finished run, or nobody is in the split.
    """
    run = open_run(str(settings.run))
    refuse_unwritable(run.metrics, asked=f"run={settings.run}")
    metrics = score_again(str(settings.run), split=settings.on, batch_size=settings.batch_size)
    from voxlift.app.report.terminal import show_metrics

    target = run.path / f"evaluation-{settings.on}.json"
    write_json(target, metrics)
    show_metrics(metrics, name=load_settings(run).model.name)
    say(f"Results in {target}")
    return DONE


def score_again(run_dir: str, *, split: str, batch_size: int | None = None) -> dict[str, Any]:
    """The metrics of one split of a finished run, `{split: {...}}`, from its model and its images.

    Args:
        run_dir: the folder.
        split: train, val or test.
        batch_size: volumes at once; None: as many as in its training.

    Raises:
        SettingsError: the folder is no finished run, or nobody is in the split.
    """
    run = open_run(run_dir)
    settings = load_settings(run)
    saved = read_json(run.metrics)
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()  # before what follows brings the engine in
    from voxlift.app.evaluation.intervals import evaluate_scores
    from voxlift.app.inference.scores import score_split
    from voxlift.app.runs.networks import load_network
    from voxlift.app.runs.subjects import reopen_cohort
    from voxlift.models.folding import fold_normalisation

    at_once = batch_size or settings.trainer.batch_size
    with told_in_sentences(scoring_need(at_once)):
        cohort = reopen_cohort(settings, run, split=split)
        network = fold_normalisation(load_network(run.model))
        scores = score_split(network, cohort, split, batch_size=at_once)
    return {split: evaluate_scores(scores, threshold=saved["threshold"])}


if __name__ == "__main__":
    main()
