"""Which trials can be compared: every model on the same folds and seeds, although some trainings failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.comparison.running import Outcome
from app.comparison.trials import Trial, trials_by_model


@dataclass(frozen=True)
class Comparable:
    """The trials to compare, every model with the same folds and seeds, and what to know of them."""

    trials: tuple[Trial, ...]
    notes: tuple[str, ...]

    @property
    def is_enough(self) -> bool:
        """Whether two models are left."""
        return len(trials_by_model(self.trials)) > 1


def pick_comparable(planned: Sequence[Trial], outcomes: Sequence[Outcome]) -> Comparable:
    """The finished trials of those folds and seeds that every remaining model has finished.

    A model without any finished training is left out; of the others, a fold and seed in which one failed is
    left out for all, so that all are judged on the same subjects.
    """
    models = trials_by_model([outcome.trial for outcome in outcomes if outcome.is_finished])
    cells = [{trial.cell for trial in of_model} for of_model in models.values()]
    shared = set.intersection(*cells) if cells else set()
    kept = [trial for of_model in models.values() for trial in of_model if trial.cell in shared]
    absent = [name for name in trials_by_model(planned) if name not in models]
    notes = [_describe_failure(outcome) for outcome in outcomes if not outcome.is_finished]
    untried = len(planned) - len(outcomes)
    if untried:
        notes.append(f"{untried} trainings were not tried, since every model of the first cell was refused.")
    if absent and len(models) > 1:
        notes.append(f"Not compared, since no training of it finished: {', '.join(absent)}.")
    dropped = len({trial.cell for trial in planned}) - len(shared)
    if dropped and shared:
        notes.append(
            f"{dropped} of {dropped + len(shared)} combinations of fold and seed are left out, "
            "since not every model finished them."
        )
    return Comparable(tuple(kept), tuple(notes))


def _describe_failure(outcome: Outcome) -> str:
    return (
        f"The training {outcome.trial.run.path.name} failed with status {outcome.status}: {outcome.reason}"
    ).removesuffix(".") + "."
