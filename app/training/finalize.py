"""The end of a training: its page, its metrics, and what a person is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.files import write_json
from voxlift.app.progress import say
from voxlift.app.report.run_page import write_run_page
from voxlift.app.report.terminal import show_metrics
from voxlift.app.runs.folder import RunFolder


def end_run(
    run: RunFolder,
    settings: TrainSettings,
    metrics: Mapping[str, Any],
    *,
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> None:
    """Finish a run whose other files are written: `report.html`, `metrics.json`, and the last lines.

    Args:
        run: its folder.
        settings: its own.
        metrics: what `metrics.json` shall hold: `judge_scores`, and `cost`.
        cohort: whose cases the page shows.
        network: draws Grad-CAM over them; None for a run without one.
    """
    write_run_page(run, metrics, cohort, network)
    write_json(run.metrics, metrics)  # last: a folder with metrics is a finished run
    show_metrics(metrics, name=settings.model.name)
    say(f"Results in {run.path}")
