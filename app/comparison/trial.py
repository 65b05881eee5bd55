"""One training of a comparison, and the grid of them: every model on every fold with every seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config.overrides import quote_override
from voxlift.app.runs.folder import RunFolder


@dataclass(frozen=True)
class Trial:
    """One training of a comparison.

    Attributes:
        model: name of the group `model`, or of an `experiment`.
        fold: which fold is the test part; 0 without folds.
        seed: of the split and the training.
        overrides: what `voxlift-train` is told, its run folder included.
        run: where it leaves its results.
    """

    model: str
    fold: int
    seed: int
    overrides: tuple[str, ...]
    run: RunFolder

    @property
    def cell(self) -> tuple[int, int]:
        """Fold and seed: what all models of a comparison share."""
        return self.fold, self.seed


def lay_out_trials(
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    folds: Sequence[int],
    folder: Path,
    shared: Sequence[str] = (),
    choice_of: Callable[[str], Sequence[str]],
) -> list[Trial]:
    """Every combination of fold, seed and model, with the overrides that make its training.

    Args:
        names: of the models.
        seeds: one training each.
        folds: the folds' numbers; a single one means that there are none.
        folder: the trials' runs go into `runs/` under it.
        shared: overrides that every training gets.
        choice_of: the overrides that choose a model by its name.
    """
    has_folds = len(folds) > 1

    def lay_out(name: str, fold: int, seed: int) -> Trial:
        stem = f"{name}-fold{fold}-seed{seed}" if has_folds else f"{name}-seed{seed}"
        run = RunFolder(folder / "runs" / stem)
        own = [*choice_of(name), f"seed={seed}", f"run_dir={quote_override(str(run.path))}"]
        own += [f"splits.fold={fold}"] if has_folds else []
        return Trial(name, fold, seed, (*shared, *own), run)

    return [lay_out(name, fold, seed) for fold in folds for seed in seeds for name in names]


def trials_by_model(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Each model's trials, models and trials in the order given."""
    names = dict.fromkeys(trial.model for trial in trials)
    return {name: [trial for trial in trials if trial.model == name] for name in names}


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
