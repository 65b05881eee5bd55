"""All metrics of one set of scores, and the block of metrics.json that they fill."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from voxlift.app.evaluation import kernels
from voxlift.app.evaluation.scores import Floats, Scores, with_threshold

CALIBRATION_BINS = 10

METRIC_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "auc": "ROC AUC",
        "average_precision": "Average precision",
        "balanced_accuracy": "Balanced accuracy",
        "accuracy": "Accuracy",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV",
        "npv": "NPV",
        "f1": "F1",
        "mcc": "MCC",
        "log_loss": "Log loss",
        "brier": "Brier score",
        "ece": "Calibration error",
    }
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece"})
RATES = ("sensitivity", "specificity", "ppv", "npv", "f1")


def score_metrics(scores: Scores, *, threshold: float | None = None) -> dict[str, float]:
    """Every metric of a set of scores as plain floats; nan where one is undefined.

    Two classes: class 1 is the positive one. `accuracy`, `balanced_accuracy` and the rates are taken at
    `threshold`, else at `scores.threshold`, 0.5 unless one was chosen on validation; with another threshold
    than 0.5, `accuracy@0.5` and `balanced_accuracy@0.5` stand beside them. Several classes: the most
    probable class is the decision, `auc`, `average_precision` and the rates are unweighted means over
    classes against the rest, and `auc[NAME]`, `sensitivity[NAME]` ... give each class. All metrics are per
    volume; the Brier score lies in 0..1 for two classes and 0..2 for more; `ece` takes ten equal bins of the
    positive class' probability (two classes) or of the probability of the decided class (more).

    Args:
        scores: Labels and probabilities.
        threshold: Decision threshold in place of `scores.threshold`; two classes only.

    Returns:
        Name to value, with `n` (volumes), `subjects` and, for two classes, `threshold`.
    """
    chosen = scores if threshold is None else with_threshold(scores, threshold)
    values = metric_draws(chosen, np.ones((1, len(chosen))))
    plain = {name: float(draw[0]) for name, draw in values.items()}
    counts = {"n": len(chosen), "subjects": len(set(chosen.subjects))}
    return plain | counts | ({"threshold": chosen.threshold} if chosen.is_binary else {})


def metric_draws(scores: Scores, weights: Floats) -> dict[str, Floats]:
    """Every metric under each row of volume weights [B, N], as name -> [B]."""
    confusion = kernels.weighted_confusion(scores.labels, scores.decisions, len(scores.classes), weights)
    found = _ranked(scores, weights) | _decided(confusion, scores)
    if scores.is_binary and scores.threshold != 0.5:
        halved = with_threshold(scores, 0.5)
        plain = kernels.weighted_confusion(halved.labels, halved.decisions, 2, weights)
        at_half = _decided(plain, halved)
        found |= {f"{name}@0.5": at_half[name] for name in ("accuracy", "balanced_accuracy")}
    return found | _probabilistic(scores, weights)


def metric_label(name: str) -> str:
    """The name to print for a metric key, as in `auc[MCA]` -> `ROC AUC, MCA`."""
    stem, _, rest = name.partition("[")
    stem, at, threshold = stem.partition("@")
    label = METRIC_LABELS.get(stem, stem.replace("_", " "))
    return label + (f" at {threshold}" if at else "") + (f", {rest.removesuffix(']')}" if rest else "")


def headline_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that belong into a table, in the order of METRIC_LABELS, without per-class ones."""
    present = set(names)
    return tuple(name for name in METRIC_LABELS if name in present)


def _ranked(scores: Scores, weights: Floats) -> dict[str, Floats]:
    if scores.is_binary:
        ranking = kernels.rank_scores(scores.probabilities[:, 1])
        positive = scores.labels == 1
        return {
            "auc": kernels.weighted_roc_auc(ranking, positive, weights),
            "average_precision": kernels.weighted_average_precision(ranking, positive, weights),
        }
    auc = kernels.per_class(kernels.weighted_roc_auc, scores.probabilities, scores.labels, weights)
    precision = kernels.per_class(
        kernels.weighted_average_precision, scores.probabilities, scores.labels, weights
    )
    found = {"auc": kernels.nan_mean(auc), "average_precision": kernels.nan_mean(precision)}
    return found | _by_class("auc", auc, scores) | _by_class("average_precision", precision, scores)


def _decided(confusion: Floats, scores: Scores) -> dict[str, Floats]:
    rates = kernels.confusion_rates(confusion)  # each [B, K]
    found = {
        "balanced_accuracy": kernels.nan_mean(rates["sensitivity"]),
        "accuracy": kernels.divide(np.trace(confusion, axis1=1, axis2=2), confusion.sum(axis=(1, 2))),
        "mcc": kernels.matthews(confusion),
    }
    if scores.is_binary:
        return found | {name: rates[name][:, 1] for name in RATES}
    occurs = ~np.isnan(rates["f1"])  # a class neither true nor decided anywhere counts for nothing
    for name in RATES:
        # A class that is never decided earns precision 0 in the mean, as in scikit-learn, not a pass.
        missing_is_zero = np.where(occurs & np.isnan(rates[name]), 0.0, rates[name])
        mean_of = missing_is_zero if name in {"ppv", "npv"} else rates[name]
        found |= {name: kernels.nan_mean(mean_of)} | _by_class(name, rates[name], scores)
    return found


def _probabilistic(scores: Scores, weights: Floats) -> dict[str, Floats]:
    truth = np.eye(len(scores.classes))[scores.labels]
    chance = np.clip(scores.probabilities, np.finfo(np.float64).eps, 1.0)
    squared = ((scores.probabilities - truth) ** 2).sum(axis=1)
    predicted, observed = calibration_pairs(scores)
    return {
        "log_loss": kernels.weighted_mean(-np.log(chance[truth == 1]), weights),
        "brier": kernels.weighted_mean(squared / 2 if scores.is_binary else squared, weights),
        "ece": kernels.weighted_gap(predicted, observed, CALIBRATION_BINS, weights),
    }


def calibration_pairs(scores: Scores) -> tuple[Floats, Floats]:
    """Predicted probability and observed outcome (0 or 1), each [N], that calibration is judged on."""
    if scores.is_binary:
        return scores.probabilities[:, 1], (scores.labels == 1).astype(np.float64)
    decided = scores.probabilities.argmax(axis=1)
    return scores.probabilities.max(axis=1), (decided == scores.labels).astype(np.float64)


def _by_class(name: str, values: Floats, scores: Scores) -> dict[str, Floats]:
    return {f"{name}[{label}]": values[:, k] for k, label in enumerate(scores.classes)}
