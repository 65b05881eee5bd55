"""Describe one training of a comparison, and build the grid of them: every model on every fold and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config.overrides import quote_override
from voxlift.app.errors import SettingsError, refuse_problems
from voxlift.app.files import read_json
from voxlift.app.runs.configuration import describe_extensions
from voxlift.app.runs.folder import RunFolder

RESULTS = "comparison.json"


@dataclass(frozen=True)
class Trial:
    """One training of a comparison.

    Attributes:
        model: Name of a model or of an experiment.
        fold: Number of the fold whose subjects are the test part; 0 without folds.
        seed: Seed of the split and of the training.
        overrides: Arguments of `voxlift-train`, the run folder included.
        run: Folder of the results.
    """

    model: str
    fold: int
    seed: int
    overrides: tuple[str, ...]
    run: RunFolder

    @property
    def fold_and_seed(self) -> tuple[int, int]:
        """Fold and seed, on which every model of a comparison is trained once."""
        return self.fold, self.seed


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        trial: The trial, with the run folder that holds its results; it may belong to another comparison.
        status: Exit status of the training, 0 where it finished.
        reason: Last line of the training's error output; empty where it finished.
        is_reused: Whether a run that was finished before is used.
        worker: Worker of a cluster on which it was trained; empty without one.
    """

    trial: Trial
    status: int = 0
    reason: str = ""
    is_reused: bool = False
    worker: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether the trial has results."""
        return self.status == 0


def build_trials(
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    folds: Sequence[int],
    folder: Path,
    shared: Sequence[str] = (),
    model_overrides: Callable[[str], Sequence[str]],
) -> list[Trial]:
    """Return a trial for every combination of fold, seed and model.

    Args:
        names: Names of the models.
        seeds: Seeds, one training each.
        folds: Numbers of the folds; a single one means that there are none.
        folder: Parent of the folder `runs/`, which gets a run folder per trial.
        shared: Overrides of every training.
        model_overrides: Returns the overrides that select a model by its name.
    """
    trials = []
    for fold in folds:
        for seed in seeds:
            for name in names:
                stem = f"{name}-fold{fold}-seed{seed}" if len(folds) > 1 else f"{name}-seed{seed}"
                run = RunFolder(folder / "runs" / stem)
                own = [*model_overrides(name), f"seed={seed}", f"run_dir={quote_override(str(run.path))}"]
                own += [f"splits.fold={fold}"] if len(folds) > 1 else []
                trials.append(Trial(name, fold, seed, (*shared, *own), run))
    return trials


def read_compared_trials(folder: Path) -> list[Trial]:
    """Return the trainings that a finished comparison compared, under the names that it compared.

    Raises:
        SettingsError: The folder holds no finished comparison, or one of an earlier version, or a training's
            run folder is missing.
    """
    file = folder / RESULTS
    refuse_problems(find_comparison_problems(folder))
    rows = read_json(file).get("trainings")
    if not rows:
        raise SettingsError(
            f"{file} is of an earlier version and does not name its trainings. Repeat the same "
            "voxlift-compare: it reuses the finished trainings and writes the file again."
        )
    trials = [
        Trial(row["model"], row["fold"], row["seed"], (), find_compared_run(folder, row["run"]))
        for row in rows
    ]
    if lost := [str(trial.run.path) for trial in trials if not trial.run.is_finished]:
        raise SettingsError(f"{file}: expected a finished run in {', '.join(lost)}.")
    return trials


def find_comparison_problems(folder: Path) -> list[str]:
    """Return a sentence if a folder holds no finished comparison."""
    if (folder / RESULTS).is_file():
        return []
    expected = f"expected the folder of a finished comparison, with {RESULTS}"
    return [f"run={folder}: {expected}, as voxlift-compare prints it in its last line."]


def find_compared_run(folder: Path, run: str) -> RunFolder:
    """Return a run of a comparison, also where its folder was moved with its `runs`.

    Args:
        folder: Of the comparison.
        run: Path of the run, as the comparison's files hold it.
    """
    saved, moved = Path(run), folder / "runs" / Path(run).name
    return RunFolder(saved if saved.exists() or not moved.exists() else moved)


def group_by_model(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Return each model's trials; models and trials keep their order."""
    names = dict.fromkeys(trial.model for trial in trials)
    return {name: [trial for trial in trials if trial.model == name] for name in names}


def build_trial_row(outcome: Outcome) -> dict[str, str | int]:
    """Return a trial's row of `trials.csv`."""
    trial = outcome.trial
    worker = {"worker": outcome.worker} if outcome.worker else {}
    return {
        "model": trial.model,
        "fold": trial.fold,
        "seed": trial.seed,
        "state": "failed" if outcome.status else "reused" if outcome.is_reused else "trained",
        "status": outcome.status,
        "run": str(trial.run.path),
        "reason": outcome.reason,
        **worker,
    }


def describe_resumed(trials: Sequence[Trial]) -> list[str]:
    """Return a sentence on each training that was resumed for more epochs."""
    return [
        f"{trial.model}, fold {trial.fold}, seed {trial.seed}: {sentence}"
        for trial in trials
        for sentence in describe_extensions(trial.run)
    ]


def mean_costs(trials: Sequence[Trial], keys: Sequence[str] | None = None) -> dict[str, float]:
    """Return each cost in `metrics.json` that all trials have, averaged over them.

    Args:
        trials: Finished trials, at least one.
        keys: Costs to average, in this order; None takes all.
    """
    from voxlift.app.runs.results import count_epochs  # numpy and scipy: not for --help

    costs = [count_epochs(read_json(trial.run.metrics)["cost"]) for trial in trials]
    shared = [key for key in keys or costs[0] if all(key in cost for cost in costs)]
    return {key: sum(cost[key] for cost in costs) / len(costs) for key in shared}
