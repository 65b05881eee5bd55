"""What every study leaves: results as JSON, the page with its figures, and a last line that says where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from voxlift.app.comparison.trial import Trial
from voxlift.app.config import TrainSettings
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.progress import console, say
from voxlift.app.report.html import now
from voxlift.app.report.study_page import StudySummary, write_study_report
from voxlift.app.studies.folder import StudyFolder


@dataclass(frozen=True, eq=False)
class Written(StudySummary):
    """A study's answer, ready to be written: what its page says, and what stands in its tables and results.

    Attributes:
        rows: The table, one row per point.
        more: Further tables by file name.
        values: Numbers of the figures that stand in no table (fits, for instance).
    """

    rows: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


def write_study(written: Written, folder: StudyFolder, *, environment: Mapping[str, object]) -> None:
    """Write every file, print the recommendation, and say where all of it is."""
    write_rows(folder.table, written.rows)
    for name, rows in written.more.items():
        write_rows(folder.path / f"{name}.csv", rows)
    config = folder.config.read_text(encoding="utf-8")
    page = replace(written, config=config, environment=environment, created=now())
    report = write_study_report(page, folder.report, figures=folder.figures)
    write_json(folder.results, _results(written))  # last: a folder with results is a finished study
    console.print(f"\n{written.recommendation}", markup=False)
    for finding in written.findings:
        console.print(f"- {finding}", markup=False)
    say(f"Results in {folder.path}, report {report}")


def _results(written: Written) -> dict[str, Any]:
    """What `results.json` holds."""
    tables = {"rows": written.rows, **written.more}
    return {
        "study": written.name,
        "recommendation": written.recommendation,
        "findings": list(written.findings),
        "varied": dict(written.varied),
        "fixed": dict(written.fixed),
        **{name: [dict(row) for row in rows] for name, rows in tables.items()},
        **written.values,
    }


def environment_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """The environment that the first training wrote down."""
    return read_json(trials[0].run.environment) if trials else {}


NOTE_AUC = (
    "Scores are ROC AUC per subject on the validation part; a training's weights are those of its best epoch "
    "there, by the same rule for all, so that they are a little optimistic for all. The test part is not "
    "used."
)
NOTE_INTERVAL = (
    "Intervals are 95 %, from a bootstrap over subjects in which all seeds of a subject are drawn together; "
    "differences are paired. Two points are told apart only where the interval of their difference excludes "
    "0 and the Holm-adjusted p-value over all points is below 0.05."
)
CAPTION_DIFFERENCES = (
    "Scores on validation. Differences are paired, against the {}; their intervals are those of each pair "
    "alone, p is adjusted over all pairs (Holm). Told apart (better, worse) are those whose interval "
    "excludes 0 and whose p is below 0.05."
)
NOTE_SPLIT = "A seed decides the split, the initial weights and the order of the batches alike."


def describe_fixed(settings: TrainSettings, *, varied: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The settings that matter and were the same for all points; those that were varied are left out."""
    data, model, optimizer = settings.data, settings.model, settings.optimizer
    shown = {
        "data": (data.task and f"{data.name}, {data.task}") or data.name,
        "preprocess.shape": _sides(settings.preprocess.shape),
        "preprocess.spacing": _sides(settings.preprocess.spacing),
        "augment": str(settings.augment.get("name", "")),
        "model": model.name,
        "model.baseline": model.baseline,
        "model.filters": _sides(model.filters),
        "model.depth_policy": str(model.depth_policy),
        "model.init": model.init,
        "model.dropout": f"{model.dropout:g}",
        "optimizer": f"{optimizer.name}, {optimizer.schedule}",
        "optimizer.learning_rate": f"{optimizer.learning_rate:g}",
        "optimizer.weight_decay": f"{optimizer.weight_decay:g}",
        "trainer.epochs": str(settings.trainer.epochs),
        "trainer.batch_size": str(settings.trainer.batch_size),
        "trainer.balance": settings.trainer.balance,
        "precision": settings.precision,
    }
    return [(key, text) for key, text in shown.items() if key not in varied and text]


def say_load(loads: Sequence[float]) -> list[str]:
    """A warning where the machine was busy with other things while time was taken."""
    busiest = max(loads, default=0.0)
    if busiest < 0.5:
        return []
    return [
        (
            f"Other work kept this machine busy while time was taken (up to {busiest:.1f} per core): times "
            "are upper bounds, and their ratios less certain than they look."
        )
    ]


def _sides(values: object) -> str:
    if isinstance(values, list | tuple):
        return " x ".join(f"{value:g}" for value in values)
    return "" if values is None else str(values)
