"""Models compared on the same subjects: paired bootstrap, DeLong, McNemar, and Holm's correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    RESAMPLES,
    UNBOUNDED,
    metrics_by_seed,
    percentile_interval,
    point_metrics,
    resample_models,
)
from voxlift.app.evaluation.delong import DeLong, delong_difference
from voxlift.app.evaluation.mcnemar import McNemar, mcnemar_test
from voxlift.app.evaluation.scores import Fits, Floats, Scores, ScoresError, align_fits
from voxlift.app.evaluation.seed_variance import widen_draws
from voxlift.data_pipelines.errors import list_some


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and their difference (second minus first) with interval and p-value."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """All results on a pair of models; the names of the fields are keys of comparison.json.

    Attributes:
        first: Name of the first model.
        second: Name of the second; every difference is second minus first.
        differences: Metric to its paired bootstrap difference.
        delong: DeLong's test on the AUC; None for more than two classes or too few subjects of a class.
        mcnemar: McNemar's test on the decisions.
        adjusted: Holm-adjusted p-values over all pairs of one comparison, for `bootstrap` (on the primary
            metric), `delong` (where present) and `mcnemar` (mid-p).
        primary: The metric that the verdict is about.
        subjects: Number of subjects compared.
        cells: Number of fits of each model: folds times seeds.
        level: Coverage of the intervals.
        trainings: Number of training seeds.
        smallest_class: Subjects of the rarest class that occurs; None where that is not known.
    """

    first: str
    second: str
    differences: Mapping[str, Difference]
    delong: DeLong | None
    mcnemar: McNemar
    adjusted: Mapping[str, float]
    primary: str
    subjects: int
    cells: int
    level: float
    trainings: int = 1
    smallest_class: int | None = None


def compare_models(
    models: Mapping[str, Scores | Fits],
    *,
    fit_seeds: Sequence[int] | None = None,
    primary: str = "auc",
    reference: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Comparison, ...]:
    """Compare all pairs of models, or every model with a reference, on the same subjects, folds and seeds.

    Args:
        models: Name to scores, or to one `Scores` per fold and seed (in the same order for all models).
        fit_seeds: The training seed of each fit, where there are several: the fits of one seed (its folds)
            are averaged, and the variance between seeds is added. None: all fits are of one seed.
        primary: Metric of the verdict.
        reference: Name of the model that all others are compared with; None: all pairs in the order given.
        resamples: Number of resamples, the same ones for every model.
        seed: Seed of the draws.
        level: Coverage of the intervals.

    Raises:
        ScoresError: Fewer than two models, an unknown reference or metric, or models not scored on the same
            volumes.
    """
    pairs = _pair_names(tuple(models), reference)
    first_model = next(iter(models.values()))
    fits = {name: align_fits(first_model, scores)[1] for name, scores in models.items()}
    _check_metric(primary, fits)
    drawn = resample_models(list(fits.values()), resamples=resamples, seed=seed)
    draws = dict(zip(fits, drawn, strict=True))
    compared = []
    for a, b in pairs:
        differences = paired_differences(
            (fits[a], fits[b]), (draws[a], draws[b]), fit_seeds=fit_seeds, level=level
        )
        compared.append(
            Comparison(
                first=a,
                second=b,
                differences=differences,
                delong=_delong_or_none(fits[a], fits[b], fit_seeds=fit_seeds, level=level),
                mcnemar=mcnemar_test(fits[a], fits[b]),
                adjusted={},
                primary=primary,
                subjects=len({subject for fit in fits[a] for subject in fit.subjects}),
                cells=len(fits[a]),
                level=level,
                trainings=len(set(fit_seeds)) if fit_seeds else 1,
                smallest_class=_smallest_class(fits[a]),
            )
        )
    return _adjust_p_values(compared)


def paired_differences(
    pair: Sequence[Fits],
    draws: Sequence[Mapping[str, Floats]],
    *,
    fit_seeds: Sequence[int] | None,
    level: float,
) -> dict[str, Difference]:
    """Return the difference of every metric, second minus first, by resampling subjects once for both models.

    Folds and seeds: a metric is the mean over fits (pooling the out-of-fold scores of differently calibrated
    models would bias an AUC), and a subject drawn is drawn in all fits alike. Where `fit_seeds` holds several
    seeds, the variance between their differences widens the draws (`widen_draws`). The p-value is twice the
    smaller share of resamples on either side of 0, with one added to both counts, so never below
    2 / (resamples + 1).

    Args:
        pair: Fits of the first model and of the second, on the same volumes.
        draws: Of each, metric to its value in every resample [B]; see `resample_models`.
        fit_seeds: The training seed of each fit; None: all fits are of one seed.
        level: Coverage of the intervals.

    Source: Efron and Tibshirani 1993, ISBN 978-0412042317; averaging folds: Forman and Scholz 2010,
        doi:10.1145/1882471.1882479.
    """
    points = [point_metrics(fits) for fits in pair]
    by_seed = [metrics_by_seed(fits, fit_seeds) for fits in pair]
    differences = {}
    for metric in points[0]:
        if metric not in points[1]:
            continue  # `accuracy@0.5` exists only where a threshold was chosen
        first, second = points[0][metric], points[1][metric]
        own = [after[metric] - before[metric] for before, after in zip(*by_seed, strict=True)]
        drawn = widen_draws(draws[1][metric] - draws[0][metric], second - first, own, level=level)
        bound = np.inf if metric in UNBOUNDED else 2.0 if metric == "mcc" else 1.0
        low, high = percentile_interval(np.clip(drawn, -bound, bound), level)
        p_value = _two_sided_p(drawn)
        differences[metric] = Difference(metric, first, second, second - first, low, high, p_value)
    return differences


def _two_sided_p(draws: Floats) -> float:
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan")
    below, above = int((finite <= 1e-12).sum()), int((finite >= -1e-12).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(finite) + 1))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values, in the order given: compare each with the level of the whole family.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)

    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def _pair_names(names: tuple[str, ...], reference: str | None) -> list[tuple[str, str]]:
    if len(names) < 2:
        raise ScoresError(f"A comparison needs two models, received {len(names)}.")
    if reference is None:
        return list(combinations(names, 2))
    if reference not in names:
        raise ScoresError(f"The reference {reference!r} is not among the models {', '.join(names)}.")
    return [(reference, name) for name in names if name != reference]


def _check_metric(primary: str, fits: Mapping[str, Fits]) -> None:
    points = {name: point_metrics(own) for name, own in fits.items()}
    missing = [name for name, values in points.items() if primary not in values]
    if missing:
        known = ", ".join(points[missing[0]])
        raise ScoresError(f"Metric {primary!r} is unknown for {list_some(missing)}: expected one of {known}.")


def _smallest_class(fits: Fits) -> int:
    """Return the number of subjects of the rarest class that occurs, over all folds and seeds."""
    carried = {
        (subject, int(label)) for fit in fits for subject, label in zip(fit.subjects, fit.labels, strict=True)
    }
    return min(Counter(label for _, label in carried).values())


def _delong_or_none(
    first: Fits, second: Fits, *, fit_seeds: Sequence[int] | None, level: float
) -> DeLong | None:
    """Return DeLong's test where it is defined: two classes, each fit with both, two subjects of each."""
    if not first[0].is_binary or any(len(set(fit.labels.tolist())) < 2 for fit in first):
        return None
    if _smallest_class(first) < 2:
        return None
    return delong_difference(first, second, fit_seeds=fit_seeds, level=level)


def _adjust_p_values(compared: Sequence[Comparison]) -> tuple[Comparison, ...]:
    raw: dict[str, list[float]] = {
        "bootstrap": [one.differences[one.primary].p_value for one in compared],
        "mcnemar": [one.mcnemar.mid_p for one in compared],
    }
    tests = [one.delong for one in compared if one.delong is not None]
    if len(tests) == len(compared):
        raw["delong"] = [test.p_value for test in tests]
    adjusted = {name: holm(values) for name, values in raw.items()}
    return tuple(
        replace(one, adjusted={name: values[index] for name, values in adjusted.items()})
        for index, one in enumerate(compared)
    )
