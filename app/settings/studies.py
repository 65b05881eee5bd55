"""The settings of `voxlift-study`: a training's settings, and what is varied (group `study`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from voxlift.app.settings.commands import TrainSettings


@dataclass
class Study:
    """What every study has; a key that is null takes the chosen budget's value."""

    name: str = MISSING
    budget: str = "small"
    budgets: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainedStudy(Study):
    """A study that trains: how long, and from how many seeds."""

    epochs: int | None = None
    seeds: list[int] | None = None


@dataclass
class BatchSizeStudy(TrainedStudy):
    """Speed, memory, generalisation and stability over batch sizes."""

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
    """Cost over input sizes for slice, slab and volume models."""

    models: list[str] = field(default_factory=lambda: ["slice2d", "slab25d", "volume3d"])
    scales: list[float] | None = None
    timed_steps: int | None = None


@dataclass
class ArchitectureStudy(TrainedStudy):
    """Score against cost when one setting of the model is changed at a time, or all of them together."""

    vary: dict[str, Any] = field(default_factory=dict)
    design: str = "one_at_a_time"
    cost: str = "flops"


@dataclass
class SearchStudy(Study):
    """Hyper-parameter search on validation."""

    space: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None
    epochs: int | None = None
    confirm_seeds: list[int] | None = None
    metric: str = "auc"
    prune: bool = True
    startup_trials: int = 4
    warmup_epochs: int = 2
    sampler_seed: int = 0


@dataclass
class StudySettings(TrainSettings):
    """Everything that `voxlift-study` reads: a training's settings, and the study."""

    study: Any = MISSING


STUDIES: dict[str, type[Study]] = {
    "batch_size": BatchSizeStudy,
    "complexity": ComplexityStudy,
    "architecture": ArchitectureStudy,
    "search": SearchStudy,
}


def register_study_schemas() -> None:
    """Give Hydra the schema of the command and of each option of its group `study`."""
    store = ConfigStore.instance()
    store.store(name="study_schema", node=StudySettings)
    for name, schema in STUDIES.items():
        store.store(group="study", name=f"{name}_schema", node=schema)
