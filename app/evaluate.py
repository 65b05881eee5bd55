"""`voxlift-evaluate`: scores a finished run again, from the files in its folder alone."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from app.cli import run_command
from app.progress import console
from app.runs import load_settings, open_run, read_json, write_json
from app.settings import SPLIT_NAMES, SettingsError, choice_problem


def main() -> None:
    """The console script."""
    run_command("evaluate", evaluate)


def evaluate(cfg: DictConfig) -> int:
    """Score one split of a finished run and print the metrics.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: the folder is no finished run, or the split is unknown or empty.
    """
    problems = choice_problem("on", cfg.on, SPLIT_NAMES)
    if problems:
        raise SettingsError(problems[0])
    metrics = score_again(str(cfg.run), split=str(cfg.on))
    from app.scoring import show_metrics

    run = open_run(str(cfg.run))
    target = run.path / f"evaluation-{cfg.on}.json"
    write_json(target, metrics)
    show_metrics(metrics, name=load_settings(run).model.name)
    console.print(f"Results in {target}", soft_wrap=True, highlight=False)
    return 0


def score_again(run_dir: str, *, split: str) -> dict[str, Any]:
    """The metrics of one split of a finished run, `{split: {...}}`, from its model and its images.

    Raises:
        SettingsError: the folder is no finished run, or nobody is in the split.
    """
    run = open_run(run_dir)
    settings = load_settings(run)
    saved = read_json(run.metrics)
    from app.cohort import reopen_cohort
    from app.evaluation.intervals import evaluate_scores
    from app.runtime import load_network
    from app.scoring import score_split

    cohort = reopen_cohort(settings, run, split=split)
    network = load_network(run.model)
    scores = score_split(network, cohort, split, batch_size=settings.trainer.batch_size)
    return {split: evaluate_scores(scores, threshold=saved["threshold"])}


if __name__ == "__main__":
    main()
