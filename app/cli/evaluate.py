"""`voxlift-evaluate`: score a finished run again, from the files in its folder."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import SPLIT_NAMES, EvaluateSettings, find_choice_problems, find_count_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.files import find_run_problems, read_json, refuse_unwritable, write_json
from voxlift.app.progress import print_line
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, open_finished_run
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.runtime.setup import import_user_modules


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
    ]


def evaluate(settings: EvaluateSettings) -> int:
    """Score one split of a finished run, print the metrics and write them into the run folder.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: The folder is not a finished run, or no subject is in the split.
    """
    run = open_finished_run(str(settings.run))
    refuse_unwritable(run.metrics, setting=f"run={settings.run}")
    import_user_modules(settings.custom)
    metrics = score_again(run, split=settings.on, batch_size=settings.batch_size)
    from voxlift.app.report.terminal import print_split_metrics

    target = run.evaluation(settings.on)
    write_json(target, metrics)
    print_split_metrics(metrics, name=load_settings(run).model.name)
    print_line(f"Results in {target}")
    return DONE


def score_again(run: RunFolder, *, split: str, batch_size: int | None = None) -> dict[str, Any]:
    """Return the metrics of one split, `{split: {...}}`, from a run's model and its images.

    Args:
        run: A finished run.
        split: `train`, `val` or `test`.
        batch_size: Volumes scored at once; None: as in the training.

    Raises:
        SettingsError: No subject is in the split.
    """
    settings = load_settings(run)
    saved = read_json(run.metrics)
    from voxlift.app.runtime.setup import import_quietly

    import_quietly()  # before the imports below bring TensorFlow in
    from voxlift.app.evaluation.evaluate import evaluate_scores
    from voxlift.app.inference.scores import score_split
    from voxlift.app.runs.cohort import reopen_split
    from voxlift.app.runs.networks import load_network
    from voxlift.app.training.linear_model import score_linear
    from voxlift.models.batch_norm import fold_batch_norm

    batch_size = batch_size or settings.trainer.batch_size
    with translate_failures(build_scoring_hint(batch_size)):
        cohort = reopen_split(settings, run, split=split)
        if settings.model.has_network:
            network = fold_batch_norm(load_network(run.network))
            scores = score_split(network, cohort, split, batch_size=batch_size)
        else:
            scores = score_linear(run, settings, cohort, split)
    return {split: evaluate_scores(scores, threshold=saved["threshold"])}


if __name__ == "__main__":
    main()
