"""The sections of a page on what a model is worth in use, and on its prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from voxlift.app.evaluation.clinical_use import find_useful_range
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.report.figures import CaptionedFigure
from voxlift.app.report.formatting import MISSING, format_interval, format_value, interval_of
from voxlift.app.report.style import MUTED, SERIES, figure_style, svg_markup
from voxlift.app.report.tables import TableCells, table_cells

NOTHING: TableCells = ([], [])
CURVE_ROOM = 1.15  # of the net benefit above the prevalence
NO_SETS = (
    "No coverage is promised, so there are no prediction sets: validation has already chosen the epoch "
    "and how outputs become decisions. splits.calibration=0.1 keeps subjects for this alone."
)


@dataclass(frozen=True)
class UseSections:
    """What a page shows; empty parts are left out.

    Attributes:
        rates: Calibration, operating points, likelihood ratios, predictive values.
        rates_note: Below them.
        curve: The decision curve.
        sets: Coverage and set sizes.
        sets_note: Below them, or why there are none.
    """

    rates: TableCells = NOTHING
    rates_note: str = ""
    curve: Sequence[CaptionedFigure] = field(default_factory=list)
    sets: TableCells = NOTHING
    sets_note: str = ""


def describe_use(metrics: Mapping[str, Any], split: str, *, positive: str = "") -> UseSections:
    """Return the sections of a page from metrics.json.

    Args:
        metrics: Content of metrics.json.
        split: Of the page's figures: `test`, `val` or `external`.
        positive: Name of class 1.
    """
    sets, note = _describe_sets(metrics.get("prediction_sets"), split)
    use = metrics.get("use")
    if not use:
        return UseSections(sets=sets, sets_note=note)
    share, own = use["prevalence"], use["prevalence_of_subjects"]
    where = f"{100 * share:.3g} %"
    where += " as in these subjects; evaluation.prevalence sets another one" if share == own else ""
    text = (
        f"{split.capitalize()} split, at the decision threshold {use['threshold']:.3f}; PPV, NPV and net "
        f"benefit at a prevalence of {positive} of {where}. Operating points: the best threshold on these "
        "subjects, so slightly optimistic. Calibration before temperature scaling: intercept 0 and slope 1 "
        "are perfect; a slope below 1 means probabilities that are too extreme. Brackets: 95 % interval from "
        "a bootstrap over subjects."
    )
    return UseSections(_rate_rows(use), text, [decision_curve_figure(use)], sets, note)


def _rate_rows(use: Mapping[str, Any]) -> TableCells:
    rows = []
    for name in use["intervals"]:
        pair = interval_of(use, name)
        value, interval = format_value(use[name]), format_interval(*pair) if pair else ""
        rows.append({"": label_of_use(name), "value": value, "95 % interval": interval})
    return table_cells(rows)


def label_of_use(name: str) -> str:
    """Return the words for a key of the block `use`.

    >>> label_of_use("sensitivity_at_specificity_0.9"), label_of_use("lr_positive")
    ('Sensitivity at specificity 0.9', 'Positive likelihood ratio')
    """
    words = {
        "lr_positive": "Positive likelihood ratio",
        "lr_negative": "Negative likelihood ratio",
        "ppv_use": "PPV at this prevalence",
        "npv_use": "NPV at this prevalence",
    }
    return words.get(name) or (name.replace("_", " ").capitalize() if "_at_" in name else metric_label(name))


def decision_curve_figure(use: Mapping[str, Any]) -> CaptionedFigure:
    """Draw the net benefit of the model over thresholds beside that of treating all and nobody."""
    curve = use["decision_curve"]
    x = np.array(curve["threshold"])
    ranges = find_useful_range(curve)
    with figure_style():
        figure = Figure(figsize=(4.6, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(x, curve["low"], curve["high"], color=SERIES[0], alpha=0.18, linewidth=0)
        axes.plot(x, curve["model"], color=SERIES[0], label="model")
        axes.plot(x, curve["treat_all"], color=SERIES[1], linestyle="--", label="treat all")
        axes.axhline(0, color=MUTED, linewidth=1, label="treat none")
        top = max(use["prevalence"], *curve["model"]) * CURVE_ROOM
        axes.set(xlim=(0, 1), ylim=(-0.25 * top, top), xlabel="Threshold probability", ylabel="Net benefit")
        axes.legend(loc="upper right")
        title = "Decision curve"
        markup = svg_markup(figure, name="decision-curve", title=title)
    texts = ", ".join(f"{low:.2f} to {high:.2f}" for low, high in ranges)
    better = (
        f"The model is above both at thresholds {texts}." if ranges else "The model is nowhere above both."
    )
    return (
        f"{title} with a 95 % band (bootstrap over subjects), beside treating all and nobody. {better}",
        markup,
    )


def _describe_sets(block: Mapping[str, Any] | None, split: str) -> tuple[TableCells, str]:
    if block is None:
        return NOTHING, NO_SETS
    if split not in block:
        return NOTHING, "Prediction sets were calibrated, but there are no other subjects to measure them on."
    found = block[split]
    rows = [_coverage_row("all", found)]
    rows += [_coverage_row(name, one) for name, one in found["by_label"].items()]
    always = [name for name, limit in block["limits"].items() if limit is None]
    note = (
        f"Sets hold the true label with a probability of at least {100 * block['coverage']:g} % for subjects "
        f"like the {block['subjects']} that calibrated them and were used for nothing else, each label for "
        "itself (split-conformal prediction). "
    )
    if "sizes" in found:
        sizes = ", ".join(f"{size}: {count}" for size, count in found["sizes"].items())
        note += f"Labels in a set: mean {found['mean_size']:.2f} ({sizes}). "
    elif found["width"] is not None:
        note += f"Width of the interval: {found['width']:.4g}. "
    if always:
        note += f"In every set, since too few subjects calibrated it: {', '.join(always)}. "
    return table_cells(rows), note + "voxlift-predict writes the set of each scan."


def _coverage_row(name: str, one: Mapping[str, Any]) -> dict[str, object]:
    interval = format_interval(*one["interval"]) if one["interval"] else MISSING
    return {
        "label": name,
        "n": one["n"],
        "coverage": format_value(one["coverage"]),
        "95 % interval": interval,
    }
