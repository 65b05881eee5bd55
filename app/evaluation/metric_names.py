"""Names, ranges, units and directions of metrics, and their intervals in metrics.json."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

METRIC_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "kappa_quadratic": "Quadratic weighted kappa",
        "mae_grades": "MAE in grades",
        "auc": "ROC AUC",
        "average_precision": "Average precision",
        "balanced_accuracy": "Balanced accuracy",
        "accuracy": "Accuracy",
        "top_k_accuracy": "Top-k accuracy",  # keys and labels hold the number, as in top5_accuracy
        "forced_choice": "Forced choice",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV",
        "npv": "NPV",
        "f1": "F1",
        "mcc": "MCC",
        "log_loss": "Log loss",
        "brier": "Brier score",
        "ece": "Calibration error",
        "mae": "MAE",
        "rmse": "RMSE",
        "r2": "R\N{SUPERSCRIPT TWO}",
        "pearson": "Pearson correlation",
        "spearman": "Spearman correlation",
        "calibration_slope": "Calibration slope",
        "calibration_intercept": "Calibration intercept",
        "error_slope": "Slope of error on truth",
        "mean_error": "Mean error",
        "error_sd": "SD of the error",
        "agreement_low": "Lower limit of agreement",
        "agreement_high": "Upper limit of agreement",
        "baseline_mae_median": "MAE of the training median",
        "baseline_mae_mean": "MAE of the training mean",
        "baseline_rmse_mean": "RMSE of the training mean",
        "mae_gain": "MAE below the training median's",
    }
)
TOP_K = re.compile(r"top(\d+)_accuracy")
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "mae", "rmse", "mae_grades", "error_sd"})
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(  # of the metrics that are not within 0..1
    {
        **dict.fromkeys(("log_loss", "brier", "mae", "rmse", "mae_grades", "error_sd"), (0.0, math.inf)),
        **dict.fromkeys(("baseline_mae_median", "baseline_mae_mean", "baseline_rmse_mean"), (0.0, math.inf)),
        **dict.fromkeys(("mcc", "kappa_quadratic", "pearson", "spearman"), (-1.0, 1.0)),
        **dict.fromkeys(("calibration_slope", "calibration_intercept", "error_slope"), (-math.inf, math.inf)),
        **dict.fromkeys(("mean_error", "agreement_low", "agreement_high", "mae_gain"), (-math.inf, math.inf)),
        "r2": (-math.inf, 1.0),
    }
)
WITH_UNIT = frozenset(  # metrics of a number that have its unit
    {
        "mae",
        "rmse",
        "calibration_intercept",
        "mean_error",
        "error_sd",
        "agreement_low",
        "agreement_high",
        "baseline_mae_median",
        "baseline_mae_mean",
        "baseline_rmse_mean",
        "mae_gain",
    }
)


def is_lower_better(name: str) -> bool:
    """Return whether a smaller value of a metric, or of the loss, is the better one."""
    return name == "loss" or name in LOWER_IS_BETTER


def metric_label(name: str, unit: str = "") -> str:
    """Return the name to print for a metric's key, with the unit of the predicted number where it has one.

    >>> metric_label("auc[MCA]"), metric_label("accuracy@0.5"), metric_label("mae", "years")
    ('ROC AUC, MCA', 'Accuracy at 0.5', 'MAE (years)')
    >>> metric_label("top5_accuracy")
    'Top-5 accuracy'
    """
    stem, _, rest = name.partition("[")
    stem, at, threshold = stem.partition("@")
    label = METRIC_LABELS.get(stem, stem.replace("_", " "))
    if top := TOP_K.fullmatch(stem):
        label = f"Top-{top[1]} accuracy"
    in_unit = f" ({unit})" if unit and stem in WITH_UNIT else ""
    return (
        label + (f" at {threshold}" if at else "") + (f", {rest.removesuffix(']')}" if rest else "") + in_unit
    )


def metric_in_text(name: str, unit: str = "") -> str:
    """Return the label of a metric within a sentence.

    >>> metric_in_text("auc"), metric_in_text("kappa_quadratic"), metric_in_text("mae", "mm")
    ('ROC AUC', 'quadratic weighted kappa', 'MAE (mm)')
    """
    label = metric_label(name, unit)
    return label if label.isupper() or label.startswith(("ROC", "F1", "MAE")) else label.lower()


def metric_range(name: str) -> tuple[float, float]:
    """Return the lowest and highest value that a metric can take.

    >>> metric_range("auc[MCA]"), metric_range("mcc")
    ((0.0, 1.0), (-1.0, 1.0))
    """
    return RANGES.get(name.partition("[")[0].partition("@")[0], (0.0, 1.0))


def headline_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names that belong into a table, in the order of METRIC_LABELS, none per class."""
    order = list(METRIC_LABELS)
    known = {name: stem for name in names if (stem := TOP_K.sub("top_k_accuracy", name)) in METRIC_LABELS}
    return tuple(sorted(known, key=lambda name: order.index(known[name])))


def interval_of(block: Mapping[str, object], name: str) -> tuple[float, float] | None:
    """Return the interval of a metric in a block of metrics.json; None where it is missing or undefined."""
    intervals = block.get("intervals")
    pair = intervals.get(name) if isinstance(intervals, Mapping) else None
    if not pair or any(not isinstance(end, int | float) or not math.isfinite(end) for end in pair):
        return None
    return float(pair[0]), float(pair[1])
