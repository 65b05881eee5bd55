"""Rows for the tables of a page, as text and as positions of small marks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.config.overrides import flatten
from voxlift.app.evaluation.bootstrap import point_metrics
from voxlift.app.evaluation.calibration import CALIBRATION_METRICS, apply_temperature
from voxlift.app.evaluation.metrics import (
    LOWER_IS_BETTER,
    METRIC_LABELS,
    headline_metrics,
    metric_label,
    weighted_confusion,
)
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import format_p
from voxlift.app.report.formatting import (
    MISSING,
    format_interval,
    format_quantity,
    format_value,
    has_collapsed,
    interval_of,
)

COSTS = {
    "parameters": ("Parameters", ""),
    "flops": ("FLOPs per volume", ""),
    "seconds_per_epoch": ("Time per epoch", "s"),
    "seconds_per_volume": ("Inference per volume", "s"),
    "peak_memory_bytes": ("Peak memory", "B"),
}


@dataclass(frozen=True)
class Cell:
    """A value with its interval, and where both lie on an axis from 0 to 100 (None: not drawn)."""

    value: str
    interval: str
    at: float | None = None
    low: float = 0.0
    high: float = 0.0
    collapsed: bool = False


@dataclass(frozen=True)
class MetricRow:
    """One metric over all columns."""

    label: str
    cells: tuple[Cell, ...]
    lower_is_better: bool


@dataclass(frozen=True)
class CalibrationTable:
    """Headings of the metrics; and per model its name, temperature, and (before, after) of each metric."""

    headings: list[str]
    rows: list[tuple[str, str, list[tuple[str, str]]]]


def metric_rows(blocks: Mapping[str, Mapping[str, object]]) -> list[MetricRow]:
    """The headline metrics, one row each and one cell per block."""
    names = headline_metrics(name for block in blocks.values() for name in block)
    return [_metric_row(name, blocks) for name in names]


def class_rows(
    blocks: Mapping[str, Mapping[str, object]], classes: Sequence[str]
) -> tuple[list[MetricRow], list[MetricRow]]:
    """The AUC of each class against the rest; and the further metrics of each. Empty for two classes."""
    further = ("average_precision", "sensitivity", "specificity", "ppv", "f1")
    return _rows_of_classes(("auc",), blocks, classes), _rows_of_classes(further, blocks, classes)


def _rows_of_classes(
    stems: Sequence[str], blocks: Mapping[str, Mapping[str, object]], classes: Sequence[str]
) -> list[MetricRow]:
    names = [f"{stem}[{label}]" for stem in stems for label in classes]
    return [_metric_row(name, blocks) for name in names if any(name in block for block in blocks.values())]


def count_rows(blocks: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    """Volumes, subjects, the decision threshold and what 0.5 would have given, where a block knows them."""
    names = {"n": "Volumes", "subjects": "Subjects", "threshold": "Decision threshold"}
    names |= {f"{name}@0.5": metric_label(f"{name}@0.5") for name in ("balanced_accuracy", "accuracy")}
    present = [name for name in names if any(name in block for block in blocks.values())]
    return [(names[name], [format_value(block.get(name)) for block in blocks.values()]) for name in present]


def confusion_rows(cells: Sequence[Scores]) -> list[tuple[str, list[tuple[int, float]]]]:
    """True class to (volumes, share of that class in percent) for each decided class.

    Folds and seeds are added up, each decided at its own threshold.
    """
    classes = cells[0].classes
    counts = sum(
        weighted_confusion(one.labels, one.decisions, len(classes), np.ones((1, len(one))))[0]
        for one in cells
    )
    counts = np.asarray(counts)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        (name, [(int(count), float(share)) for count, share in zip(counts[k], shares[k], strict=True)])
        for k, name in enumerate(classes)
    ]


def calibration_table(
    models: Mapping[str, Sequence[Scores]], temperatures: Mapping[str, Sequence[float]]
) -> CalibrationTable:
    """Each model's temperature, and its calibration metrics as predicted and after scaling.

    Args:
        models: Name to scores, one per fold and seed; values are means over them.
        temperatures: Name to the temperature of each of those, fitted on its validation subjects.
    """
    rows = []
    for name, cells in models.items():
        pairs = zip(cells, temperatures[name], strict=True)
        before = point_metrics(cells)
        after = point_metrics([apply_temperature(one, value) for one, value in pairs])
        changes = [(format_value(before[key]), format_value(after[key])) for key in CALIBRATION_METRICS]
        rows.append((name, format_value(float(np.mean(temperatures[name]))), changes))
    return CalibrationTable([metric_label(key) for key in CALIBRATION_METRICS], rows)


def cost_rows(costs: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    """What each model costs, in the usual order and with units; unknown keys follow under their own names."""
    found = [key for block in costs.values() for key in block]
    keys = [
        *(key for key in COSTS if key in found),
        *(key for key in dict.fromkeys(found) if key not in COSTS),
    ]
    rows = []
    for key in keys:
        label, unit = COSTS.get(key, (key.replace("_", " ").capitalize(), ""))
        # A count may be a mean over folds, of which one has a parameter more.
        values = [
            _whole(block.get(key)) if key == "parameters" else block.get(key) for block in costs.values()
        ]
        rows.append((label, [format_quantity(value, unit) for value in values]))
    return rows


def _whole(value: object) -> object:
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def comparison_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """The primary metric's difference of each pair, with every test's Holm-adjusted p-value."""
    rows = []
    for one in comparisons:
        found = one.differences[one.primary]
        row = {
            "pair": f"{one.second} \N{MINUS SIGN} {one.first}",
            "difference": signed(found.difference),
            "interval": format_interval(found.low, found.high),
            "p_bootstrap": format_p(one.adjusted["bootstrap"]),
            "p_delong": format_p(one.adjusted["delong"]) if "delong" in one.adjusted else MISSING,
            "p_mcnemar": format_p(one.adjusted["mcnemar"]),
            "only_second": str(one.mcnemar.only_second),
            "only_first": str(one.mcnemar.only_first),
            "first": one.first,
            "second": one.second,
        }
        rows.append(row)
    return rows


def difference_rows(one: Comparison) -> list[tuple[str, str, str, str]]:
    """Every headline metric of a pair: label, difference, interval, uncorrected p."""
    names = headline_metrics(one.differences)
    found = [one.differences[name] for name in names]
    return [
        (METRIC_LABELS[d.metric], signed(d.difference), format_interval(d.low, d.high), format_p(d.p_value))
        for d in found
    ]


def named_rows(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Nested mappings as rows of (dotted name, text)."""
    return [(name, str(value)) for name, value in flatten(values).items()]


def signed(value: float) -> str:
    """A difference with its sign."""
    text = format_value(value)
    return text if text == MISSING or text[0] == "\N{MINUS SIGN}" else f"+{text}"


def _metric_row(name: str, blocks: Mapping[str, Mapping[str, object]]) -> MetricRow:
    stem = name.partition("[")[0]
    # Log loss has no upper end and MCC a negative half: on an axis from 0 to 1 they would mislead.
    drawn = stem not in {"log_loss", "mcc"}
    cells = tuple(_cell(block, name, drawn=drawn) for block in blocks.values())
    return MetricRow(metric_label(name), cells, stem in LOWER_IS_BETTER)


def _cell(block: Mapping[str, object], name: str, *, drawn: bool) -> Cell:
    value, pair = block.get(name), interval_of(block, name)
    text = format_value(value)
    if pair is None:
        return Cell(text, "")
    interval, collapsed = format_interval(*pair), has_collapsed(block, name)
    if not drawn or not isinstance(value, int | float):
        return Cell(text, interval, collapsed=collapsed)
    low, high = (100 * min(max(end, 0.0), 1.0) for end in pair)
    return Cell(text, interval, 100 * min(max(float(value), 0.0), 1.0), low, high, collapsed)
