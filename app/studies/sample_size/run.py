"""Run the study of the sample size, from a finished comparison or from planned values; it trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from voxlift.app.comparison.trial import Trial, group_by_model, read_compared_trials
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.studies import SampleSizeStudy
from voxlift.app.errors import SettingsError
from voxlift.app.evaluation.paired import MARGIN
from voxlift.app.evaluation.sample_size import (
    CovarianceDraws,
    DifferenceVariance,
    covariance_of_difference,
    planned_variance,
    seed_spread,
)
from voxlift.app.evaluation.scores import Scores, ScoresError
from voxlift.app.runs.results import read_scores
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.sample_size.plan import PairPlan
from voxlift.app.studies.sample_size.report import report_sample_size


def study_sample_size(settings: StudySettings, folder: StudyFolder) -> None:
    """Compute the numbers of subjects; write table, figures and page.

    Raises:
        SettingsError: The comparison cannot be read, has other predictions than of two classes, or its models
            rank all subjects alike.
    """
    study: SampleSizeStudy = settings.study
    margin = settings.verdict.margin or MARGIN
    if study.auc:
        plans = [plan_from_values(study, margin=margin)]
    else:
        trials = read_compared_trials(Path(str(settings.run)).expanduser())
        plans = plan_from_trials(trials, study, margin=margin)
    report_sample_size(settings, folder, plans)


def plan_from_values(study: SampleSizeStudy, *, margin: float) -> PairPlan:
    """Return the plan for expected AUCs and an expected correlation of normal scores."""
    first, second = study.auc
    prevalence = study.prevalence or 0.5
    return PairPlan(
        first=f"a model of AUC {first:g}",
        second=f"one of AUC {second:g}",
        variance=DifferenceVariance(planned_variance((first, second), study.correlation) / 2),
        in_all=DifferenceVariance(
            planned_variance((first, second), study.correlation, prevalence=prevalence)
        ),
        margin=margin,
        prevalence=prevalence,
    )


def plan_from_trials(trials: Sequence[Trial], study: SampleSizeStudy, *, margin: float) -> list[PairPlan]:
    """Return the plan of each pair of compared models, or of the pair that the settings name.

    Args:
        trials: The trainings that were compared.
        study: With `pair`, `prevalence` and `resamples`.
        margin: Smallest difference of AUC that matters.

    Raises:
        SettingsError: An unknown model is named, or the variance of a difference cannot be computed.
    """
    by_model = group_by_model(trials)
    scores = {name: [_read_classes(trial) for trial in own] for name, own in by_model.items()}
    seeds = [trial.seed for trial in next(iter(by_model.values()))]
    pairs = [tuple(study.pair)] if study.pair else list(combinations(scores, 2))
    if unknown := [name for pair in pairs for name in pair if name not in scores]:
        raise SettingsError(
            f"study.pair: {unknown[0]} is not in the comparison; expected two of {', '.join(scores)}."
        )
    found = []
    for first, second in pairs:
        try:
            draws = covariance_of_difference(
                scores[first], scores[second], resamples=int(study.resamples or 0)
            )
        except ScoresError as error:
            raise SettingsError(f"{first} and {second}: {error}") from error
        spread = seed_spread(scores[first], scores[second], seeds)
        found.append(_plan_pair((first, second), draws, spread, study, margin=margin, pairs=len(pairs)))
    return found


def _plan_pair(
    names: tuple[str, str],
    draws: CovarianceDraws,
    spread: tuple[float, int],
    study: SampleSizeStudy,
    *,
    margin: float,
    pairs: int,
) -> PairPlan:
    per_class = draws.per_class
    if per_class[0] < 1e-12:
        raise SettingsError(
            f"{' and '.join(names)} rank all test subjects alike, so that the variance of their difference "
            "is not known. Compare other models, or plan with study.auc=[A,B] and study.correlation."
        )
    present = (draws.positive_subjects, draws.negative_subjects)
    own = present[0] / sum(present)
    prevalence = study.prevalence or own
    return PairPlan(
        *names,
        variance=DifferenceVariance(float(per_class[0]), *spread),
        in_all=DifferenceVariance(float(draws.at_prevalence(prevalence)[0]), *spread),
        margin=margin,
        prevalence=prevalence,
        alpha=0.05 / pairs,
        draws=per_class[1:][np.isfinite(per_class[1:])],
        present=present,
        now=DifferenceVariance(float(draws.at_prevalence(own)[0]), *spread),
    )


def _read_classes(trial: Trial) -> Scores:
    """Return the test scores of a training of two classes."""
    scores = read_scores(trial.run, split="test")
    if not isinstance(scores, Scores) or not scores.is_binary:
        raise SettingsError(
            f"{trial.run.path}: study=sample_size takes predictions of two classes; these are others. "
            "The verdict of their comparison names how many more subjects are needed."
        )
    return scores
