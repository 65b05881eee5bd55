"""Draw the figures of a search: scores of its trials, and the importance of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.report.pages import INK, MUTED, PAPER, SERIES, figure_style
from voxlift.app.studies.settings import Choices, Range

WIDTH = 7.2
PANELS_PER_ROW = 3


def draw_progress(trials: Sequence[Mapping[str, Any]], *, metric: str, is_lower_better: bool) -> Figure:
    """Draw the score of each trial in order, with the best so far; pruned trials are hollow."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        for state, fill, label in (
            ("complete", SERIES[0], "trained to the end"),
            ("pruned", PAPER, "stopped early"),
        ):
            chosen = [trial for trial in trials if trial["state"] == state and trial["value"] is not None]
            if chosen:
                numbers, values = ([trial[key] for trial in chosen] for key in ("number", "value"))
                edge: dict[str, Any] = {"markeredgecolor": SERIES[0], "markeredgewidth": 1.2}
                axes.plot(numbers, values, "o", color=fill, markersize=5.5, label=label, **edge)
        full = [trial for trial in trials if trial["state"] == "complete"]
        if full:
            _draw_best(axes, full, last=trials[-1]["number"], is_lower_better=is_lower_better)
        given = next((trial for trial in full if trial["is_given"]), None)
        if given:
            axes.axhline(
                given["value"], color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), label="given settings"
            )
        axes.set(xlabel="Trial", ylabel=f"Validation {metric_label(metric)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True)
        figure.legend(loc="outside lower center", ncols=4)
        return figure


def _draw_best(axes: Axes, full: Sequence[Mapping[str, Any]], *, last: int, is_lower_better: bool) -> None:
    """Draw the best so far up to the search's last trial, which may have been stopped early."""
    best = (np.minimum if is_lower_better else np.maximum).accumulate([trial["value"] for trial in full])
    numbers = [trial["number"] for trial in full]
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=SERIES[1], label="best so far")


def draw_slices(
    trials: Sequence[Mapping[str, Any]], space: Mapping[str, Range | Choices], *, metric: str
) -> Figure:
    """Draw the scores of trials over every searched setting."""
    rows = -(-len(space) // PANELS_PER_ROW)
    with figure_style():
        figure = Figure(figsize=(WIDTH, 2.5 * rows), layout="constrained")
        panels = figure.subplots(rows, min(PANELS_PER_ROW, len(space)), sharey=True, squeeze=False)
        for axes, (key, one) in zip(panels.flat, space.items(), strict=False):
            _draw_slice(axes, trials, key, one)
        for axes in panels.flat[len(space) :]:
            axes.set_axis_off()
        for row in panels:
            row[0].set_ylabel(f"Validation {metric_label(metric)}")
        return figure


def draw_importance(importance: Mapping[str, float]) -> Figure:
    """Draw the share of the variation of the score that each setting explains."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(importance)), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(importance)), list(importance.values()), color=SERIES[0], height=0.6)
        axes.set_yticks(range(len(importance)), list(importance))
        axes.invert_yaxis()
        axes.set(xlabel="Share of the variation explained (fANOVA)", xlim=(0, 1))
        axes.grid(visible=True, axis="x")
        return figure


def _draw_slice(axes: Axes, trials: Sequence[Mapping[str, Any]], key: str, one: Range | Choices) -> None:
    for trial in trials:
        if trial["value"] is None or key not in trial["params"]:
            continue
        value = trial["params"][key]
        place = (
            [str(choice) for choice in one.values].index(str(value)) if isinstance(one, Choices) else value
        )
        hollow = trial["state"] != "complete"
        axes.plot(
            place, trial["value"], "D" if trial["is_given"] else "o", color=PAPER if hollow else SERIES[0],
            markersize=5, clip_on=False, markeredgecolor=INK if trial["is_given"] else SERIES[0],
        )  # fmt: skip
    if isinstance(one, Choices):
        axes.set_xticks(range(len(one.values)), [str(choice) for choice in one.values])
        axes.set_xlim(-0.5, len(one.values) - 0.5)
    else:
        axes.set_xscale("log" if one.log else "linear")
        axes.set_xlim(one.low, one.high)
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(key)
    axes.grid(visible=True)
