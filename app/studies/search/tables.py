"""The tables of a search: rows for files, texts for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.report.quantities import format_interval, format_value
from voxlift.app.report.study import TextTable
from voxlift.app.studies.scoring import PointScore


def trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's row of `table.csv`: its settings stand beside what it reached."""
    return {key: value for key, value in trial.items() if key != "params"} | dict(trial["params"])


def confirmation_row(point: PointScore) -> dict[str, Any]:
    """A row of `confirmation.csv`: the score of the given or the best settings on other seeds."""
    return {
        "settings": point.label,
        "seeds": len(point.by_seed),
        "val_auc": point.auc,
        "val_auc_low": point.low,
        "val_auc_high": point.high,
    }


def trial_table(trials: Sequence[Mapping[str, Any]], space: Mapping[str, Any], metric: str) -> TextTable:
    """Every trial, for the page."""
    texts = [
        [
            f"{trial['number']}{' (given)' if trial['is_given'] else ''}",
            trial["state"],
            format_value(trial["value"]),
            str(trial["epochs"]),
            *(short_text(trial["params"].get(key)) for key in space),
        ]
        for trial in trials
    ]
    caption = "Every trial; the value of one that was stopped early is that of its last epoch."
    return TextTable(caption, ("Trial", "state", metric_label(metric), "epochs", *space), texts, 2)


def confirmation_table(points: Mapping[str, PointScore]) -> TextTable:
    """The scores on other seeds, for the page."""
    rows = [
        [
            label,
            format_value(one.auc),
            format_interval(one.low, one.high),
            ", ".join(map(format_value, one.by_seed)),
        ]
        for label, one in points.items()
    ]
    return TextTable(
        "The same settings with seeds that the search did not see.",
        ("Settings", "AUC", "95 %", "by seed"),
        rows,
    )


def short_text(value: object) -> str:
    """A setting's value as a table shows it: of a number three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
