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
from voxlift.app.report.pages import (
    INK,
    MUTED,
    SERIES,
    assign_colours,
    figure_style,
    legend_label,
    series_style,
    svg_markup,
)
from voxlift.app.report.tables import (
    MISSING,
    TableCells,
    format_interval,
    format_value,
    interval_of,
    table_cells,
)

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
    """Return the sections of a run's page from metrics.json.

    Args:
        metrics: Content of metrics.json.
        split: Of the page's figures: `test`, `val` or `external`.
        positive: Name of class 1.
    """
    return compare_use({"": metrics}, split, positive=positive)


def compare_use(models: Mapping[str, Mapping[str, Any]], split: str, *, positive: str = "") -> UseSections:
    """Return the sections of a page from the blocks `use` and `prediction_sets` of each model.

    Args:
        models: Name to its blocks; the name is empty on the page of a run.
        split: Of the page's figures.
        positive: Name of class 1.
    """
    sets, note = _describe_sets({name: one.get("prediction_sets") for name, one in models.items()}, split)
    used = {name: one["use"] for name, one in models.items() if one.get("use")}
    if not used:
        return UseSections(sets=sets, sets_note=note)
    use = next(iter(used.values()))
    share, own, threshold = use["prevalence"], use["prevalence_of_subjects"], use["threshold"]
    where = f"{100 * share:.3g} %"
    where += " as in these subjects; evaluation.prevalence sets another one" if share == own else ""
    at = "each training's own decision threshold"
    if threshold is not None and len(used) == 1:
        at = f"the decision threshold {threshold:.3f}"
    text = (
        f"{split.capitalize()} split, at {at}; PPV, NPV and net benefit at a prevalence of {positive} of "
        f"{where}. Operating points: the best threshold on these subjects, so slightly optimistic. "
        "Calibration before temperature scaling: intercept 0 and slope 1 are perfect; a slope below 1 means "
        "probabilities that are too extreme. Brackets: 95 % interval from a bootstrap over subjects."
    )
    if threshold is None:
        text += " Averaged over folds and seeds, without the variance between seeds."
    return UseSections(_rate_rows(used), text, [decision_curve_figure(used)], sets, note)


def _rate_rows(models: Mapping[str, Mapping[str, Any]]) -> TableCells:
    rows = []
    for name in next(iter(models.values()))["intervals"]:
        row = {"": label_of_use(name)}
        for model, use in models.items():
            pair = interval_of(use, name)
            value, interval = format_value(use[name]), format_interval(*pair) if pair else ""
            row |= (
                {model: f"{value} {interval}".strip()}
                if model
                else {"value": value, "95 % interval": interval}
            )
        rows.append(row)
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


def decision_curve_figure(models: Mapping[str, Mapping[str, Any]]) -> CaptionedFigure:
    """Draw the net benefit of models over thresholds beside that of treating all and nobody.

    Args:
        models: Name to its block `use`; a single one is drawn with its band.
    """
    first = next(iter(models.values()))
    is_single, colours = len(models) == 1, assign_colours(models)
    with figure_style():
        figure = Figure(figsize=(4.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for name, use in models.items():
            curve, style = use["decision_curve"], series_style(colours[name])
            x = np.array(curve["threshold"])
            if is_single:
                axes.fill_between(
                    x, curve["low"], curve["high"], color=style["color"], alpha=0.18, linewidth=0
                )
            axes.plot(x, curve["model"], label=legend_label(name or "model"), **style)
        treated = first["decision_curve"]["treat_all"]
        axes.plot(x, treated, color=INK if len(models) > 1 else SERIES[1], linestyle="--", label="treat all")
        axes.axhline(0, color=MUTED, linewidth=1, label="treat none")
        top = max(first["prevalence"], *(max(use["decision_curve"]["model"]) for use in models.values()))
        top *= CURVE_ROOM
        axes.set(xlim=(0, 1), ylim=(-0.25 * top, top), xlabel="Threshold probability", ylabel="Net benefit")
        axes.legend(loc="upper right")
        markup = svg_markup(figure, name="decision-curve", title="Decision curve")
    texts = [_say_where_useful(name or "The model", use) for name, use in models.items()]
    drawn = " with a 95 % band (bootstrap over subjects)" if is_single else ""
    return f"Decision curve{drawn}, beside treating all and nobody. {' '.join(texts)}", markup


def _say_where_useful(name: str, use: Mapping[str, Any]) -> str:
    ranges = find_useful_range(use["decision_curve"])
    ends = [(f"{low:.2f}", f"{high:.2f}") for low, high in ranges]
    texts = ", ".join(low if low == high else f"{low} to {high}" for low, high in ends)
    word = "threshold" if len(ends) == 1 and ends[0][0] == ends[0][1] else "thresholds"
    return f"{name} is above both at {word} {texts}." if ranges else f"{name} is nowhere above both."


def _describe_sets(models: Mapping[str, Mapping[str, Any] | None], split: str) -> tuple[TableCells, str]:
    blocks = {name: block for name, block in models.items() if block is not None}
    if not blocks:
        return NOTHING, NO_SETS
    if not any(split in block for block in blocks.values()):
        return NOTHING, "Prediction sets were calibrated, but there are no other subjects to measure them on."
    rows, notes, first = [], [], next(iter(blocks.values()))
    for name, block in blocks.items():
        found, of_model = block[split], {"model": name} if name else {}
        rows.append(of_model | _coverage_row("all", found))
        rows += [of_model | _coverage_row(label, one) for label, one in found["by_label"].items()]
        notes.append(f"{name}: {_describe_sizes(block, found)}" if name else _describe_sizes(block, found))
    note = (
        f"Sets hold the true label with a probability of at least {100 * first['coverage']:g} % for subjects "
        f"like the {first['subjects']} that calibrated them and were used for nothing else, each label for "
        "itself (split-conformal prediction). "
    )
    if first.get("trainings", 1) > 1:
        note += "The volumes of all folds and seeds are counted together, each by its own training's sets. "
    return table_cells(rows), f"{note}{''.join(notes)}voxlift-predict writes the set of each scan."


def _describe_sizes(block: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return sentences on the sizes of sets and on labels that are in all of them."""
    note = ""
    if "sizes" in found:
        sizes = ", ".join(f"{size}: {count}" for size, count in found["sizes"].items())
        note = f"Labels in a set: mean {found['mean_size']:.2f} ({sizes}). "
    elif found["width"] is not None:
        note = f"Width of the interval: {found['width']:.4g}. "
    always = [name for name, limit in block["limits"].items() if limit is None]
    if always:
        note += f"In every set, since too few subjects calibrated it: {', '.join(always)}. "
    return note


def _coverage_row(name: str, one: Mapping[str, Any]) -> dict[str, object]:
    interval = format_interval(*one["interval"]) if one["interval"] else MISSING
    return {
        "label": name,
        "n": one["n"],
        "coverage": format_value(one["coverage"]),
        "95 % interval": interval,
    }
