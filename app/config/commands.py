"""The settings of each command, one dataclass each, and the registration of all schemas with Hydra.

The classes are not frozen because Hydra overrides their fields; nothing changes them after the checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from voxlift.app.config.schema import (
    CacheSettings,
    ClusterSettings,
    DataSettings,
    DevicesSettings,
    EvaluationSettings,
    ExternalDataSettings,
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    OptimizerSettings,
    PageSettings,
    PreflightSettings,
    PreprocessSettings,
    SplitSettings,
    TaskSettings,
    TrainerSettings,
    VerdictSettings,
)
from voxlift.app.config.studies import STUDIES


@dataclass
class TrainSettings:
    """All settings of `voxlift-train`.

    Attributes:
        task: See `TaskSettings`.
        data: See `DataSettings`.
        splits: See `SplitSettings`.
        preprocess: See `PreprocessSettings`.
        augment: Arguments of `data_pipelines.augment.Augment`, and `name` of the chosen option.
        model: See `ModelSettings`.
        optimizer: See `OptimizerSettings`.
        trainer: See `TrainerSettings`.
        preflight: See `PreflightSettings`.
        logger: See `LoggerSettings`.
        evaluation: See `EvaluationSettings`.
        report: See `PageSettings`.
        cache: See `CacheSettings`.
        precision: `auto` (bfloat16 where the device computes fast in it), `float32`, `mixed_bfloat16` or
            `mixed_float16`.
        device: `auto`, `cpu` (leave a GPU unused) or `gpu` (refuse to train without one).
        deterministic: Whether every operation must repeat its bits; see `voxlift-train --help`.
        strategy: `single` (one device), `mirrored` (all GPUs of this host) or `hosts` (several hosts).
        devices: See `DevicesSettings`.
        hosts: See `HostsSettings`.
        seed: Of splits, weights, order and augmentation.
        run_dir: Run folder; null: a new one in `runs_folder`.
        resume: Run folder whose training is resumed, with its own configuration; null: a new training.
        runs_folder: Parent of new run folders.
        custom: Modules to import, which register the user's own layers and lift rules.
        debug: Whether to show the traceback of errors that the user can fix.
    """

    task: TaskSettings = field(default_factory=TaskSettings)
    data: DataSettings = field(default_factory=DataSettings)
    splits: SplitSettings = field(default_factory=SplitSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    augment: dict[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    preflight: PreflightSettings = field(default_factory=PreflightSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    report: PageSettings = field(default_factory=PageSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    precision: str = "auto"
    device: str = "auto"
    deterministic: bool = False
    strategy: str = "single"
    devices: DevicesSettings = field(default_factory=DevicesSettings)
    hosts: HostsSettings = field(default_factory=HostsSettings)
    seed: int = 0
    run_dir: str | None = None
    resume: str | None = None
    runs_folder: str = "runs"
    custom: list[str] = field(default_factory=list)
    debug: bool = False


@dataclass
class CompareSettings(TrainSettings):
    """All settings of `voxlift-compare`: those of a training, and what differs between trainings.

    Attributes:
        models: At least two names of options of the group `model`, of experiments, or of lists in `best_of`.
        best_of: Lists of models by name; validation selects one model of a list.
        seeds: Each trains every model once.
        verdict: See `VerdictSettings`.
        cluster: See `ClusterSettings`.
    """

    models: list[str] = field(default_factory=lambda: ["slice2d", "volume3d"])
    best_of: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    verdict: VerdictSettings = field(default_factory=VerdictSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)


@dataclass
class EvaluateSettings:
    """All settings of `voxlift-evaluate`.

    Attributes:
        run: Folder of a finished run. With `data.table` also a list of runs, whose mean is scored, or
            the folder of a comparison.
        on: Split of the run to score: `train`, `val` or `test`.
        data: See `ExternalDataSettings`.
        output: New or empty folder for the results on external data.
        evaluation: See `EvaluationSettings`.
        report: See `PageSettings`; used on external data.
        batch_size: Volumes scored at once; null: as in the training.
        engine: What computes the scores, as in `PredictSettings`.
        custom: As in `TrainSettings`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    run: Any = None
    on: str = "test"
    data: ExternalDataSettings = field(default_factory=ExternalDataSettings)
    output: str | None = None
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    report: PageSettings = field(default_factory=PageSettings)
    batch_size: int | None = None
    engine: str = "tensorflow"
    custom: list[str] = field(default_factory=list)
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class PredictSettings:
    """All settings of `voxlift-predict`.

    Attributes:
        run: Folder of a finished run, or a list of them, whose probabilities are averaged.
        input: An image file, a folder (searched at any depth), or a CSV or TSV table.
        output: CSV file to write; with `embed` also .npz.
        explain: `false`, `true` or `gradcam` (Grad-CAM), `occlusion`, or `both`.
        explain_class: Name of the class to explain; null: the decided one.
        explain_layer: Layer of Grad-CAM; null: the last convolution.
        embed: Whether to write the features of the network, the input of its head, in place of scores; a file
            for `data.embeddings`.
        tta: Test-time augmentation: `none`, `flips` (axes that training flipped), `half_turns` or `shifts`
            (one voxel each way).
        report: See `PageSettings`; the page is written beside the output where `explain` is asked for.
        cluster: See `ClusterSettings`.
        image_columns: Columns of the image files in a table; empty: as in the run.
        subject_column: Column of the subject in a table; null: as in the run.
        mask_column: Column of the masks in a table, for a run that needs them; null: as in the run.
        centre_columns: Columns of the centres in a table, for a run that needs them; empty: as in the run.
        centre_space: `RAS` or `LPS`, as `data.centre_space`; null: as in the run.
        root: Folder that image paths in a table are relative to; null: the table's folder.
        batch_size: Volumes scored at once; null: as in the training.
        engine: What computes the scores: `tensorflow` (the network as trained), `openvino` (its conversion,
            on a CPU, once it agrees with the network; extra `openvino`) or `auto` (the faster of both, by a
            short measurement, where there are enough volumes).
        workers: Threads that read files; 0: one per CPU.
        overwrite: Whether an existing output is replaced.
        custom: As in `TrainSettings`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    run: Any = None
    input: str | None = None
    output: str = "predictions.csv"
    explain: Any = False
    explain_class: str | None = None
    explain_layer: str | None = None
    embed: bool = False
    tta: str = "none"
    report: PageSettings = field(default_factory=PageSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    image_columns: list[str] = field(default_factory=list)
    subject_column: str | None = None
    mask_column: str | None = None
    centre_columns: list[str] = field(default_factory=list)
    centre_space: str | None = None
    root: str | None = None
    batch_size: int | None = None
    engine: str = "tensorflow"
    workers: int = 0
    overwrite: bool = False
    custom: list[str] = field(default_factory=list)
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class ExportSettings:
    """All settings of `voxlift-export`.

    Attributes:
        run: Folder of a finished run.
        output: New or empty folder.
        format: `saved_model` or `onnx`.
        custom: As in `TrainSettings`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    run: str | None = None
    output: str | None = None
    format: str = "saved_model"
    custom: list[str] = field(default_factory=list)
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class ReportSettings:
    """All settings of `voxlift-report`.

    Attributes:
        run: Folder of a finished run, for its checklist.
        checklist: `claim`: the items of CLAIM 2024.
        external: Folder of an evaluation of this run on external data, for its item; null: none.
        sample_size: Folder of a finished `study=sample_size`, for its item; null: none.
        runs: Folder with runs at any depth, for one table over all of them.
        sort: Column of that table: `auc` or another metric, `model`, `data` or `seconds`.
        output: Folder for the files; null: that of `run` or `runs`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    run: str | None = None
    checklist: str = "claim"
    external: str | None = None
    sample_size: str | None = None
    runs: str | None = None
    sort: str = "data"
    output: str | None = None
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class AuditSettings:
    """All settings of `voxlift-audit`.

    Attributes:
        task: See `TaskSettings`.
        data: See `DataSettings`.
        preprocess: See `PreprocessSettings`; only how files are read, and `budget`, are used.
        evaluation: See `EvaluationSettings`; only `describe` is used.
        cluster: See `ClusterSettings`.
        output: Folder for the results; null: named after the data, in `runs_folder`.
        thumbnails: Number of images shown on the page, 0 to 10000.
        measure: Whether to write `audit.measures.csv`, a table for `model=covariates`: volume, surface, mean
            and percentiles of the masks, or of the images.
        workers: Files read at a time; 0: one per CPU.
        runs_folder: Parent of the default output.
        debug: As in `TrainSettings`.
    """

    task: TaskSettings = field(default_factory=TaskSettings)
    data: DataSettings = field(default_factory=DataSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    output: str | None = None
    thumbnails: int = 60
    measure: bool = False
    workers: int = 0
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class PrepareSettings:
    """All settings of `voxlift-prepare`.

    Attributes:
        task: See `TaskSettings`; only how labels are read is used.
        data: See `DataSettings`.
        preprocess: See `PreprocessSettings`.
        cache: See `CacheSettings`.
        cluster: See `ClusterSettings`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    task: TaskSettings = field(default_factory=TaskSettings)
    data: DataSettings = field(default_factory=DataSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class LiftSettings:
    """All settings of `voxlift-lift`.

    Attributes:
        network: A name of keras.applications, a .keras file, or the folder of a finished slice run.
        weights: Of a named network: null (random), `imagenet`, or a file.
        include_top: Whether a named network keeps its last layers (the classifier).
        depth: Slices of a volume; null: variable.
        input_shape: Voxels of a volume, [depth, height, width]; null: the planes of the 2D network.
        depth_policy: As `model.depth_policy`.
        spacing: Of a voxel in mm, [depth, height, width]; for `depth_policy=spacing`.
        init: As `model.init`.
        channels: Of the volumes; null: as many as the 2D network has.
        filters: Factor of all filter counts, or a list of factors or counts, one per stage; null: unchanged.
        classes: Outputs of a new last layer, initialised anew; null: the last layer is lifted too.
        logits: Whether to remove a softmax or sigmoid at the end.
        output: The .keras file to write.
        overwrite: Whether an existing output is replaced.
        plan_only: Whether to print the plan and build nothing.
        verify: Whether to check the lift numerically before the model is written.
        seed: Of random weights and of the inputs of the check.
        custom: As in `TrainSettings`.
        runs_folder: Folder for the record of a sweep (`-m`).
        debug: As in `TrainSettings`.
    """

    network: str | None = None
    weights: str | None = None
    include_top: bool = True
    depth: int | None = None
    input_shape: list[int] | None = None
    depth_policy: Any = "isotropic"
    spacing: list[float] | None = None
    init: str = "centre"
    channels: int | None = None
    filters: Any = None
    classes: int | None = None
    logits: bool = False
    output: str | None = None
    overwrite: bool = False
    plan_only: bool = False
    verify: bool = True
    seed: int = 0
    custom: list[str] = field(default_factory=list)
    runs_folder: str = "runs"
    debug: bool = False


@dataclass
class StudySettings(TrainSettings):
    """All settings of `voxlift-study`: those of a training, and the study.

    Attributes:
        study: See `STUDIES`.
        run: Folder of a finished comparison, for `study=sample_size`.
        verdict: See `VerdictSettings`.
        cluster: See `ClusterSettings`.
    """

    study: Any = MISSING
    run: str | None = None
    verdict: VerdictSettings = field(default_factory=VerdictSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)


COMMANDS: dict[str, type] = {
    "train": TrainSettings,
    "compare": CompareSettings,
    "evaluate": EvaluateSettings,
    "predict": PredictSettings,
    "export": ExportSettings,
    "report": ReportSettings,
    "audit": AuditSettings,
    "prepare": PrepareSettings,
    "lift": LiftSettings,
    "study": StudySettings,
}


def register_schemas() -> None:
    """Register the schema of each command, and of each option of the group `study`, with Hydra."""
    store = ConfigStore.instance()
    for name, schema in COMMANDS.items():
        store.store(name=f"{name}_schema", node=schema)
    for name, schema in STUDIES.items():
        store.store(group="study", name=f"{name}_schema", node=schema)
