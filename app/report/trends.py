"""Figures over epochs and over models: learning curves, and values with their intervals."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.report.quantities import interval_of
from voxlift.app.report.style import INK, MUTED, SERIES, figure_style, new_axes, series_style, svg_markup
from voxlift.app.report.summary import Row

PREFERRED = ("loss", "auc", "balanced_accuracy", "accuracy")


def history_panels(history: Sequence[Row]) -> tuple[str, ...]:
    """The two quantities worth a panel each: the loss, and the best of the metrics that were followed."""
    present = [name for name in PREFERRED if any(history_points(history, name).values())]
    return tuple(present[: 2 if present[:1] == ["loss"] else 1])


def history_points(history: Sequence[Row], quantity: str) -> dict[str, list[tuple[float, float]]]:
    """Training and validation values of a quantity as (epoch from 1, value), undefined ones left out."""
    found: dict[str, list[tuple[float, float]]] = {"training": [], "validation": []}
    for number, row in enumerate(history, start=1):
        for kind, column in (("training", quantity), ("validation", f"val_{quantity}")):
            value = as_number(row.get(column))
            if math.isfinite(value):
                found[kind].append((number, value))
    return found


def history_figure(histories: Mapping[str, Sequence[Row]], quantity: str, *, name: str, title: str) -> Markup:
    """One quantity over epochs: of one run both training and validation, of several runs validation only."""
    with figure_style():
        figure, axes = new_axes(height=3.2)
        index = 0
        for label, history in histories.items():
            for kind, points in history_points(history, quantity).items():
                if not points or (len(histories) > 1 and kind == "training"):
                    continue
                text = kind if len(histories) == 1 else label
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, label=text, marker=_marker(points), **series_style(index))
                index += 1
        axes.set(xlabel="Epoch", ylabel=metric_label(quantity).capitalize().replace("Roc auc", "ROC AUC"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True)
        axes.legend(title="" if len(histories) == 1 else "Validation")
        return svg_markup(figure, name=name, title=title)


def forest_figure(
    metrics: Mapping[str, Mapping[str, object]], metric: str, *, name: str, title: str
) -> Markup:
    """A metric of several models as points with intervals, one row each."""
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(metrics))
        for row, block in enumerate(metrics.values()):
            _whisker(axes, row, as_number(block.get(metric)), interval_of(block, metric), SERIES[row % 8])
        _rows(axes, tuple(metrics), metric_label(metric))
        return svg_markup(figure, name=name, title=title)


def difference_figure(comparisons: Sequence[Comparison], *, name: str, title: str) -> Markup:
    """Differences of the primary metric as points with intervals around the line of no difference."""
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(comparisons))
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, one in enumerate(comparisons):
            found = one.differences[one.primary]
            _whisker(axes, row, found.difference, (found.low, found.high), INK)
        labels = tuple(f"{one.second} \N{MINUS SIGN} {one.first}" for one in comparisons)
        _rows(axes, labels, f"Difference of {metric_label(comparisons[0].primary)}")
        reach = max(abs(bound) for bound in axes.get_xlim())
        axes.set_xlim(-reach, reach)
        return svg_markup(figure, name=name, title=title)


def as_number(value: object) -> float:
    """A number or its text as float; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _whisker(axes: Axes, row: int, value: float, pair: tuple[float, float] | None, colour: str) -> None:
    if pair is not None and all(math.isfinite(end) for end in pair):
        axes.hlines(row, *pair, color=colour, linewidth=1.6)
        axes.vlines(pair, row - 0.13, row + 0.13, color=colour, linewidth=1.2)
    axes.plot(value, row, marker="o", markersize=6, color=colour, linestyle="none")


def _rows(axes: Axes, labels: Sequence[str], x_label: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def _marker(points: Sequence[object]) -> str:
    """Dots where a line would be too short to see."""
    return "o" if len(points) < 3 else ""
