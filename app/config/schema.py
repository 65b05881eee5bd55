"""The settings of each group of choices, one dataclass a group: the schema of the files under `conf/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


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
    """Fractions of the subjects, or k folds of which one is the test part.

    With outer folds, the outer fold's test part is set aside first: what is left is split as the rest says.
    """

    val: float = 0.2
    test: float = 0.2
    folds: int = 0
    fold: int = 0
    outer_folds: int = 0
    outer_fold: int = 0


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
    filter_scale: float = 1.0  # of all filter counts; up to 1 also for a network of another making
    head: str = "pool"  # of cnn and resnet: global pooling, or flatten with a weight for every place
    depth_kernel: int | None = None  # taps along depth; null: as many as along height
    dropout: float = 0.2
    depth_policy: Any = "isotropic"  # a name, a list of one per stage, or choices by layer
    init: str = "centre"
    columns: list[str] = field(default_factory=list)  # of the table, which kind=table predicts from
    axis: str = "depth"
    slices: str = "all"
    aggregate: str = "mean"
    slab: int = 1
    batch_factor: int = 1
    pretrain: bool = False  # train the 2D network on slices first, then lift it with what it learned
    rate_factor: float = 1.0  # of optimizer.learning_rate: trained weights are tuned with smaller steps
    freeze_epochs: int = 0  # in which only the head of a network with trained weights learns


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
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0  # of loss=focal: the larger, the less an easy example counts
    accumulate: int = 1  # batches whose gradients are averaged before each step
    ema: float = 0.0  # momentum of the average of the weights that is scored and kept; 0: none
    checkpoint_steps: int = 0  # batches between checkpoints within an epoch; 0: one after each epoch


@dataclass
class DevicesSettings:
    """What `strategy=mirrored` runs on."""

    logical_cpus: int = 0  # to try it without GPUs: so many devices made of the CPU; 0: this host's GPUs


@dataclass
class HostsSettings:
    """Which of several processes this one is, for `strategy=hosts`; Slurm tells what is null."""

    coordinator: str | None = None  # HOST:PORT of host 0, where all processes meet
    count: int | None = None  # of processes
    index: int | None = None  # of this one; 0 writes the run folder
    wait_seconds: int = 300  # for the others, at the start


@dataclass
class PreflightSettings:
    """What is looked at before the first epoch."""

    enabled: bool = True
    overfit_batch: bool = False  # also see whether the model can learn one batch by heart


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
    mlflow: bool = False
    mlflow_uri: str | None = None  # a server, or a folder as file:PATH; null: what MLflow itself chooses
    mlflow_experiment: str = "voxlift"
