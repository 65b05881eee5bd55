"""The page of a study: the recommendation first, then what was varied, what was found, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from voxlift.app.report import tables
from voxlift.app.report.html import write_page
from voxlift.app.report.style import INK, MUTED, PAPER, RULE, SERIES, figure_style, svg_markup

Table = tuple[list[str], list[list[tuple[str, bool]]]]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of a page: its name (of the files too), what it shows, and the figure itself."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class TextTable:
    """A table of a page: what it shows, its headings, and its rows as texts; a number's text is set right."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1  # the column where numbers begin


@dataclass(frozen=True, eq=False)
class StudySummary:
    """All that a study's page says.

    Attributes:
        name: Heading.
        recommendation: What to do, in a sentence or two.
        findings: What the recommendation rests on, and what the data cannot tell, a sentence each.
        varied: What was varied, with its values.
        fixed: What was held fixed, with its value.
        drawings: Figures, also written as files.
        tables: Tables.
        notes: How it was measured, and what limits it.
        config: The composed configuration as YAML text.
        environment: Versions, device and precision.
        created: When, as text.
    """

    name: str
    recommendation: str
    findings: Sequence[str]
    varied: Sequence[tuple[str, str]]
    fixed: Sequence[tuple[str, str]]
    drawings: Sequence[Drawing] = ()
    tables: Sequence[TextTable] = ()
    notes: Sequence[str] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    created: str = ""


def write_study_report(summary: StudySummary, path: Path, *, figures: Path) -> Path:
    """Write the page, and every figure as PNG and SVG into the folder `figures`; the page's path."""
    with figure_style():
        drawn = [
            (one.caption, svg_markup(one.figure, name=one.name, title=one.caption))
            for one in summary.drawings
        ]
    for one in summary.drawings:  # after the page's own: the files' colours are final
        export_figure(one.figure, figures, one.name)
    return write_page("study.html.j2", path, study_page_values(summary) | {"figures": drawn})


def study_page_values(summary: StudySummary) -> dict[str, Any]:
    """Everything that the template of a study needs, but for its figures."""
    return {
        "title": summary.name,
        "created": summary.created,
        "verdict": summary.recommendation,
        "notes": [],
        "findings": list(summary.findings),
        "varied": list(summary.varied),
        "fixed": list(summary.fixed),
        "tables": [(table.caption, _cells(table)) for table in summary.tables],
        "method": list(summary.notes),
        "config": summary.config,
        "environment": tables.named_rows(summary.environment),
    }


def _cells(table: TextTable) -> Table:
    rows = [[(text, column >= table.numbers_from) for column, text in enumerate(row)] for row in table.rows]
    return list(table.headings), rows


DOTS_PER_INCH = 300
# The light colours of report.css.
PRINTED: Mapping[str, str] = MappingProxyType(
    {INK: "#1b2026", MUTED: "#59636e", RULE: "#dfe3e8", PAPER: "#ffffff"}
    | dict(
        zip(
            SERIES,
            (
                "#0b5fa5",
                "#c04a12",
                "#12795a",
                "#83449c",
                "#8a6a00",
                "#a8305f",
                "#3f6b7d",
                "#55606c",
            ),
            strict=True,
        )
    )
)
PARTS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def export_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png`; the figure's stand-in colours become the printed ones for good."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    folder.mkdir(parents=True, exist_ok=True)
    with figure_style():
        figure.draw_without_rendering()  # ticks and their labels exist only after a drawing
        print_colours(figure)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return paths


def print_colours(figure: Figure) -> None:
    """Give every part of a figure the printed colour that its stand-in stands for."""
    for artist in figure.findobj(Artist):
        for part in PARTS:
            read, write = (getattr(artist, f"{verb}_{part}", None) for verb in ("get", "set"))
            if read is not None and write is not None:
                _replace(read(), write)


def _replace(value: Any, write: Any) -> None:  # noqa: ANN401 - whatever an artist takes as colours
    if isinstance(value, str) and value in {"none", "auto"}:
        return
    try:
        colours = to_rgba_array(value)
    except (ValueError, TypeError):
        return
    if not len(colours) or not any(to_hex(colour) in PRINTED for colour in colours):
        return
    printed = [(*to_rgba_array(PRINTED.get(to_hex(one), to_hex(one)))[0][:3], one[3]) for one in colours]
    write(np.array(printed) if len(printed) > 1 else printed[0])
