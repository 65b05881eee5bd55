"""Render a page as one self-contained HTML file, and give its figures their style and colours.

Matplotlib draws with placeholder colours that occur nowhere else. The SVG in a page replaces them by the CSS
variables of the page, so that a figure follows its light, dark or print colours; a figure in a file gets the
print colours.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from voxlift.app.files import write_text
from voxlift.data_pipelines.files import escape_name

INK, MUTED, RULE, PAPER = "#010203", "#010204", "#010205", "#010206"  # placeholders
SERIES = tuple(f"#0102{number:02x}" for number in range(16, 24))
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
    (0, (10, 2, 2, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")  # distinguish series in greyscale
CSS_VARIABLES: Mapping[str, str] = MappingProxyType(
    {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
    | {colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)}
)
PRINT_SERIES = (
    "#0b5fa5", "#c04a12", "#12795a", "#83449c", "#8a6a00", "#a8305f", "#3f6b7d", "#55606c",
)  # fmt: skip
PRINT_COLOURS: Mapping[str, str] = MappingProxyType(  # the light colours of report.css
    {INK: "#1b2026", MUTED: "#59636e", RULE: "#dfe3e8", PAPER: "#ffffff"}
    | dict(zip(SERIES, PRINT_SERIES, strict=True))
)
MODEL_PLACES = (  # of the usual models among the colours, so that each has the same on every page
    "slice2d", "volume3d", "inflated", "acs", "slab25d", "linear", "covariates", "embedding",
)  # fmt: skip
COLOUR_PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
DOTS_PER_INCH = 300
SETTINGS: Any = MappingProxyType(  # Any: the stub of rc_context wants literal keys
    {
        "svg.fonttype": "none",  # real text: searchable, in the font of the page
        "svg.hashsalt": "voxlift",  # the same figure gives the same bytes
        "text.parse_math": False,  # a class may be named `$x`
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "legend.fontsize": 8,
        "axes.labelsize": 8.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.5,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "legend.handlelength": 2.4,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
)


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with the settings of every figure, not with a matplotlibrc; restore the caller's own on exit."""
    with rc_context():
        rcdefaults()
        rcParams.update(SETTINGS)
        yield


def new_axes(*, width: float = 4.6, height: float = 3.9) -> tuple[Figure, Axes]:
    """Return a figure of that size in inches and its axes; call it inside `figure_style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def assign_colours(models: Iterable[str]) -> dict[str, int]:
    """Return for each model the index of its series, which all figures of a page use.

    The usual models have the same colour on every page; others get the first that is free.

    >>> assign_colours(["mine", "volume3d"]), assign_colours(["slice2d", "volume3d"])
    ({'mine': 0, 'volume3d': 1}, {'slice2d': 0, 'volume3d': 1})
    """
    names = list(dict.fromkeys(models))
    known = {name: MODEL_PLACES.index(name) for name in names if name in MODEL_PLACES}
    free = (place for place in itertools.count() if place not in known.values())
    return {name: known[name] if name in known else next(free) for name in names}


def series_style(index: int) -> dict[str, Any]:
    """Return colour and dash of the series of that index; the dash distinguishes lines without colour."""
    shift = index // len(SERIES)  # a colour that is used again has another dash
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[(index + shift) % len(DASHES)]}


def legend_label(text: str) -> str:
    """Return a label that Matplotlib shows in a legend: it leaves out those that begin with an underscore."""
    return f"\N{WORD JOINER}{text}" if text.startswith("_") else text


def series_marker(index: int) -> str:
    """Return the marker of the series of that index."""
    return MARKERS[index % len(MARKERS)]


def svg_markup(figure: Figure, *, name: str, title: str) -> Markup:
    """Return the figure as an SVG element for a page.

    Args:
        figure: Drawn with the colours of this module.
        name: Unique on the page; put before every id, since all figures of a page share one namespace.
        title: Accessible name for screen readers.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r"(font: [\d.]+px) '[^;]*?(;|\")", r"\1 var(--sans)\2", body)
    for placeholder, variable in CSS_VARIABLES.items():
        body = body.replace(placeholder, f"var({variable})")
    attributes = Markup('<svg role="img" aria-label="{}" ').format(title)
    start = re.sub(r'\s(width|height)="[\d.]+pt"', "", body[: body.index(">")].removeprefix("<svg "))
    return Markup(attributes + Markup(start) + Markup(body[body.index(">") :]))  # noqa: S704 - drawn by us, no user markup: matplotlib escapes text


def export_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.png`, and return their paths; the figure keeps the print colours."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    folder.mkdir(parents=True, exist_ok=True)
    with figure_style():
        figure.draw_without_rendering()  # ticks and their labels exist only after a drawing
        apply_print_colours(figure)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return paths


def apply_print_colours(figure: Figure) -> None:
    """Replace every placeholder colour of a figure by its print colour, in place."""
    for artist in figure.findobj(Artist):
        for name in COLOUR_PROPERTIES:
            getter, setter = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
            if getter is None or setter is None:
                continue
            colours = _print_colours(getter())
            if colours is not None:
                setter(colours)


def _print_colours(value: Any) -> Any:  # noqa: ANN401 - whatever an artist takes as colours
    """Return the print colours [N, RGBA] (or [RGBA] of one); None where no placeholder is among them."""
    if isinstance(value, str) and value in {"none", "auto"}:
        return None
    try:
        colours = to_rgba_array(value)
    except (ValueError, TypeError):
        return None
    if not any(to_hex(colour) in PRINT_COLOURS for colour in colours):
        return None
    replaced = [to_rgba_array(PRINT_COLOURS.get(to_hex(one), to_hex(one)))[0][:3] for one in colours]
    printed = np.column_stack([replaced, colours[:, 3]])
    return printed if len(printed) > 1 else tuple(printed[0])


def slugify(text: str) -> str:
    """Return the text as a name for an id or a folder: lowercase letters, digits and hyphens.

    >>> slugify("Spacing along depth (mm)")
    'spacing-along-depth-mm'
    """
    return re.sub(r"[^a-zA-Z0-9]+", "-", str(escape(text))).strip("-").lower()


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Write a page atomically and return its path; UTF-8, without external resources.

    Args:
        template: File name in `templates/`.
        path: Where the page is written.
        values: Everything that the template needs.

    Raises:
        OSError: Names the path, as on a full disk.
    """
    environment = Environment(
        loader=PackageLoader("voxlift.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, escape_name(environment.get_template(template).render(values)))
    return path


def read_script(name: str) -> tuple[Markup, str]:
    """Return a script of `templates/`, and its source for the security policy of the page.

    Args:
        name: File name.
    """
    text = files("voxlift.app.report").joinpath("templates", name).read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Markup(text), f"'sha256-{digest}'"  # noqa: S704 - a file of this package


def timestamp() -> str:
    """Return the local time to the minute, as it is printed on a page."""
    return time.strftime("%Y-%m-%d %H:%M")
