"""Draw the three planes of a volume, with an explanation map over them."""

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

PLANE_NAMES = ("axial", "coronal", "sagittal")
SIDES = (("L", "R"), ("L", "R"), ("P", "A"))  # letters at the left and right edge of each plane
MASK_COLOUR = "#7ae582"
WIDTH = 9.0  # inches, of the whole figure

Plane = NDArray[np.float32]


def draw_planes(
    volume: NDArray[np.float32],
    heat: NDArray[np.float32] | None = None,
    *,
    at: tuple[int, int, int],
    spacing: Sequence[float],
    title: str = "",
    note: str = "",
    with_sides: bool = True,
    mask: NDArray[np.float32] | None = None,
) -> Figure:
    """Return a figure of the axial, coronal and sagittal plane through one voxel, in true proportions.

    Args:
        volume: [D, H, W], one channel; grey from its 1st to its 99.5th percentile.
        heat: [D, H, W] in 0..1, transparent where it is 0; None draws the volume alone.
        at: Index (depth, height, width) of the planes, marked at the edges.
        spacing: mm (depth, height, width).
        title: One line above.
        note: One line below.
        with_sides: Whether to write the patient's sides at the edges; right only for RAS axes.
        mask: [D, H, W] of 0 and 1, whose edge is drawn; None for none.
    """
    planes, maps = three_planes(volume, at), None if heat is None else three_planes(heat, at)
    depth, height, width = spacing
    pixel_mm = ((height, width), (depth, width), (depth, height))  # of each plane, (rows, columns)
    extents = [
        (plane.shape[1] * mm[1], plane.shape[0] * mm[0]) for plane, mm in zip(planes, pixel_mm, strict=True)
    ]
    aspect = max(high / wide for wide, high in extents)
    figure = Figure(figsize=(WIDTH, WIDTH / 3 * min(aspect, 2.0) + 0.75), facecolor="black")
    axes = figure.subplots(1, 3)
    low, high = np.percentile(volume, [1, 99.5])
    for index, one in enumerate(axes):
        extent = (0.0, extents[index][0], 0.0, extents[index][1])
        one.imshow(planes[index], cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=extent)
        if maps is not None:
            _draw_map(one, maps[index], extent)
        if mask is not None:
            _draw_edge(one, three_planes(mask, at)[index], extent)
        _label_plane(one, index, with_sides=with_sides)
        _mark_voxel(one, index, at, pixel_mm[index], extents[index])
    figure.suptitle(title, color="white", fontsize=10)
    figure.text(0.5, 0.02, note, color="#b8c0c8", fontsize=8, ha="center")
    figure.subplots_adjust(left=0.03, right=0.91, top=0.86, bottom=0.12, wspace=0.08)
    if maps is not None:
        _add_colour_bar(figure)
    return figure


def _draw_map(axes: Axes, heat: NDArray[np.float32], extent: tuple[float, float, float, float]) -> None:
    axes.imshow(
        heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.6 * np.clip(heat * 2, 0, 1),
        extent=extent,
        interpolation="bilinear",
    )


def _draw_edge(axes: Axes, mask: NDArray[np.float32], extent: tuple[float, float, float, float]) -> None:
    """Draw the edge of a mask, closed also where the mask reaches the edge of the picture."""
    rows, columns = mask.shape
    height, width = extent[3] / rows, extent[1] / columns
    x = (np.arange(-1, columns + 1) + 0.5) * width
    y = extent[3] - (np.arange(-1, rows + 1) + 0.5) * height
    if mask.any():
        axes.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=MASK_COLOUR, linewidths=1.0)


def _add_colour_bar(figure: Figure) -> None:
    colours = ScalarMappable(Normalize(0, 1), "inferno")
    bar = figure.colorbar(colours, cax=figure.add_axes((0.925, 0.2, 0.012, 0.58)), ticks=[0, 1])
    bar.ax.tick_params(colors="white", labelsize=7)


def _mark_voxel(
    axes: Axes,
    index: int,
    at: tuple[int, int, int],
    pixel_mm: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    """Draw ticks at the edges in place of a cross, which would cover the finding."""
    depth, height, width = at
    column, row = ((width, height), (width, depth), (height, depth))[index]
    x, y = (column + 0.5) * pixel_mm[1], (row + 0.5) * pixel_mm[0]
    style: dict[str, Any] = {"color": "#4cc9f0", "linewidth": 1.2}
    tick_x, tick_y = 0.06 * extent[0], 0.06 * extent[1]
    axes.plot([x, x], [0, tick_y], **style)
    axes.plot([x, x], [extent[1] - tick_y, extent[1]], **style)
    axes.plot([0, tick_x], [y, y], **style)
    axes.plot([extent[0] - tick_x, extent[0]], [y, y], **style)
    axes.set(xlim=(0, extent[0]), ylim=(0, extent[1]))


def _label_plane(axes: Axes, index: int, *, with_sides: bool) -> None:
    axes.set_axis_off()
    axes.set_title(PLANE_NAMES[index], color="#b8c0c8", fontsize=8, pad=3)
    if with_sides:
        style: dict[str, Any] = {"color": "white", "fontsize": 8, "va": "center", "transform": axes.transAxes}
        for x, align, letter in zip((0.015, 0.985), ("left", "right"), SIDES[index], strict=True):
            axes.text(x, 0.5, letter, ha=align, **style)


def three_planes(volume: Plane, at: tuple[int, int, int]) -> list[Plane]:
    """Return the axial, coronal and sagittal plane through a voxel, row 0 on top.

    Args:
        volume: [D, H, W] with depth towards the head, height towards the front, width towards the
            patient's right.
        at: Index (depth, height, width).

    Returns:
        Axial [H, W] with the front on top, coronal [D, W] and sagittal [D, H] with the head on top; the right
        of the axial and coronal picture is the patient's right, of the sagittal one the front.
    """
    depth, height, width = at
    return [plane[::-1] for plane in (volume[depth], volume[:, height], volume[:, :, width])]


def save_planes(figure: Figure, path: Path) -> Path:
    """Write a figure of `draw_planes` as a PNG, and return its path."""
    figure.savefig(path, dpi=130, format="png", facecolor="black")
    return path
