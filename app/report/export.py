"""Figures as files for a paper: the page's drawing in its printed colours, as SVG and as PNG."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from voxlift.app.report.style import INK, MUTED, PAPER, RULE, SERIES, figure_style

DOTS_PER_INCH = 300
# The light colours of report.css.
PRINTED: Mapping[str, str] = MappingProxyType(
    {INK: "#1b2026", MUTED: "#59636e", RULE: "#dfe3e8", PAPER: "#ffffff"}
    | dict(
        zip(
            SERIES,
            (
                "#0b5fa5",
                "#c04a12",
                "#12795a",
                "#83449c",
                "#8a6a00",
                "#a8305f",
                "#3f6b7d",
                "#55606c",
            ),
            strict=True,
        )
    )
)
PARTS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def export_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png`; the figure's stand-in colours become the printed ones for good."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    folder.mkdir(parents=True, exist_ok=True)
    with figure_style():
        figure.draw_without_rendering()  # ticks and their labels exist only after a drawing
        print_colours(figure)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return paths


def print_colours(figure: Figure) -> None:
    """Give every part of a figure the printed colour that its stand-in stands for."""
    for artist in figure.findobj(Artist):
        for part in PARTS:
            read, write = (getattr(artist, f"{verb}_{part}", None) for verb in ("get", "set"))
            if read is not None and write is not None:
                _replace(read(), write)


def _replace(value: Any, write: Any) -> None:  # noqa: ANN401 - whatever an artist takes as colours
    if isinstance(value, str) and value in {"none", "auto"}:
        return
    try:
        colours = to_rgba_array(value)
    except (ValueError, TypeError):
        return
    if not len(colours) or not any(to_hex(colour) in PRINTED for colour in colours):
        return
    printed = [(*to_rgba_array(PRINTED.get(to_hex(one), to_hex(one)))[0][:3], one[3]) for one in colours]
    write(np.array(printed) if len(printed) > 1 else printed[0])
