"""What a page shows of its subjects: the flow of rows, the table of subjects, and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.evaluation.metric_names import is_lower_better, metric_label
from voxlift.app.evaluation.table_one import MISSING as MISSING_CELLS
from voxlift.app.evaluation.table_one import TableOneRow, table_rows
from voxlift.app.evaluation.verdict import format_p_value
from voxlift.app.files import read_rows
from voxlift.app.report.tables import (
    TableCells,
    format_interval,
    format_signed,
    format_value,
    interval_of,
    table_cells,
)
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import describe_subjects, read_subjects

if TYPE_CHECKING:
    from voxlift.app.report.figures import CaptionedFigure
    from voxlift.app.report.use_sections import UseSections

NOT_METRICS = ("group", "n", "subjects", "prevalence", "too_small", "intervals")


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
        sites: Of a comparison: a sentence on the models that tell the site, and a table.
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


INPUT_LABELS = {
    "all_inputs": "image and table",
    "image_blanked": "image blanked",
    "table_blanked": "table blanked",
}


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
    texts = [f"{metric_label(name)} p {_equals(value)}" for name, value in known.items()]
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


def external_verdict(metrics: Mapping[str, Any], *, name: str, metric: str = "auc", unit: str = "") -> str:
    """Return the sentences above the page on external data.

    Args:
        metrics: Content of metrics.json.
        name: Of the model.
        metric: Of the verdict.
        unit: Of a predicted number.
    """
    block, difference = metrics["external"], metrics.get("difference", {}).get(metric)
    low, high = interval_of(block, metric) or (None, None)
    value = f"{format_value(block.get(metric))} {format_interval(low, high)}"
    sentences = [f"{name}: {metric_label(metric, unit)} {value} on {block['subjects']} external subjects."]
    if difference and difference["low"] is not None:
        interval = format_interval(difference["low"], difference["high"])
        gap = f"{format_signed(difference['difference'])} {interval}"
        if difference["low"] <= 0 <= difference["high"]:
            sentences.append(f"No difference from its own test subjects is shown: {gap}.")
        else:
            is_lower = difference["high"] < 0
            word = "better" if is_lower == is_lower_better(metric) else "worse"
            way = "lower" if is_lower else "higher"
            sentences.append(f"That is {way}, so {word}, than on its own test subjects: {gap}.")
    known = metrics["training_range"]
    if known["outside"]:
        share = f"{known['outside']} of {known['volumes']} scans lie outside the range of its training scans"
        kinds: dict[str, int] = {}
        for reason, count in known.get("reasons", {}).items():  # along the axes together
            kind = reason.partition(" along ")[0]
            kinds[kind] = max(kinds.get(kind, 0), count)
        reasons = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        sentences.append(f"{share}{f': {reasons}' if reasons else ''}.")
    return " ".join(sentences)


def value_and_interval(block: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a metric of a block of metrics.json and its interval as text."""
    pair = interval_of(block, name)
    return format_value(block.get(name)), format_interval(*pair) if pair else ""


def _without(cells: Mapping[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if name not in ("variable", "statistic")}


def _equals(value: float) -> str:
    text = format_p_value(value)
    return text if text.startswith("<") else f"= {text}"
