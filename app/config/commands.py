"""Everything that each command reads, one dataclass a command, and their registration with Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from voxlift.app.config.schema import (
    CacheSettings,
    DataSettings,
    DevicesSettings,
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    OptimizerSettings,
    PreflightSettings,
    PreprocessSettings,
    SplitSettings,
    TrainerSettings,
)


@dataclass
class TrainSettings:
    """Everything that `voxlift-train` reads."""

    data: DataSettings = field(default_factory=DataSettings)
    splits: SplitSettings = field(default_factory=SplitSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    augment: dict[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    preflight: PreflightSettings = field(default_factory=PreflightSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    precision: str = "auto"
    device: str = "auto"  # gpu: refuse to train without one; cpu: leave a GPU alone
    deterministic: bool = False  # see voxlift-train --help for what it costs and cannot promise
    strategy: str = "single"
    devices: DevicesSettings = field(default_factory=DevicesSettings)
    hosts: HostsSettings = field(default_factory=HostsSettings)
    seed: int = 0
    run_dir: str | None = None
    resume: str | None = None  # a run folder whose training goes on
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class CompareSettings(TrainSettings):
    """Everything that `voxlift-compare` reads: a training's settings, and what to vary."""

    models: list[str] = field(default_factory=lambda: ["slice2d", "volume3d"])
    best_of: dict[str, list[str]] = field(default_factory=dict)  # models that validation chooses among
    seeds: list[int] = field(default_factory=lambda: [0])


@dataclass
class EvaluateSettings:
    """Everything that `voxlift-evaluate` reads."""

    run: str | None = None
    on: str = "test"
    batch_size: int | None = None
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class PredictSettings:
    """Everything that `voxlift-predict` reads."""

    run: Any = None  # a run folder, or a list of them
    input: str | None = None
    output: str = "predictions.csv"
    explain: Any = False  # false, true (Grad-CAM), gradcam, occlusion or both
    explain_class: str | None = None
    explain_layer: str | None = None
    tta: str = "none"
    image_columns: list[str] = field(default_factory=list)
    subject_column: str | None = None
    root: str | None = None
    batch_size: int | None = None
    workers: int = 0
    overwrite: bool = False
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class ExportSettings:
    """Everything that `voxlift-export` reads."""

    run: str | None = None
    output: str | None = None
    format: str = "saved_model"
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class AuditSettings:
    """Everything that `voxlift-audit` reads."""

    data: DataSettings = field(default_factory=DataSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    output: str | None = None
    thumbnails: int = 60
    workers: int = 0
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class LiftSettings:
    """Everything that `voxlift-lift` reads."""

    network: str | None = None
    weights: str | None = None
    include_top: bool = True
    depth: int | None = None
    input_shape: list[int] | None = None
    depth_policy: Any = "isotropic"  # a name, a list of one per stage, or choices by layer
    spacing: list[float] | None = None
    init: str = "centre"
    channels: int | None = None
    filters: Any = None  # a factor, or a list of one per stage
    classes: int | None = None
    logits: bool = False
    output: str | None = None
    overwrite: bool = False
    plan_only: bool = False
    verify: bool = True
    seed: int = 0
    runs_folder: str = "runs"
    debug: bool = False


def register_schemas() -> None:
    """Give Hydra the schema that each primary configuration starts from."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainSettings)
    store.store(name="compare_schema", node=CompareSettings)
    store.store(name="evaluate_schema", node=EvaluateSettings)
    store.store(name="predict_schema", node=PredictSettings)
    store.store(name="export_schema", node=ExportSettings)
    store.store(name="audit_schema", node=AuditSettings)
    store.store(name="lift_schema", node=LiftSettings)


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
