"""Report a search: its recommendation, trials, figures and page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.evaluation.metric_names import is_lower_better, metric_label
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_interval, format_value
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import NOTE_SPLIT, StudyResults, describe_fixed, write_study_results
from voxlift.app.studies.search.figures import draw_importance, draw_progress, draw_slices
from voxlift.app.studies.search.store import (
    BEST,
    GIVEN,
    SearchFindings,
    format_param,
    format_params,
    import_optuna,
    list_completed,
    list_ended,
    number_trials,
)
from voxlift.app.studies.settings import Choices, Range
from voxlift.app.studies.trainings import (
    PointDifference,
    PointScore,
    compare_with_reference,
    describe_failures,
    name_metric,
    score_points,
    select_finished,
)

FEWEST = 8  # finished trials that an estimate of importance needs


def report_search(settings: StudySettings, folder: StudyFolder, found: SearchFindings) -> None:
    """Write all files of the study and print its recommendation."""
    study, trials = settings.study, describe_trials(found.search)
    confirmed = select_finished(found.confirmed)
    points, difference = _compare_best(found, margin=settings.verdict.margin)
    command = build_best_command(found)
    importance = _estimate_importance(found.search)
    results = StudyResults(
        name=f"Search for {settings.model.name} on {describe_task(settings.data)}",
        recommendation=recommend(found, difference, command, metric=study.metric, name=name_metric(points)),
        findings=[
            *describe_findings(found, trials, points, metric=study.metric),
            _describe_importance(importance),
            *describe_failures(found.confirmed),
        ],
        varied=[(key, _format_space(one)) for key, one in found.space.items()],
        fixed=describe_fixed(found.base, varied=list(found.space)),
        rows=[build_trial_row(trial) for trial in trials],
        more={"confirmation": [build_confirmation_row(one) for one in points.values()]} if points else {},
        values={"command": command, "importance": importance},
        drawings=_build_figures(found, trials, importance, metric=study.metric),
        tables=[
            _build_trial_table(trials, found.space, study.metric),
            *([_build_confirmation_table(points)] if points else []),
        ],
        notes=_build_notes(settings),
    )
    write_study_results(results, folder, trials=confirmed)


def describe_trials(search: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - an Optuna study
    """Return number, state, value and settings of every ended trial; a pruned one keeps its last value."""
    described = []
    for number, trial in enumerate(list_ended(search)):
        last = trial.intermediate_values.get(trial.last_step) if trial.intermediate_values else None
        described.append(
            {
                "number": number,
                "state": trial.state.name.lower(),
                "value": trial.value if trial.value is not None else last,
                "epochs": len(trial.intermediate_values),
                "is_given": bool(trial.user_attrs.get(GIVEN)),
                "params": dict(trial.params),
            }
        )
    return described


def build_best_command(found: SearchFindings) -> str:
    """Return the command line that trains with the best settings."""
    shared = [one for one in found.shared if one != "logger=none"]
    return shlex.join(["voxlift-train", *shared, *format_params(found.search.best_params)])


def recommend(
    found: SearchFindings, difference: PointDifference | None, command: str, *, metric: str, name: str = "AUC"
) -> str:
    """Return the recommendation: the best settings, unless other seeds contradict them.

    Args:
        found: Results of the search.
        difference: Best minus given settings on other seeds; None if unknown.
        command: Command line that trains with the best settings.
        metric: Metric of the search.
        name: Of the metric that other seeds were scored by.
    """
    value = f"validation {metric_label(metric)} {format_value(found.search.best_value)}"
    if found.search.best_trial.user_attrs.get(GIVEN):
        return f"Keep the given settings: no trial scored better ({value})."
    if difference is None:
        return f"Best trial, with {value} on one seed and not checked on others: {command}"
    interval = format_interval(difference.low, difference.high)
    size = f"{format_value(difference.difference)} {interval} {name}"
    small = difference.verdict.remark
    if difference.is_better:
        return f"Take the best trial's settings: on other seeds they gain {size}{small}. {command}"
    if difference.is_worse:
        return f"Keep the given settings: on other seeds the best trial's ({value}) lose {size}{small}."
    return (
        "Keep the given settings: on other seeds the best trial's settings differ by "
        f"{size} ({difference.verdict.text}). To try them nevertheless: {command}"
    )


def describe_findings(
    found: SearchFindings,
    trials: Sequence[Mapping[str, Any]],
    points: Mapping[str, PointScore],
    *,
    metric: str,
) -> list[str]:
    """Return what was tried, and how the best settings compare with the given ones.

    Args:
        found: Results of the search.
        trials: See `describe_trials`.
        points: Scores of the given and the best settings on other seeds; empty if unknown.
        metric: Metric of the search.
    """
    states = [trial["state"] for trial in trials]
    best = found.search.best_trial
    number = number_trials(found.search)[best.number]
    sentences = [
        (
            f"{states.count('complete')} trials were trained to the end, {states.count('pruned')} were "
            f"stopped early, {states.count('fail')} failed."
        ),
        (
            f"Best trial: number {number}, {metric_label(metric)} {format_value(best.value)}, "
            f"with {' '.join(format_params(found.search.best_params))}."
        ),
    ]
    given = next((trial for trial in trials if trial["is_given"] and trial["value"] is not None), None)
    if given:
        sentences.append(f"The given settings reached {format_value(given['value'])} in the same search.")
    if points:
        sentences.append(
            f"On seeds that the search did not use: best {format_value(points[BEST].score)}, given "
            f"{format_value(points[GIVEN].score)} {name_metric(points)}. The comparison within the search is "
            "biased towards the best of many trials; this one is not."
        )
    return sentences


def _compare_best(
    found: SearchFindings, *, margin: float | None
) -> tuple[dict[str, PointScore], PointDifference | None]:
    """Return the scores of the given and the best settings on other seeds, and their difference."""
    trials = select_finished(found.confirmed)
    if {trial.model for trial in trials} != {GIVEN, BEST}:
        return {}, None
    points, scores = score_points(trials)
    if set(points) != {GIVEN, BEST}:
        return {}, None
    return points, compare_with_reference(scores, GIVEN, margin=margin)[BEST]


def _estimate_importance(search: Any) -> dict[str, float]:  # noqa: ANN401 - an Optuna study
    """Return the share of the variation of the score that each setting explains; nothing for few trials."""
    values = [trial.value for trial in list_completed(search)]
    if len(values) < FEWEST or max(values) == min(values):
        return {}
    tool = import_optuna()
    evaluator = tool.importance.FanovaImportanceEvaluator(seed=0)
    found = tool.importance.get_param_importances(search, evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}


def _describe_importance(importance: Mapping[str, float]) -> str:
    if not importance:
        return f"The importance of the settings is unknown: it needs {FEWEST} finished trials that differ."
    shares = ", ".join(f"{key} {share:.0%}" for key, share in importance.items())
    return f"Share of the variation that each setting explains, within this space and these trials: {shares}."


def _build_figures(
    found: SearchFindings,
    trials: Sequence[Mapping[str, Any]],
    importance: Mapping[str, float],
    *,
    metric: str,
) -> list[StudyFigure]:
    progress = draw_progress(trials, metric=metric, is_lower_better=is_lower_better(metric))
    figures = [
        StudyFigure("progress", "Score of every trial.", progress),
        StudyFigure(
            "slices",
            "Score of the trials over each setting. Hollow: stopped early; diamond: the given settings.",
            draw_slices(trials, found.space, metric=metric),
        ),
    ]
    if importance:
        caption = "Importance of the settings in this space."
        figures.append(StudyFigure("importance", caption, draw_importance(importance)))
    return figures


def _build_notes(settings: StudySettings) -> list[str]:
    study = settings.study
    pruning = (
        "A trial is stopped when its value is worse than the median of the earlier trials at the same epoch, "
        f"from epoch {study.warmup_epochs + 1} and trial {study.startup_trials + 1} on."
        if study.prune
        else "No trial is stopped early."
    )
    return [
        (
            "Trials are proposed by Optuna's TPE sampler (Bergstra et al. 2011) and scored by "
            f"{study.metric} on validation at their best epoch, all with seed {settings.seed}. "
            "The test part is not used."
        ),
        pruning,
        NOTE_SPLIT,
        "The search is saved in search.db (SQLite): the same command with a larger study.trials extends it.",
    ]


def _format_space(one: Range | Choices) -> str:
    if isinstance(one, Choices):
        return ", ".join(map(str, one.values))
    return f"{one.low:g} to {one.high:g}{', logarithmic' if one.log else ''}"


def build_trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's row of `table.csv`: its result and its settings."""
    return {key: value for key, value in trial.items() if key != "params"} | dict(trial["params"])


def build_confirmation_row(point: PointScore) -> dict[str, Any]:
    """Return a row of `confirmation.csv`: the score of the given or the best settings on other seeds."""
    return {
        "settings": point.label,
        "seeds": len(point.by_seed),
        f"val_{point.metric}": point.score,
        f"val_{point.metric}_low": point.low,
        f"val_{point.metric}_high": point.high,
    }


def _build_trial_table(
    trials: Sequence[Mapping[str, Any]], space: Mapping[str, Any], metric: str
) -> TextTable:
    texts = [
        [
            f"{trial['number']}{' (given)' if trial['is_given'] else ''}",
            trial["state"],
            format_value(trial["value"]),
            str(trial["epochs"]),
            *(format_param(trial["params"].get(key)) for key in space),
        ]
        for trial in trials
    ]
    caption = "Every trial; the value of a trial that was stopped early is that of its last epoch."
    return TextTable(caption, ("Trial", "state", metric_label(metric), "epochs", *space), texts, 2)


def _build_confirmation_table(points: Mapping[str, PointScore]) -> TextTable:
    rows = [
        [
            label,
            format_value(one.score),
            format_interval(one.low, one.high),
            ", ".join(map(format_value, one.by_seed)),
        ]
        for label, one in points.items()
    ]
    caption = "The same settings with seeds that the search did not use."
    return TextTable(caption, ("Settings", name_metric(points), "95 %", "by seed"), rows)
