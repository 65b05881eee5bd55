"""The settings of each group of keys, one dataclass per group: the schema of the files under `conf/`.

The classes are not frozen because Hydra overrides their fields; nothing changes them after the checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

NETWORK_KINDS = ("slice", "volume")
STAGES = {"cnn": (3, 5), "resnet": (2, 5)}  # of the baselines whose filters, dropout and head can be set
MODEL_KINDS = (*NETWORK_KINDS, "linear", "embedding", "table")
# What preprocess=auto leaves as it is: how files are read, what masks are for, and its own budget.
NOT_DECIDED = (
    *("budget", "axcodes", "nonfinite", "same_grid", "prefer"),
    *("mask", "mask_margin_mm", "mask_components"),
)


@dataclass
class DataSettings:
    """The source of subjects, images and labels (group `data`).

    Attributes:
        name: `phantom`, `manifest` or `medmnist3d`.
        task: Task of the phantom: `nodule` or `chirality` (classes), `winding` (grades), `pitch` (a number),
            or `signs` (findings).
        subjects: Number of phantom subjects.
        folder: Folder for the generated or converted NIfTI files of `phantom` and `medmnist3d`.
        table: CSV, TSV, .xlsx, or a folder with one sub-folder per class.
        root: Folder that image paths in the table are relative to; null: the table's folder.
        npz: File of MedMNIST, such as `adrenalmnist3d.npz`.
        image_column: Column of the image file; or a pattern over columns, such as
            `{participant_id}/anat/{participant_id}_T1w.nii.gz`, where `*` finds all matching files.
        image_columns: Columns of the image files of a subject, one per channel; replaces `image_column`.
        label_column: Column of the label.
        label_columns: Of `task=findings`: columns of findings, with 1 or 0, yes or no, or an empty cell.
        subject_column: Column of the subject, which is never in two splits; null: one subject per row, where
            the table has no usual column for it.
        split_column: Column with the split of a row (`train`, `val`, `test`); null: splits are drawn.
        mask_column: Column of each row's mask (a column or a pattern, as `image_column`), on any grid; see
            `preprocess.mask`. null: none.
        centre_columns: Instead of a mask, columns of a point [x, y, z] in world mm; rows of one image with
            different points are records of their own.
        centre_space: Directions that the coordinates grow towards: `RAS` (NIfTI) or `LPS` (DICOM, ITK).
        embeddings: CSV, TSV, .npz or .h5 file of vectors by image or subject, which `kind=embedding` predicts
            from.
        classes: Class names in index order; empty: those of the table. Rows with other labels are left out.
        label_bins: Edges that turn a number into classes: `[5]` makes class 0 below 5 and class 1 from 5 on.
        time_axis: What to do with a fourth image axis: `error`, `channels`, `depth` or `first`.
        on_bad_file: `stop`, or `skip`, which leaves bad files out and lists them in `left_out.csv`.
    """

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
    label_columns: list[str] = field(default_factory=list)
    subject_column: str | None = None
    split_column: str | None = None
    mask_column: str | None = None
    centre_columns: list[str] = field(default_factory=list)
    centre_space: str = "RAS"
    embeddings: str | None = None
    classes: list[str] = field(default_factory=list)
    label_bins: list[float] = field(default_factory=list)
    time_axis: str = "error"
    on_bad_file: str = "stop"


@dataclass
class TaskSettings:
    """What is predicted (group `task`).

    Attributes:
        name: `classes`, `findings` (several yes/no labels), `grades` (ordered classes) or `number`.
        unit: Of a number, for tables and figures, such as `years`; empty: none.
    """

    name: str = "classes"
    unit: str = ""


@dataclass
class SplitSettings:
    """Fractions of the subjects, or k folds of which one is the test split.

    Attributes:
        val: Fraction of the subjects for validation, 0.01 to 0.9.
        test: Fraction of the subjects for the test, 0 to 0.9; not used with folds.
        folds: Number of folds, at least 2; 0: no folds.
        fold: Index of the fold that is the test split, from 0.
        outer_folds: Number of outer folds of a nested cross-validation, at least 2; 0: none.
        outer_fold: Index of the outer fold whose subjects are set aside before all else, from 0.
        train_fraction: Fraction of the training subjects that are used, above 0 and up to 1; the subjects of
            a smaller fraction are among those of a larger one.
        by: Column of the table, such as `site`, all of whose rows with one value are in one split; null:
            splits are by subject.
        leave_out: Column, such as `site`, each of whose values is a fold: `splits.fold` tests the subjects of
            one, in alphabetical order; `voxlift-compare` runs them all, and so do the studies that score test
            subjects (`learning_curve`, `shortcuts`) unless `splits.fold` is given. null: no such folds.
        calibration: Fraction of the subjects that are taken out of training and only calibrate prediction
            sets, 0 to 0.5; 0: no sets.
    """

    val: float = 0.2
    test: float = 0.2
    folds: int = 0
    fold: int = 0
    outer_folds: int = 0
    outer_fold: int = 0
    train_fraction: float = 1.0
    by: str | None = None
    leave_out: str | None = None
    calibration: float = 0.0


@dataclass
class PreprocessSettings:
    """Preprocessing of an image file to the voxels of a network (group `preprocess`).

    Attributes:
        name: Of the chosen option.
        spacing: mm, ordered [depth, height, width]; `native`: as stored.
        shape: Voxels, ordered [depth, height, width]; null: the shape that all images share.
        fit: How the shape is reached: `pad_crop` about the centre, or `resize`.
        axcodes: World directions that the axes point to; depth is the last. null: the stored axes.
        interpolation: `linear` or `nearest`.
        antialias: Whether to blur before downsampling (linear only).
        window_hu: Lower and upper bound in the image's units (HU for CT), mapped to 0..1 and clipped.
        clip_percentiles: Lower and upper percentile, 0 to 100, to clip to.
        zscore: `none`, `whole` (over all scanned voxels) or `foreground`.
        foreground_crop: Whether to crop to the box around the foreground first.
        foreground_threshold: Values above it are foreground; null: found in each image.
        foreground_margin_mm: Margin around the foreground box, mm.
        pad: Value outside the scanned field; null: the window's lower bound, else the image's minimum.
        nonfinite: `pad` replaces NaN and infinite voxels by the padding value; `error` refuses the image.
        same_grid: Whether all channels must share a grid; false resamples later channels to the first.
        prefer: `sform` or `qform`: the affine to use where a NIfTI header has two different ones.
        mask: What the mask or centre of each row is for: `crop` (to its box with the margin), `channel` (the
            mask becomes the last channel), `blank` (what is outside the mask counts as not scanned), a list
            of these, or `none`; a centre can only crop. null: `crop` where the data name masks or centres.
        mask_margin_mm: Margin around the mask's box or the centre, mm; null: the crop is as large as `shape`.
        mask_components: `union`, or `largest`: only the largest connected part of a mask counts.
        budget: Of `preprocess=auto`: the grid has at most this number cubed of voxels, 16 to 512.
    """

    name: str = MISSING
    spacing: Any = "native"
    shape: Any = None
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
    mask: Any = None
    mask_margin_mm: float | None = 10.0
    mask_components: str = "union"
    budget: int = 64


@dataclass
class ModelSettings:
    """The 2D network, and whether it scores slices or is lifted to score volumes (group `model`).

    Attributes:
        name: Of the chosen option.
        kind: `slice` or `volume` network; or without a network `linear` (of voxels), `embedding` (of vectors
            from `data.embeddings`) or `table` (of columns).
        baseline: The 2D network: `cnn`, `resnet`, `tutorial`, a name of keras.applications, a .keras file or
            the folder of a finished slice run; or kimm:NAME, keras_hub:NAME, or keras_hub:FOLDER, a preset
            with its weights. A 3D .keras file is trained by `kind=volume` as it is.
        builder: The user's own 2D network in place of `baseline`: `_target_`, the full name of a function of
            `input_shape` and `classes` that returns a Keras model, and its further arguments.
        weights: Trained weights of a network of keras.applications or kimm: `imagenet` (in ~/.keras/models,
            or models in $KERAS_HOME; else a download); or a weights file of the network without its top, of
            keras_hub too, whose input is then 0 to 1; null: none.
        filters: Filters of each stage of `cnn` and `resnet`.
        filter_scale: Factor of all filter counts, 0.01 to 16; at most 1 for any other network.
        head: Of `cnn` and `resnet`: `pool` (global average) or `flatten` (a weight for every position).
        depth_kernel: Kernel size along depth, 1 to 99; null: that along height.
        dropout: Rate, 0 to 0.95.
        depth_policy: How strides and pooling reduce depth: `isotropic`, `preserve`, `slicewise` or `spacing`;
            or a list with one per stage, or choices by layer.
        init: Weights of the lifted kernels: `centre`, `mean`, `acs` or `random`.
        columns: Columns of the table that `kind=table` predicts from, or that `join_columns` joins.
        join_columns: Whether `columns` are a second input of the network, joined to its features before the
            head. Numbers are standardised, gaps marked, words one-hot encoded, by the training subjects.
        axis: Axis of the slices: `depth`, `height`, `width` or `all`.
        slices: Slices that are used: `all`, `central` (the middle half) or `foreground`.
        aggregate: From scores of slices to that of the volume: `mean`, `max`, `topk` or `attention`; or
            `gated_attention` over the features of slices and of both neighbours, which are then classified.
        slab: Neighbouring slices that are stacked as channels.
        batch_factor: Slices per volume of `trainer.batch_size` in a batch of a slice model.
        pretrain: Whether to train the 2D network on slices first, then lift it, or pool its features. It is
            not done where `baseline` is trained.
        rate_factor: Factor of `optimizer.learning_rate` for trained weights.
        freeze_epochs: First epochs in which only the head of a network with trained weights is trained; with
            `pretrain` those of both stages, where `weights` or `builder` gives the trained weights.
        frozen: Whether the 2D network of `aggregate=gated_attention` keeps its weights throughout. Its
            features are computed in every step, and so of augmented volumes.
    """

    name: str = MISSING
    kind: str = MISSING
    baseline: str = "cnn"
    builder: Any = None
    weights: str | None = None
    filters: list[int] = field(default_factory=lambda: [16, 32, 64])
    filter_scale: float = 1.0
    head: str = "pool"
    depth_kernel: int | None = None
    dropout: float = 0.2
    depth_policy: Any = "isotropic"
    init: str = "centre"
    columns: list[str] = field(default_factory=list)
    join_columns: bool = False
    axis: str = "depth"
    slices: str = "all"
    aggregate: str = "mean"
    slab: int = 1
    batch_factor: int = 1
    pretrain: bool = False
    rate_factor: float = 1.0
    freeze_epochs: int = 0
    frozen: bool = False

    @property
    def has_network(self) -> bool:
        """Whether a network is trained; other models are fitted at once, without Keras."""
        return self.kind in NETWORK_KINDS

    @property
    def has_stages(self) -> bool:
        """Whether filters, dropout and head are those of the settings."""
        return self.builder is None and self.baseline in STAGES

    @property
    def has_given_weights(self) -> bool:
        """Whether the network is built with trained weights."""
        return self.weights is not None or self.has_preset

    @property
    def has_preset(self) -> bool:
        """Whether `baseline` is `keras_hub:FOLDER`, a network with its weights."""
        library, _, folder = self.baseline.partition(":")
        return library == "keras_hub" and bool(folder) and Path(folder).expanduser().is_dir()

    @property
    def reads_columns(self) -> bool:
        """Whether `columns` count: those of a table alone, or joined to images."""
        return self.kind == "table" or self.join_columns


@dataclass
class OptimizerSettings:
    """The optimiser and its learning rate (group `optimizer`).

    Attributes:
        name: Class name of a Keras optimiser.
        learning_rate: At its highest, after the warm-up.
        weight_decay: As Keras takes it.
        warmup_epochs: Epochs in which the learning rate rises linearly.
        schedule: After the warm-up: `cosine` (decay to the last epoch) or `constant`.
        clip_norm: Largest global norm of the gradients; null: no clipping.
        options: Further arguments of the optimiser's class.
    """

    name: str = "AdamW"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    clip_norm: float | None = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerSettings:
    """Epochs, batches, loss and checkpoints.

    Attributes:
        epochs: Number of epochs.
        batch_size: Volumes per batch over all devices; a slice model takes `model.batch_factor` times as many
            slices.
        monitor: Validation metric that selects the best epoch; `auto`: the task's first. Classes: `auc`,
            `loss`, `balanced_accuracy` or `accuracy`; findings: `auc`, `loss`, `average_precision` or
            `balanced_accuracy`; grades: `kappa_quadratic`, `loss`, `mae_grades`, `auc`, `accuracy` or
            `balanced_accuracy`; number: `mae`, `loss`, `rmse`, `r2`, `pearson` or `spearman`.
        patience: Epochs without a better one after which training ends; 0: never.
        balance: `none`, `sample` (rare classes are drawn more often) or `weights` (they count more).
        label_smoothing: 0 to 0.5.
        loss: `auto`: the task's first. Classes: `cross_entropy` or `focal`; findings: `binary_cross_entropy`
            or `focal`; grades: `cumulative` or `cross_entropy`; number: `huber` or `squared`.
        focal_gamma: Exponent of the focal loss, 0 to 10: the larger, the less an easy example counts.
        accumulate: Batches whose gradients are averaged before each step.
        ema: Momentum of the exponential moving average of the weights, which is scored and saved; 0: none.
        checkpoint_steps: Batches between checkpoints within an epoch; 0: one checkpoint after each epoch.
    """

    epochs: int = 30
    batch_size: int = 8
    monitor: str = "auto"
    patience: int = 0
    balance: str = "none"
    label_smoothing: float = 0.0
    loss: str = "auto"
    focal_gamma: float = 2.0
    accumulate: int = 1
    ema: float = 0.0
    checkpoint_steps: int = 0


@dataclass
class ClusterSettings:
    """Where independent jobs run: trainings of a comparison, or shards of files (group `cluster`), with Dask.

    Attributes:
        name: `none` (one after another, here), `local` (processes of this machine), `scheduler` (workers that
            you have started), or a queueing system: `slurm`, `pbs`, `sge` or `lsf`.
        workers: Most workers at once, each with one job at a time: processes of `local`, or jobs in the
            queue. Not used by `scheduler`.
        threads: CPU threads of each job, which are also the CPUs of its place in the queue; null: the CPUs
            divided by the workers of `local`, else all of them. Equal threads give equal results, to the bit
            with `deterministic=true`.
        gpus: GPUs of each job. Workers of `scheduler` must offer them: `dask worker --resources GPU=1`.
        address: Of the scheduler, such as `tcp://host:8786`; for `scheduler`.
        queue: Queue or partition of the jobs; null: the system's own.
        account: Account or project that the jobs are charged to; null: the user's own.
        memory: Of a job, such as `16GiB`.
        walltime: Time limit of a job, such as `04:00:00`. A training that it ends is resumed by the next job.
        interface: Network interface between jobs and this machine, such as `ib0`; null: Dask's choice.
        directives: Further lines of a job's header, without their prefix, such as `--constraint=a100`.
        prologue: Commands of a job before its worker, such as `module load cuda`.
        shard_size: Files that a worker reads, or scans that it scores, in one job; null: a quarter of a
            worker's part, at most 256.
        retries: How often a job may lose its worker before it counts as failed.
        dry_run: Whether to print the job script that would be submitted, and to do nothing else.
    """

    name: str = "none"
    workers: int = 2
    threads: int | None = None
    gpus: int = 0
    address: str | None = None
    queue: str | None = None
    account: str | None = None
    memory: str | None = None
    walltime: str | None = None
    interface: str | None = None
    directives: list[str] = field(default_factory=list)
    prologue: list[str] = field(default_factory=list)
    shard_size: int | None = None
    retries: int = 3
    dry_run: bool = False


@dataclass
class VerdictSettings:
    """What a verdict on a pair of models is about.

    Attributes:
        margin: Smallest difference of the primary metric that matters, in its unit, above 0. Models whose
            difference is shown to be smaller are called equivalent. null: 0.05; for a number a tenth of the
            mean absolute error of always predicting the training median.
    """

    margin: float | None = None


@dataclass
class EvaluationSettings:
    """What is reported about the subjects and their scores; nothing here changes a training.

    Attributes:
        by: What divides the subjects into groups that are scored apart: columns of the table, or of the image
            files `header.spacing`, `header.shape`, `header.axcodes`, `header.format`, `header.folder`, and
            `header.spacing.depth` ... as numbers. `age:50,65` cuts a number at edges.
        quantiles: Number of groups of about equal size of a number without edges, 2 to 10.
        min_subjects: Subjects below which a group is listed as too small, without figures; at least 2.
        describe: Columns of the table of subjects, besides age, sex and site, found by their usual names.
        recalibrate: Of external data: the fraction of the subjects on which probabilities are recalibrated,
            0 to 0.9; 0: none. They are left out of the figures after recalibration.
        same_names: Of external data: whether a subject's name that the run was trained on is an error
            (`refuse`) or another person (`ignore`); files and voxels are compared either way.
        coverage: Of prediction sets, 0.5 to 0.99; they need `splits.calibration`.
        prevalence: Share of the second class where the model is to be used, for PPV and NPV, above 0 and
            below 1; null: that of the subjects.
        paired_within: `subject`: of two classes, report the forced choice, too: how often, of two scans of
            one subject, that of the second class has the higher score. null: not.
        top_k: Of more classes than this, report the top-k accuracy, too: how often the true class is among
            the k most probable ones; at least 2.
    """

    by: list[str] = field(default_factory=list)
    quantiles: int = 3
    min_subjects: int = 10
    describe: list[str] = field(default_factory=list)
    recalibrate: float = 0.0
    same_names: str = "refuse"
    coverage: float = 0.9
    prevalence: float | None = None
    paired_within: str | None = None
    top_k: int = 5


@dataclass
class PageSettings:
    """The cases on a page: volumes with their prediction; nothing here changes a training.

    Attributes:
        interactive: Whether the cases can be scrolled, with opacity and window, in a browser; else pictures.
            The voxels that a browser shows are part of the page: at most 96 along a side, and 1.5 MB a case.
        cases: Number of volumes on the page, 0 to 100; 0: none.
    """

    interactive: bool = True
    cases: int = 12


@dataclass
class ExternalDataSettings:
    """The table of external data; null: as in the run.

    Attributes:
        table: As `data.table`; null: the run's own split is scored.
        root: As `data.root`; null: the table's folder.
        image_column: As `data.image_column`.
        image_columns: As `data.image_columns`.
        label_column: As `data.label_column`.
        subject_column: As `data.subject_column`.
        mask_column: As `data.mask_column`.
        centre_columns: As `data.centre_columns`.
        centre_space: As `data.centre_space`.
        classes: The names of the run's classes in this table, in the run's order.
        label_columns: The columns of the run's findings in this table, in the run's order.
        label_bins: As `data.label_bins`.
        embeddings: As `data.embeddings`.
        time_axis: As `data.time_axis`.
        on_bad_file: As `data.on_bad_file`.
    """

    table: str | None = None
    root: str | None = None
    image_column: str | None = None
    image_columns: list[str] | None = None
    label_column: str | None = None
    subject_column: str | None = None
    mask_column: str | None = None
    centre_columns: list[str] | None = None
    centre_space: str | None = None
    classes: list[str] | None = None
    label_columns: list[str] | None = None
    label_bins: list[float] | None = None
    embeddings: str | None = None
    time_axis: str | None = None
    on_bad_file: str | None = None


@dataclass
class DevicesSettings:
    """The devices of `strategy=mirrored`.

    Attributes:
        logical_cpus: Number of virtual devices that the CPU is divided into, to test without GPUs; 0: the
            GPUs of this host.
    """

    logical_cpus: int = 0


@dataclass
class HostsSettings:
    """The place of this process among those of `strategy=hosts`; null: read from Slurm or Open MPI.

    Attributes:
        coordinator: HOST:PORT of host 0, where all processes connect.
        count: Number of processes.
        index: Of this process, from 0; process 0 writes the run folder.
        wait_seconds: Seconds to wait for the other processes at the start.
        heartbeat_seconds: Seconds without a sign of a process after which it counts as lost.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    wait_seconds: int = 300
    heartbeat_seconds: int = 60


@dataclass
class PreflightSettings:
    """Checks before the first epoch.

    Attributes:
        enabled: Whether to estimate memory and speed before the training.
        overfit_batch: Whether to check also that the model can overfit one batch.
        lift: Whether to check a lifted network against the 2D one, on repeated slices.
        verbose: Whether to print the tables of splits, layers and memory also where nothing in them needs a
            look.
    """

    enabled: bool = True
    overfit_batch: bool = False
    lift: bool = True
    verbose: bool = False


@dataclass
class CacheSettings:
    """The cache of preprocessed volumes.

    Attributes:
        folder: Where it is.
        max_gb: Largest size, in GB (10^9 bytes).
        workers: Files that are prepared at a time; 0: one per CPU.
    """

    folder: str = ".cache/voxlift"
    max_gb: float = 20.0
    workers: int = 0


@dataclass
class LoggerSettings:
    """Logs beside the run folder's own files (group `logger`).

    Attributes:
        tensorboard: Whether to write TensorBoard events into the run folder.
        mlflow: Whether to log to MLflow.
        mlflow_uri: A server, or a folder as `file:PATH`; null: MLflow's default.
        mlflow_experiment: Name of the MLflow experiment.
    """

    tensorboard: bool = True
    mlflow: bool = False
    mlflow_uri: str | None = None
    mlflow_experiment: str = "voxlift"
