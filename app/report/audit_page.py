"""The page of an audit: findings first, then what the files are, then the files themselves."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.image import imsave
from numpy.typing import NDArray

from voxlift.app.report.findings import (
    AuditedData,
    group_findings,
    sentence,
    shared_folder,
    suggested_overrides,
    verdict,
)
from voxlift.app.report.html import write_page
from voxlift.app.report.style import INK, figure_style, new_axes, series_style, svg_markup
from voxlift.data_pipelines.audit import Facts
from voxlift.data_pipelines.tables.manifest import Record

AXES = ("depth", "height", "width")
PROPERTIES = {"axcodes": "stored axes", "dtype": "stored type", "kind": "format", "channels": "channels"}
MOST_VALUES = 8  # rows of a property; a data set with more of them is told in the last row
MOST_SENTENCES = 200  # per kind, before a page becomes a list; audit.json has them all
BINS = 30


@dataclass(frozen=True)
class Picture:
    """One file to look at.

    Attributes:
        name: Its path, relative to the folder that all share.
        about: Label, shape and spacing.
        address: The picture as a data address; empty where the file could not be read.
        marks: Kinds of the findings that name it.
    """

    name: str
    about: str
    address: str
    marks: tuple[str, ...]


def write_audit_page(found: AuditedData, path: Path, *, created: str) -> Path:
    """Write the page of an audit and return its path; UTF-8, no script, nothing loaded from elsewhere."""
    return write_page("audit.html.j2", path, audit_page_values(found) | {"created": created})


def audit_page_values(found: AuditedData) -> dict[str, Any]:
    """Everything that the template of an audit needs, but the time."""
    below = shared_folder(found.audit.facts)
    groups = group_findings(found.audit.findings)
    pairs = [
        (one, record) for one, record in zip(found.audit.facts, found.owners, strict=True) if not one.error
    ]
    return {
        "title": found.name,
        "notes": [f"Table: {found.manifest.source}"],
        "verdict": verdict(found),
        "groups": [
            (group, [sentence(one, below=below) for one in group.findings[:MOST_SENTENCES]])
            for group in groups
        ],
        "most": MOST_SENTENCES,
        "below": below,
        "overrides": suggested_overrides(found.audit),
        "classes": found.manifest.classes,
        "people": count_rows(found.manifest.records, found.manifest.classes),
        "properties": property_rows(pairs, found.manifest.classes),
        "ranges": range_rows([one for one, _ in pairs]),
        "figures": distribution_figures(pairs, found),
        "pictures": choose_pictures(found, below=below),
        "files": len(found.audit.facts),
    }


def count_rows(records: Sequence[Record], classes: Sequence[str]) -> list[tuple[str, int, int, str]]:
    """Each class's name, subjects, volumes, and volumes per split where the table has splits."""
    rows = []
    for label, name in enumerate(classes):
        own = [record for record in records if record.label == label]
        splits = Counter(record.split for record in own if record.split)
        spoken = ", ".join(f"{splits[split]} {split}" for split in ("train", "val", "test") if splits[split])
        rows.append((name, len({record.subject for record in own}), len(own), spoken))
    return rows


def property_rows(
    pairs: Sequence[tuple[Facts, Record]], classes: Sequence[str]
) -> list[tuple[str, str, int, list[int]]]:
    """Property, value, files, and files of each class, the commonest values first."""
    rows = []
    for name, title in PROPERTIES.items():
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for facts, record in pairs:
            counts[str(getattr(facts, name))][record.label] += 1
        ranked = sorted(counts.items(), key=lambda item: -item[1].total())
        if len(ranked) > MOST_VALUES:
            rest = sum((each for _, each in ranked[MOST_VALUES:]), Counter[int]())
            ranked = [*ranked[:MOST_VALUES], (f"{len(ranked) - MOST_VALUES} others", rest)]
        rows += [
            (title, value, each.total(), [each[label] for label in range(len(classes))])
            for value, each in ranked
        ]
    return rows


def range_rows(known: Sequence[Facts]) -> list[tuple[str, str, str, str, int]]:
    """Spacing and shape along each axis: least, median, greatest, and how many values occur."""
    rows = []
    for name, unit in (("spacing", "mm"), ("shape", "voxels")):
        for axis, title in enumerate(AXES):
            values = _values(known, name, axis)
            if values.size:
                ends = [f"{value:.4g}" for value in (values.min(), np.median(values), values.max())]
                rows.append((f"{name}, {title} ({unit})", *ends, int(np.unique(values).size)))
    return rows  # type: ignore[return-value]  # mypy does not count a starred list


def distribution_figures(
    pairs: Sequence[tuple[Facts, Record]], found: AuditedData
) -> list[tuple[str, Markup]]:
    """One histogram by class for each axis of spacing and shape that differs between files."""
    figures = []
    suggested = {"spacing": found.audit.suggested_spacing, "shape": found.audit.suggested_shape}
    for name, unit in (("spacing", "mm"), ("shape", "voxels")):
        for axis, title in enumerate(AXES):
            by_class = {
                label: _values([one for one, record in pairs if record.label == index], name, axis)
                for index, label in enumerate(found.manifest.classes)
            }
            mark = suggested[name] if name == "spacing" else None  # the shape belongs to another spacing
            if np.unique(np.concatenate(list(by_class.values()))).size > 1:
                caption = f"{name.capitalize()} along {title}"
                figures.append(
                    (caption, _histogram(by_class, f"{caption} ({unit})", mark[axis] if mark else None))
                )
    return figures


def choose_pictures(found: AuditedData, *, below: str) -> list[Picture]:
    """Files to look at: those that a finding names first, the rest spread evenly over the table."""
    if found.thumbnails == 0:
        return []
    marks: dict[str, list[str]] = defaultdict(list)
    for group in group_findings(found.audit.findings):
        for place in {place for finding in group.findings for place in finding.where}:
            if group.severity != "note":
                marks[place].append(group.name)
    # A file may be listed twice; it is shown once.
    pairs = list(
        {
            one.path: (one, record) for one, record in zip(found.audit.facts, found.owners, strict=True)
        }.values()
    )
    shown = [pair for pair in pairs if pair[0].thumbnails]
    marked = [pair for pair in shown if str(pair[0].path) in marks][: found.thumbnails]
    others = [pair for pair in shown if str(pair[0].path) not in marks]
    count = min(len(others), found.thumbnails - len(marked))
    spread = [others[index] for index in np.linspace(0, len(others) - 1, count).astype(int)] if count else []
    return [
        Picture(
            str(facts.path).removeprefix(below),
            _about(facts, record, found.manifest.classes),
            picture_address(facts.thumbnails),
            tuple(marks.get(str(facts.path), ())),
        )
        for facts, record in [*marked, *spread]
    ]


def picture_address(planes: Sequence[NDArray[np.uint8]]) -> str:
    """A grey PNG of the planes side by side on black, as a data address."""
    height, gap = max(plane.shape[0] for plane in planes), 2
    tiles = []
    for plane in planes:
        above = (height - plane.shape[0]) // 2
        tiles.append(np.pad(plane, ((above, height - plane.shape[0] - above), (0, gap))))
    strip = np.concatenate(tiles, axis=1)[:, :-gap]
    stream = io.BytesIO()
    imsave(stream, np.repeat(strip[..., None], 3, axis=-1), format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _about(facts: Facts, record: Record, classes: Sequence[str]) -> str:
    shape = " \N{MULTIPLICATION SIGN} ".join(map(str, facts.shape))
    spacing = " \N{MULTIPLICATION SIGN} ".join(f"{value:.3g}" for value in facts.spacing)
    split = f", {record.split}" if record.split else ""
    return f"{classes[record.label]}{split}; {shape} voxels of {spacing} mm, {facts.axcodes}"


def _values(known: Sequence[Facts], name: str, axis: int) -> NDArray[np.float64]:
    # Headers store float32: equal spacings must be equal here too.
    values: NDArray[np.float64] = np.round([getattr(one, name)[axis] for one in known], 4).astype(np.float64)
    return values


def _histogram(by_class: dict[str, NDArray[np.float64]], xlabel: str, mark: float | None) -> Markup:
    known = {label: values for label, values in by_class.items() if values.size}
    edges = np.histogram_bin_edges(np.concatenate(list(known.values())), BINS)
    with figure_style():
        figure, axes = new_axes(height=2.6)
        for index, (label, values) in enumerate(known.items()):
            share = np.histogram(values, edges)[0] / values.size * 100
            axes.stairs(share, edges, label=label, linewidth=1.4, **series_style(index))
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="suggested")
        axes.set(xlabel=xlabel, ylabel="Files of the class (%)", ylim=(0, None))
        axes.grid(visible=True)
        axes.legend()
        name = f"distribution-{xlabel.split(' (', maxsplit=1)[0].replace(' ', '-').lower()}"
        return svg_markup(figure, name=name, title=xlabel)
