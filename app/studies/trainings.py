"""Run a study's trainings in child processes, and compare their points on the validation subjects.

A point is one configuration of a study, trained once with each seed. The test subjects are never used.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.compose import (
    compose_trial,
    config_dir_arguments,
    with_plain_preprocess,
)
from voxlift.app.comparison.run import HERE, build_jobs, read_outcome
from voxlift.app.comparison.trial import Outcome, Trial, build_trials, group_by_model, mean_costs
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.overrides import list_given_keys, select_shared_overrides
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.data.cohort import count_folds
from voxlift.app.evaluation.bootstrap import RESAMPLES, model_intervals, point_metrics
from voxlift.app.evaluation.metric_names import LOWER_IS_BETTER, metric_label
from voxlift.app.evaluation.paired import compare_models, default_margin
from voxlift.app.evaluation.verdict import Verdict, decide, format_p_value, shown_p_value
from voxlift.app.progress import progress_bar
from voxlift.app.report.tables import format_interval, format_value
from voxlift.app.runs.configuration import refuse_other_run
from voxlift.app.runs.results import read_scores
from voxlift.app.runtime.jobs import run_jobs
from voxlift.app.studies.folder import StudyFolder

if TYPE_CHECKING:
    from voxlift.app.evaluation.scores import Predictions

OWN_KEYS = ("study", "run", "verdict", "run_dir", "runs_folder", "debug", "cluster")
TOLERANCE = 0.01  # a difference of AUC that no one would pay for
SHORT_LABELS = {"auc": "AUC", "kappa_quadratic": "kappa"}
DIFFERENCE_HEADINGS = ("difference", "95 %", "p (Holm)", "verdict")
CANNOT_TELL = Verdict("cannot tell")
NO_VERDICT = dict.fromkeys(asdict(CANNOT_TELL)) | {"verdict": ""}  # of the reference itself


def read_study_overrides(*, refused: Mapping[str, str]) -> list[str]:
    """Return the user's overrides that every training of a study gets, with no logger unless one is given.

    Args:
        refused: Keys that the study sets itself, each with what to do instead.

    Raises:
        SettingsError: The user set one of those keys.
    """
    shared = select_shared_overrides("the study", refused=refused, own=OWN_KEYS)
    shared = with_plain_preprocess(shared)
    return shared if "logger" in list_given_keys() else [*shared, "logger=none"]


def list_site_folds(settings: TrainSettings) -> range:
    """Return the folds of a study that scores the test subjects: one for each site of `splits.leave_out`.

    A single one without sites, or where the user has chosen one with `splits.fold`.

    Raises:
        ManifestError: The table has no sites.
    """
    if settings.splits.leave_out is None or "splits.fold" in list_given_keys():
        return range(1)
    return range(count_folds(settings))


def plan_trainings(
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    *,
    shared: Sequence[str],
    folder: StudyFolder,
    folds: Sequence[int] = (0,),
) -> list[Trial]:
    """Return a trial for every point, fold and seed.

    Args:
        points: Overrides of each point, by label.
        seeds: Seeds, one training each.
        shared: Overrides of every training.
        folder: Folder of the study.
        folds: Numbers of the folds, see `list_site_folds`; a single one means that there are none.
    """
    return build_trials(
        list(points),
        seeds,
        folds=folds,
        folder=folder.path,
        shared=shared,
        model_overrides=points.__getitem__,
    )


def run_trainings(
    trials: Sequence[Trial], folder: StudyFolder, *, runs_folder: str, cluster: ClusterSettings = HERE
) -> list[Outcome]:
    """Train every trial that has no finished run; a failed one does not stop the others.

    Args:
        trials: Trainings, all checked before the first is trained.
        folder: Folder of the study; the output of each training goes into its `logs`.
        runs_folder: Another place to look for finished runs with the same settings.
        cluster: Where the trainings run.

    Raises:
        SettingsError: The settings of a training are wrong, the folder holds others, or all trainings failed.
        KeyboardInterrupt: The user interrupted a training.
    """
    composed = [compose_trial(trial) for trial in trials]
    for trial, wanted in composed:
        refuse_other_run(trial.run, wanted)
    arguments, place = tuple(config_dir_arguments()), Path(runs_folder)
    folder.logs.mkdir(exist_ok=True)
    jobs = build_jobs(composed, runs_folder=place, arguments=arguments, logs=folder.logs)
    found: dict[int, Outcome] = {}
    with progress_bar("Trainings", len(trials)) as advance:
        for number, end in run_jobs(cluster, jobs):
            found[number] = read_outcome(composed[number][0], end)
            advance()
    outcomes = [found[number] for number in sorted(found)]
    if not any(outcome.is_finished for outcome in outcomes):
        raise SettingsError(f"All {len(trials)} trainings failed. The first error: {outcomes[0].reason}")
    return outcomes


def select_finished(outcomes: Sequence[Outcome]) -> list[Trial]:
    """Return the trials that have results."""
    return [outcome.trial for outcome in outcomes if outcome.is_finished]


def describe_failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for every failed training."""
    failed = [outcome for outcome in outcomes if not outcome.is_finished]
    return [f"The training {outcome.trial.run.path.name} failed: {outcome.reason}" for outcome in failed]


@dataclass(frozen=True)
class PointScore:
    """Validation score and costs of one point.

    Attributes:
        label: Label of the point.
        score: Primary metric of the task, the mean over seeds, each at its best epoch.
        low: Lower end of the 95 % interval over subjects (bootstrap; all seeds of a subject together), with
            the variance between seeds added.
        high: Upper end.
        by_seed: The metric of each seed.
        cost: The block `cost` of `metrics.json`, averaged over seeds.
        metric: Key of the metric.
        tolerance: A difference of it that no one would pay for.
        unit: Of the metric; empty without one.
    """

    label: str
    score: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    cost: Mapping[str, float]
    metric: str = "auc"
    tolerance: float = TOLERANCE
    unit: str = ""

    @property
    def gain(self) -> float:
        """The score, negative where lower is better: larger is better."""
        return -self.score if self.metric in LOWER_IS_BETTER else self.score

    @property
    def metric_name(self) -> str:
        """A short name of the metric, for texts and headings."""
        return SHORT_LABELS.get(self.metric) or metric_label(self.metric, self.unit)

    @property
    def seed_sd(self) -> float:
        """Standard deviation over seeds; nan for a single one."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else float("nan")


@dataclass(frozen=True)
class PointDifference:
    """Paired difference of the primary metric between a point and a reference (point minus reference).

    Attributes:
        difference: The difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: P-value, Holm-adjusted over all points that are compared with the reference.
        verdict: In one of four words.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict = CANNOT_TELL

    @property
    def is_worse(self) -> bool:
        """Whether the data show that the point scores less."""
        return self.verdict.verdict == "worse"

    @property
    def is_better(self) -> bool:
        """Whether the data show that the point scores more."""
        return self.verdict.verdict == "better"

    @property
    def explanation(self) -> str:
        """The verdict with its p-value, and a remark where interval and p-value disagree."""
        text = f"{self.verdict.text}, p {format_p_value(self.p)}"
        if not (self.is_worse or self.is_better) and not self.low <= 0 <= self.high:
            text += ": the interval excludes 0, but the p-value adjusted for all points tried is not small"
        return text


def score_points(trials: Sequence[Trial]) -> tuple[dict[str, PointScore], dict[str, list[Predictions]]]:
    """Return the validation score of every point with all of its seeds, and the scores of its trainings.

    Args:
        trials: Finished trials; points with fewer seeds than the others are left out.
    """
    points = group_by_model(trials)
    seeds = max((len(of_point) for of_point in points.values()), default=0)
    complete = {label: of_point for label, of_point in points.items() if len(of_point) == seeds}
    scores = {
        label: [read_scores(trial.run, split="val") for trial in of_point]
        for label, of_point in complete.items()
    }
    intervals = model_intervals(scores, fit_seeds=range(seeds), resamples=RESAMPLES)
    found = {}
    for label, of_point in complete.items():
        first = scores[label][0]
        metric = first.primary
        low, high = intervals[label][metric]
        found[label] = PointScore(
            label=label,
            score=point_metrics(scores[label])[metric],
            low=low,
            high=high,
            by_seed=tuple(point_metrics(one)[metric] for one in scores[label]),
            cost=mean_costs(of_point),
            metric=metric,
            tolerance=TOLERANCE if metric == "auc" else default_margin(first) / 5,
            unit=first.unit,
        )
    return found, scores


def compare_with_reference(
    scores: Mapping[str, Sequence[Predictions]], reference: str, *, margin: float | None
) -> dict[str, PointDifference]:
    """Return the difference of every other point from a reference, on the same subjects and seeds.

    Args:
        scores: Scores of each point, one per seed.
        reference: Label of the point that the others are compared with.
        margin: Smallest difference that matters; None: see `compare_models`.
    """
    if len(scores) < 2:
        return {}
    found = {}
    primary = scores[reference][0].primary
    pairs = compare_models(
        scores,
        fit_seeds=range(len(scores[reference])),
        reference=reference,
        primary=primary,
        resamples=RESAMPLES,
        margin=margin,
    )
    for pair in pairs:
        one = pair.differences[primary]
        p = shown_p_value(pair)
        found[pair.second] = PointDifference(one.difference, one.low, one.high, p, decide(pair))
    return found


def find_best(points: Mapping[str, PointScore]) -> str:
    """Return the label of the point with the best score; of equal ones the first."""
    return max(points, key=lambda label: points[label].gain)


def choose_cheapest(
    points: Mapping[str, PointScore],
    differences: Mapping[str, PointDifference],
    costs: Mapping[str, float],
) -> str:
    """Return the label of the cheapest point close to the best score (AUC: 0.01) and not shown to be worse.

    Args:
        points: Points to choose from.
        differences: Differences of the others from the best of them.
        costs: Cost of each point; of equal ones the better score wins.
    """
    best = find_best(points)
    close = [
        label
        for label, one in points.items()
        if label == best
        or (one.gain >= points[best].gain - one.tolerance and not differences[label].is_worse)
    ]
    return min(close, key=lambda label: (costs[label], -points[label].gain))


def score_headings(points: Mapping[str, PointScore]) -> tuple[str, str, str]:
    """Return the headings above the texts of `format_score_columns`."""
    return name_metric(points), "95 %", "SD over seeds"


def name_metric(points: Mapping[str, PointScore]) -> str:
    """Return a short name of the metric of scored points; `score` without any."""
    return next((one.metric_name for one in points.values()), "score")


def long_metric_name(points: Mapping[str, PointScore]) -> str:
    """Return the full name of the metric of scored points, with its unit, for axes."""
    return next((metric_label(one.metric, one.unit) for one in points.values()), "score")


def build_score_columns(point: PointScore) -> dict[str, Any]:
    """Return the columns of a table that hold a point's score."""
    return {
        "seeds": len(point.by_seed),
        f"val_{point.metric}": point.score,
        f"val_{point.metric}_low": point.low,
        f"val_{point.metric}_high": point.high,
        "sd_over_seeds": point.seed_sd,
    }


def build_difference_columns(difference: PointDifference | None) -> dict[str, Any]:
    """Return the columns of a table that hold a difference; None stands for the reference itself."""
    return {
        "difference": difference.difference if difference else 0.0,
        "difference_low": difference.low if difference else 0.0,
        "difference_high": difference.high if difference else 0.0,
        "p": difference.p if difference else 1.0,
        **(asdict(difference.verdict) if difference else NO_VERDICT),
    }


def format_score_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the texts below `score_headings` for a row with `build_score_columns`."""
    name = next(key for key in row if f"{key}_low" in row and key.startswith("val_"))
    interval = format_interval(row[f"{name}_low"], row[f"{name}_high"])
    return [format_value(row[name]), interval, format_value(row["sd_over_seeds"])]


def format_difference_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the texts below `DIFFERENCE_HEADINGS` for a row with `build_difference_columns`."""
    interval = format_interval(row["difference_low"], row["difference_high"])
    verdict = Verdict(**{key: row[key] for key in NO_VERDICT}).text if row["verdict"] else ""
    return [format_value(row["difference"]), interval, format_p_value(float(row["p"])), verdict]
