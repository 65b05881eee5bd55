"""Three planes of a volume, with a map laid over them where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

NAMES = ("axial", "coronal", "sagittal")
SIDES = (("L", "R"), ("L", "R"), ("P", "A"))  # left and right edge of each picture
WIDTH = 9.0  # inches, of the whole picture


def save_planes(figure: Figure, path: Path) -> Path:
    """Write what `draw_planes` drew as a PNG, and return its path."""
    figure.savefig(path, dpi=130, format="png", facecolor="black")
    return path


def draw_planes(
    volume: NDArray[np.float32],
    heat: NDArray[np.float32] | None = None,
    *,
    at: tuple[int, int, int],
    spacing: Sequence[float],
    title: str = "",
    note: str = "",
    lettered: bool = True,
) -> Figure:
    """The axial, coronal and sagittal plane of a volume through one voxel, in true proportions, on black.

    Args:
        volume: [D, H, W], one channel; grey from its 1st to its 99.5th percentile.
        heat: [D, H, W] in 0..1, drawn clear where it is 0; None draws the volume alone.
        at: (depth, height, width) of the planes, marked by lines.
        spacing: mm (depth, height, width), so that pixels are shown in their true proportions.
        title: one line above.
        note: one line below.
        lettered: write the patient's sides at the edges, which holds where the axes point to RAS.
    """
    planes, maps = three_planes(volume, at), None if heat is None else three_planes(heat, at)
    depth, height, width = spacing
    millimetres = ((height, width), (depth, width), (depth, height))
    extents = [
        (plane.shape[1] * mm[1], plane.shape[0] * mm[0])
        for plane, mm in zip(planes, millimetres, strict=True)
    ]
    tall = max(high / wide for wide, high in extents)
    figure = Figure(figsize=(WIDTH, WIDTH / 3 * min(tall, 2.0) + 0.75), facecolor="black")
    axes = figure.subplots(1, 3)
    low, high = np.percentile(volume, [1, 99.5])
    for index, one in enumerate(axes):
        extent = (0.0, extents[index][0], 0.0, extents[index][1])
        one.imshow(planes[index], cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=extent)
        if maps is not None:
            _lay_over(one, maps[index], extent)
        _label(one, index, lettered=lettered)
        _mark(one, _place(index, at), millimetres[index], extents[index])
    figure.suptitle(title, color="white", fontsize=10)
    figure.text(0.5, 0.02, note, color="#b8c0c8", fontsize=8, ha="center")
    figure.subplots_adjust(left=0.03, right=0.91, top=0.86, bottom=0.12, wspace=0.08)
    if maps is not None:
        _add_bar(figure)
    return figure


def _lay_over(axes: Axes, heat: NDArray[np.float32], extent: tuple[float, float, float, float]) -> None:
    axes.imshow(
        heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.6 * np.clip(heat * 2, 0, 1),
        extent=extent,
        interpolation="bilinear",
    )


def _add_bar(figure: Figure) -> None:
    colours = ScalarMappable(Normalize(0, 1), "inferno")
    bar = figure.colorbar(colours, cax=figure.add_axes((0.925, 0.2, 0.012, 0.58)), ticks=[0, 1])
    bar.ax.tick_params(colors="white", labelsize=7)


def _place(index: int, at: tuple[int, int, int]) -> tuple[int, int]:
    """Column and row (from below) of the marked voxel in one picture."""
    depth, height, width = at
    return ((width, height), (width, depth), (height, depth))[index]


def _mark(axes: Axes, place: tuple[int, int], mm: tuple[float, float], extent: tuple[float, float]) -> None:
    """Ticks at the rim instead of a cross: the finding itself stays uncovered."""
    x, y = (place[0] + 0.5) * mm[1], (place[1] + 0.5) * mm[0]
    style: dict[str, Any] = {"color": "#4cc9f0", "linewidth": 1.2}
    reach_x, reach_y = 0.06 * extent[0], 0.06 * extent[1]
    axes.plot([x, x], [0, reach_y], **style)
    axes.plot([x, x], [extent[1] - reach_y, extent[1]], **style)
    axes.plot([0, reach_x], [y, y], **style)
    axes.plot([extent[0] - reach_x, extent[0]], [y, y], **style)
    axes.set(xlim=(0, extent[0]), ylim=(0, extent[1]))


def _label(axes: Axes, index: int, *, lettered: bool) -> None:
    axes.set_axis_off()
    axes.set_title(NAMES[index], color="#b8c0c8", fontsize=8, pad=3)
    if lettered:
        for x, letter in zip((0.015, 0.985), SIDES[index], strict=True):
            axes.text(
                x,
                0.5,
                letter,
                color="white",
                fontsize=8,
                va="center",
                ha="left" if x < 0.5 else "right",
                transform=axes.transAxes,
            )


Plane = NDArray[np.float32]


def three_planes(volume: Plane, at: tuple[int, int, int]) -> list[Plane]:
    """The axial, coronal and sagittal plane through a voxel, row 0 on top.

    Args:
        volume: [depth, height, width] with depth towards the head, height towards the front, width towards
            the patient's right.
        at: index (depth, height, width).

    Returns:
        Axial [H, W] with the front on top, coronal [D, W] and sagittal [D, H] with the head on top; the right
        of the axial and coronal picture is the patient's right, of the sagittal one the front.
    """
    depth, height, width = at
    return [plane[::-1] for plane in (volume[depth], volume[:, height], volume[:, :, width])]
