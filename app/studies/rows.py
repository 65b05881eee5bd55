"""What a point scored and how it stands against a reference, as values of a table's row and as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxlift.app.evaluation.verdict import format_p
from voxlift.app.report.quantities import format_interval, format_value
from voxlift.app.studies.scoring import PointScore, Standing

SCORE_HEADINGS = ("AUC", "95 %", "SD over seeds")
STANDING_HEADINGS = ("difference", "95 %", "p (Holm)", "verdict")


def score_values(point: PointScore) -> dict[str, Any]:
    """A point's validation score with its interval, and its spread over seeds."""
    return {
        "seeds": len(point.by_seed),
        "val_auc": point.auc,
        "val_auc_low": point.low,
        "val_auc_high": point.high,
        "sd_over_seeds": point.spread,
    }


def standing_values(standing: Standing | None) -> dict[str, Any]:
    """A point's difference from the reference; of the reference itself, None, no difference."""
    return {
        "difference": standing.difference if standing else 0.0,
        "difference_low": standing.low if standing else 0.0,
        "difference_high": standing.high if standing else 0.0,
        "p": standing.p if standing else 1.0,
        "verdict": standing.verdict if standing else "",
    }


def score_texts(row: Mapping[str, Any]) -> list[str]:
    """What stands under `SCORE_HEADINGS` for a row that holds `score_values`."""
    interval = format_interval(row["val_auc_low"], row["val_auc_high"])
    return [format_value(row["val_auc"]), interval, format_value(row["sd_over_seeds"])]


def standing_texts(row: Mapping[str, Any]) -> list[str]:
    """What stands under `STANDING_HEADINGS` for a row that holds `standing_values`."""
    interval = format_interval(row["difference_low"], row["difference_high"])
    return [format_value(row["difference"]), interval, format_p(float(row["p"])), str(row["verdict"])]
