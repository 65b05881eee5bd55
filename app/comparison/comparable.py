"""Which trials can be compared: every model on the same folds and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.selection import describe_choices, settle_contests
from voxlift.app.comparison.trial import Outcome, Trial, trials_by_model


@dataclass(frozen=True)
class Comparable:
    """The trials to compare, every model with the same folds and seeds, and what to know of them."""

    trials: tuple[Trial, ...]
    notes: tuple[str, ...]

    @property
    def is_enough(self) -> bool:
        """Whether two models are left."""
        return len(trials_by_model(self.trials)) > 1


def pick_comparable(plan: Plan, outcomes: Sequence[Outcome]) -> Comparable:
    """The finished trials of those folds and seeds that every remaining model has finished.

    A contest counts as one model (see `settle_contests`). A model without any finished training is left out;
    of the others, a fold and seed in which one failed is left out for all, so that all are judged on the same
    subjects.
    """
    entries, choices = settle_contests(plan.names, outcomes, plan.contests)
    models = trials_by_model(entries)
    cells = [{trial.cell for trial in of_model} for of_model in models.values()]
    shared = set.intersection(*cells) if cells else set()
    kept = tuple(trial for trial in entries if trial.cell in shared)
    notes = [
        *describe_choices([choice for choice in choices if (choice.fold, choice.seed) in shared]),
        *(_describe_failure(outcome) for outcome in outcomes if not outcome.is_finished),
        *_describe_gaps(plan, len(outcomes), models=list(models), shared=len(shared)),
    ]
    return Comparable(kept, tuple(notes))


def _describe_gaps(plan: Plan, tried: int, *, models: Sequence[str], shared: int) -> list[str]:
    untried = len(plan.trials) - tried
    absent = [name for name in plan.names if name not in models]
    dropped = len({trial.cell for trial in plan.trials}) - shared
    notes = []
    if untried:
        notes.append(f"{untried} trainings were not tried, since every model of the first cell was refused.")
    if absent and len(models) > 1:
        notes.append(f"Not compared, since no training of it finished: {', '.join(absent)}.")
    if dropped and shared:
        notes.append(
            f"{dropped} of {dropped + shared} combinations of fold and seed are left out, "
            "since not every model finished them."
        )
    return notes


def _describe_failure(outcome: Outcome) -> str:
    return (
        f"The training {outcome.trial.run.path.name} failed with status {outcome.status}: {outcome.reason}"
    ).removesuffix(".") + "."
