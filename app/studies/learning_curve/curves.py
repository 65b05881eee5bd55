"""Fit power laws to scores over the number of training subjects, with bands, crossing and extrapolation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

from voxlift.app.evaluation.bootstrap import metrics_by_seed, resample_models
from voxlift.app.evaluation.metric_names import LOWER_IS_BETTER, metric_range
from voxlift.app.evaluation.scores import Fits, Floats

EXPONENTS = (0.05, 3.0)  # a smaller one is a line on the sizes that can be trained, a larger one a step
GRID = 60
CONFIDENCE = 0.975  # share of resamples on one side of 0 that a two-sided 95 % interval asks for


@dataclass(frozen=True)
class PowerLaw:
    """`score = limit - distance * (n / size) ** -exponent`; a score where lower is better has plus.

    Attributes:
        limit: Score with any number of subjects.
        distance: Distance of the score at `size` from the limit.
        exponent: How fast the distance falls.
        size: All training subjects.
        sign: 1 where higher is better, else -1.
    """

    limit: float
    distance: float
    exponent: float
    size: float
    sign: int

    def predict(self, subjects: Floats | float) -> Floats:
        """Return the score with so many training subjects."""
        ratio = np.asarray(subjects, dtype=np.float64) / self.size
        return np.asarray(self.limit - self.sign * self.distance * ratio**-self.exponent, dtype=np.float64)


def fit_power_law(
    subjects: Floats, scores: Floats, *, metric: str, start: PowerLaw | None = None
) -> PowerLaw:
    """Return the power law through scores, by least squares within the range of the metric.

    The score never gets worse with more subjects: through scores that do, the law is a constant.

    >>> law = fit_power_law(np.array([10, 20, 40, 80]), 0.9 - 0.4 / np.sqrt([1, 2, 4, 8]), metric="auc")
    >>> round(law.limit, 3), round(law.exponent, 3)
    (0.9, 0.5)

    Args:
        subjects: Number of training subjects [P].
        scores: Score with each number [P].
        metric: Key of the metric.
        start: Law to start from; None: a guess.

    Source:
        Viering and Loog 2023, doi:10.1109/TPAMI.2022.3220744 (the law with three parameters).
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    size, (lowest, highest) = float(np.max(subjects)), metric_range(metric)
    span = float(np.ptp(scores)) + 1e-3

    def law(n: Floats, limit: float, distance: float, exponent: float) -> Floats:
        return PowerLaw(limit, distance, exponent, size, sign).predict(n)

    first = float(np.clip(scores[np.argmax(subjects)] + sign * span / 2, lowest, highest))
    guess = (first, span / 2, 0.5) if start is None else (start.limit, start.distance, start.exponent)
    bounds = ([lowest, 0.0, EXPONENTS[0]], [highest, math.inf, EXPONENTS[1]])
    inside = np.clip(guess, np.add(bounds[0], 1e-9), np.subtract(bounds[1], 1e-9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which the bootstrap replaces
        found, _ = curve_fit(
            law, subjects, scores, p0=inside, bounds=bounds, max_nfev=2000, ftol=1e-6, xtol=1e-6
        )
    limit, distance, exponent = map(float, found)
    return PowerLaw(limit, distance, exponent, size, sign)


@dataclass(frozen=True, eq=False)
class Curve:
    """The learning curve of one model.

    Attributes:
        model: Name of the model.
        subjects: Training subjects of each point [P], rising.
        scores: Score of each point, the mean over seeds [P].
        by_seed: Score of each seed [P, S].
        draws: Score of each point in resamples of test subjects and seeds [B, P].
        law: Power law through `scores`.
        grid: Numbers of subjects at which the curve is drawn, from the fewest to twice the most [G].
        band: Power law through each resample, on the grid [B, G].
    """

    model: str
    subjects: Floats
    scores: Floats
    by_seed: Floats
    draws: Floats
    law: PowerLaw
    grid: Floats
    band: Floats

    @property
    def intervals(self) -> Floats:
        """95 % interval of each point [2, P]."""
        return np.quantile(self.draws, [0.025, 0.975], axis=0)

    @property
    def gains(self) -> Floats:
        """What twice the subjects bring, in each resample [B]."""
        at_most = int(np.argmin(np.abs(self.grid - self.subjects[-1])))
        return np.asarray(self.band[:, -1] - self.band[:, at_most], dtype=np.float64)


def build_curves(
    fits: Mapping[tuple[str, int], Fits],
    *,
    metric: str,
    fit_seeds: Sequence[int],
    resamples: int,
    seed: int = 0,
) -> dict[str, Curve]:
    """Return the learning curve of each model, with the same resamples of test subjects for all points.

    The variance between seeds, pooled over a model's points, is added to each point independently, by
    Student's t: trainings on different numbers of subjects share test subjects, but no chance of training.

    Args:
        fits: Model and number of training subjects to its test scores, one per seed.
        metric: Key of the metric.
        fit_seeds: Seed of each fit of a point.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    drawn = resample_models(list(fits.values()), resamples=resamples, seed=seed)
    draws = {key: own[metric] for key, own in zip(fits, drawn, strict=True)}
    rng = np.random.default_rng((seed, 1))
    curves = {}
    for model in dict.fromkeys(name for name, _ in fits):
        sizes = sorted(size for name, size in fits if name == model)
        own = np.stack([draws[model, size] for size in sizes], axis=1)
        by_seed = np.array(
            [[one[metric] for one in metrics_by_seed(fits[model, size], fit_seeds)] for size in sizes]
        )
        noisy = own + _draw_seed_noise(by_seed, own.shape, rng)
        curves[model] = _build_curve(model, np.array(sizes, dtype=np.float64), by_seed, noisy, metric=metric)
    return curves


def _draw_seed_noise(by_seed: Floats, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return noise [B, P] with the variance of a mean over seeds; zeros for a single seed."""
    points, seeds = by_seed.shape
    if seeds < 2:
        return np.zeros(shape)
    error = math.sqrt(float(by_seed.var(axis=1, ddof=1).mean()) / seeds)
    return np.asarray(error * rng.standard_t(points * (seeds - 1), size=shape), dtype=np.float64)


def _build_curve(model: str, sizes: Floats, by_seed: Floats, draws: Floats, *, metric: str) -> Curve:
    scores = by_seed.mean(axis=1)
    law = fit_power_law(sizes, scores, metric=metric)
    grid = np.unique(np.append(np.geomspace(sizes[0], 2 * sizes[-1], GRID), sizes[-1]))
    finite = draws[np.isfinite(draws).all(axis=1)]
    laws = [fit_power_law(sizes, np.asarray(row), metric=metric, start=law) for row in finite]
    band = np.stack([one.predict(grid) for one in laws])
    return Curve(model, sizes, scores, by_seed, finite, law, grid, band)


@dataclass(frozen=True)
class Crossing:
    """How two learning curves lie to each other, from the fewest subjects to twice the most.

    Attributes:
        kind: `above` or `below` (the second model throughout), `cross`, or `cannot tell`.
        share: Share of resamples in which the curves cross.
        at: Number of training subjects where they cross; None where they are not shown to.
        low: Lower end of its 95 % interval; None likewise.
        high: Upper end.
    """

    kind: str
    share: float
    at: float | None = None
    low: float | None = None
    high: float | None = None


def find_crossing(first: Curve, second: Curve) -> Crossing:
    """Return where the second model's curve passes the first's, as far as the resamples agree.

    The curves cross where 97.5 % of the resamples have one sign at the fewest subjects, and as many the other
    at twice the most. The second model is above where 97.5 % are above everywhere.
    """
    count = min(len(first.band), len(second.band))
    differences = first.law.sign * (second.band[:count] - first.band[:count])
    is_above = differences > 0
    changes = is_above[:, 1:] != is_above[:, :-1]
    share = float(changes.any(axis=1).mean())
    start, end = float(is_above[:, 0].mean()), float(is_above[:, -1].mean())
    for kind, everywhere in (("above", is_above), ("below", ~is_above)):
        if everywhere.all(axis=1).mean() >= CONFIDENCE:
            return Crossing(kind, share)
    if (
        max(start, 1 - start) >= CONFIDENCE
        and max(end, 1 - end) >= CONFIDENCE
        and (start > 0.5) != (end > 0.5)
    ):
        places = first.grid[changes[changes.any(axis=1)].argmax(axis=1)]
        low, at, high = np.quantile(places, [0.025, 0.5, 0.975])
        return Crossing("cross", share, float(at), float(low), float(high))
    return Crossing("cannot tell", share)
