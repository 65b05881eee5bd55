"""Compare the contestants with the model: AUC, share of the model's, p-values, and which are caught."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu
from scipy.stats.contingency import association, chi2_contingency, crosstab

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.bootstrap import (
    metrics_by_seed,
    model_intervals,
    percentile_interval,
    point_metrics,
    resample_models,
)
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.paired_tests import holm
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.seed_variance import widen_draws
from voxlift.app.studies.shortcuts.contestants import FITTED, RESCORED, Contestant

LEVEL = 0.05
CHANCE = 0.5
METRIC = "auc"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; all nan where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class Result:
    """What a contestant scored.

    Attributes:
        name: Of the contestant.
        auc: On the test subjects, mean over seeds.
        share: Of what the model's AUC is above chance; nan where the model is not shown to be above chance.
        pair: Paired comparison, contestant minus model, of fitted and rescored contestants.
        p: One-sided, of an AUC at chance; nan for rescored contestants.
        adjusted: The same, adjusted over the fitted contestants (Holm).
        reason: Why it was left out; empty where it was not.
    """

    name: str
    auc: Interval = Interval()
    share: Interval = Interval()
    pair: Comparison | None = None
    p: float = math.nan
    adjusted: float = math.nan
    reason: str = ""

    @property
    def is_caught(self) -> bool:
        """Whether a contestant that should not be able to distinguish the classes is shown to do so."""
        return self.name in FITTED and self.auc.low > CHANCE and self.adjusted < LEVEL


def compare_contestants(
    contestants: Sequence[Contestant],
    model: Sequence[Scores],
    seeds: Sequence[int],
    *,
    resamples: int,
    margin: float | None,
) -> tuple[Interval, list[Result]]:
    """Return the model's AUC, and the result of every contestant in the order given.

    Args:
        contestants: With their scores.
        model: Test scores of the model, one per seed.
        seeds: Of the model's scores.
        resamples: Of the test subjects.
        margin: Smallest difference that matters.
    """
    own = Contestant("model", model, seeds)
    auc = find_auc(own, resamples=resamples)
    scored = [one for one in contestants if one.fits]
    pairs = compare_pairs(scored, own, resamples=resamples, margin=margin)
    p = {one.name: chance_p_value(one) for one in scored if one.name not in RESCORED}
    tested = [name for name in p if name in FITTED]
    adjusted = dict(zip(tested, holm([p[name] for name in tested]), strict=True))
    results = []
    for one in contestants:
        if not one.fits:
            results.append(Result(one.name, reason=one.reason))
            continue
        is_compared = one.name in pairs and auc.low > CHANCE
        results.append(
            Result(
                name=one.name,
                auc=find_auc(one, resamples=resamples),
                share=find_share(one, own, resamples=resamples) if is_compared else Interval(),
                pair=pairs.get(one.name),
                p=p.get(one.name, math.nan),
                adjusted=adjusted.get(one.name, math.nan),
            )
        )
    return auc, results


def find_auc(one: Contestant, *, resamples: int) -> Interval:
    """Return the AUC with its interval over subjects and seeds."""
    low, high = model_intervals({one.name: one.fits}, fit_seeds=one.seeds, resamples=resamples)[one.name][
        METRIC
    ]
    return Interval(point_metrics(one.fits)[METRIC], low, high)


def find_share(one: Contestant, model: Contestant, *, resamples: int) -> Interval:
    """Return which share of the model's AUC above chance a contestant reaches, on the same resamples."""

    def divide(own: float, other: float) -> float:
        return (own - CHANCE) / (other - CHANCE) if other != CHANCE else math.nan

    own, other = resample_models([one.fits, model.fits], resamples=resamples)
    above = other[METRIC] - CHANCE
    draws = (own[METRIC] - CHANCE) / np.where(above == 0, np.nan, above)
    value = divide(point_metrics(one.fits)[METRIC], point_metrics(model.fits)[METRIC])
    by_seed = zip(metrics_by_seed(one.fits, one.seeds), metrics_by_seed(model.fits, model.seeds), strict=True)
    shares = [divide(first[METRIC], second[METRIC]) for first, second in by_seed]
    return Interval(value, *percentile_interval(widen_draws(draws, value, shares, level=0.95)))


def compare_pairs(
    scored: Sequence[Contestant], model: Contestant, *, resamples: int, margin: float | None
) -> dict[str, Comparison]:
    """Return the paired comparison of contestants with the model; fitted and rescored ones are families."""
    found: dict[str, Comparison] = {}
    for family in (FITTED, RESCORED):
        fits = {one.name: one.fits for one in scored if one.name in family}
        if fits:
            pairs = compare_models(
                {"model": model.fits, **fits},
                fit_seeds=model.seeds,
                primary=METRIC,
                reference="model",
                resamples=resamples,
                margin=margin,
            )
            found |= {pair.second: pair for pair in pairs}
    return found


def chance_p_value(one: Contestant) -> float:
    """Return the one-sided p-value of an AUC at chance: twice the median over the seeds' and folds' own.

    Source:
        Meinshausen, Meier and Buehlmann 2009, doi:10.1198/jasa.2009.tm08647, for several splits.
    """
    values = [separation_p_value(fit) for fit in one.fits]
    return values[0] if len(values) == 1 else min(1.0, 2 * float(np.median(values)))


def separation_p_value(scores: Scores) -> float:
    """Return the one-sided p-value of the Mann-Whitney test of subjects, for several classes Bonferroni's.

    A subject has the mean probabilities of its volumes, and the label of the first.
    """
    subjects, first, index = np.unique(scores.subjects, return_index=True, return_inverse=True)
    counts = np.bincount(index, minlength=len(subjects))
    labels = scores.labels[first]
    tested = [1] if len(scores.classes) == 2 else range(len(scores.classes))
    found = []
    for label in tested:
        means = np.bincount(index, weights=scores.probabilities[:, label]) / counts
        inside, outside = means[labels == label], means[labels != label]
        if len(inside) and len(outside) and np.ptp(means) > 0:
            found.append(float(mannwhitneyu(inside, outside, alternative="greater").pvalue))
    return min(1.0, len(found) * min(found)) if found else 1.0


def associate_sites(cohorts: Sequence[Cohort], sites: Mapping[str, str]) -> tuple[float, float]:
    """Return Cramer's V of site and class over subjects, and the p-value of the chi-squared test."""
    of_subject = {
        record.subject: (sites[record.item], record.label)
        for cohort in cohorts
        for record in cohort.records
        if record.item in sites
    }
    _, table = crosstab(*zip(*of_subject.values(), strict=True))
    if min(table.shape) < 2:
        return 0.0, 1.0
    return float(association(table, method="cramer")), float(chi2_contingency(table).pvalue)
