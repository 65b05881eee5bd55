"""What a page shows beside the metrics: its subjects, subgroups, and what a model is worth in use.

Of subjects the flow of rows and the table of subjects; of use rates, the decision curve and prediction sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.evaluation.clinical_use import find_useful_range
from voxlift.app.evaluation.metric_names import interval_of, metric_label
from voxlift.app.evaluation.table_one import MISSING as MISSING_CELLS
from voxlift.app.evaluation.table_one import TableOneRow, table_rows
from voxlift.app.evaluation.verdict import describe_p_value
from voxlift.app.files import read_rows
from voxlift.app.report.tables import (
    MISSING,
    TableCells,
    format_interval,
    format_signed,
    format_value,
    table_cells,
)
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import describe_subjects, read_subjects

if TYPE_CHECKING:
    from voxlift.app.report.figures import CaptionedFigure


NOT_METRICS = ("group", "n", "subjects", "prevalence", "too_small", "intervals")
INPUT_LABELS = {
    "all_inputs": "image and table",
    "image_blanked": "image blanked",
    "table_blanked": "table blanked",
}
NOTHING: TableCells = ([], [])
CURVE_ROOM = 1.15  # of the net benefit above the prevalence
NO_SETS = (
    "No coverage is promised, so there are no prediction sets: validation has already chosen the epoch "
    "and how outputs become decisions. splits.calibration=0.1 keeps subjects for this alone."
)


@dataclass(frozen=True)
class GroupTable:
    """The groups of one entry of `evaluation.by`.

    Attributes:
        title: The entry, and the model where there are several.
        headings: Of the metrics.
        rows: Per group its name, volumes, subjects, prevalence, why it has no figures, and (value, interval)
            of each metric.
        tests: Sentence on the differences between the groups.
    """

    title: str
    headings: list[str]
    rows: list[tuple[str, str, str, str, str, list[tuple[str, str]]]]
    tests: str

    @property
    def has_volumes(self) -> bool:
        """Whether a subject has several volumes, so that both are counted."""
        return any(volumes != subjects for _, volumes, subjects, *_ in self.rows)


@dataclass(frozen=True)
class Evidence:
    """The sections of a page on its subjects; what is empty is not shown.

    Attributes:
        flow: Rows read, left out, and used.
        table_one: The table of subjects.
        groups: One table for each entry of `evaluation.by` and each model.
        forest: All groups in one figure.
        external: Sections on external data: heading, table, note.
        ablation: Of each model of images and columns its name and a table: what it loses without one of them.
        use: What the model is worth in use, and its prediction sets.
        sites: Of a comparison: a sentence on the models that predict the site, and a table.
        notes: What could not be shown, and why.
    """

    flow: TableCells = ((), ())  # type: ignore[assignment]
    table_one: TableCells = ((), ())  # type: ignore[assignment]
    groups: Sequence[GroupTable] = ()
    forest: Sequence[CaptionedFigure] = ()
    external: Sequence[tuple[str, TableCells, str]] = ()
    ablation: Sequence[tuple[str, TableCells]] = ()
    use: UseSections | None = None
    sites: tuple[str, TableCells] = ("", ((), ()))  # type: ignore[assignment]
    notes: Sequence[str] = field(default_factory=tuple)


def describe_run_subjects(
    run: RunFolder,
    settings: TrainSettings,
    *,
    subgroups: Mapping[str, Any] | None = None,
    is_by_model: bool = False,
    ablation: Mapping[str, Mapping[str, Any] | None] | None = None,
    use: UseSections | None = None,
) -> Evidence:
    """Return the sections of a run on its subjects, from the files of its folder.

    Args:
        run: The folder.
        settings: Of the run; `evaluation.describe` names columns.
        subgroups: Of its test subjects, as metrics.json holds them.
        is_by_model: Whether there are such for each of several models.
        ablation: Model to its block `ablation`; one without name for a run.
        use: What the model is worth in use, and its prediction sets.
    """
    blanked = show_ablation(ablation or {})
    rows = read_rows(run.splits)
    flow = table_cells(read_rows(run.flow)) if run.flow.exists() else ([], [])
    tables, forest = show_subgroups(subgroups if subgroups and is_by_model else {"": subgroups or {}})
    notes: list[str] = []
    try:
        columns = read_subjects(run, settings)
        volumes = [(row["subject"], row["image"], row["split"]) for row in rows]
        table = describe_subjects(columns, volumes, named=settings.evaluation.describe)
    except SettingsError as error:
        table, notes = [], [str(error)]
    return Evidence(
        flow=flow,
        table_one=table_one_cells(table),
        groups=tables,
        forest=forest,
        ablation=blanked,
        use=use,
        notes=notes,
    )


def show_ablation(models: Mapping[str, Mapping[str, Any] | None]) -> list[tuple[str, TableCells]]:
    """Return the name and the table of each model that has an ablation.

    Args:
        models: Name to its block `ablation`, see `evaluation.ablation`.
    """
    return [(name, table_cells(ablation_rows(block))) for name, block in models.items() if block]


def ablation_rows(block: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each set of inputs: the primary metric, and its difference from that of all inputs."""
    metric, rows = block["metric"], []
    for name, values in block["inputs"].items():
        value, interval = value_and_interval(values, metric)
        row = {"inputs": INPUT_LABELS.get(name, name), metric_label(metric): f"{value} {interval}".strip()}
        found = values.get("difference")
        row["difference"] = ""
        if found is not None and found["difference"] is not None:
            ends = format_interval(found["low"], found["high"])
            row["difference"] = f"{format_signed(found['difference'])} {ends}".strip()
        rows.append(row)
    return rows


def table_one_cells(rows: Sequence[TableOneRow]) -> TableCells:
    """Return the table of subjects; a variable is named in its first row only."""
    found: list[dict[str, str]] = []
    shown = ""
    for row, cells in zip(rows, table_rows(rows), strict=True):
        name = row.variable if row.variable != shown else ""
        shown = row.variable
        found.append({"column": name, "": cells.pop("level") or cells["statistic"], **_without(cells)})
    columns = list(dict.fromkeys(key for row in found for key in row))
    return table_cells([{column: row.get(column, "") for column in columns} for row in found])


def show_subgroups(
    models: Mapping[str, Mapping[str, Any]],
    *,
    has_figure: bool = True,
    colours: Mapping[str, int] | None = None,
) -> tuple[list[GroupTable], list[CaptionedFigure]]:
    """Return a table for each entry of `evaluation.by` and model, and a forest plot of the first metric.

    Args:
        models: Model to its `subgroups` block of metrics.json; one without name for a run.
        has_figure: Whether the forest plot is drawn.
        colours: Model to the index of its series; None: see `assign_colours`.
    """
    requests = dict.fromkeys(request for one in models.values() for request in one)
    tables = [
        _group_table(f"{request}{f', {model}' if model else ''}", one[request])
        for request in requests
        for model, one in models.items()
        if request in one
    ]
    return tables, _forests(models, colours) if has_figure else []


def sentence_of_tests(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence with the corrected p-value of each metric; empty without tests."""
    known = {name: test["p_holm"] for name, test in tests.items() if test.get("p_holm") is not None}
    if not known:
        return "The groups were not tested: fewer than two of them have figures."
    texts = [f"{metric_label(name)} {describe_p_value(value)}" for name, value in known.items()]
    return f"Differences between the groups: {', '.join(texts)}."


def _group_table(title: str, found: Mapping[str, Any]) -> GroupTable:
    metrics = list(dict.fromkeys(key for one in found["groups"] for key in one if key not in NOT_METRICS))
    rows = [
        (
            one["group"],
            str(one["n"]),
            str(one["subjects"]),
            format_value(one.get("prevalence")),
            f"too small: {one['too_small']}" if one["too_small"] else "",
            [value_and_interval(one, name) for name in metrics],
        )
        for one in found["groups"]
    ]
    tests = sentence_of_tests(found["tests"])
    if any(one["group"] == MISSING_CELLS for one in found["groups"]):
        tests += " Subjects with a missing cell take no part in them."
    return GroupTable(title, [metric_label(name) for name in metrics], rows, tests)


def _forests(
    models: Mapping[str, Mapping[str, Any]], colours: Mapping[str, int] | None
) -> list[CaptionedFigure]:
    """Draw the first metric of all groups that have figures, each in the colour of its model."""
    rows = [
        (f"{request.partition(':')[0]} {one['group']}{f', {model}' if model else ''}", model, one)
        for model, requests in models.items()
        for request, found in requests.items()
        for one in found["groups"]
        if not one["too_small"]
    ]
    blocks, owners = {name: one for name, _, one in rows}, {name: model for name, model, _ in rows}
    metric = next((key for one in blocks.values() for key in one if key not in NOT_METRICS), None)
    if metric is None:
        return []
    from voxlift.app.report.figures import forest_figure  # Matplotlib: not for the terminal
    from voxlift.app.report.pages import assign_colours

    label, colours = metric_label(metric), colours or assign_colours(models)
    of_row = {name: colours[model] for name, model in owners.items()}
    figure = forest_figure(blocks, metric, name="subgroups", title=f"{label} of each group", colours=of_row)
    return [
        (f"{label} of each group, with 95 % interval from a bootstrap over the group's subjects.", figure)
    ]


def value_and_interval(block: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a metric of a block of metrics.json and its interval as text."""
    pair = interval_of(block, name)
    return format_value(block.get(name)), format_interval(*pair) if pair else ""


def _without(cells: Mapping[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if name not in ("variable", "statistic")}


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
    from matplotlib.figure import Figure  # not for the terminal

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
    texts = [_describe_useful_range(name or "The model", use) for name, use in models.items()]
    drawn = " with a 95 % band (bootstrap over subjects)" if is_single else ""
    return f"Decision curve{drawn}, beside treating all and nobody. {' '.join(texts)}", markup


def _describe_useful_range(name: str, use: Mapping[str, Any]) -> str:
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
