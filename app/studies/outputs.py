"""Write the results of a study: its tables, `results.json`, and the page with its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from voxlift.app.comparison.trial import Trial, describe_resumed
from voxlift.app.config import TrainSettings
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.progress import console, print_line
from voxlift.app.report.pages import timestamp
from voxlift.app.report.study_page import StudySummary, render_study_page
from voxlift.app.report.tables import show_config
from voxlift.app.studies.folder import StudyFolder

BUSY_LOAD = 0.5  # load per core from which times are reported as uncertain
NOTE_INTERVAL = (
    "Intervals are 95 %, from a bootstrap over subjects in which all seeds of a subject are drawn together, "
    "with the variance between seeds added; differences are paired. A point is better or worse if the "
    "interval of its difference excludes 0, else equivalent if its 90 % interval lies within verdict.margin, "
    "both with a Holm-adjusted p-value over all points below 0.05; else the data cannot tell."
)
NOTE_SPLIT = "A seed decides the split, the initial weights and the order of the batches."
CAPTION_DIFFERENCES = (
    "Scores on validation. Differences are paired, from the {}; their intervals are those of each pair "
    "alone, p is adjusted over all pairs (Holm). A point is better or worse if its interval "
    "excludes 0 and its p is below 0.05, and equivalent if it is shown to differ by less than verdict.margin."
)


def describe_scores(metric: str) -> str:
    """Return what the scores of a study are, by the short name of their metric."""
    return (
        f"Scores are the {metric} per subject on the validation part. The weights of a training are those of "
        "its best epoch there, selected by the same rule for all, so that all scores are slightly "
        "optimistic. The test part is not used."
    )


@dataclass(frozen=True, eq=False)
class StudyResults(StudySummary):
    """The results of a study: the content of its page, and of its tables and `results.json`.

    Attributes:
        rows: Rows of `table.csv`, one per point.
        more: Rows of further tables by file name.
        values: Further values of `results.json`.
        document: The content of `results.json` where a study has its own form of it.
        shown: Keys of the configuration that the page shows; empty: all.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    document: Sequence[Mapping[str, Any]] | None = None
    shown: Sequence[str] = ()


def write_study_results(results: StudyResults, folder: StudyFolder, *, trials: Sequence[Trial] = ()) -> None:
    """Write every file, and print the recommendation and where the files are.

    Args:
        results: The results.
        folder: Folder of the study.
        trials: Finished trainings; the page shows the environment of the first.
    """
    write_rows(folder.table, results.rows)
    for name, rows in results.more.items():
        write_rows(folder.path / f"{name}.csv", rows)
    config = select_keys(folder.config.read_text(encoding="utf-8"), results.shown)
    environment = read_json(trials[0].run.environment) if trials else {}
    notes = [*results.notes, *describe_resumed(trials)]
    page = replace(
        results,
        config=show_config(config, folder.path),
        environment=environment,
        notes=notes,
        created=timestamp(),
    )
    report = render_study_page(page, folder.report, figures=folder.figures)
    document = _build_json(results) if results.document is None else results.document
    write_json(folder.results, document)  # last: a folder with results is a finished study
    for sentence in (f"\n{results.recommendation}", *(f"- {finding}" for finding in results.findings)):
        console.print(sentence, soft_wrap=not console.is_terminal)
    print_line(f"Results in {folder.path}, report {report}")


def select_keys(text: str, keys: Sequence[str]) -> str:
    """Return a configuration as YAML text with these keys alone; without any as it is."""
    if not keys:
        return text
    values = yaml.safe_load(text)
    return str(yaml.safe_dump({key: values[key] for key in keys if key in values}, sort_keys=False))


def _build_json(results: StudyResults) -> dict[str, Any]:
    tables = {"rows": results.rows, **results.more}
    return {
        "study": results.name,
        "recommendation": results.recommendation,
        "findings": list(results.findings),
        "varied": dict(results.varied),
        "fixed": dict(results.fixed),
        **{name: [dict(row) for row in rows] for name, rows in tables.items()},
        **results.values,
    }


def describe_fixed(settings: TrainSettings, *, varied: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return the important settings that are the same for all points, with their values.

    Args:
        settings: Settings of a training.
        varied: Keys to leave out.
    """
    data, model, optimizer = settings.data, settings.model, settings.optimizer
    shown = {
        "data": (data.task and f"{data.name}, {data.task}") or data.name,
        "preprocess.shape": _format_sides(settings.preprocess.shape),
        "preprocess.spacing": _format_sides(settings.preprocess.spacing),
        "augment": str(settings.augment.get("name", "")),
        "model": model.name,
        "model.baseline": model.baseline,
        "model.filters": _format_sides(model.filters),
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


def describe_load(loads: Sequence[float]) -> list[str]:
    """Return a warning if the machine was busy with other work during measurements of time.

    Args:
        loads: Load per core before each measurement.
    """
    busiest = max(loads, default=0.0)
    if busiest < BUSY_LOAD:
        return []
    return [
        (
            f"Other processes kept this machine busy during the measurements (load up to {busiest:.1f} per "
            "core): times are upper bounds, and their ratios are uncertain."
        )
    ]


def _format_sides(values: object) -> str:
    if isinstance(values, list | tuple):
        return " x ".join(f"{value:g}" for value in values)
    return "" if values is None else str(values)
