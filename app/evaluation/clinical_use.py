"""Two classes in use: net benefit, fixed operating points, likelihood ratios, predictive values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    RESAMPLES,
    draw_weights,
    mean_over_fits,
    metric_block,
    percentile_interval,
)
from voxlift.app.evaluation.calibration_line import line_draws
from voxlift.app.evaluation.metrics import cumulative_rates, divide, rank_scores
from voxlift.app.evaluation.scores import (
    ClassFits,
    Fits,
    Floats,
    Predictions,
    Scores,
    as_fits,
    fits_of,
)

FIXED = (0.8, 0.9, 0.95)  # specificities at which sensitivity is reported, and the reverse
THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)  # of the decision curve
CURVE_RESAMPLES = 500


def evaluate_use(
    scores: Predictions | Fits,
    *,
    prevalence: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the block `use` of metrics.json; nothing where there are not two classes, both present.

    Metrics of several folds and seeds are averaged, each at its own threshold; `threshold` is None then.

    It holds the metrics of `use_draws` and the calibration intercept and slope, with intervals by subject
    under `intervals`; `prevalence`; and `decision_curve`.

    Args:
        scores: At their threshold, or one for each fold and seed.
        prevalence: Of class 1 where the model is to be used; None: that of the scores.
        resamples: Of the bootstrap.
        seed: Of the draws.
    """
    found = fits_of(Scores, as_fits(scores))
    if found is None or not all(fit.is_binary and len(set(fit.labels.tolist())) == 2 for fit in found[0]):
        return {}
    fits = found[0]
    own = float((np.concatenate([fit.labels for fit in fits]) == 1).mean())
    share = own if prevalence is None else prevalence

    def draw(weights: Sequence[Floats]) -> dict[str, Floats]:
        pairs = zip(fits, weights, strict=True)
        return mean_over_fits([_every_draw(fit, one, share) for fit, one in pairs])

    values = {name: float(value[0]) for name, value in draw([np.ones((1, len(fit))) for fit in fits]).items()}
    drawn = [draw(weights) for weights in draw_weights(fits, resamples=resamples, seed=seed)]
    intervals = {name: percentile_interval(np.concatenate([one[name] for one in drawn])) for name in values}
    return {
        "prevalence": share,
        "prevalence_of_subjects": own,
        "threshold": fits[0].threshold if len(fits) == 1 else None,
        **metric_block(values, intervals),
        "decision_curve": decision_curve(fits, prevalence=share, seed=seed),
    }


def use_draws(scores: Scores, weights: Floats, prevalence: float) -> dict[str, Floats]:
    """Return the metrics under each row of volume weights [B, N], as name -> [B].

    `lr_positive` and `lr_negative` are the likelihood ratios at the threshold of the scores, `ppv_use` and
    `npv_use` the predictive values at the prevalence. `sensitivity_at_specificity_0.9` is the highest
    sensitivity of any threshold with at least this specificity, and the reverse.

    Args:
        scores: Of two classes.
        weights: How often each volume is drawn [B, N].
        prevalence: Of class 1, for the predictive values.

    Source:
        Altman and Bland 1994, doi:10.1136/bmj.309.6947.102 (predictive values at another prevalence); Deeks
        and Altman 2004, doi:10.1136/bmj.329.7458.168 (likelihood ratios).
    """
    sensitivity, specificity = rates_at(scores, weights, np.array([scores.threshold]))
    found = _ratios(sensitivity[:, 0], specificity[:, 0], prevalence)
    ranking = rank_scores(scores.probabilities[:, 1])
    true, false, _ = cumulative_rates(ranking, np.asarray(scores.labels == 1), weights)
    true, false = (np.concatenate([np.zeros((len(rate), 1)), rate], axis=1) for rate in (true, false))
    for level in FIXED:
        allowed = 1 - false >= level - 1e-12
        found[f"sensitivity_at_specificity_{level:g}"] = np.where(allowed, true, 0.0).max(axis=1)
        reached = true >= level - 1e-12
        found[f"specificity_at_sensitivity_{level:g}"] = np.where(reached, 1 - false, 0.0).max(axis=1)
    return found


def rates_at(scores: Scores, weights: Floats, thresholds: Floats) -> tuple[Floats, Floats]:
    """Return sensitivity and specificity [B, T] of deciding class 1 at or above each threshold [T].

    Args:
        scores: Of two classes.
        weights: How often each volume is drawn [B, N].
        thresholds: On the probability of class 1 [T].
    """
    above = (scores.probabilities[:, 1][:, None] >= thresholds).astype(np.float64)  # [N, T]
    positive = (scores.labels == 1).astype(np.float64)
    sensitivity = divide((weights * positive) @ above, (weights @ positive)[:, None])
    specificity = divide((weights * (1 - positive)) @ (1 - above), (weights @ (1 - positive))[:, None])
    return sensitivity, specificity


def decision_curve(
    scores: Scores | ClassFits, *, prevalence: float, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> dict[str, list[float]]:
    """Return the net benefit of the model over thresholds, with a band, and that of treating all.

    It is the mean over folds and seeds, where there are several.

    Treating nobody has net benefit 0. Thresholds apply to the probabilities as they are: where the prevalence
    is another one than that of the subjects, the rates are weighted by it, the probabilities unchanged.

    Args:
        scores: Of two classes, or one for each fold and seed.
        prevalence: Of class 1.
        resamples: Of the bootstrap, for the band.
        seed: Of the draws.

    Source:
        Vickers and Elkin 2006, doi:10.1177/0272989X06295361.
    """
    odds, fits = THRESHOLDS / (1 - THRESHOLDS), as_fits(scores)

    def draw(weights: Sequence[Floats]) -> Floats:
        rates = [rates_at(fit, one, THRESHOLDS) for fit, one in zip(fits, weights, strict=True)]
        benefits = [{"benefit": _net_benefit(*pair, prevalence, odds)} for pair in rates]
        return mean_over_fits(benefits)["benefit"]

    model = draw([np.ones((1, len(fit))) for fit in fits])
    bands = [draw(weights) for weights in draw_weights(fits, resamples=resamples, seed=seed)]
    low, high = np.nanquantile(np.concatenate(bands), [0.025, 0.975], axis=0)
    curves = {
        "threshold": THRESHOLDS,
        "model": model[0],
        "low": low,
        "high": high,
        "treat_all": prevalence - (1 - prevalence) * odds,
    }
    return {name: values.tolist() for name, values in curves.items()}


def find_useful_range(curve: Mapping[str, list[float]]) -> list[tuple[float, float]]:
    """Return the ranges of thresholds at which the model has more net benefit than treating all and nobody.

    >>> curve = {"threshold": [0.1, 0.2, 0.3], "model": [0.1, 0.3, 0.2], "treat_all": [0.2, 0.1, 0.0]}
    >>> find_useful_range(curve)
    [(0.2, 0.3)]
    """
    ranges: list[tuple[float, float]] = []
    was_better = False
    for threshold, model, everyone in zip(
        curve["threshold"], curve["model"], curve["treat_all"], strict=True
    ):
        is_better = model > max(everyone, 0.0) + 1e-12
        if is_better:
            ranges.append((ranges.pop()[0] if was_better else threshold, threshold))
        was_better = is_better
    return ranges


def _net_benefit(sensitivity: Floats, specificity: Floats, prevalence: float, odds: Floats) -> Floats:
    return sensitivity * prevalence - (1 - specificity) * (1 - prevalence) * odds


def _ratios(sensitivity: Floats, specificity: Floats, prevalence: float) -> dict[str, Floats]:
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    cleared, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return {
        "lr_positive": divide(sensitivity, 1 - specificity),
        "lr_negative": divide(1 - sensitivity, specificity),
        "ppv_use": divide(true, true + false),
        "npv_use": divide(cleared, cleared + missed),
    }


def _every_draw(scores: Scores, weights: Floats, prevalence: float) -> dict[str, Floats]:
    line = line_draws(scores, weights)
    calibration = {name: line[name] for name in ("calibration_intercept", "calibration_slope")}
    return calibration | use_draws(scores, weights, prevalence)
