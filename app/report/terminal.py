"""Tables of metrics for the terminal: legible when narrow, plain in a pipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from voxlift.app.config import SPLIT_NAMES
from voxlift.app.evaluation.metrics import headline_metrics, metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.verdict import format_p, overall_verdict
from voxlift.app.progress import build_console
from voxlift.app.report.formatting import format_interval, format_value, has_collapsed, interval_of

COLLAPSED = (
    "\N{DAGGER} every resample gave this value: the interval has no width, which is no proof of certainty"
)
COUNTS = {"n": "Volumes", "subjects": "Subjects", "threshold": "Threshold"}


def print_metrics(
    models: Mapping[str, Mapping[str, object]],
    *,
    console: Console | None = None,
    metrics: Sequence[str] | None = None,
) -> None:
    """Print a row per metric and a column per model (a table each on a narrow terminal), with intervals.

    Args:
        models: Heading to a block of metrics.json (values, and `intervals`).
        console: Where to print; None takes standard output.
        metrics: Which metrics, in order; None takes all but the per-class ones.
    """
    target = console or build_console()
    names = tuple(metrics) if metrics is not None else _present(models)
    if len(models) > 1 and target.width < 20 + 16 * len(models):
        for heading, block in models.items():
            print_metrics({heading: block}, console=target, metrics=names)
        return
    # Intervals go below their values where they would not fit beside them.
    stacked = target.width < 24 + 23 * len(models)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=not stacked)
    for heading in models:
        table.add_column(heading, justify="right", overflow="fold")
    for name in (*names, *(count for count in COUNTS if any(count in block for block in models.values()))):
        label = COUNTS.get(name, metric_label(name))
        table.add_row(label, *(_cell(block, name, stacked=stacked) for block in models.values()))
    target.print(table)
    if any(has_collapsed(block, name) for block in models.values() for name in names):
        target.print(COLLAPSED)


def print_comparisons(found: Sequence[Comparison], *, console: Console | None = None) -> None:
    """Print the differences of the primary metric with intervals and corrected p-values, then the verdict."""
    target = console or build_console()
    has_delong = all("delong" in one.adjusted for one in found)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    tests = ("p boot.", *(("p DeLong",) if has_delong else ()), "p McN.")
    for heading in (f"{metric_label(found[0].primary)}, difference", *tests):
        table.add_column(heading, justify="right", overflow="fold")
    for one in found:
        difference = one.differences[one.primary]
        interval = format_interval(difference.low, difference.high)
        names = ("bootstrap", *(("delong",) if has_delong else ()), "mcnemar")
        p_values = [format_p(one.adjusted[name]) for name in names]
        table.add_row(
            f"{one.second} \N{MINUS SIGN} {one.first}",
            f"{format_value(difference.difference)} {interval}".rstrip(),
            *p_values,
        )
    target.print(table)
    target.print(overall_verdict(found), soft_wrap=not target.is_terminal)


def _present(models: Mapping[str, Mapping[str, object]]) -> tuple[str, ...]:
    return headline_metrics(name for block in models.values() for name in block)


def _cell(block: Mapping[str, object], name: str, *, stacked: bool) -> str:
    value = format_value(block.get(name))
    pair = interval_of(block, name)
    if pair is None:
        return value
    mark = "\N{DAGGER}" if has_collapsed(block, name) else ""
    # rich reads [0.1, ...] as markup unless the bracket is escaped
    return f"{value}{mark}{chr(10) if stacked else ' '}\\{format_interval(*pair)}"


def show_metrics(metrics: Mapping[str, Any], *, name: str) -> None:
    """Print the metrics of each split with their intervals."""
    print_metrics({f"{name}, {split}": metrics[split] for split in SPLIT_NAMES if split in metrics})
