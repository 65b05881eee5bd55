"""How many subjects, or seeds, a paired comparison needs: power and width of its interval over the number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its submodules are imported when they are used

from voxlift.app.evaluation.bootstrap import draw_subjects, subject_strata
from voxlift.app.evaluation.delong import differences_by_seed
from voxlift.app.evaluation.grades import quadratic_kappa
from voxlift.app.evaluation.scores import (
    ClassFits,
    Flags,
    Floats,
    Scores,
    ScoresError,
    align_fits,
    index_subjects,
)
from voxlift.app.evaluation.seed_variance import MeanVariance

MOST_SUBJECTS = 10_000_000  # of a class; more is reported as "no number of subjects"
MOST_SEEDS = 1000
ASSUMED_AUC = 0.8  # before any training, for the smallest difference that data could show
ASSUMED_CORRELATION = 0.5
SIMULATED = 2_000_000  # subjects in all, of `planned_kappa`


@dataclass(frozen=True)
class DifferenceVariance:
    """The variance of a difference between two models, in two parts: only one falls with the subjects.

    Attributes:
        per_subject: Variance over subjects, times the number of subjects n: the part is `per_subject / n`.
        between_seeds: Variance between the differences of single seeds: the part is `between_seeds / seeds`.
        seeds: Number of training seeds; with one, the variance between seeds is not known and taken as 0.
    """

    per_subject: float
    between_seeds: float = 0.0
    seeds: int = 1

    def at(self, subjects: float) -> MeanVariance:
        """Return the variance with that many subjects; degrees of freedom as in `add_seed_variance`."""
        of_subjects = 0.0 if math.isinf(subjects) else self.per_subject / subjects
        of_seeds = self.between_seeds / self.seeds if self.seeds > 1 else 0.0
        total = of_subjects + of_seeds
        if of_seeds <= 1e-18:
            return MeanVariance(total, math.inf)
        return MeanVariance(total, (self.seeds - 1) * (total / of_seeds) ** 2)

    def width(self, subjects: float, *, level: float = 0.95) -> float:
        """Return the expected width of the interval of the difference."""
        return 2 * self.at(subjects).half_width(level)

    def power(self, subjects: float, difference: float, *, alpha: float = 0.05) -> float:
        """Return the probability that the two-sided test rejects if the models differ by `difference`.

        With several seeds the statistic has a noncentral t distribution, else a normal one.

        Args:
            subjects: Number of subjects.
            difference: The true difference of the models.
            alpha: Level of the test.
        """
        one = self.at(subjects)
        if one.variance <= 0:
            return 1.0
        shift = abs(difference) / math.sqrt(one.variance)
        if math.isinf(one.degrees_of_freedom):
            bound = float(scipy.stats.norm.ppf(1 - alpha / 2))
            return float(scipy.stats.norm.sf(bound - shift) + scipy.stats.norm.cdf(-bound - shift))
        bound = float(scipy.stats.t.ppf(1 - alpha / 2, one.degrees_of_freedom))
        return _noncentral_power(bound, one.degrees_of_freedom, shift)


def _noncentral_power(bound: float, freedom: float, shift: float) -> float:
    """Return P(|T| > bound) for a noncentral t; of so large a shift that scipy has no value, 1."""
    power = float(scipy.stats.nct.sf(bound, freedom, shift) + scipy.stats.nct.cdf(-bound, freedom, shift))
    return power if math.isfinite(power) else 1.0


def required_subjects(
    variance: DifferenceVariance, difference: float, *, power: float, alpha: float = 0.05
) -> int | None:
    """Return the smallest number of subjects with that power; None where the spread between seeds forbids it.

    Args:
        variance: Of the difference.
        difference: The true difference of the models.
        power: Probability with which the test is to reject.
        alpha: Level of the two-sided test.
    """
    if variance.power(math.inf, difference, alpha=alpha) < power:
        return None
    low, high = 1, 2
    while variance.power(high, difference, alpha=alpha) < power:
        low, high = high, 2 * high
        if high > MOST_SUBJECTS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = variance.power(middle, difference, alpha=alpha) >= power
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def required_seeds(
    variance: DifferenceVariance, difference: float, *, power: float, alpha: float = 0.05
) -> int | None:
    """Return the seeds with which at most half of the variance that the power allows comes from seeds.

    With the fewest seeds that allow the power at all, the number of subjects would have no bound.

    Args:
        variance: Of the difference.
        difference: The true difference of the models.
        power: Probability with which the test is to reject.
        alpha: Level of the two-sided test.
    """
    for seeds in range(max(2, variance.seeds), MOST_SEEDS + 1):
        doubled = replace(variance, per_subject=0.0, between_seeds=2 * variance.between_seeds, seeds=seeds)
        if doubled.power(math.inf, difference, alpha=alpha) >= power:
            return seeds
    return None


@dataclass(frozen=True, eq=False)
class CovarianceDraws:
    """Variance of the difference of two AUCs on these subjects, in each resample of them [B].

    Attributes:
        positive: Part from the positive volumes.
        negative: Part from the negative volumes.
        cross: Twice the covariance of both within subjects that have volumes of both classes.
        positive_subjects: Number of subjects with positive volumes.
        negative_subjects: Number of subjects with negative volumes.
    """

    positive: Floats
    negative: Floats
    cross: Floats
    positive_subjects: int
    negative_subjects: int

    @property
    def per_class(self) -> Floats:
        """Variance times n for n subjects of each class [B]."""
        return self.at_prevalence(0.5) / 2

    def at_prevalence(self, prevalence: float) -> Floats:
        """Return the variance times n for n subjects in all, of which a share is positive [B]."""
        positives, negatives = self.positive_subjects, self.negative_subjects
        cross = self.cross * math.sqrt(positives * negatives) / math.sqrt(prevalence * (1 - prevalence))
        own = self.positive * positives / prevalence + self.negative * negatives / (1 - prevalence)
        return np.maximum(own + cross, 0.0)


def covariance_of_difference(
    first: Scores | ClassFits, second: Scores | ClassFits, *, resamples: int = 0, seed: int = 0
) -> CovarianceDraws:
    """Return the paired DeLong variance of the difference of two AUCs, on the subjects and in resamples.

    Over several fits the difference is the mean over fits. Contributions are centred, and their variance is
    taken, within each fit (fold), never over pooled scores, since the networks of two folds are calibrated
    differently; a subject's contributions are averaged over the fits that it is in (seeds).

    Args:
        first: Scores of the first model, or one per fold and seed.
        second: The second model's, on the same volumes.
        resamples: Number of resamples of subjects within their class.
        seed: Seed of the draws.

    Returns:
        The variances; index 0 is on the subjects themselves, the rest in the resamples.

    Raises:
        ScoresError: Not two classes, or a fit with fewer than two volumes of one of them.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595; clusters: Obuchowski 1997,
        doi:10.2307/2533958.
    """
    left, right = align_fits(first, second)
    subjects, indices = index_subjects(left)
    weights = _draw_weights(left, len(subjects), resamples=resamples, seed=seed)
    sums = np.zeros((2, *weights.shape))  # of negatives, of positives
    occurs = np.zeros((2, len(subjects)), dtype=bool)
    for one, other, index in zip(left, right, indices, strict=True):
        is_positive = _check_fit(one)
        for label, contributions in enumerate(_contributions(one, other, is_positive, weights[:, index])):
            rows = index[is_positive if label else ~is_positive]
            np.add.at(sums[label].T, rows, contributions.T / len(left))
            occurs[label, rows] = True
    negative, positive, cross = (
        np.sum(weights * sums[a] * sums[b], axis=1) for a, b in ((0, 0), (1, 1), (0, 1))
    )
    return CovarianceDraws(positive, negative, 2 * cross, int(occurs[1].sum()), int(occurs[0].sum()))


def _draw_weights(fits: ClassFits, subjects: int, *, resamples: int, seed: int) -> Floats:
    """Return how often each subject counts [1 + resamples, S]; the first row is the subjects themselves."""
    blocks = [np.ones((1, subjects))]
    blocks += list(draw_subjects(subject_strata(fits), resamples=resamples, seed=seed, block=resamples or 1))
    return np.concatenate(blocks)


def _check_fit(fit: Scores) -> Flags:
    """Return which volumes are positive; raise an error where the AUC's variance is undefined."""
    is_positive = np.asarray(fit.labels == 1)
    if not fit.is_binary:
        raise ScoresError(
            f"The sample size is computed for two classes, received {len(fit.classes)}. Compare two classes, "
            "for example with data.classes=[A,B]."
        )
    if min(is_positive.sum(), (~is_positive).sum()) < 2:
        raise ScoresError(
            "The sample size needs two volumes of each class in every fold, received "
            f"{is_positive.sum()} and {(~is_positive).sum()}. Use fewer folds or more subjects."
        )
    return is_positive


def _contributions(one: Scores, other: Scores, is_positive: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Return the centred contributions of negatives [B, n] and of positives [B, m] to the difference of AUCs.

    Their weighted sum of squares is the variance: each is divided by its class' weight, and by the square
    root of (m - 1) / m.
    """
    wins = _wins(other, is_positive) - _wins(one, is_positive)  # [m, n]
    of_positives, of_negatives = weights[:, is_positive], weights[:, ~is_positive]
    m, n = of_positives.sum(axis=1, keepdims=True), of_negatives.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without a class, or with one volume
        positives, negatives = of_negatives @ wins.T / n, of_positives @ wins / m
        difference = np.sum(of_positives * positives, axis=1, keepdims=True) / m
        return (negatives - difference) / np.sqrt(n * (n - 1)), (positives - difference) / np.sqrt(
            m * (m - 1)
        )


def _wins(scores: Scores, is_positive: Flags) -> Floats:
    """Return 1 where a positive [m] scores above a negative [n], 1/2 where they are equal."""
    values = scores.probabilities[:, 1]
    signs = np.sign(values[is_positive][:, None] - values[~is_positive][None, :])
    return np.asarray((signs + 1) / 2, dtype=np.float64)


def seed_spread(
    first: Scores | ClassFits, second: Scores | ClassFits, fit_seeds: Sequence[int]
) -> tuple[float, int]:
    """Return the variance between the AUC differences of single seeds, and the number of seeds.

    Args:
        first: Scores of the first model, or one per fold and seed.
        second: The second model's, on the same volumes.
        fit_seeds: The training seed of each fit.
    """
    left, right = align_fits(first, second)
    differences = differences_by_seed(left, right, fit_seeds)
    count = len(differences)
    return (float(np.var(differences, ddof=1)) if count > 1 else 0.0), count


def planned_variance(aucs: tuple[float, float], correlation: float, *, prevalence: float = 0.5) -> float:
    """Return the variance of a difference of AUCs times the subjects, for normal scores of equal variance.

    Scores of each class are bivariate normal. The share of negatives below a positive is then a normal
    distribution function of it, and its moments are bivariate normal probabilities.

    >>> round(planned_variance((0.8, 0.8), 0.5), 3)
    0.206

    Args:
        aucs: Expected AUC of both models.
        correlation: Of the two models' scores within a class.
        prevalence: Share of positives.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595; normal scores: Obuchowski and McClish
        1997, doi:10.1002/(SICI)1097-0258(19970715)16:13<1529::AID-SIM565>3.0.CO;2-H.
    """
    a, b = (float(scipy.stats.norm.ppf(auc)) for auc in aucs)
    own = sum(_joint_moment(one, one, 1.0) - auc**2 for one, auc in zip((a, b), aucs, strict=True))
    shared = _joint_moment(a, b, correlation) - aucs[0] * aucs[1]
    return max(0.0, own - 2 * shared) * (1 / prevalence + 1 / (1 - prevalence))


def _joint_moment(a: float, b: float, correlation: float) -> float:
    """Return the expectation of the product of both models' shares of negatives below a positive.

    It is P(both models rank the positive above two independent negatives). Each comparison has the variance
    of a positive and of a negative, and only the positive's half is shared.
    """
    half = correlation / 2
    return float(scipy.stats.multivariate_normal.cdf([a, b], mean=[0, 0], cov=[[1, half], [half, 1]]))


def planned_error(numbers: Sequence[float]) -> tuple[float, float]:
    """Return a planned mean absolute error, and the variance of a difference of two, times the subjects.

    Assumed are the errors of always predicting the median of the numbers, which a model that learns anything
    does not reach, and a correlation of 0.5 between both models' errors.
    """
    errors = np.abs(np.asarray(numbers) - np.median(numbers))
    return float(errors.mean()), float(2 * (1 - ASSUMED_CORRELATION) * errors.var(ddof=1))


def planned_kappa(counts: Sequence[int], *, seed: int = 0) -> tuple[float, float]:
    """Return a planned quadratic kappa, and the standard error of a difference of two, by simulation.

    Both models see the grade with an error as large as the grades' own standard deviation, the errors have a
    correlation of 0.5, and each model gives the grades as often as they are.

    Args:
        counts: Test subjects of each grade, two of them above 0.
        seed: Of the simulation.
    """
    subjects, shares = sum(counts), np.array(counts) / sum(counts)
    draws = int(np.clip(SIMULATED // subjects, 50, 400))
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(counts), size=(draws, subjects), p=shares)
    latent = (labels - labels.mean()) / labels.std()
    shared = rng.normal(size=labels.shape)
    kappas = []
    for _ in range(2):
        own = rng.normal(size=labels.shape)
        seen = latent + math.sqrt(ASSUMED_CORRELATION) * shared + math.sqrt(1 - ASSUMED_CORRELATION) * own
        given = np.searchsorted(np.quantile(seen, np.cumsum(shares)[:-1]), seen)
        cells = (np.arange(draws)[:, None] * len(counts) + labels) * len(counts) + given
        confusion = np.bincount(cells.ravel(), minlength=draws * len(counts) ** 2)
        kappas.append(quadratic_kappa(confusion.reshape(draws, len(counts), len(counts)).astype(np.float64)))
    return float(np.nanmean(kappas)), float(np.nanstd(kappas[1] - kappas[0]))


def planned_subjects(difference: float, *, power: float = 0.8) -> int | None:
    """Return the subjects of each class with that power, under the assumptions before any training."""
    variance = planned_variance((ASSUMED_AUC,) * 2, ASSUMED_CORRELATION) / 2
    return required_subjects(DifferenceVariance(variance), difference, power=power)


def smallest_visible_difference(counts: Sequence[int], *, alpha: float = 0.05) -> float:
    """Return the AUC difference below which an interval of it includes 0, before anything is trained.

    Assumed are an AUC of 0.8 and a correlation of 0.5 between both models' normal scores. For more than two
    classes it is the mean over classes, each against the rest: an upper bound for the mean AUC.

    Args:
        counts: Test subjects of each class.
        alpha: Level of the two-sided test.
    """
    total = sum(counts)
    classes = counts[1:] if len(counts) == 2 else counts
    errors = [
        math.sqrt(planned_variance((ASSUMED_AUC,) * 2, ASSUMED_CORRELATION, prevalence=count / total) / total)
        for count in classes
        if 0 < count < total
    ]
    return float(scipy.stats.norm.ppf(1 - alpha / 2) * np.mean(errors)) if errors else math.nan
