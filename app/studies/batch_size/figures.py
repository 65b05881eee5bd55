"""Draw the figures of the study of the batch size: speed and memory, scores, stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from voxlift.app.report.pages import INK, MUTED, SERIES, figure_style, series_marker, series_style
from voxlift.app.studies.batch_size.points import AccumulatedBatch, BatchPoint, MemorySearch
from voxlift.app.studies.trainings import PointScore, long_metric_name

HOLLOW: dict[str, Any] = {"marker": "D", "linestyle": "none", "markerfacecolor": "none", "markersize": 6}
WIDTH, HEIGHT = 7.2, 3.2
TITLES = {"epochs": "Equal epochs", "steps": "Equal steps"}


def draw_cost(
    steps: Mapping[int, Mapping[str, Any]], accumulated: AccumulatedBatch | None, memory: MemorySearch
) -> Figure:
    """Draw training speed and peak memory over the batch size; one batch also with microbatches."""
    sizes = list(steps)
    with figure_style():
        figure, (speed, peak) = _build_panels()
        speed.plot(
            sizes, [one["volumes_per_second"] for one in steps.values()], marker="o", **series_style(0)
        )
        speed.set(xlabel="Batch size, volumes", ylabel="Training speed, volumes/s", title="Speed")
        _mark_accumulated(speed, accumulated, "volumes_per_second", index=0)
        start_at_zero(speed)
        gigabytes = [one["peak_memory_bytes"] / 1e9 for one in steps.values()]
        peak.plot(sizes, gigabytes, marker="o", **series_style(1))
        _mark_accumulated(peak, accumulated, "peak_memory_bytes", index=1, unit=1e9)
        _mark_limit(peak, memory)
        peak.set(xlabel="Batch size, volumes", ylabel="Peak memory, GB", title="Memory")
        start_at_zero(peak)
        for axes in (speed, peak):
            _format_size_axis(axes, sizes)
        if accumulated is not None:
            single = Line2D([], [], color=MUTED, marker="o", linestyle="none", label="one batch")
            divided = Line2D([], [], color=MUTED, label=f"accumulated, {accumulated.name}", **HOLLOW)
            figure.legend(handles=[single, divided], loc="outside lower center", ncols=2)
        return figure


def draw_scores(
    points: Sequence[BatchPoint], scores: Mapping[str, PointScore], equal: Sequence[str]
) -> Figure:
    """Draw scores over the batch size: a panel per length of training, a line per rule of the rate."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        panels = figure.subplots(1, len(equal), sharey=True, squeeze=False)[0]
        rules = list(dict.fromkeys(point.scaling for point in points if point.equal != "both")) or ["none"]
        for axes, what in zip(panels, equal, strict=True):
            for index, rule in enumerate(rules):
                chosen = [p for p in points if p.equal == "both" or (p.equal, p.scaling) == (what, rule)]
                known = [p for p in chosen if p.label in scores]
                _draw_line(axes, known, scores, index=index, count=len(rules), label=_describe_rule(rule))
            axes.set(xlabel="Batch size, volumes", title=TITLES[what])
            _format_size_axis(axes, sorted({point.batch_size for point in points}))
        panels[0].set_ylabel(f"Validation {long_metric_name(scores)}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), title="Learning rate")
        return figure


def draw_stability(steps: Mapping[int, Mapping[str, Any]], noise: Mapping[str, Any]) -> Figure:
    """Draw the noise of the loss over the batch size, and the gradient noise scale."""
    sizes = list(steps)
    with figure_style():
        figure, (loss, scale) = _build_panels()
        values = [one["step_noise"] for one in steps.values()]
        loss.plot(sizes, values, marker="o", label="measured", **series_style(0))
        root = values[0] * np.sqrt(sizes[0] / np.asarray(sizes, float))
        loss.plot(
            sizes, root, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), label="1 / root of batch size"
        )
        loss.set(xlabel="Batch size, volumes", ylabel="SD of the loss between steps", title="Loss")
        start_at_zero(loss)
        figure.legend(loc="outside lower left", ncols=2)
        _format_size_axis(loss, sizes)
        _draw_noise_scale(scale, noise, sizes)
        return figure


def _build_panels() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, (left, right)


def _format_size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True)


def _mark_accumulated(
    axes: Axes, accumulated: AccumulatedBatch | None, key: str, *, index: int, unit: float = 1.0
) -> None:
    """Draw a hollow marker at the batch size of an accumulated batch."""
    if accumulated is None:
        return
    value = float(accumulated.answer[key]) / unit
    axes.plot(accumulated.batch_size, value, color=SERIES[index], **HOLLOW)


def _mark_limit(axes: Axes, memory: MemorySearch) -> None:
    if memory.limit_bytes is None:
        return
    limit, (_, top) = memory.limit_bytes / 1e9, axes.get_ylim()
    if limit < 3 * top:
        axes.axhline(limit, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.annotate(
            "limit", (1, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )


def _draw_line(
    axes: Axes,
    points: Sequence[BatchPoint],
    scores: Mapping[str, PointScore],
    *,
    index: int,
    count: int,
    label: str,
) -> None:
    style = series_style(index)
    shift = 2 ** (0.08 * (index - (count - 1) / 2))  # side by side, so that whiskers do not overlap
    found = [scores[point.label] for point in points]
    x = np.array([point.batch_size for point in points]) * shift
    axes.vlines(
        x, [one.low for one in found], [one.high for one in found], color=style["color"], linewidth=0.9
    )
    shape = series_marker(index)
    axes.plot(x, [one.score for one in found], marker=shape, markersize=5, label=label, **style)
    for place, one in zip(x, found, strict=True):
        if len(one.by_seed) > 1:
            axes.plot([place] * len(one.by_seed), one.by_seed, "_", color=style["color"], markersize=7)


def _draw_noise_scale(axes: Axes, noise: Mapping[str, Any], sizes: Sequence[int]) -> None:
    names = {"start": "before training", "trained": "after training"}
    for row, key in enumerate(names):
        found = noise.get(key)
        if not found or not np.isfinite(found["scale"]) or found["scale"] <= 0:
            axes.annotate(
                "no upper bound",
                (0.03, row),
                xycoords=("axes fraction", "data"),
                va="center",
            )
            continue
        high = found["high"] if np.isfinite(found["high"]) else found["scale"] * 100
        axes.plot([max(found["low"], 1e-2), high], [row, row], color=SERIES[row], linewidth=1.2)
        axes.plot(found["scale"], row, "o", color=INK, markersize=5)
    axes.axvspan(min(sizes), max(sizes), color=SERIES[7], alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_yticks([0, 1], list(names.values()))
    axes.set_ylim(-0.6, 1.6)
    axes.invert_yaxis()
    axes.set(xlabel="Examples (shaded: batch sizes tried)", title="Gradient noise scale")
    axes.grid(visible=True, axis="x")


def _describe_rule(rule: str) -> str:
    return {"none": "fixed", "sqrt": "with root of batch size", "linear": "with batch size"}[rule]


def start_at_zero(axes: Axes) -> None:
    """Let the vertical axis start at 0 and end a little above the data."""
    axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
