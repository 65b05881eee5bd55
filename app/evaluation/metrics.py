"""Metrics of one set of scores, each under any number of resampling weights at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from voxlift.app.evaluation.scores import (
    Flags,
    Floats,
    Integers,
    Predictions,
    Scores,
    with_threshold,
)

CALIBRATION_BINS = 10

RATES = ("sensitivity", "specificity", "ppv", "npv", "f1")


def score_metrics(scores: Predictions, *, threshold: float | None = None) -> dict[str, float]:
    """Return every metric of a set of scores as plain floats; nan where one is undefined.

    Two classes: class 1 is the positive one. `accuracy`, `balanced_accuracy` and the rates are taken at
    `threshold`, else at `scores.threshold`, 0.5 unless one was chosen on validation; with another threshold
    than 0.5, `accuracy@0.5` and `balanced_accuracy@0.5` are added. Several classes: the most probable class
    is predicted, `auc`, `average_precision` and the rates are unweighted means over classes against the
    rest, and `auc[NAME]`, `sensitivity[NAME]` ... give each class; with more classes than `scores.top_k`,
    `top5_accuracy` (with that number) is added. `forced_choice` is added where `scores.is_paired`. All other
    metrics are per volume; the Brier score lies in 0..1 for two classes and 0..2 for more; `ece` takes ten
    equal bins of the positive class' probability (two classes) or of the predicted class' probability (more).

    Args:
        scores: Labels and probabilities.
        threshold: Decision threshold in place of `scores.threshold`; two classes only.

    Returns:
        Name to value, with `n` (volumes), `subjects` and, for two classes, `threshold`.
    """
    chosen = scores
    if isinstance(scores, Scores) and threshold is not None:
        chosen = with_threshold(scores, threshold)
    draws = metric_draws(chosen, np.ones((1, len(chosen))))
    values = {name: float(draw[0]) for name, draw in draws.items()}
    counts: dict[str, float] = {"n": len(chosen), "subjects": len(set(chosen.subjects))}
    if isinstance(chosen, Scores) and chosen.is_binary:
        counts["threshold"] = chosen.threshold
    return values | counts


@singledispatch
def metric_draws(scores: Predictions, weights: Floats) -> dict[str, Floats]:
    """Return every metric under each row of volume weights [B, N], as name -> [B].

    The module of each task registers the metrics of its own predictions.
    """
    raise NotImplementedError(f"{type(scores).__name__} has no metrics for weights {weights.shape}.")


@metric_draws.register
def class_metric_draws(scores: Scores, weights: Floats) -> dict[str, Floats]:
    """Return `metric_draws` of classes."""
    metrics = _ranking_metrics(scores, weights) | _decision_metrics(scores, weights)
    if scores.is_binary and scores.threshold != 0.5:
        at_half = _decision_metrics(with_threshold(scores, 0.5), weights)
        metrics |= {f"{name}@0.5": at_half[name] for name in ("accuracy", "balanced_accuracy")}
    if scores.has_top_k:
        metrics[f"top{scores.top_k}_accuracy"] = weighted_mean(is_among_top(scores), weights)
    if scores.is_paired:
        metrics["forced_choice"] = weighted_forced_choice(scores, weights)
    return metrics | _probability_metrics(scores, weights)


def is_among_top(scores: Scores) -> Floats:
    """Return 1.0 where the true class is among the `top_k` most probable ones, else 0.0, [N].

    Among equally probable classes the first ones count as more probable, as in the decision.
    """
    order = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, : scores.top_k]
    among: Floats = (order == scores.labels[:, None]).any(axis=1).astype(np.float64)
    return among


def weighted_forced_choice(scores: Scores, weights: Floats) -> Floats:
    """Return how often, of two scans of one subject, that of class 1 has the higher score, [B] in 0..1.

    A subject with several pairs counts once, with their mean; equal scores count half. Subjects without a
    scan of each class are left out; nan without any other.
    """
    names = np.array(scores.subjects, dtype=object)
    first, shares = [], []
    for subject in sorted(set(scores.subjects)):
        own = np.flatnonzero(names == subject)
        p, is_positive = scores.probabilities[own, 1], scores.labels[own] == 1
        if is_positive.any() and not is_positive.all():
            gaps = p[is_positive][:, None] - p[~is_positive]
            first.append(own[0])  # all scans of a subject have one weight: they are drawn together
            shares.append(((gaps > 0) + (gaps == 0) / 2).mean())
    return weighted_mean(np.array(shares), weights[:, np.array(first, np.int64)])


def _ranking_metrics(scores: Scores, weights: Floats) -> dict[str, Floats]:
    if scores.is_binary:
        ranking = rank_scores(scores.probabilities[:, 1])
        is_positive = scores.labels == 1
        return {
            "auc": weighted_roc_auc(ranking, is_positive, weights),
            "average_precision": weighted_average_precision(ranking, is_positive, weights),
        }
    auc = _per_class(weighted_roc_auc, scores, weights)
    precision = _per_class(weighted_average_precision, scores, weights)
    means = {"auc": _nan_mean(auc), "average_precision": _nan_mean(precision)}
    return means | _name_classes("auc", auc, scores) | _name_classes("average_precision", precision, scores)


def _per_class(metric: Callable[[Ranking, Flags, Floats], Floats], scores: Scores, weights: Floats) -> Floats:
    """Return a ranking metric of each class against the rest [B, K]."""
    values = [
        metric(rank_scores(scores.probabilities[:, k]), scores.labels == k, weights)
        for k in range(len(scores.classes))
    ]
    return np.stack(values, axis=1)


def _decision_metrics(scores: Scores, weights: Floats) -> dict[str, Floats]:
    confusion = weighted_confusion(scores, weights)
    rates = confusion_rates(confusion)  # each [B, K]
    metrics = {
        "balanced_accuracy": _nan_mean(rates["sensitivity"]),
        "accuracy": divide(np.trace(confusion, axis1=1, axis2=2), confusion.sum(axis=(1, 2))),
        "mcc": matthews_correlation(confusion),
    }
    if scores.is_binary:
        return metrics | {name: rates[name][:, 1] for name in RATES}
    occurs = ~np.isnan(rates["f1"])  # a class neither true nor predicted anywhere is left out of the means
    for name in RATES:
        # A class that is never predicted has precision 0 in the mean, as in scikit-learn.
        missing_is_zero = np.where(occurs & np.isnan(rates[name]), 0.0, rates[name])
        averaged = missing_is_zero if name in {"ppv", "npv"} else rates[name]
        metrics |= {name: _nan_mean(averaged)} | _name_classes(name, rates[name], scores)
    return metrics


def _probability_metrics(scores: Scores, weights: Floats) -> dict[str, Floats]:
    one_hot = np.eye(len(scores.classes))[scores.labels]
    clipped = np.clip(scores.probabilities, np.finfo(np.float64).eps, 1.0)
    squared = ((scores.probabilities - one_hot) ** 2).sum(axis=1)
    predicted, observed = calibration_pairs(scores)
    return {
        "log_loss": weighted_mean(-np.log(clipped[one_hot == 1]), weights),
        "brier": weighted_mean(squared / 2 if scores.is_binary else squared, weights),
        "ece": weighted_calibration_error(predicted, observed, CALIBRATION_BINS, weights),
    }


def calibration_pairs(scores: Scores) -> tuple[Floats, Floats]:
    """Return predicted probability and observed outcome (0 or 1), each [N], which calibration compares."""
    if scores.is_binary:
        return scores.probabilities[:, 1], (scores.labels == 1).astype(np.float64)
    predicted = scores.probabilities.argmax(axis=1)
    return scores.probabilities.max(axis=1), (predicted == scores.labels).astype(np.float64)


def _name_classes(name: str, values: Floats, scores: Scores) -> dict[str, Floats]:
    return {f"{name}[{label}]": values[:, k] for k, label in enumerate(scores.classes)}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Order of N scores from the highest to the lowest, and the start of each group of ties in it."""

    order: Integers
    starts: Integers


def rank_scores(values: Floats) -> Ranking:
    """Return the ranking of scores [N]; equal scores form one group."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return Ranking(order, starts)


def weighted_roc_auc(ranking: Ranking, is_positive: Flags, weights: Floats) -> Floats:
    """Return the probability [B] that a positive outranks a negative, ties counting half; else nan.

    Args:
        ranking: Of the scores [N].
        is_positive: Which volumes are positive [N].
        weights: How often each volume is drawn [B, N].
    """
    positives, negatives = _group_weights(ranking, is_positive, weights)
    all_positives, all_negatives = positives.sum(axis=1), negatives.sum(axis=1)
    below = all_negatives[:, None] - np.cumsum(negatives, axis=1) + negatives / 2
    return divide((positives * below).sum(axis=1), all_positives * all_negatives)


def weighted_average_precision(ranking: Ranking, is_positive: Flags, weights: Floats) -> Floats:
    """Return the mean precision [B] over the steps of recall, not interpolated; nan without positives.

    Args:
        ranking: Of the scores [N].
        is_positive: Which volumes are positive [N].
        weights: How often each volume is drawn [B, N].
    """
    positives, negatives = _group_weights(ranking, is_positive, weights)
    true_positives = np.cumsum(positives, axis=1)
    precision = divide(true_positives, true_positives + np.cumsum(negatives, axis=1), undefined=0.0)
    return divide((positives * precision).sum(axis=1), positives.sum(axis=1))


def cumulative_rates(ranking: Ranking, is_positive: Flags, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return true and false positive rate and precision [B, groups] at each threshold, highest first.

    Args:
        ranking: Of the scores [N].
        is_positive: Which volumes are positive [N].
        weights: How often each volume is drawn [B, N].
    """
    positives, negatives = _group_weights(ranking, is_positive, weights)
    true_positives, false_positives = np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1)
    precision = divide(true_positives, true_positives + false_positives, undefined=1.0)
    return (
        divide(true_positives, true_positives[:, -1:]),
        divide(false_positives, false_positives[:, -1:]),
        precision,
    )


def _group_weights(ranking: Ranking, is_positive: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Return the weight of positives and of negatives in each group of ties [B, groups], highest first."""
    ordered = weights[:, ranking.order]
    flags = is_positive[ranking.order]
    positives, negatives = ordered * flags, ordered * ~flags
    if len(ranking.starts) == len(ranking.order):
        return positives, negatives
    return (
        np.add.reduceat(positives, ranking.starts, axis=1),
        np.add.reduceat(negatives, ranking.starts, axis=1),
    )


def weighted_confusion(scores: Scores, weights: Floats) -> Floats:
    """Return confusion matrices [B, K, K], rows the true class, columns the predicted one."""
    rows, classes = len(scores), len(scores.classes)
    entries = np.zeros((rows, classes * classes))
    entries[np.arange(rows), scores.labels * classes + scores.decisions] = 1
    return (weights @ entries).reshape(-1, classes, classes)


def confusion_rates(confusion: Floats) -> dict[str, Floats]:
    """Return the rates of each class against the rest [B, K]; nan where the denominator is empty."""
    true_positives = np.diagonal(confusion, axis1=1, axis2=2)
    false_negatives = confusion.sum(axis=2) - true_positives
    false_positives = confusion.sum(axis=1) - true_positives
    total = confusion.sum(axis=(1, 2))[:, None]
    true_negatives = total - true_positives - false_negatives - false_positives
    return {
        "sensitivity": divide(true_positives, true_positives + false_negatives),
        "specificity": divide(true_negatives, true_negatives + false_positives),
        "ppv": divide(true_positives, true_positives + false_positives),
        "npv": divide(true_negatives, true_negatives + false_negatives),
        "f1": divide(2 * true_positives, 2 * true_positives + false_negatives + false_positives),
    }


def matthews_correlation(confusion: Floats) -> Floats:
    """Return the Matthews correlation for K classes [B] in -1..1; 0 if a single class is true or predicted.

    Source:
        Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006.
    """
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1)
    correct = np.trace(confusion, axis1=1, axis2=2)
    covariance = correct * total - (true * predicted).sum(axis=1)
    variances = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return divide(covariance, np.sqrt(variances), undefined=0.0)


def weighted_calibration_error(predicted: Floats, observed: Floats, bins: int, weights: Floats) -> Floats:
    """Return the expected calibration error [B]: the size-weighted mean of |observed - predicted| over bins.

    Nan for a resample that drew nobody, as happens in a fold of few subjects.

    Args:
        predicted: Probabilities [N].
        observed: Outcomes [N], 0 or 1.
        bins: Number of equal bins of 0..1.
        weights: How often each volume is drawn [B, N].

    Source:
        Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602.
    """
    gaps = np.zeros((len(predicted), bins))
    gaps[np.arange(len(predicted)), bin_index(predicted, bins)] = observed - predicted
    return divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def bin_index(values: Floats, bins: int) -> Integers:
    """Return the index 0..bins-1 of the equal bin of [0, 1] of each value; a bin includes its lower edge."""
    index: Integers = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    return index


def divide(numerator: Floats, denominator: Floats, *, undefined: float = np.nan) -> Floats:
    """Return the quotient, with a chosen value where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    quotient = np.full(shape, undefined)
    np.divide(numerator, denominator, out=quotient, where=np.broadcast_to(denominator != 0, shape))
    return quotient


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Return the mean [B] of values [N] or [B, N] under weights [B, N]; nan for one that drew nobody."""
    sums = weights @ values if values.ndim == 1 else np.einsum("bn,bn->b", weights, values)
    return divide(sums, weights.sum(axis=1))


def _nan_mean(values: Floats) -> Floats:
    """Return the mean over the last axis of what is finite; nan where nothing is."""
    finite = np.isfinite(values)
    return divide(np.where(finite, values, 0.0).sum(axis=-1), finite.sum(axis=-1).astype(np.float64))
