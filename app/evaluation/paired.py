"""Models compared on the same subjects: paired bootstrap, DeLong, McNemar, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    RESAMPLES,
    metrics_by_seed,
    percentile_interval,
    point_metrics,
    resample_models,
    two_sided_p,
)
from voxlift.app.evaluation.delong import DeLong
from voxlift.app.evaluation.mcnemar import McNemar
from voxlift.app.evaluation.metric_names import metric_range
from voxlift.app.evaluation.numbers import Numbers, Wilcoxon
from voxlift.app.evaluation.paired_tests import FindingTests, adjust_findings, holm, pair_tests
from voxlift.app.evaluation.scores import (
    Fits,
    Floats,
    Predictions,
    ScoresError,
    align_fits,
    as_fits,
    fits_of,
)
from voxlift.app.evaluation.seed_variance import widen_draws
from voxlift.data_pipelines.errors import list_some

MARGIN = 0.05  # smallest difference that matters, where none is given


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and their difference (second minus first) with interval and p-value.

    Attributes:
        metric: Key of the metric.
        first: Value of the first model.
        second: Value of the second.
        difference: Second minus first.
        low: Lower end of its interval.
        high: Upper end.
        p_value: Two-sided p-value of a difference from 0, without correction for several pairs.
        equivalence_low: Lower end of the narrower interval of the two one-sided tests of equivalence: 90 %
            where the interval has 95 %.
        equivalence_high: Upper end.
        equivalence_p: The larger p-value of the two tests that the difference lies beyond the margin, without
            correction for several pairs.
        subject_error: Standard error over subjects.
        seed_error: Standard error over training seeds; 0 for a single one.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    equivalence_low: float = math.nan
    equivalence_high: float = math.nan
    equivalence_p: float = math.nan
    subject_error: float = math.nan
    seed_error: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """All results on a pair of models; the names of the fields are keys of comparison.json.

    Attributes:
        first: Name of the first model.
        second: Name of the second; every difference is second minus first.
        differences: Metric to its paired bootstrap difference.
        delong: DeLong's test on the AUC; None for more than two classes or too few subjects of a class.
        mcnemar: McNemar's test on the decisions; None for predictions other than of classes.
        adjusted: Holm-adjusted p-values over all pairs of one comparison, for `bootstrap` (on the primary
            metric), `equivalence` (the same), `delong` (where present) and `mcnemar` (mid-p). The verdict
            uses the first two, a family each.
        primary: The metric that the verdict is about.
        subjects: Number of subjects compared.
        cells: Number of fits of each model: folds times seeds.
        level: Coverage of the intervals.
        trainings: Number of training seeds.
        smallest_class: Subjects of the rarest class that occurs; None where that is not known.
        margin: Smallest difference of the primary metric that matters, in its unit.
        pairs: Number of pairs that the p-values are adjusted over.
        wilcoxon: Wilcoxon's signed-rank test on the absolute errors; None for other predictions than numbers.
        findings: Finding to its tests; None for other predictions than findings.
        unit: Of the primary metric; empty without one.
        is_external: Whether all subjects are others than those of the trainings, so that folds add none.
    """

    first: str
    second: str
    differences: Mapping[str, Difference]
    delong: DeLong | None
    mcnemar: McNemar | None
    adjusted: Mapping[str, float]
    primary: str
    subjects: int
    cells: int
    level: float
    trainings: int = 1
    smallest_class: int | None = None
    margin: float = MARGIN
    pairs: int = 1
    wilcoxon: Wilcoxon | None = None
    findings: Mapping[str, FindingTests] | None = None
    unit: str = ""
    is_external: bool = False


def compare_models(
    models: Mapping[str, Predictions | Fits],
    *,
    fit_seeds: Sequence[int] | None = None,
    primary: str = "auc",
    reference: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
    margin: float | None = None,
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
        margin: Smallest difference of the primary metric that matters, in its unit; None: that of
            `default_margin`.

    Raises:
        ScoresError: Fewer than two models, an unknown reference or metric, or models not scored on the same
            volumes.
    """
    pairs = _pair_names(tuple(models), reference)
    first_model = next(iter(models.values()))
    fits = {name: align_fits(first_model, scores)[1] for name, scores in models.items()}
    _check_metric(primary, fits)
    margin = default_margin(first_model) if margin is None else margin
    drawn = resample_models(list(fits.values()), resamples=resamples, seed=seed)
    draws = dict(zip(fits, drawn, strict=True))
    compared = []
    for a, b in pairs:
        differences = paired_differences(
            (fits[a], fits[b]), (draws[a], draws[b]), fit_seeds=fit_seeds, level=level, margin=margin
        )
        tests = pair_tests(fits[a], fits[b], fit_seeds=fit_seeds, level=level)
        compared.append(
            Comparison(
                first=a,
                second=b,
                differences=differences,
                delong=tests.delong,
                mcnemar=tests.mcnemar,
                adjusted={},
                primary=primary,
                subjects=len({subject for fit in fits[a] for subject in fit.subjects}),
                cells=len(fits[a]),
                level=level,
                trainings=len(set(fit_seeds)) if fit_seeds else 1,
                smallest_class=tests.smallest_class,
                margin=margin,
                pairs=len(pairs),
                wilcoxon=tests.wilcoxon,
                findings=tests.findings,
                unit=fits[a][0].unit,
            )
        )
    return _adjust_finding_tests(_adjust_p_values(compared))


def default_margin(scores: Predictions | Fits) -> float:
    """Return the smallest difference that matters, where none is given.

    For numbers it is a tenth of the mean absolute error of always predicting the training median (of the
    median of these subjects, where that is not known): as 0.05 is a tenth of what separates an AUC of 1 from
    chance. Else it is 0.05.
    """
    numbers = fits_of(Numbers, as_fits(scores))
    if numbers is None:
        return MARGIN
    medians = [
        fit.training_median if math.isfinite(fit.training_median) else float(np.median(fit.labels))
        for fit in numbers[0]
    ]
    errors = [np.abs(fit.labels - median).mean() for fit, median in zip(numbers[0], medians, strict=True)]
    return float(np.mean(errors)) / 10 or MARGIN


def paired_differences(
    pair: Sequence[Fits],
    draws: Sequence[Mapping[str, Floats]],
    *,
    fit_seeds: Sequence[int] | None,
    level: float,
    margin: float = MARGIN,
) -> dict[str, Difference]:
    """Return the difference of every metric, second minus first, by resampling subjects once for both models.

    Folds and seeds: a metric is the mean over fits (pooling the out-of-fold scores of differently calibrated
    models would bias an AUC), and a subject drawn is drawn in all fits alike. Where `fit_seeds` holds several
    seeds, the variance between their differences widens the draws (`widen_draws`). The p-value is twice the
    smaller share of resamples on either side of 0, with one added to both counts, so never below
    2 / (resamples + 1).

    Equivalence is tested by two one-sided tests, of a difference above the margin and of one below minus the
    margin, on draws that are widened for an interval of level 1 - 2 (1 - `level`).

    Args:
        pair: Fits of the first model and of the second, on the same volumes.
        draws: Of each, metric to its value in every resample [B]; see `resample_models`.
        fit_seeds: The training seed of each fit; None: all fits are of one seed.
        level: Coverage of the intervals.
        margin: Of equivalence, in the unit of the metric; of interest for the primary metric only.

    Source:
        Efron and Tibshirani 1993, ISBN 978-0412042317; averaging folds: Forman and Scholz 2010,
        doi:10.1145/1882471.1882479; equivalence: Schuirmann 1987, doi:10.1007/BF01068419.
    """
    points = [point_metrics(fits) for fits in pair]
    by_seed = [metrics_by_seed(fits, fit_seeds) for fits in pair]
    differences = {}
    for metric in points[0]:
        if metric not in points[1]:
            continue  # `accuracy@0.5` exists only where a threshold was chosen
        first, second = points[0][metric], points[1][metric]
        own = [after[metric] - before[metric] for before, after in zip(*by_seed, strict=True)]
        raw = draws[1][metric] - draws[0][metric]
        drawn = widen_draws(raw, second - first, own, level=level)
        lowest, highest = metric_range(metric)
        bound = highest - lowest
        low, high = percentile_interval(np.clip(drawn, -bound, bound), level)
        drawn_90 = widen_draws(raw, second - first, own, level=2 * level - 1)
        low_90, high_90 = percentile_interval(np.clip(drawn_90, -bound, bound), 2 * level - 1)
        differences[metric] = Difference(
            metric=metric,
            first=first,
            second=second,
            difference=second - first,
            low=low,
            high=high,
            p_value=two_sided_p(drawn),
            equivalence_low=low_90,
            equivalence_high=high_90,
            equivalence_p=_equivalence_p(drawn_90, margin),
            subject_error=float(np.std(raw[np.isfinite(raw)])) if np.isfinite(raw).any() else math.nan,
            seed_error=math.sqrt(np.var(own, ddof=1) / len(own)) if len(own) > 1 else 0.0,
        )
    return differences


def _equivalence_p(draws: Floats, margin: float) -> float:
    """Return the larger p-value of the two one-sided tests that the difference is beyond the margin."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return math.nan
    beyond = max(int((finite >= margin).sum()), int((finite <= -margin).sum()))
    return min(1.0, (beyond + 1) / (len(finite) + 1))


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


def _adjust_p_values(compared: Sequence[Comparison]) -> tuple[Comparison, ...]:
    raw = {
        "bootstrap": [one.differences[one.primary].p_value for one in compared],
        "equivalence": [one.differences[one.primary].equivalence_p for one in compared],
    }
    for name, p_value in (("mcnemar", "mid_p"), ("delong", "p_value"), ("wilcoxon", "p_value")):
        tests = [test for one in compared if (test := getattr(one, name)) is not None]
        if len(tests) == len(compared):
            raw[name] = [getattr(test, p_value) for test in tests]
    adjusted = {name: holm(values) for name, values in raw.items()}
    return tuple(
        replace(one, adjusted={name: values[index] for name, values in adjusted.items()})
        for index, one in enumerate(compared)
    )


def _adjust_finding_tests(compared: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons with their tests per finding adjusted over all findings and pairs together."""
    bootstrap = [{name: one.p_value for name, one in pair.differences.items()} for pair in compared]
    adjusted = adjust_findings([pair.findings for pair in compared], bootstrap)
    return tuple(replace(pair, findings=tests) for pair, tests in zip(compared, adjusted, strict=True))
