"""What every study leaves: results as JSON, the page with its figures, and a last line that says where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.progress import console, say
from voxlift.app.report.page import now
from voxlift.app.report.study import StudySummary, write_study_report
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.trials.trial import Trial


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
