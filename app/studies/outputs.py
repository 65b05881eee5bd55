"""What every study leaves: results as JSON, the page with its figures, and a last line that says where."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.files import read_json, write_json, write_rows
from app.progress import console
from app.report.study import Drawing, StudySummary, TextTable, write_study_report
from app.studies.folder import StudyFolder
from app.trials.trial import Trial


@dataclass(frozen=True, eq=False)
class Written:
    """A study's answer, ready to be written.

    Attributes:
        name: Heading of the page.
        recommendation: What to do.
        findings: What that rests on, and what the data cannot tell.
        varied: What was varied, with its values.
        fixed: What was held fixed.
        rows: The table, one row per point.
        more: Further tables by file name.
        values: Numbers of the figures that stand in no table (fits, for instance).
        drawings: Figures.
        tables: The page's tables.
        notes: Method and limits.
    """

    name: str
    recommendation: str
    findings: Sequence[str]
    varied: Sequence[tuple[str, str]]
    fixed: Sequence[tuple[str, str]]
    rows: Sequence[Mapping[str, Any]]
    drawings: Sequence[Drawing]
    tables: Sequence[TextTable]
    notes: Sequence[str]
    more: Mapping[str, Sequence[Mapping[str, Any]]]
    values: Mapping[str, Any]


def write_study(written: Written, folder: StudyFolder, *, environment: Mapping[str, object]) -> None:
    """Write every file, print the recommendation, and say where all of it is."""
    write_rows(folder.table, written.rows)
    for name, rows in written.more.items():
        write_rows(folder.path / f"{name}.csv", rows)
    summary = StudySummary(
        name=written.name,
        recommendation=written.recommendation,
        findings=written.findings,
        varied=written.varied,
        fixed=written.fixed,
        drawings=written.drawings,
        tables=written.tables,
        notes=written.notes,
        config=folder.config.read_text(encoding="utf-8"),
        environment=environment,
        created=time.strftime("%Y-%m-%d %H:%M"),
    )
    report = write_study_report(summary, folder.report, figures=folder.figures)
    results = {
        "study": written.name,
        "recommendation": written.recommendation,
        "findings": list(written.findings),
        "varied": dict(written.varied),
        "fixed": dict(written.fixed),
        "rows": [dict(row) for row in written.rows],
        **{name: [dict(row) for row in rows] for name, rows in written.more.items()},
        **written.values,
    }
    write_json(folder.results, results)  # last: a folder with results is a finished study
    console.print(f"\n{written.recommendation}", markup=False, highlight=False)
    for finding in written.findings:
        console.print(f"- {finding}", markup=False, highlight=False)
    console.print(f"Results in {folder.path}, report {report}", soft_wrap=True, highlight=False)


def environment_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """The environment that the first training wrote down."""
    return read_json(trials[0].run.environment) if trials else {}
