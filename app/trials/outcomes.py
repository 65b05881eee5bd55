"""What became of the trials of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from voxlift.app.trials.trial import Trial


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: with the run folder that holds its results, which may be another comparison's.
        status: the training's exit status, 0 where it is finished.
        reason: why it failed, in its last words; empty where it is finished.
        is_reused: whether it was finished before.
    """

    trial: Trial
    status: int = 0
    reason: str = ""
    is_reused: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the trial has results."""
        return self.status == 0


def outcome_row(outcome: Outcome) -> dict[str, str | int]:
    """A trial's row of `trials.csv`."""
    trial = outcome.trial
    state = "failed" if outcome.status else "reused" if outcome.is_reused else "trained"
    return {
        "model": trial.model,
        "fold": trial.fold,
        "seed": trial.seed,
        "state": state,
        "status": outcome.status,
        "run": str(trial.run.path),
        "reason": outcome.reason,
    }
