"""Words and page of a search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.report.formatting import format_interval, format_value
from voxlift.app.report.run_page import spoken_task
from voxlift.app.report.study_page import Drawing, TextTable
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import NOTE_SPLIT, Written, describe_fixed, environment_of, write_study
from voxlift.app.studies.scoring import PointScore, Standing, read_points, stand_against
from voxlift.app.studies.search.figures import draw_importance, draw_progress, draw_slices
from voxlift.app.studies.search.store import (
    BEST,
    GIVEN,
    SearchFindings,
    finished,
    import_optuna,
    overrides_of,
)
from voxlift.app.studies.space import Choices, Range
from voxlift.app.studies.trainings import finished_trials, say_failures

FEWEST = 8  # finished trials before a share of variation means anything


def report_search(settings: StudySettings, folder: StudyFolder, found: SearchFindings) -> None:
    """Write all that the study leaves, and print its recommendation."""
    study, trials = settings.study, describe_trials(found.known)
    points, standing = _check(found)
    command = best_command(found)
    lower = study.metric == "loss"
    importance = _importance(found.known)
    drawings = [
        Drawing(
            "progress",
            "What every trial reached.",
            draw_progress(trials, metric=study.metric, is_lower_better=lower),
        ),
        Drawing(
            "slices",
            "What trials reached over each setting. Hollow: stopped early; diamond: the given settings.",
            draw_slices(trials, found.space, metric=study.metric),
        ),
    ]
    if importance:
        drawings.append(
            Drawing("importance", "Which settings mattered in this space.", draw_importance(importance))
        )
    written = Written(
        name=f"Search for {settings.model.name} on {spoken_task(settings.data)}",
        recommendation=recommend(found, standing, command, metric=study.metric),
        findings=[
            *explain(found, trials, points, standing, study.metric),
            *_say_importance(importance),
            *say_failures(found.confirmed),
        ],
        varied=[(key, _spoken(one)) for key, one in found.space.items()],
        fixed=describe_fixed(found.base, varied=list(found.space)),
        rows=[trial_row(trial) for trial in trials],
        more={"confirmation": [confirmation_row(point) for point in points.values()]} if points else {},
        values={"command": command, "importance": importance},
        drawings=drawings,
        tables=[
            trial_table(trials, found.space, study.metric),
            *([confirmation_table(points)] if points else []),
        ],
        notes=_notes(settings),
    )
    write_study(written, folder, environment=environment_of(finished_trials(found.confirmed)))


def describe_trials(known: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - Optuna's study
    """Every trial: number, state, value (of a pruned one its last epoch's), settings."""
    described = []
    for trial in known.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        last = trial.intermediate_values.get(trial.last_step) if trial.intermediate_values else None
        described.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value if trial.value is not None else last,
                "epochs": len(trial.intermediate_values),
                "is_given": bool(trial.user_attrs.get(GIVEN)),
                "params": dict(trial.params),
            }
        )
    return described


def best_command(found: SearchFindings) -> str:
    """The command line that trains with the best settings."""
    shared = [one for one in found.shared if one != "logger=none"]
    return shlex.join(["voxlift-train", *shared, *overrides_of(found.known.best_params)])


def recommend(found: SearchFindings, standing: Standing | None, command: str, *, metric: str) -> str:
    """The best settings, unless other seeds speak against them; always the command line."""
    value = f"validation {metric_label(metric)} {format_value(found.known.best_value)}"
    if found.known.best_trial.user_attrs.get(GIVEN):
        return f"Keep the given settings: no trial reached more ({value})."
    if standing is None:
        return f"Best trial, {value} on one seed, not checked on another: {command}"
    size = f"{format_value(standing.difference)} {format_interval(standing.low, standing.high)}"
    if standing.is_better:
        return f"Take the best trial's settings: on other seeds they gain {size} AUC. {command}"
    if standing.is_worse:
        return f"Keep the given settings: on other seeds the best trial's ({value}) lose {size} AUC."
    return (
        "The search gives no reason to leave the given settings: on other seeds the best trial's differ by "
        f"{size} AUC, which cannot be told from nothing. To try them all the same: {command}"
    )


def explain(
    found: SearchFindings,
    trials: Sequence[Mapping[str, Any]],
    points: Mapping[str, PointScore],
    standing: Standing | None,
    metric: str,
) -> list[str]:
    """What was tried, and how far the best went beyond the given settings on both kinds of seeds."""
    states = [trial["state"] for trial in trials]
    label = metric_label(metric)
    sentences = [
        (
            f"{states.count('complete')} trials were trained to the end, {states.count('pruned')} stopped "
            f"early, {states.count('fail')} failed or were interrupted."
        ),
        (
            f"Best trial: number {found.known.best_trial.number}, {label} "
            f"{format_value(found.known.best_value)}, with {' '.join(overrides_of(found.known.best_params))}."
        ),
    ]
    given = next((trial for trial in trials if trial["is_given"] and trial["value"] is not None), None)
    if given:
        sentences.append(f"The given settings reached {format_value(given['value'])} in the same search.")
    if standing and points:
        sentences.append(
            f"On seeds that the search did not see: best {format_value(points[BEST].auc)}, given "
            f"{format_value(points[GIVEN].auc)} AUC. The first comparison flatters the best of many trials, "
            "this one does not."
        )
    return sentences


def _check(found: SearchFindings) -> tuple[dict[str, PointScore], Standing | None]:
    """The scores on other seeds, and the best against the given settings."""
    trials = finished_trials(found.confirmed)
    if {trial.model for trial in trials} != {GIVEN, BEST}:
        return {}, None
    points, scores = read_points(trials)
    if set(points) != {GIVEN, BEST}:
        return {}, None
    return points, stand_against(scores, GIVEN)[BEST]


def _importance(known: Any) -> dict[str, float]:  # noqa: ANN401 - Optuna's study
    values = [trial.value for trial in finished(known)]
    if len(values) < FEWEST or max(values) == min(values):
        return {}
    tool = import_optuna()
    evaluator = tool.importance.FanovaImportanceEvaluator(seed=0)
    found = tool.importance.get_param_importances(known, evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}


def _say_importance(importance: Mapping[str, float]) -> list[str]:
    if not importance:
        return [
            (
                f"Too few finished trials, or none that differ, to say which settings mattered ({FEWEST} are "
                "needed)."
            )
        ]
    spoken = ", ".join(f"{key} {share:.0%}" for key, share in importance.items())
    return [
        f"Share of the variation that each setting explains, within this space and these trials: {spoken}."
    ]


def _notes(settings: StudySettings) -> list[str]:
    study = settings.study
    rule = (
        "A trial is stopped when its value is worse than the median of the earlier trials at the same epoch, "
        f"from the epoch {study.warmup_epochs + 1} and the trial {study.startup_trials + 1} on."
        if study.prune
        else "No trial is stopped early."
    )
    return [
        (
            "Trials are proposed by Optuna's TPE sampler (Bergstra et al. 2011) and judged by "
            f"{study.metric} on validation at their best epoch, all with seed {settings.seed}. "
            "The test part is not used."
        ),
        rule,
        NOTE_SPLIT,
        "The search stands in search.db (SQLite): the same command with more study.trials goes on with it.",
    ]


def _spoken(one: Range | Choices) -> str:
    if isinstance(one, Choices):
        return ", ".join(map(str, one.values))
    return f"{one.low:g} to {one.high:g}{', logarithmic' if one.log else ''}"


def trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's row of `table.csv`: its settings stand beside what it reached."""
    return {key: value for key, value in trial.items() if key != "params"} | dict(trial["params"])


def confirmation_row(point: PointScore) -> dict[str, Any]:
    """A row of `confirmation.csv`: the score of the given or the best settings on other seeds."""
    return {
        "settings": point.label,
        "seeds": len(point.by_seed),
        "val_auc": point.auc,
        "val_auc_low": point.low,
        "val_auc_high": point.high,
    }


def trial_table(trials: Sequence[Mapping[str, Any]], space: Mapping[str, Any], metric: str) -> TextTable:
    """Every trial, for the page."""
    texts = [
        [
            f"{trial['number']}{' (given)' if trial['is_given'] else ''}",
            trial["state"],
            format_value(trial["value"]),
            str(trial["epochs"]),
            *(short_text(trial["params"].get(key)) for key in space),
        ]
        for trial in trials
    ]
    caption = "Every trial; the value of one that was stopped early is that of its last epoch."
    return TextTable(caption, ("Trial", "state", metric_label(metric), "epochs", *space), texts, 2)


def confirmation_table(points: Mapping[str, PointScore]) -> TextTable:
    """The scores on other seeds, for the page."""
    rows = [
        [
            label,
            format_value(one.auc),
            format_interval(one.low, one.high),
            ", ".join(map(format_value, one.by_seed)),
        ]
        for label, one in points.items()
    ]
    return TextTable(
        "The same settings with seeds that the search did not see.",
        ("Settings", "AUC", "95 %", "by seed"),
        rows,
    )


def short_text(value: object) -> str:
    """A setting's value as a table shows it: of a number three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
