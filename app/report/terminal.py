"""Print the tables of metrics, comparisons and audits in the terminal, however narrow, or in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxlift.app.config import SPLIT_NAMES
from voxlift.app.data.sources import describe_kinds, list_grids
from voxlift.app.evaluation.metric_names import headline_metrics, interval_of, metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.verdict import (
    format_p_value,
    overall_verdict,
    short_verdict,
    shown_p_value,
)
from voxlift.app.progress import build_console, is_brief, print_line
from voxlift.app.report.evidence import GroupTable, ablation_rows, show_subgroups
from voxlift.app.report.findings import (
    MAX_LENGTH,
    DatasetAudit,
    FindingGroup,
    common_folder,
    describe_positive,
    format_finding,
    group_findings,
    suggested_overrides,
    summarise_audit,
    truncate_line,
)
from voxlift.app.report.tables import format_interval, format_value, has_zero_width

ZERO_WIDTH_NOTE = (
    "\N{DAGGER} every resample gave this value: the interval has zero width and does not measure uncertainty"
)
COUNTS = {"n": "Volumes", "subjects": "Subjects", "threshold": "Threshold"}
SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
MAX_EXAMPLES = 3
SINGLE_LENGTH = 600  # characters of a finding that is the only one of its kind and ends with how to fix it


ON_PAGE_ONLY = frozenset(  # of a number: more rows than a terminal should print
    {"calibration_intercept", "error_sd", "agreement_low", "agreement_high", "baseline_mae_mean"}
    | {"baseline_rmse_mean"}
)


def print_split_metrics(metrics: Mapping[str, Any], *, name: str) -> None:
    """Print the metrics of each split of a metrics.json with their intervals."""
    blocks = {f"{name}, {split}": metrics[split] for split in SPLIT_NAMES if split in metrics}
    if is_brief():
        print_line(summarise_metrics(blocks, unit=metrics.get("unit", "")))
        return
    print_metrics(blocks, unit=metrics.get("unit", ""))


def summarise_metrics(blocks: Mapping[str, Mapping[str, object]], *, unit: str = "") -> str:
    """Return the first metric of each block with its interval in one line."""
    first = headline_metrics(name for one in blocks.values() for name in one)[0]
    values = "; ".join(
        f"{heading} {_metric_text(block, first, is_stacked=False)}" for heading, block in blocks.items()
    )
    return f"{metric_label(first, unit)}: {values}"


def print_ablation(block: Mapping[str, Any] | None, *, name: str = "") -> None:
    """Print what a model of images and columns of the table loses without one of them.

    Args:
        block: `ablation` of a metrics.json; None prints nothing.
        name: Of the model, where there are several.
    """
    if not block:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows = ablation_rows(block)
    for heading in rows[0]:
        title = f"Ablation{f' of {name}' if name else ''}, {block['split']}"
        table.add_column(title if heading == "inputs" else heading)
    for row in rows:
        table.add_row(*row.values())
    build_console().print(table)


def print_metrics(
    models: Mapping[str, Mapping[str, object]],
    *,
    console: Console | None = None,
    metrics: Sequence[str] | None = None,
    unit: str = "",
) -> None:
    """Print a row per metric and a column per model (a table each on a narrow terminal), with intervals.

    Args:
        models: Heading to a block of metrics.json (values, and `intervals`).
        console: Where to print; None takes standard output.
        metrics: Which metrics, in order; None takes all except those per class.
        unit: Of a predicted number.
    """
    target = console or build_console()
    blocks = models.values()
    names = (
        tuple(metrics)
        if metrics is not None
        else headline_metrics(name for one in blocks for name in one if name not in ON_PAGE_ONLY)
    )
    if len(models) > 1 and target.width < 20 + 16 * len(models):
        for heading, block in models.items():
            print_metrics({heading: block}, console=target, metrics=names, unit=unit)
        return
    # Intervals go below their values where they would not fit beside them.
    is_stacked = target.width < 24 + 23 * len(models)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=not is_stacked)
    for heading in models:
        table.add_column(heading, justify="right", overflow="fold")
    for name in (*names, *(count for count in COUNTS if any(count in block for block in blocks))):
        label = COUNTS.get(name, metric_label(name, unit))
        table.add_row(label, *(_metric_text(block, name, is_stacked=is_stacked) for block in blocks))
    target.print(table)
    if any(has_zero_width(block, name) for block in blocks for name in names):
        target.print(ZERO_WIDTH_NOTE)


def _metric_text(block: Mapping[str, object], name: str, *, is_stacked: bool) -> str:
    value = format_value(block.get(name))
    pair = interval_of(block, name)
    if pair is None:
        return value
    mark = "\N{DAGGER}" if has_zero_width(block, name) else ""
    return f"{value}{mark}{chr(10) if is_stacked else ' '}{format_interval(*pair)}"


def print_subgroups(subgroups: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print a table for each entry of `evaluation.by`, with the tests of the differences below.

    Args:
        subgroups: As metrics.json holds them.
        console: Where to print; None takes standard output.
    """
    target = console or build_console()
    tables, _ = show_subgroups({"": subgroups}, has_figure=False)
    for group in tables:
        table = _subgroup_table(group, separator=" ")
        if _is_too_wide(table, target):  # an interval goes below its value
            table = _subgroup_table(group, separator="\n")
        target.print(table)
        target.print(Text(group.tests), soft_wrap=not target.is_terminal)


def print_model_subgroups(models: Mapping[str, Any]) -> None:
    """Print the subgroups of several models, each below its name.

    Args:
        models: Name to its subgroups, as metrics.json holds them.
    """
    for name, groups in models.items():
        print_line(f"Subgroups of {name}")
        print_subgroups(groups)


def _subgroup_table(group: GroupTable, *, separator: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title=group.title, title_justify="left")
    table.add_column("group")
    for heading in ("subjects", *group.headings):
        table.add_column(heading, justify="right")
    for name, _, subjects, _, too_small, cells in group.rows:
        texts = [f"{value}{separator}{interval}".strip() for value, interval in cells]
        table.add_row(name, subjects, *([too_small] if too_small else texts))
    return table


def print_comparisons(found: Sequence[Comparison], *, console: Console | None = None) -> None:
    """Print the difference of the primary metric of each pair, its interval, p-value and verdict."""
    target = console or build_console()
    table = _comparison_table(found, separator=" ")
    if _is_too_wide(table, target):
        table = _comparison_table(found, separator="\n")
    target.print(table)
    target.print(overall_verdict(found), soft_wrap=not target.is_terminal)


def _is_too_wide(table: Table, console: Console) -> bool:
    """Return whether a table has to wrap cells; `measure` alone never exceeds the console's own width."""
    return console.measure(table, options=console.options.update_width(1000)).maximum > console.width


def _comparison_table(found: Sequence[Comparison], *, separator: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    for heading in (f"{metric_label(found[0].primary, found[0].unit)}, difference", "p"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for one in found:
        difference = one.differences[one.primary]
        interval = format_interval(difference.low, difference.high)
        table.add_row(
            f"{one.second} \N{MINUS SIGN} {one.first}",
            f"{format_value(difference.difference)}{separator}{interval}".rstrip(),
            format_p_value(shown_p_value(one)),
            short_verdict(one),
        )
    return table


def print_audit(found: DatasetAudit, *, console: Console | None = None) -> None:
    """Print one table of all findings, the result in one sentence, and the suggested settings."""
    target = console or build_console()
    groups = group_findings(found.audit.findings)
    if groups:
        target.print(_findings_table(groups, found))
    target.print(Text(summarise_audit(found), style="bold"))
    for group in groups:
        if group.spoils and group.advice:
            target.print(Text(f"  {group.name}: {group.advice}"), soft_wrap=True)
    if positive := describe_positive(found.manifest):
        target.print(Text(positive), soft_wrap=True)
    overrides = suggested_overrides(found.audit)
    if overrides:
        target.print("Suggested settings for training (depth, height, width):")
        target.print(Text(f"  {' '.join(overrides)}"), soft_wrap=True)
        target.print(Text(f"  By preprocess.budget: {list_grids(found.grids)}"), soft_wrap=True)
        for line in describe_kinds(found.audit.suggested) if found.audit.suggested else []:
            target.print(Text(f"  {line}"), soft_wrap=True)


def _findings_table(groups: Sequence[FindingGroup], found: DatasetAudit) -> Table:
    below = common_folder(found.audit.facts)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("finding", overflow="fold")
    table.add_column("severity", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first examples", overflow="fold")
    for group in groups:
        severity = Text(group.severity, style=SEVERITY_STYLES[group.severity])
        examples = "\n".join(_examples(group, below=below))
        table.add_row(group.name, severity, str(group.files), Text(examples))
    return table


def _examples(group: FindingGroup, *, below: str) -> list[str]:
    length = SINGLE_LENGTH if len(group.findings) == 1 else MAX_LENGTH
    shown = [
        truncate_line(format_finding(one, below=below), length=length)
        for one in group.findings[:MAX_EXAMPLES]
    ]
    rest = len(group.findings) - MAX_EXAMPLES
    return [*shown, f"and {rest} more"] if rest > 0 else shown
