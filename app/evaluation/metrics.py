"""All metrics of one set of scores, and the block of metrics.json that they fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.scores import Floats, Integers, Scores, with_threshold

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
    confusion = weighted_confusion(scores.labels, scores.decisions, len(scores.classes), weights)
    found = _ranked(scores, weights) | _decided(confusion, scores)
    if scores.is_binary and scores.threshold != 0.5:
        halved = with_threshold(scores, 0.5)
        plain = weighted_confusion(halved.labels, halved.decisions, 2, weights)
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
        ranking = rank_scores(scores.probabilities[:, 1])
        positive = scores.labels == 1
        return {
            "auc": weighted_roc_auc(ranking, positive, weights),
            "average_precision": weighted_average_precision(ranking, positive, weights),
        }
    auc = per_class(weighted_roc_auc, scores.probabilities, scores.labels, weights)
    precision = per_class(weighted_average_precision, scores.probabilities, scores.labels, weights)
    found = {"auc": nan_mean(auc), "average_precision": nan_mean(precision)}
    return found | _by_class("auc", auc, scores) | _by_class("average_precision", precision, scores)


def _decided(confusion: Floats, scores: Scores) -> dict[str, Floats]:
    rates = confusion_rates(confusion)  # each [B, K]
    found = {
        "balanced_accuracy": nan_mean(rates["sensitivity"]),
        "accuracy": divide(np.trace(confusion, axis1=1, axis2=2), confusion.sum(axis=(1, 2))),
        "mcc": matthews(confusion),
    }
    if scores.is_binary:
        return found | {name: rates[name][:, 1] for name in RATES}
    occurs = ~np.isnan(rates["f1"])  # a class neither true nor decided anywhere counts for nothing
    for name in RATES:
        # A class that is never decided earns precision 0 in the mean, as in scikit-learn, not a pass.
        missing_is_zero = np.where(occurs & np.isnan(rates[name]), 0.0, rates[name])
        mean_of = missing_is_zero if name in {"ppv", "npv"} else rates[name]
        found |= {name: nan_mean(mean_of)} | _by_class(name, rates[name], scores)
    return found


def _probabilistic(scores: Scores, weights: Floats) -> dict[str, Floats]:
    truth = np.eye(len(scores.classes))[scores.labels]
    chance = np.clip(scores.probabilities, np.finfo(np.float64).eps, 1.0)
    squared = ((scores.probabilities - truth) ** 2).sum(axis=1)
    predicted, observed = calibration_pairs(scores)
    return {
        "log_loss": weighted_mean(-np.log(chance[truth == 1]), weights),
        "brier": weighted_mean(squared / 2 if scores.is_binary else squared, weights),
        "ece": weighted_gap(predicted, observed, CALIBRATION_BINS, weights),
    }


def calibration_pairs(scores: Scores) -> tuple[Floats, Floats]:
    """Predicted probability and observed outcome (0 or 1), each [N], that calibration is judged on."""
    if scores.is_binary:
        return scores.probabilities[:, 1], (scores.labels == 1).astype(np.float64)
    decided = scores.probabilities.argmax(axis=1)
    return scores.probabilities.max(axis=1), (decided == scores.labels).astype(np.float64)


def _by_class(name: str, values: Floats, scores: Scores) -> dict[str, Floats]:
    return {f"{name}[{label}]": values[:, k] for k, label in enumerate(scores.classes)}


Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Order of N scores from the highest to the lowest, and where each group of ties starts in it."""

    order: Integers
    starts: Integers


def rank_scores(values: Floats) -> Ranking:
    """The ranking of scores [N]; equal scores form one group."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return Ranking(order, starts)


def weighted_roc_auc(ranking: Ranking, positive: Flags, weights: Floats) -> Floats:
    """Probability that a positive outranks a negative, ties counting half [B]; nan without both classes."""
    hits, misses = _per_group(ranking, positive, weights)
    positives, negatives = hits.sum(axis=1), misses.sum(axis=1)
    below = negatives[:, None] - np.cumsum(misses, axis=1) + misses / 2
    return divide((hits * below).sum(axis=1), positives * negatives)


def weighted_average_precision(ranking: Ranking, positive: Flags, weights: Floats) -> Floats:
    """Mean precision over the steps of recall, without interpolation [B]; nan without positives."""
    hits, misses = _per_group(ranking, positive, weights)
    found = np.cumsum(hits, axis=1)
    shown = found + np.cumsum(misses, axis=1)
    precision = divide(found, shown, undefined=0.0)
    return divide((hits * precision).sum(axis=1), hits.sum(axis=1))


def cumulative_rates(ranking: Ranking, positive: Flags, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positive rate and precision [B, groups] as the threshold falls from tie to tie."""
    hits, misses = _per_group(ranking, positive, weights)
    found, false = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    precision = divide(found, found + false, undefined=1.0)
    return divide(found, found[:, -1:]), divide(false, false[:, -1:]), precision


def weighted_confusion(labels: Integers, decisions: Integers, kinds: int, weights: Floats) -> Floats:
    """Confusion matrices [B, K, K], rows the true class, columns the decided one."""
    cells = np.zeros((len(labels), kinds * kinds))
    cells[np.arange(len(labels)), labels * kinds + decisions] = 1
    return (weights @ cells).reshape(-1, kinds, kinds)


def confusion_rates(confusion: Floats) -> dict[str, Floats]:
    """Rates of each class against the rest [B, K]; nan where the denominator is empty."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    missed = confusion.sum(axis=2) - hits
    false = confusion.sum(axis=1) - hits
    passed = confusion.sum(axis=(1, 2))[:, None] - hits - missed - false
    return {
        "sensitivity": divide(hits, hits + missed),
        "specificity": divide(passed, passed + false),
        "ppv": divide(hits, hits + false),
        "npv": divide(passed, passed + missed),
        "f1": divide(2 * hits, 2 * hits + missed + false),
    }


def matthews(confusion: Floats) -> Floats:
    """Matthews correlation for K classes [B], -1..1; 0 where all volumes share one true or one decided class.

    Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006.
    """
    true, decided = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1)
    correct = np.trace(confusion, axis1=1, axis2=2)
    covariance = correct * total - (true * decided).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (decided**2).sum(axis=1))
    return divide(covariance, np.sqrt(spread), undefined=0.0)


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of values [N] under each resample [B]; nan for one that drew nobody."""
    return divide(weights @ values, weights.sum(axis=1))


def weighted_gap(predicted: Floats, observed: Floats, bins: int, weights: Floats) -> Floats:
    """Expected calibration error [B]: the size-weighted mean of |observed - predicted| over equal bins.

    Nan for a resample that drew nobody, as happens in a fold of few subjects.

    Source: Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602.
    """
    member = np.zeros((len(predicted), bins))
    member[np.arange(len(predicted)), bin_index(predicted, bins)] = observed - predicted
    return divide(np.abs(weights @ member).sum(axis=1), weights.sum(axis=1))


def bin_index(values: Floats, bins: int) -> Integers:
    """Index 0..bins-1 of the equal bin of [0, 1] that each value lies in; a bin holds its lower edge."""
    index: Integers = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    return index


def divide(above: Floats, below: Floats, *, undefined: float = np.nan) -> Floats:
    """Quotient with a chosen value where the denominator is 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    quotient = np.full(shape, undefined)
    np.divide(above, below, out=quotient, where=np.broadcast_to(below != 0, shape))
    return quotient


def nan_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is defined; nan where nothing is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def per_class(
    kernel: Callable[[Ranking, Flags, Floats], Floats], scores: Floats, labels: Integers, weights: Floats
) -> Floats:
    """A ranking metric of each class against the rest [B, K]."""
    columns = range(scores.shape[1])
    return np.stack([kernel(rank_scores(scores[:, k]), labels == k, weights) for k in columns], axis=1)


def _per_group(ranking: Ranking, positive: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives in each group of ties [B, groups], from the highest score down."""
    ordered = weights[:, ranking.order]
    flags = positive[ranking.order]
    hits, misses = ordered * flags, ordered * ~flags
    if len(ranking.starts) == len(ranking.order):
        return hits, misses
    return np.add.reduceat(hits, ranking.starts, axis=1), np.add.reduceat(misses, ranking.starts, axis=1)
