"""The last steps of a training: save, score, evaluate, write the page, print where the results are."""

from __future__ import annotations

from typing import Any, Protocol

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.evaluate import evaluate_splits
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import write_json, write_rows
from voxlift.app.progress import print_line
from voxlift.app.report.run_page import write_run_page
from voxlift.app.report.terminal import print_split_metrics
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import prediction_rows


class FittedModel(Protocol):
    """A model that was fitted to the training subjects, whatever its kind."""

    @property
    def network(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The Keras model of volumes [B, D, H, W, C], for Grad-CAM; None for a model without one."""

    def save(self, run: RunFolder) -> None:
        """Write the model into the run folder."""

    def score(self, cohort: Cohort) -> dict[str, Scores]:
        """Return the scores of each split that holds subjects."""

    def cost(self, cohort: Cohort) -> dict[str, float]:
        """Return what fitting and scoring cost: parameters, seconds, bytes, floating-point operations."""


def finalize_run(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, fitted: FittedModel) -> None:
    """Write the files that make a run finished, and print its metrics.

    Args:
        run: Its folder, with the files that were written before the fit.
        settings: Of the run.
        cohort: Whose volumes are scored.
        fitted: The model.
    """
    fitted.save(run)
    scores = fitted.score(cohort)
    write_rows(run.predictions, prediction_rows(scores))
    metrics = evaluate_splits(scores)
    metrics["cost"] = fitted.cost(cohort)
    write_run_page(run, metrics, cohort, fitted.network)
    write_json(run.metrics, metrics)  # last: a folder with metrics is a finished run
    print_split_metrics(metrics, name=settings.model.name)
    print_line(f"Results in {run.path}")
