"""`voxlift-evaluate`: scores a finished run again, from the files in its folder alone."""

from __future__ import annotations

from typing import Any

from app.door.cli import DONE, open_command, reader
from app.files import read_json, write_json
from app.progress import console
from app.runs.configuration import load_settings
from app.runs.opening import open_run
from app.settings import SPLIT_NAMES, EvaluateSettings, choice_problem


def main() -> None:
    """The console script."""
    open_command("evaluate", read=reader(EvaluateSettings, find_problems), job=evaluate)


def find_problems(settings: EvaluateSettings) -> list[str]:
    """One sentence for each thing wrong with the settings, before anything is read."""
    problems = choice_problem("on", settings.on, SPLIT_NAMES)
    if settings.run is None:
        problems.append("run: expected the folder of a finished run; say run=RUN_DIR.")
    return problems


def evaluate(settings: EvaluateSettings) -> int:
    """Score one split of a finished run and print the metrics.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: the folder is no finished run, or nobody is in the split.
    """
    run = open_run(str(settings.run))
    metrics = score_again(str(settings.run), split=settings.on)
    from app.scoring.judging import show_metrics

    target = run.path / f"evaluation-{settings.on}.json"
    write_json(target, metrics)
    show_metrics(metrics, name=load_settings(run).model.name)
    console.print(f"Results in {target}", soft_wrap=True, highlight=False)
    return DONE


def score_again(run_dir: str, *, split: str) -> dict[str, Any]:
    """The metrics of one split of a finished run, `{split: {...}}`, from its model and its images.

    Raises:
        SettingsError: the folder is no finished run, or nobody is in the split.
    """
    run = open_run(run_dir)
    settings = load_settings(run)
    saved = read_json(run.metrics)
    from app.evaluation.intervals import evaluate_scores
    from app.networks.files import load_network
    from app.scoring.predicting import score_split
    from app.subjects.saved import reopen_cohort
    from models.folding import fold_normalisation

    cohort = reopen_cohort(settings, run, split=split)
    network = fold_normalisation(load_network(run.model))
    scores = score_split(network, cohort, split, batch_size=settings.trainer.batch_size)
    return {split: evaluate_scores(scores, threshold=saved["threshold"])}


if __name__ == "__main__":
    main()
