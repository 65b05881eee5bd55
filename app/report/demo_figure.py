"""Draw the figure of `make demo`: slices and volumes of both classes, and the test AUC of both models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

INK, MUTED = "#1b1f24", "#57606a"
COLOURS = ("#d1495b", "#00798c")  # of the slice model and of the volume model
SLICES = 4
DPI = 110

Volume: TypeAlias = NDArray[np.float32]


def write_demo_figure(
    path: Path, *, volumes: Mapping[str, Volume], comparisons: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write the figure as a PNG and return its path.

    Args:
        path: Path of the PNG.
        volumes: One volume [D, H, W] of each class, values in 0..1, on an isotropic grid.
        comparisons: Content of `comparison.json`, by task; the same models in each.
    """
    figure = Figure(figsize=(11, 3.35), facecolor="white", layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.75, 1), wspace=0.02)[0]
    _draw_volumes(left, volumes)
    _draw_scores(right, comparisons)
    figure.savefig(path, dpi=DPI, format="png", facecolor="white", pil_kwargs={"optimize": True})
    return path


def _draw_volumes(figure: SubFigure, volumes: Mapping[str, Volume]) -> None:
    """Draw a row for each class: a few slices, then the maximum over the height of the volume."""
    rows = figure.subplots(len(volumes), SLICES + 1, squeeze=False, width_ratios=[*[1] * SLICES, 1.06])
    top = max(float(np.percentile(volume, 99.9)) for volume in volumes.values())
    for row, (name, volume) in zip(rows, volumes.items(), strict=True):
        depths = np.linspace(0, len(volume) - 1, SLICES + 2).round().astype(int)[1:-1]
        pictures = [volume[depth] for depth in depths] + [volume.max(axis=1)]
        captions = [f"slice {depth}" for depth in depths] + ["front view"]
        for axes, picture, caption in zip(row, pictures, captions, strict=True):
            axes.imshow(picture, origin="lower", cmap="gray", vmin=0, vmax=top, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(caption, fontsize=7.5, color=MUTED, labelpad=2)
        row[0].set_ylabel(name, fontsize=11, color=INK)
    rows[0][0].set_title("One slice does not show the class …", loc="left", fontsize=11, color=INK)
    rows[0][-1].set_title("… the volume does", loc="left", fontsize=11, color=INK)


def _draw_scores(figure: SubFigure, comparisons: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the test AUC of each model with its interval, grouped by task."""
    axes = figure.subplots()
    names, y = [], 0.0
    for task, found in comparisons.items():
        for colour, (model, values) in zip(COLOURS, found["models"].items(), strict=False):
            _draw_interval(axes, y, values["test"], colour)
            names.append((y, f"{model}\n{task}"))
            y -= 1
        y -= 0.6
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.text(0.5, 0.62, "chance", color=MUTED, fontsize=7.5, ha="center", va="bottom")
    axes.set_yticks([place for place, _ in names], [name for _, name in names], fontsize=8.5)
    axes.set(xlim=(0.2, 1.16), ylim=(y + 1, 0.6), xticks=[0.25, 0.5, 0.75, 1.0])
    axes.tick_params(length=0, labelsize=8.5, colors=INK)
    axes.set_title("Test ROC AUC, 95 % interval", loc="left", fontsize=11, color=INK, pad=16)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_interval(axes: Axes, y: float, test: Mapping[str, Any], colour: str) -> None:
    low, high = test["intervals"]["auc"]
    axes.plot([low, high], [y, y], color=colour, linewidth=3, solid_capstyle="round", alpha=0.45)
    axes.plot(test["auc"], y, "o", color=colour, markersize=8)
    axes.text(1.03, y, f"{test['auc']:.2f}", color=colour, fontsize=10, va="center", weight="bold")
