"""The settings of each study, one dataclass each: the schema of the files under `conf/study`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Study:
    """The settings that every study has; a key that is null takes the value of the budget.

    Attributes:
        name: Of the chosen option.
        budget: Name of one of `budgets`: `small`, `medium` or `full`.
        budgets: Values of the keys that are null, by budget.
    """

    name: str = MISSING
    budget: str = "small"
    budgets: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainedStudy(Study):
    """The settings of a study that trains to the end.

    Attributes:
        epochs: Of each training.
        seeds: Each trains every configuration once.
    """

    epochs: int | None = None
    seeds: list[int] | None = None


@dataclass
class BatchSizeStudy(TrainedStudy):
    """The settings of `study=batch_size`: speed, memory, score and stability over batch sizes.

    Attributes:
        batch_sizes: Volumes per batch; `trainer.batch_size` is the reference and is added if missing.
        scaling: Of the learning rate with the batch size: `none`, `sqrt`, `linear`, or `auto` (linear for
            SGD, else sqrt).
        equal: What is equal for all batch sizes: `epochs` or `steps` (of the optimiser).
        accumulate: Microbatches in which the largest batch is measured once more; 1: not.
        timed_steps: Training steps that are timed.
        noise_batches: Batches whose gradients give the gradient noise scale.
        largest: Largest batch size that the memory search tries.
        memory_gb: Memory limit of the search, in GB; null: 4/5 of the free memory, or all of the GPU's.
        fit_seconds: Time limit of one try of the search, s; a longer one ends the search.
    """

    batch_sizes: list[int] | None = None
    scaling: list[str] = field(default_factory=lambda: ["none", "auto"])
    equal: list[str] = field(default_factory=lambda: ["epochs", "steps"])
    accumulate: int = 4
    timed_steps: int | None = None
    noise_batches: int | None = None
    largest: int | None = None
    memory_gb: float | None = None
    fit_seconds: float = 600


@dataclass
class ComplexityStudy(Study):
    """The settings of `study=complexity`: cost of slice, slab and volume models over volume sizes.

    Attributes:
        models: Options of the group `model`; the first is the baseline of all ratios.
        scales: Factors of every side of the volume.
        timed_steps: Training steps that are timed.
    """

    models: list[str] = field(default_factory=lambda: ["slice2d", "slab25d", "volume3d"])
    scales: list[float] | None = None
    timed_steps: int | None = None


@dataclass
class ArchitectureStudy(TrainedStudy):
    """The settings of `study=architecture`: score against cost over settings of the model.

    Attributes:
        vary: Values to try, by key, nested as in the configuration.
        design: `one_at_a_time` (from the given configuration) or `grid` (every combination).
        cost: `flops` (of one volume's forward pass), `parameters`, `seconds_per_volume`, `train_seconds` or
            `peak_memory_bytes`.
    """

    vary: dict[str, Any] = field(default_factory=dict)
    design: str = "one_at_a_time"
    cost: str = "flops"


@dataclass
class SearchStudy(Study):
    """The settings of `study=search`: hyper-parameter search by Optuna on validation.

    Attributes:
        space: By key, nested as in the configuration: a list of choices, or `{low, high, log}`.
        trials: Number of trials.
        epochs: Of each trial.
        confirm_seeds: Seeds with which the best and the given settings are trained once more.
        metric: Of validation, at the best epoch of a trial; one of those of `trainer.monitor`, `auto`: the
            task's first.
        prune: Whether to stop a trial that is worse than the median of the others at the same epoch.
        startup_trials: Trials before anything is pruned.
        warmup_epochs: Epochs of a trial in which it is not pruned.
        sampler_seed: Seed of Optuna's sampler.
    """

    space: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None
    epochs: int | None = None
    confirm_seeds: list[int] | None = None
    metric: str = "auto"
    prune: bool = True
    startup_trials: int = 4
    warmup_epochs: int = 2
    sampler_seed: int = 0


@dataclass
class SampleSizeStudy(Study):
    """The settings of `study=sample_size`: subjects for a power, from a comparison or from planned values.

    Attributes:
        pair: Two of the compared models; empty: all pairs, the level of the test divided by their number.
        auc: Expected AUC of both models, in place of `run`; empty: from the comparison.
        correlation: Expected correlation of both models' scores within a class, with `auc`; 0 to 1.
        prevalence: Share of the positive class among future subjects; null: as in the comparison, or half.
        resamples: Resamples of the comparison's subjects for the uncertainty of the numbers.
    """

    pair: list[str] = field(default_factory=list)
    auc: list[float] = field(default_factory=list)
    correlation: float = 0.5
    prevalence: float | None = None
    resamples: int | None = None


@dataclass
class LearningCurveStudy(TrainedStudy):
    """The settings of `study=learning_curve`: the score of two models over the number of training subjects.

    Attributes:
        models: Two options of the group `model`, or experiments.
        fractions: Of the training subjects, each in 0 to 1; 1 is added if missing.
        equal: What is equal for all fractions: `steps` (of the optimiser) or `epochs`.
        resamples: Resamples of test subjects and seeds for the bands.
    """

    models: list[str] = field(default_factory=lambda: ["slice2d", "volume3d"])
    fractions: list[float] = field(default_factory=lambda: [0.125, 0.25, 0.5, 1.0])
    equal: str = "steps"
    resamples: int | None = None


CONTESTANTS = (
    *("header", "histogram", "border", "background", "silhouette", "blurred"),
    *("shuffled_slices", "mirrored", "shuffled_labels", "site"),
)


@dataclass
class ShortcutsStudy(TrainedStudy):
    """The settings of `study=shortcuts`: what a model scores, and what scores without the anatomy.

    Attributes:
        contestants: Some of `CONTESTANTS`.
        site_column: Column of the table with the site or scanner; `auto`: one with a usual name, `none`.
        permutations: Of the labels for `shuffled_labels`, with each seed.
        resamples: Resamples of the test subjects for the intervals.
    """

    contestants: list[str] = field(default_factory=lambda: list(CONTESTANTS))
    site_column: str = "auto"
    permutations: int = 10
    resamples: int | None = None


STUDIES: dict[str, type[Study]] = {
    "batch_size": BatchSizeStudy,
    "complexity": ComplexityStudy,
    "architecture": ArchitectureStudy,
    "search": SearchStudy,
    "sample_size": SampleSizeStudy,
    "learning_curve": LearningCurveStudy,
    "shortcuts": ShortcutsStudy,
}
