"""Lay out the results of a study as one HTML file, and write its figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from voxlift.app.report.pages import export_figure, figure_style, svg_markup, write_page
from voxlift.app.report.tables import TableCells, flat_rows


@dataclass(frozen=True, eq=False)
class StudyFigure:
    """A figure of a page.

    Attributes:
        name: File name without ending, and id on the page.
        caption: What it shows.
        figure: The figure, drawn with the colours of `report.pages`.
    """

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class TextTable:
    """A table of a page.

    Attributes:
        caption: What it shows.
        headings: Headings of the columns.
        rows: Rows of texts.
        numbers_from: Index of the first column of numbers, which are aligned to the right.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1


@dataclass(frozen=True, eq=False)
class StudySummary:
    """Everything that the page of a study shows.

    Attributes:
        name: Heading.
        recommendation: What to do, in one or two sentences.
        findings: Evidence for the recommendation and its limits, a sentence each.
        varied: What was varied, with its values.
        fixed: What was held fixed, with its value.
        drawings: Figures, also written as files.
        tables: Tables.
        notes: How it was measured, and the limits of this.
        config: Composed configuration as YAML text.
        environment: Versions, device and precision.
        created: Date and time, as text.
    """

    name: str
    recommendation: str
    findings: Sequence[str]
    varied: Sequence[tuple[str, str]]
    fixed: Sequence[tuple[str, str]]
    drawings: Sequence[StudyFigure] = ()
    tables: Sequence[TextTable] = ()
    notes: Sequence[str] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    created: str = ""


def render_study_page(summary: StudySummary, path: Path, *, figures: Path) -> Path:
    """Write the page and return its path; write every figure as PNG and SVG into the folder `figures`."""
    with figure_style():
        embedded = [
            (one.caption, svg_markup(one.figure, name=one.name, title=one.caption))
            for one in summary.drawings
        ]
    for one in summary.drawings:  # after the page: the print colours are final
        export_figure(one.figure, figures, one.name)
    return write_page("study.html.j2", path, study_page_values(summary) | {"figures": embedded})


def study_page_values(summary: StudySummary) -> dict[str, Any]:
    """Return everything that the template of a study needs, except its figures."""
    return {
        "title": summary.name,
        "created": summary.created,
        "verdict": summary.recommendation,
        "notes": [],
        "findings": summary.findings,
        "varied": summary.varied,
        "fixed": summary.fixed,
        "tables": [(table.caption, _table_cells(table)) for table in summary.tables],
        "method": summary.notes,
        "config": summary.config,
        "environment": flat_rows(summary.environment),
    }


def _table_cells(table: TextTable) -> TableCells:
    rows = [[(text, column >= table.numbers_from) for column, text in enumerate(row)] for row in table.rows]
    return list(table.headings), rows
