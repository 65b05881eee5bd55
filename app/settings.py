"""The whole configuration as dataclasses: Hydra's schema (a misspelt key is an error) and the door's checks.

The classes are not frozen because Hydra must be able to override their fields; nothing changes them after
`check_settings`. Nothing here imports TensorFlow: `--help` and a configuration error must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

MODEL_KINDS = ("slice", "volume")
DATA_NAMES = ("phantom", "manifest", "medmnist3d")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
SPLIT_NAMES = ("train", "val", "test")
INITS = ("centre", "mean", "acs", "random")
DEPTH_POLICIES = ("isotropic", "preserve", "slicewise", "spacing")


class SettingsError(ValueError):
    """The configuration is at fault: the message says what was expected, received, and the way out."""


@dataclass
class DataSettings:
    """Where subjects, images and labels come from (group `data`)."""

    name: str = MISSING
    task: str | None = None
    subjects: int | None = None
    folder: str = "data"
    table: str | None = None
    root: str | None = None
    npz: str | None = None
    image_column: str = "image"
    image_columns: list[str] = field(default_factory=list)
    label_column: str = "label"
    subject_column: str | None = None
    split_column: str | None = None
    classes: list[str] = field(default_factory=list)
    label_bins: list[float] = field(default_factory=list)
    time_axis: str = "error"
    on_bad_file: str = "stop"


@dataclass
class SplitSettings:
    """Fractions of the subjects, or k folds of which one is the test part."""

    val: float = 0.2
    test: float = 0.2
    folds: int = 0
    fold: int = 0


@dataclass
class PreprocessSettings:
    """From a stored image to a network's voxels (group `preprocess`); depth, height, width throughout."""

    name: str = MISSING
    spacing: Any = "native"  # three numbers in mm, or native
    shape: Any = None  # three voxel counts; null: the shape that all images share
    fit: str = "pad_crop"
    axcodes: str | None = "RAS"
    interpolation: str = "linear"
    antialias: bool = False
    window_hu: list[float] | None = None
    clip_percentiles: list[float] | None = None
    zscore: str = "none"
    foreground_crop: bool = False
    foreground_threshold: float | None = None
    foreground_margin_mm: float = 5.0
    pad: float | None = None
    nonfinite: str = "pad"
    same_grid: bool = True
    prefer: str = "sform"


@dataclass
class ModelSettings:
    """The 2D network, and whether it scores slices or is lifted to score volumes (group `model`)."""

    name: str = MISSING
    kind: str = MISSING
    baseline: str = "cnn"
    filters: list[int] = field(default_factory=lambda: [16, 32, 64])
    dropout: float = 0.2
    depth_policy: str = "isotropic"
    init: str = "centre"
    axis: str = "depth"
    slices: str = "all"
    aggregate: str = "mean"
    slab: int = 1
    batch_factor: int = 1
    pretrain: bool = False  # train the 2D network on slices first, then lift it with what it learned
    rate_factor: float = 1.0  # of optimizer.learning_rate: trained weights are tuned with smaller steps


@dataclass
class OptimizerSettings:
    """How weights move (group `optimizer`): any Keras optimiser by `name`, with further `options`."""

    name: str = "AdamW"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    clip_norm: float | None = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerSettings:
    """How long and in which portions."""

    epochs: int = 30
    batch_size: int = 8
    monitor: str = "auc"
    patience: int = 0
    balance: str = "none"
    label_smoothing: float = 0.0


@dataclass
class CacheSettings:
    """Where preprocessed volumes lie, and how much room they may take."""

    folder: str = ".cache/voxlift"
    max_gb: float = 20.0
    workers: int = 0


@dataclass
class LoggerSettings:
    """What is written beside the run folder's own files (group `logger`)."""

    tensorboard: bool = True


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
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    precision: str = "auto"
    deterministic: bool = False
    seed: int = 0
    run_dir: str | None = None
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class CompareSettings(TrainSettings):
    """Everything that `voxlift-compare` reads: a training's settings, and what to vary."""

    models: list[str] = field(default_factory=lambda: ["slice2d", "volume3d"])
    seeds: list[int] = field(default_factory=lambda: [0])


@dataclass
class EvaluateSettings:
    """Everything that `voxlift-evaluate` reads."""

    run: str = MISSING
    on: str = "test"
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
    store.store(name="audit_schema", node=AuditSettings)
    store.store(name="lift_schema", node=LiftSettings)


def choice_problem(key: str, value: object, allowed: tuple[str, ...]) -> list[str]:
    """One sentence when `value` is not among `allowed`, else nothing.

    >>> choice_problem("precision", "half", ("auto", "float32"))
    ['precision: expected one of auto, float32; received half.']
    """
    if value in allowed:
        return []
    return [f"{key}: expected one of {', '.join(allowed)}; received {value}."]


def range_problem(key: str, value: float, low: float, high: float) -> list[str]:
    """One sentence when `value` lies outside [low, high], else nothing."""
    return [] if low <= value <= high else [f"{key}: expected {low:g} to {high:g}; received {value:g}."]


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that no run could follow.

    Raises:
        SettingsError: listing every problem at once.
    """
    problems = [
        *_data_problems(settings.data),
        *_split_problems(settings.splits),
        *_shape_problems(settings.preprocess),
        *_model_problems(settings.model),
        *_trainer_problems(settings),
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_audit_settings(settings: AuditSettings) -> None:
    """Refuse settings that no audit could follow.

    Raises:
        SettingsError: listing every problem at once.
    """
    problems = [
        *_data_problems(settings.data),
        *choice_problem("preprocess.prefer", settings.preprocess.prefer, ("sform", "qform")),
        *range_problem("thumbnails", settings.thumbnails, 0, 10_000),
        *range_problem("workers", settings.workers, 0, 1024),
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def _data_problems(data: DataSettings) -> list[str]:
    needs = {"phantom": "task", "manifest": "table", "medmnist3d": "npz"}
    problems = choice_problem("data.name", data.name, DATA_NAMES)
    needed = needs.get(data.name)
    if needed and getattr(data, needed) is None:
        problems.append(f"data.{needed}: data={data.name} needs it; say data.{needed}=...")
    return [
        *problems,
        *choice_problem("data.time_axis", data.time_axis, ("error", "channels", "depth", "first")),
        *choice_problem("data.on_bad_file", data.on_bad_file, ("stop", "skip")),
    ]


def _split_problems(splits: SplitSettings) -> list[str]:
    problems = range_problem("splits.val", splits.val, 0.01, 0.9)
    if splits.folds == 0:
        problems += range_problem("splits.test", splits.test, 0.0, 0.9)
        if splits.val + splits.test >= 1:
            problems.append(
                f"splits: expected val + test below 1; received {splits.val:g} + {splits.test:g}."
            )
        return problems
    if splits.folds < 2:
        return [*problems, f"splits.folds: expected 0 (no folds) or at least 2; received {splits.folds}."]
    return problems + range_problem("splits.fold", splits.fold, 0, splits.folds - 1)


def _shape_problems(preprocess: PreprocessSettings) -> list[str]:
    shape, spacing = preprocess.shape, preprocess.spacing
    problems = []
    if shape is not None and not _is_triple(shape, int):
        problems.append(
            f"preprocess.shape: expected three voxel counts [depth,height,width]; received {shape}."
        )
    if spacing != "native" and not _is_triple(spacing, int | float):
        problems.append(
            f"preprocess.spacing: expected three mm [depth,height,width] or native; received {spacing}."
        )
    return problems


def _is_triple(value: object, kind: type | UnionType) -> bool:
    items = value if isinstance(value, list) else []
    return len(items) == 3 and all(isinstance(item, kind) and item > 0 for item in items)  # type: ignore[operator]


def _model_problems(model: ModelSettings) -> list[str]:
    return [
        *choice_problem("model.kind", model.kind, MODEL_KINDS),
        *choice_problem("model.axis", model.axis, ("depth", "height", "width", "all")),
        *choice_problem("model.slices", model.slices, ("all", "central", "foreground")),
        *choice_problem("model.aggregate", model.aggregate, ("mean", "max", "topk", "attention")),
        *choice_problem("model.init", model.init, INITS),
        *choice_problem("model.depth_policy", model.depth_policy, DEPTH_POLICIES),
        *range_problem("model.dropout", model.dropout, 0.0, 0.95),
        *range_problem("model.rate_factor", model.rate_factor, 1e-6, 100.0),
    ]


def _trainer_problems(settings: TrainSettings) -> list[str]:
    trainer = settings.trainer
    return [
        *choice_problem("precision", settings.precision, PRECISIONS),
        *choice_problem("trainer.balance", trainer.balance, ("none", "sample", "weights")),
        *choice_problem("trainer.monitor", trainer.monitor, ("auc", "loss", "balanced_accuracy", "accuracy")),
        *choice_problem("optimizer.schedule", settings.optimizer.schedule, ("cosine", "constant")),
        *range_problem("trainer.epochs", trainer.epochs, 1, 100_000),
        *range_problem("trainer.batch_size", trainer.batch_size, 1, 100_000),
        *range_problem("trainer.label_smoothing", trainer.label_smoothing, 0.0, 0.5),
    ]
