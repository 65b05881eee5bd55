"""Select the trials to compare: the best candidate on validation for each fold and seed, and complete folds.

A name under `best_of` stands for several models, such as all ways to build a 2D network. In each fold and
seed all its candidates are trained, and the one with the best validation score is compared under that name.
The test subjects have no part in the selection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.trial import Outcome, Trial, describe_resumed, group_by_model
from voxlift.app.evaluation.metric_names import LOWER_IS_BETTER, metric_label
from voxlift.app.files import read_json
from voxlift.app.tasks.base import find_task


@dataclass(frozen=True)
class SelectedTrials:
    """The trials to compare, the same folds and seeds for every model, with notes on what is left out.

    Attributes:
        trials: Finished trials; those of a name under `best_of` bear its name.
        notes: Sentences for the page and the terminal.
    """

    trials: tuple[Trial, ...]
    notes: tuple[str, ...]

    @property
    def is_comparison(self) -> bool:
        """Whether two models or more are left."""
        return len(group_by_model(self.trials)) > 1


@dataclass(frozen=True)
class ModelSelection:
    """The model that validation selects in one fold and seed.

    Attributes:
        name: Name under `best_of`.
        fold: Number of the fold.
        seed: Seed of the trainings.
        model: Selected candidate.
        scores: Primary metric on validation of each finished candidate (its negative, where lower is better);
            -inf where it is undefined.
        metric: Key of the primary metric.
    """

    name: str
    fold: int
    seed: int
    model: str
    scores: Mapping[str, float]
    metric: str = "auc"


def select_trials(plan: Plan, outcomes: Sequence[Outcome]) -> SelectedTrials:
    """Return the finished trials of those folds and seeds that every remaining model has finished.

    A model without any finished training is left out. Of the others, a fold and seed that failed for one is
    left out for all, so that all models are compared on the same subjects.
    """
    finished, selections = select_models(plan.names, outcomes, plan.candidates)
    models = group_by_model(finished)
    by_model = [{trial.fold_and_seed for trial in trials} for trials in models.values()]
    shared = set.intersection(*by_model) if by_model else set()
    kept = [one for one in selections if (one.fold, one.seed) in shared]
    compared = tuple(one for one in finished if one.fold_and_seed in shared)
    notes = [
        *describe_selections(kept),
        *describe_resumed(compared),
        *(_describe_failure(outcome) for outcome in outcomes if not outcome.is_finished),
        *_describe_missing(plan, len(outcomes), models=list(models), shared=len(shared)),
    ]
    return SelectedTrials(compared, tuple(notes))


def select_models(
    names: Sequence[str], outcomes: Sequence[Outcome], candidates: Mapping[str, Sequence[str]]
) -> tuple[list[Trial], list[ModelSelection]]:
    """Return the finished trials of the compared models, with the best candidate under each `best_of` name.

    Args:
        names: What is compared: models and names under `best_of`.
        outcomes: Outcomes of all trainings, those of candidates included.
        candidates: Candidates by name under `best_of`; of equal ones the first is selected.
    """
    finished = [outcome.trial for outcome in outcomes if outcome.is_finished]
    folds_and_seeds = list(dict.fromkeys(trial.fold_and_seed for trial in finished))
    trials: list[Trial] = []
    selections: list[ModelSelection] = []
    for name in names:
        if name not in candidates:
            trials += [trial for trial in finished if trial.model == name]
            continue
        for fold, seed in folds_and_seeds:
            own = {trial.model: trial for trial in finished if trial.fold_and_seed == (fold, seed)}
            ranks = {model: _rank(own[model]) for model in candidates[name] if model in own}
            if ranks:
                best = max(ranks, key=ranks.__getitem__)
                scores = {model: score for model, (score, _) in ranks.items()}
                metric = find_primary(own[best])
                selections.append(ModelSelection(name, fold, seed, best, scores, metric))
                trials.append(replace(own[best], model=name))
    return trials, selections


def find_primary(trial: Trial) -> str:
    """Return the key of the primary metric of a finished trial."""
    return find_task(str(read_json(trial.run.metrics).get("task", "classes"))).primary


def _rank(trial: Trial) -> tuple[float, float]:
    """Return the primary metric on validation and minus log loss, signed so that larger is better.

    An undefined value is the worst.
    """
    metrics, primary = read_json(trial.run.metrics)["val"], find_primary(trial)
    return _signed_value(metrics, primary), _signed_value(metrics, "log_loss")


def _signed_value(metrics: Mapping[str, float | None], name: str) -> float:
    value = metrics.get(name)
    if value is None:
        return -math.inf
    return -float(value) if name in LOWER_IS_BETTER else float(value)


def _describe_rule(metric: str) -> str:
    return "ROC AUC, then by log loss; AUCs" if metric == "auc" else metric_label(metric)


def describe_selections(selections: Sequence[ModelSelection]) -> list[str]:
    """Return a sentence per name under `best_of`: the selected models, and the mean score of each."""
    sentences = []
    for name in dict.fromkeys(one.name for one in selections):
        own = [one for one in selections if one.name == name]
        models = dict.fromkeys(model for one in own for model in one.scores)
        parts = []
        for model in models:
            sign = -1 if own[0].metric in LOWER_IS_BETTER else 1
            values = [sign * one.scores[model] for one in own if model in one.scores]
            count = sum(one.model == model for one in own)
            times = f", selected {count} of {len(own)} times" if len(own) > 1 and count else ""
            parts.append(f"{model} {sum(values) / len(values):.3f}{times}")
        winner = f"{own[0].model}, " if len(own) == 1 else ""
        sentences.append(
            f"{name} is {winner}the best of {len(models)} models, selected on validation "
            f"(by {_describe_rule(own[0].metric)}: {'; '.join(parts)})."
        )
    return sentences


def _describe_failure(outcome: Outcome) -> str:
    name = outcome.trial.run.path.name
    return f"The training {name} failed with status {outcome.status}: {outcome.reason.removesuffix('.')}."


def _describe_missing(plan: Plan, tried: int, *, models: Sequence[str], shared: int) -> list[str]:
    """Return a sentence for trainings that were not tried, models that are absent, and incomplete folds."""
    untried = len(plan.trials) - tried
    absent = [name for name in plan.names if name not in models]
    dropped = len({trial.fold_and_seed for trial in plan.trials}) - shared
    notes = []
    if untried:
        notes.append(
            f"{untried} trainings were not tried: every model failed with a user error in the first fold "
            "and seed."
        )
    if absent and len(models) > 1:
        notes.append(f"Not compared, because no training finished: {', '.join(absent)}.")
    if dropped and shared:
        notes.append(
            f"{dropped} of {dropped + shared} combinations of fold and seed are left out, "
            "because not every model finished them."
        )
    return notes
