"""Numbers as text, the same in the terminal, in tables and in figures, and the rows of tables."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import yaml

from voxlift.app.config.overrides import flatten
from voxlift.app.evaluation.bootstrap import point_metrics
from voxlift.app.evaluation.calibration import Calibration, apply_calibration
from voxlift.app.evaluation.evaluate import CALIBRATION_METRICS
from voxlift.app.evaluation.metric_names import (
    LOWER_IS_BETTER,
    headline_metrics,
    interval_of,
    metric_label,
    metric_range,
)
from voxlift.app.evaluation.metrics import weighted_confusion
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import format_p_value, short_verdict, shown_p_value
from voxlift.app.runs.results import count_epochs

MISSING = "\N{EN DASH}"
YAML_PATH = re.compile(r"""^(\s*(?:- |[\w.]+: ))(['"]?)(/[^'"\n]+)(['"]?)$""", re.MULTILINE)
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
Row: TypeAlias = Mapping[str, object]
"""One table row: column heading to value. The columns of the first row are those of the table."""
TableCells: TypeAlias = tuple[list[str], list[list[tuple[str, bool]]]]
"""Headings, and rows of cells as (text, whether it is a number)."""
CLASS_METRICS = ("average_precision", "sensitivity", "specificity", "ppv", "f1")
COSTS = {
    "parameters": ("Parameters", ""),
    "flops": ("FLOPs per volume", ""),
    "seconds_per_epoch": ("Time per epoch", "s"),
    "seconds_per_volume": ("Inference per volume", "s"),
    "train_seconds": ("Training time", "s"),
    "best_epoch": ("Best epoch", ""),
    "peak_memory_bytes": ("Peak memory", "B"),
    "strength": ("Strength C of the linear model", ""),
}


def format_value(value: object) -> str:
    """Return a metric with three decimals, a count as it is, a dash for what is missing or undefined."""
    if isinstance(value, bool) or value is None:
        return MISSING if value is None else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else MISSING
    return str(value)


def format_signed(value: float) -> str:
    """Return a difference with its sign.

    >>> format_signed(0.0312)
    '+0.031'
    """
    text = format_value(value)
    return text if text == MISSING or text[0] == "\N{MINUS SIGN}" else f"+{text}"


def format_interval(low: object, high: object) -> str:
    """Return both ends in brackets, or nothing where one is undefined."""
    ends = [format_value(end) for end in (low, high)]
    return "" if MISSING in ends else f"[{ends[0]}, {ends[1]}]"


def has_zero_width(metrics: Mapping[str, object], name: str) -> bool:
    """Return True where every resample gave the same value: the interval is then no measure of the error."""
    pair = interval_of(metrics, name)
    return pair is not None and pair[0] == pair[1]


def format_quantity(value: object, unit: str = "") -> str:
    """Return a quantity with three digits and a decimal prefix.

    >>> format_quantity(12_345_678), format_quantity(0.00213, "s"), format_quantity(2.5e9, "B")
    ('12.3 M', '2.13 ms', '2.5 GB')
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return MISSING if value is None or isinstance(value, float) else str(value)
    for size, prefix in PREFIXES:
        if abs(value) >= size and unit != "s":
            return f"{_format_digits(value / size)} {prefix}{unit}".rstrip()
    if unit == "s" and 0 < abs(value) < 1:
        return f"{_format_digits(value * 1000)} ms"
    return f"{_format_digits(value)} {unit}".rstrip()


def show_path(path: str | Path, folder: Path) -> str:
    """Return a path relative to the folder of a page; as it is where only the root holds both.

    >>> show_path("/lab/data/table.csv", Path("/lab/runs/first")), show_path("table.csv", Path("/lab"))
    ('../../data/table.csv', 'table.csv')
    """
    own, base = Path(path), folder.absolute()
    if not own.is_absolute() or own.parts[:2] != base.parts[:2]:
        return str(path)
    return Path(os.path.relpath(own, base)).as_posix()


def show_config(text: str, folder: Path) -> str:
    """Return a configuration as YAML text with its paths relative to the folder of a page."""
    return YAML_PATH.sub(lambda found: f"{found[1]}{found[2]}{show_path(found[3], folder)}{found[4]}", text)


def _format_digits(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1000:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Cell:
    """A value with its interval.

    Attributes:
        value: Text of the value.
        interval: Text of its interval; empty without one.
        at: Position of the value on a bar from 0 to 100; None where no bar is drawn.
        low: Position of the lower end of the interval.
        high: Position of the upper end.
        has_zero_width: Whether every resample gave the same value.
    """

    value: str
    interval: str
    at: float | None = None
    low: float = 0.0
    high: float = 0.0
    has_zero_width: bool = False


@dataclass(frozen=True)
class MetricRow:
    """One metric over all columns of a table."""

    label: str
    cells: tuple[Cell, ...]
    lower_is_better: bool


@dataclass(frozen=True)
class CalibrationTable:
    """Calibration metrics before and after scaling.

    Attributes:
        headings: Names of the metrics.
        rows: Per model its name, its temperature with the bias, and (before, after) of each metric.
    """

    headings: list[str]
    rows: list[tuple[str, str, list[tuple[str, str]]]]


def table_cells(rows: Sequence[Row]) -> TableCells:
    """Return the headings and the formatted cells of rows."""
    headings = list(rows[0]) if rows else []
    body = [
        [(format_value(row.get(heading)), isinstance(row.get(heading), int | float)) for heading in headings]
        for row in rows
    ]
    return headings, body


def flat_rows(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return nested mappings as rows of (dotted name, text); `memory_gib` of environment.json in GB."""
    return [
        ("memory", f"{value * 2**30 / 1e9:.1f} GB") if name == "memory_gib" else (name, str(value))
        for name, value in flatten(values).items()
    ]


def metric_rows(blocks: Mapping[str, Mapping[str, object]], unit: str = "") -> list[MetricRow]:
    """Return the headline metrics, one row each and one cell per block of metrics.json.

    Args:
        blocks: Column to its block.
        unit: Of a predicted number.
    """
    names = headline_metrics(name for block in blocks.values() for name in block)
    return [_metric_row(name, blocks, unit) for name in names]


def class_rows(
    blocks: Mapping[str, Mapping[str, object]], classes: Sequence[str]
) -> tuple[list[MetricRow], list[MetricRow]]:
    """Return the AUC of each class against the rest, and its further metrics; none for two classes."""
    found = []
    for stems in (("auc",), CLASS_METRICS):
        names = [f"{stem}[{label}]" for stem in stems for label in classes]
        present = [name for name in names if any(name in block for block in blocks.values())]
        found.append([_metric_row(name, blocks) for name in present])
    return found[0] + _delong_rows(blocks, classes), found[1]


def _delong_rows(blocks: Mapping[str, Mapping[str, object]], names: Sequence[str]) -> list[MetricRow]:
    """Return the AUC of each finding with its interval by DeLong instead of the bootstrap's."""
    if not any("intervals_delong" in block for block in blocks.values()):
        return []
    by_delong = {
        column: {**block, "intervals": block.get("intervals_delong", {})} for column, block in blocks.items()
    }
    rows = [_metric_row(f"auc[{name}]", by_delong) for name in names]
    return [replace(row, label=f"{row.label} (DeLong)") for row in rows]


def _metric_row(name: str, blocks: Mapping[str, Mapping[str, object]], unit: str = "") -> MetricRow:
    stem = name.partition("[")[0]
    # Log loss has no upper bound and MCC is negative down to -1: a bar from 0 to 1 would mislead.
    has_bar = stem == "brier" or metric_range(stem) == (0, 1)
    cells = tuple(_metric_cell(block, name, has_bar=has_bar) for block in blocks.values())
    return MetricRow(metric_label(name, unit), cells, stem in LOWER_IS_BETTER)


def _metric_cell(block: Mapping[str, object], name: str, *, has_bar: bool) -> Cell:
    value, pair = block.get(name), interval_of(block, name)
    text = format_value(value)
    if pair is None:
        return Cell(text, "")
    interval, zero_width = format_interval(*pair), has_zero_width(block, name)
    if not has_bar or not isinstance(value, int | float):
        return Cell(text, interval, has_zero_width=zero_width)
    at, low, high = (100 * min(max(float(number), 0.0), 1.0) for number in (value, *pair))
    return Cell(text, interval, at, low, high, zero_width)


def count_rows(blocks: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    """Return the volumes, the subjects, the decision threshold, and the accuracies at 0.5, where present."""
    names = {"n": "Volumes", "subjects": "Subjects", "threshold": "Decision threshold"}
    names |= {f"{name}@0.5": metric_label(f"{name}@0.5") for name in ("balanced_accuracy", "accuracy")}
    present = [name for name in names if any(name in block for block in blocks.values())]
    return [(names[name], [format_value(block.get(name)) for block in blocks.values()]) for name in present]


def confusion_rows(fits: Sequence[Scores]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return per true class (volumes, percentage of that class) for each predicted class.

    Args:
        fits: One set of scores per fold and seed. Their counts are summed, each at its own threshold.
    """
    counts = np.asarray(sum(weighted_confusion(one, np.ones((1, len(one))))[0] for one in fits))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        (name, [(int(count), float(share)) for count, share in zip(counts[k], shares[k], strict=True)])
        for k, name in enumerate(fits[0].classes)
    ]


def calibration_table(
    models: Mapping[str, Sequence[Scores]], calibrations: Mapping[str, Sequence[Calibration]]
) -> CalibrationTable:
    """Return the temperature of each model, and its calibration metrics before and after scaling.

    Args:
        models: Name to scores, one per fold and seed; the table shows means over them.
        calibrations: Name to the calibration of each of those, fitted on its validation subjects.
    """
    rows = []
    for name, fits in models.items():
        pairs = zip(fits, calibrations[name], strict=True)
        before = point_metrics(fits)
        after = point_metrics([apply_calibration(one, value) for one, value in pairs])
        changes = [(format_value(before[key]), format_value(after[key])) for key in CALIBRATION_METRICS]
        rows.append((name, _describe_fitted(calibrations[name], fits[0].classes), changes))
    return CalibrationTable([metric_label(key) for key in CALIBRATION_METRICS], rows)


def _describe_fitted(calibrations: Sequence[Calibration], classes: Sequence[str]) -> str:
    """Return the temperature with the bias; of several their mean, and how many have a bias."""
    if len(calibrations) == 1:
        return calibrations[0].describe(classes)
    mean = format_value(float(np.mean([one.temperature for one in calibrations])))
    biased = sum(bool(one.bias) for one in calibrations)
    return f"{mean}, {biased} of {len(calibrations)} with a bias" if biased else mean


def split_configs(configs: Mapping[str, str]) -> tuple[str, list[Row]]:
    """Return the settings that all models share as YAML text, and a row for each that differs.

    Args:
        configs: Model to its configuration as YAML text.
    """
    parsed = {name: yaml.safe_load(text) for name, text in configs.items()}
    flat = {name: flatten(own) for name, own in parsed.items()}
    keys = dict.fromkeys(key for own in flat.values() for key in own)
    first = next(iter(flat.values()))
    differing = [
        key for key in keys if any(own.get(key, MISSING) != first.get(key, MISSING) for own in flat.values())
    ]
    rows: list[Row] = [
        {"setting": key, **{name: str(own.get(key, MISSING)) for name, own in flat.items()}}
        for key in differing
        if key != "run_dir"
    ]
    shared = _without_keys(next(iter(parsed.values())), set(differing))
    return yaml.safe_dump(shared, sort_keys=False, allow_unicode=True), rows


def _without_keys(values: Mapping[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings without the values at some dotted keys, and without groups left empty by it."""
    kept = {}
    for key, value in values.items():
        if f"{prefix}{key}" in keys:
            continue
        is_group = isinstance(value, Mapping) and value
        own = _without_keys(value, keys, f"{prefix}{key}.") if is_group else value
        if own or not is_group:
            kept[key] = own
    return kept


def cost_rows(costs: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    """Return the costs of each model with units; unknown keys follow under their own names."""
    costs = {name: count_epochs(block) for name, block in costs.items()}
    found = [key for block in costs.values() for key in block]
    keys = [*(key for key in COSTS if key in found), *(key for key in found if key not in COSTS)]
    rows = []
    for key in dict.fromkeys(keys):
        label, unit = COSTS.get(key, (key.replace("_", " ").capitalize(), ""))
        values = [_displayed_cost(key, block.get(key)) for block in costs.values()]
        rows.append((label, [format_quantity(value, unit) for value in values]))
    return rows


def _displayed_cost(key: str, value: object) -> object:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return value
    # The mean over folds, of which one may have a parameter more, is no whole number.
    return round(value) if key == "parameters" else value


def comparison_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Return the primary metric's difference of each pair, with its adjusted p-value and verdict."""
    rows = []
    for one in comparisons:
        found = one.differences[one.primary]
        row = {
            "pair": f"{one.second} \N{MINUS SIGN} {one.first}",
            "difference": format_signed(found.difference),
            "interval": format_interval(found.low, found.high),
            "p": format_p_value(shown_p_value(one)),
            "verdict": short_verdict(one),
            "only_second": MISSING if one.mcnemar is None else str(one.mcnemar.only_second),
            "only_first": MISSING if one.mcnemar is None else str(one.mcnemar.only_first),
            "first": one.first,
            "second": one.second,
        }
        rows.append(row)
    return rows


def finding_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Return the difference of each finding's AUC in each pair, with its p-value; none without findings."""
    rows = []
    for one in comparisons:
        for name, tests in (one.findings or {}).items():
            found = one.differences.get(f"auc[{name}]")
            if found is None:
                continue
            interval = format_interval(found.low, found.high)
            rows.append(
                {
                    "finding": name,
                    "pair": f"{one.second} \N{MINUS SIGN} {one.first}",
                    "difference": f"{format_signed(found.difference)} {interval}",
                    "p": format_p_value(shown_p_value(one, tests.adjusted)),
                }
            )
    return rows


def difference_rows(one: Comparison, unit: str = "") -> list[tuple[str, str, str]]:
    """Return label, difference and interval of every headline metric of a pair."""
    # A baseline is the same for both models, and the gain over it differs as the error does.
    own = [name for name in one.differences if not name.startswith("baseline_") and name != "mae_gain"]
    found = [one.differences[name] for name in headline_metrics(own)]
    return [
        (
            metric_label(one.metric, unit),
            format_signed(one.difference),
            format_interval(one.low, one.high),
        )
        for one in found
    ]
