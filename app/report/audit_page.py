"""Lay out the audit of a data set as one HTML file: findings, classes, properties of the files, pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from voxlift.app.config import SPLIT_NAMES
from voxlift.app.report.case_pictures import encode_png, join_planes
from voxlift.app.report.evidence import Evidence, table_one_cells
from voxlift.app.report.figures import CaptionedFigure
from voxlift.app.report.findings import (
    DatasetAudit,
    common_folder,
    describe_positive,
    format_finding,
    group_findings,
    suggested_overrides,
    summarise_audit,
)
from voxlift.app.report.pages import (
    INK,
    figure_style,
    new_axes,
    series_style,
    slugify,
    svg_markup,
    write_page,
)
from voxlift.app.report.tables import show_path, table_cells
from voxlift.data_pipelines.audit import Facts
from voxlift.data_pipelines.audit.targets import describe_targets, page_groups
from voxlift.data_pipelines.tables.manifest import Record

AXES = ("depth", "height", "width")
UNITS = {"spacing": "mm", "shape": "voxels"}
PROPERTIES = {"axcodes": "stored axes", "dtype": "stored type", "kind": "format", "channels": "channels"}
MAX_VALUES = 8  # rows of a property; the last row counts the other values
MAX_SENTENCES = 200  # per kind of finding on the page; audit.json has all of them
BINS = 30
STEPS = {"mm": 0.01, "voxels": 1.0}  # smallest width of a bin


@dataclass(frozen=True)
class Picture:
    """One file whose slices are shown.

    Attributes:
        name: Its path, relative to the folder that all files share.
        description: Label, shape and spacing.
        url: The picture as a data URL.
        findings: Kinds of the findings that name it.
    """

    name: str
    description: str
    url: str
    findings: tuple[str, ...]


def render_audit_page(found: DatasetAudit, path: Path, *, created: str) -> Path:
    """Write the audit of a data set as one HTML file and return its path."""
    notes = [f"Table: {show_path(found.manifest.source, path.parent)}"]
    return write_page("audit.html.j2", path, audit_page_values(found) | {"created": created, "notes": notes})


def audit_page_values(found: DatasetAudit) -> dict[str, Any]:
    """Return everything that the template of an audit needs, except the time and the notes."""
    targets, positive = table_cells(describe_targets(found.manifest)), describe_positive(found.manifest)
    found = group_records(found)
    below = common_folder(found.audit.facts)
    pairs = [
        (one, record) for one, record in zip(found.audit.facts, found.owners, strict=True) if not one.error
    ]
    return {
        "title": found.name,
        "evidence": Evidence(flow=table_cells(found.flow), table_one=table_one_cells(found.table_one)),
        "verdict": summarise_audit(found),
        "groups": [
            (group, [format_finding(one, below=below) for one in group.findings[:MAX_SENTENCES]])
            for group in group_findings(found.audit.findings)
        ],
        "max_sentences": MAX_SENTENCES,
        "below": below,
        "overrides": suggested_overrides(found.audit),
        "classes": found.manifest.classes,
        "class_counts": count_classes(found.manifest.records, found.manifest.classes),
        "positive": positive,
        "targets": targets,
        "masks": mask_rows(found),
        "properties": property_rows(pairs, found.manifest.classes),
        "ranges": range_rows([one for one, _ in pairs]),
        "figures": distribution_figures(pairs, found),
        "pictures": select_pictures(found, below=below),
        "files": len(found.audit.facts),
    }


def group_records(found: DatasetAudit) -> DatasetAudit:
    """Return the audit with the groups of `page_groups` as classes; that of classes stays as it is."""
    labels, names = page_groups(found.manifest)
    pairs = zip(found.manifest.records, labels, strict=True)
    records = tuple(replace(record, label=label) for record, label in pairs)
    return replace(found, manifest=replace(found.manifest, records=records, classes=names))


def count_classes(records: Sequence[Record], classes: Sequence[str]) -> list[tuple[str, int, int, str]]:
    """Return name, subjects, volumes, and volumes per split (where the table has splits) of each class."""
    rows = []
    for label, name in enumerate(classes):
        own = [record for record in records if record.label == label]
        splits = Counter(record.split for record in own if record.split)
        per_split = ", ".join(f"{splits[split]} {split}" for split in SPLIT_NAMES if splits[split])
        rows.append((name, len({record.subject for record in own}), len(own), per_split))
    return rows


def property_rows(
    pairs: Sequence[tuple[Facts, Record]], classes: Sequence[str]
) -> list[tuple[str, str, int, list[int]]]:
    """Return property, value, files, and files of each class, the most frequent values first."""
    rows = []
    for name, title in PROPERTIES.items():
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for facts, record in pairs:
            counts[str(getattr(facts, name))][record.label] += 1
        ranked = sorted(counts.items(), key=lambda item: -item[1].total())
        if len(ranked) > MAX_VALUES:
            rest = sum((each for _, each in ranked[MAX_VALUES:]), Counter[int]())
            ranked = [*ranked[:MAX_VALUES], (f"{len(ranked) - MAX_VALUES} others", rest)]
        rows += [
            (title, value, each.total(), [each[label] for label in range(len(classes))])
            for value, each in ranked
        ]
    return rows


def mask_rows(found: DatasetAudit) -> list[tuple[str, int, str, str, str]]:
    """Return name, number, volume (ml), longest side (mm) and parts of each class's masks or centres.

    Those that training cannot use do not count. No rows where the data set has neither.
    """
    rows = []
    for label, name in enumerate(found.manifest.classes):
        pairs = zip(found.manifest.records, found.audit.regions, strict=True)
        own = [one for record, one in pairs if record.label == label and one is not None and not one.problem]
        columns = (
            [one.volume_ml for one in own if one.volume_ml is not None],
            [max(one.extent_mm) for one in own if one.volume_ml is not None],
            [one.components for one in own if one.components is not None],
        )
        volume, side, parts = (_format_spread([float(value) for value in column]) for column in columns)
        rows.append((name, len(own), volume, side, parts))
    return rows if any(found.audit.regions) else []


def _format_spread(values: Sequence[float]) -> str:
    """Return minimum, median and maximum of values; nothing for none.

    >>> _format_spread([1.0, 2.0, 8.5])
    '1 / 2 / 8.5'
    """
    return " / ".join(f"{np.percentile(values, q):.3g}" for q in (0, 50, 100)) if values else ""


def range_rows(known: Sequence[Facts]) -> list[tuple[str, str, str, str, int]]:
    """Return minimum, median, maximum and number of values of spacing and shape along each axis."""
    rows = []
    for name, unit in UNITS.items():
        for axis, title in enumerate(AXES if known else ()):
            values = _axis_values(known, name, axis)
            low, middle, high = (f"{one:.4g}" for one in (values.min(), np.median(values), values.max()))
            rows.append((f"{name}, {title} ({unit})", low, middle, high, int(np.unique(values).size)))
    return rows


def distribution_figures(pairs: Sequence[tuple[Facts, Record]], found: DatasetAudit) -> list[CaptionedFigure]:
    """Draw a histogram by class of each axis of spacing and shape that differs between files."""
    figures = []
    for name, unit in UNITS.items():
        for axis, title in enumerate(AXES):
            by_class = {
                label: _axis_values([one for one, record in pairs if record.label == index], name, axis)
                for index, label in enumerate(found.manifest.classes)
            }
            if np.unique(np.concatenate(list(by_class.values()))).size < 2:
                continue
            # The suggested shape belongs to another spacing than that of the files.
            suggested = found.audit.suggested if name == "spacing" else None
            line = suggested.spacing[axis] if suggested else None
            dashed = "; dashed: the suggested spacing" if suggested else ""
            caption = f"{name.capitalize()} along {title}"
            noun = "class" if found.manifest.target == "classes" else "group"
            figures.append(
                (
                    f"{caption}: percentage of the files of each {noun}{dashed}.",
                    _draw_histogram(by_class, f"{caption} ({unit})", line, name=slugify(caption), unit=unit),
                )
            )
    return figures


def _axis_values(known: Sequence[Facts], name: str, axis: int) -> NDArray[np.float64]:
    # Headers store float32: equal spacings must be equal here too.
    values: NDArray[np.float64] = np.round([getattr(one, name)[axis] for one in known], 4).astype(np.float64)
    return values


def _draw_histogram(
    by_class: dict[str, NDArray[np.float64]], x_label: str, suggested: float | None, *, name: str, unit: str
) -> Markup:
    known = {label: values for label, values in by_class.items() if values.size}
    edges = histogram_edges(np.concatenate(list(known.values())), STEPS[unit])
    with figure_style():
        figure, axes = new_axes(height=2.6)
        for index, (label, values) in enumerate(known.items()):
            share = np.histogram(values, edges)[0] / values.size * 100
            axes.stairs(share, edges, label=label, linewidth=1.4, **series_style(index))
        if suggested is not None:
            axes.axvline(suggested, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="suggested")
        axes.set(xlabel=x_label, ylabel="Files (%)", ylim=(0, None))
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.grid(visible=True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0)  # covers no bar
        return svg_markup(figure, name=f"distribution-{name}", title=x_label)


def histogram_edges(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return edges of at most about `BINS` bins, whose width is 1, 2 or 5 times a power of ten.

    A multiple of the width is the middle of a bin, so that whole numbers are not at an edge.

    >>> histogram_edges(np.array([2.0, 5.0]), 1.0).tolist()
    [1.5, 2.5, 3.5, 4.5, 5.5]

    Args:
        values: What is counted.
        step: The smallest width.
    """
    span = float(values.max() - values.min()) / BINS
    wide = [one * 10.0**power for power in range(-3, 7) for one in (1, 2, 5)]
    width = next(one for one in wide if one >= max(span, step) * (1 - 1e-9))
    first, last = (round(float(value) / width) for value in (values.min(), values.max()))
    return np.asarray((np.arange(first, last + 2) - 0.5) * width, np.float64)


def select_pictures(found: DatasetAudit, *, below: str) -> list[Picture]:
    """Return the files to show: first those with a finding, then others spread evenly over the table."""
    if found.thumbnails == 0:
        return []
    kinds: dict[str, list[str]] = defaultdict(list)
    for group in group_findings(found.audit.findings):
        for place in {place for finding in group.findings for place in finding.where}:
            if group.severity != "note":
                kinds[place].append(group.name)
    # A file may be listed twice; it is shown once.
    pairs = {one.path: (one, record) for one, record in zip(found.audit.facts, found.owners, strict=True)}
    shown = [pair for pair in pairs.values() if pair[0].thumbnails]
    flagged = [pair for pair in shown if str(pair[0].path) in kinds][: found.thumbnails]
    others = [pair for pair in shown if str(pair[0].path) not in kinds]
    count = min(len(others), found.thumbnails - len(flagged))
    spread = [others[index] for index in np.linspace(0, len(others) - 1, count).astype(int)] if count else []
    return [
        Picture(
            str(facts.path).removeprefix(below),
            _describe_file(facts, record, found.manifest.classes),
            encode_png(join_planes([np.repeat(plane[..., None], 3, axis=-1) for plane in facts.thumbnails])),
            tuple(kinds.get(str(facts.path), ())),
        )
        for facts, record in [*flagged, *spread]
    ]


def _describe_file(facts: Facts, record: Record, classes: Sequence[str]) -> str:
    shape = " \N{MULTIPLICATION SIGN} ".join(map(str, facts.shape))
    spacing = " \N{MULTIPLICATION SIGN} ".join(f"{value:.3g}" for value in facts.spacing)
    split = f", {record.split}" if record.split else ""
    return f"{classes[record.label]}{split}; {shape} voxels of {spacing} mm, {facts.axcodes}"
