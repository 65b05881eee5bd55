"""What a check says of one setting: nothing, or a sentence with what was expected and received."""

from __future__ import annotations

import importlib.util
from types import UnionType

from voxlift.app.config.commands import AuditSettings, TrainSettings
from voxlift.app.config.schema import (
    DataSettings,
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    PreprocessSettings,
    SplitSettings,
)
from voxlift.app.errors import install_extra, refuse_problems


def choice_problem(key: str, value: object, allowed: tuple[str, ...]) -> list[str]:
    """One sentence when `value` is not among `allowed`, else nothing.

    >>> choice_problem("precision", "half", ("auto", "float32"))
    ['precision: expected one of auto, float32; received half.']
    """
    if value in allowed:
        return []
    return [f"{key}: expected one of {', '.join(allowed)}; received {value}."]


def count_problem(key: str, value: int | None) -> list[str]:
    """One sentence when a number of things is given and below 1, else nothing."""
    return [] if value is None or value >= 1 else [f"{key}: expected at least 1; received {value}."]


def range_problem(key: str, value: float, low: float, high: float) -> list[str]:
    """One sentence when `value` lies outside [low, high], else nothing."""
    return [] if low <= value <= high else [f"{key}: expected {low:g} to {high:g}; received {value:g}."]


DATA_NAMES = ("phantom", "manifest", "medmnist3d")


def data_problems(data: DataSettings) -> list[str]:
    """One sentence for each thing wrong with where subjects come from (group `data`)."""
    needs = {"phantom": "task", "manifest": "table", "medmnist3d": "npz"}
    problems = choice_problem("data.name", data.name, DATA_NAMES)
    needed = needs.get(data.name)
    if needed and getattr(data, needed) is None:
        problems.append(f"data.{needed}: data={data.name} needs it; say data.{needed}=...")
    return [
        *problems,
        *_unread_problems(data),
        *choice_problem("data.time_axis", data.time_axis, ("error", "channels", "depth", "first")),
        *choice_problem("data.on_bad_file", data.on_bad_file, ("stop", "skip")),
    ]


def _unread_problems(data: DataSettings) -> list[str]:
    """What names the user's own files, where another data set would be read without a word."""
    readers = {"table": "manifest", "root": "manifest", "npz": "medmnist3d"}
    return [
        f"data.{key}={value}: data={data.name} does not read it; add data={reader}."
        for key, reader in readers.items()
        if (value := getattr(data, key)) is not None and data.name in DATA_NAMES and data.name != reader
    ]


def split_problems(splits: SplitSettings) -> list[str]:
    """One sentence for each thing wrong with the fractions or the folds."""
    problems = range_problem("splits.val", splits.val, 0.01, 0.9)
    problems += _fold_problems("outer_fold", splits.outer_folds, splits.outer_fold)
    if splits.folds == 0:
        problems += range_problem("splits.test", splits.test, 0.0, 0.9)
        if splits.val + splits.test >= 1:
            problems.append(
                f"splits: expected val + test below 1; received {splits.val:g} + {splits.test:g}."
            )
        return problems
    return problems + _fold_problems("fold", splits.folds, splits.fold)


def _fold_problems(name: str, folds: int, fold: int) -> list[str]:
    if folds == 0:
        return []
    if folds < 2:
        return [f"splits.{name}s: expected 0 (no folds) or at least 2; received {folds}."]
    return range_problem(f"splits.{name}", fold, 0, folds - 1)


def shape_problems(preprocess: PreprocessSettings) -> list[str]:
    """One sentence for each of shape (voxels) and spacing (mm) that is no triple of depth, height, width."""
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


MODEL_KINDS = ("slice", "volume", "table")
INITS = ("centre", "mean", "acs", "random")
DEPTH_POLICIES = ("isotropic", "preserve", "slicewise", "spacing")


def model_problems(model: ModelSettings) -> list[str]:
    """One sentence for each thing wrong with the network or its lift (group `model`)."""
    return [
        *choice_problem("model.kind", model.kind, MODEL_KINDS),
        *_column_problems(model),
        *choice_problem("model.axis", model.axis, ("depth", "height", "width", "all")),
        *choice_problem("model.slices", model.slices, ("all", "central", "foreground")),
        *choice_problem("model.aggregate", model.aggregate, ("mean", "max", "topk", "attention")),
        *choice_problem("model.init", model.init, INITS),
        *depth_policy_problems("model.depth_policy", model.depth_policy),
        *choice_problem("model.head", model.head, ("pool", "flatten")),
        *range_problem("model.filter_scale", model.filter_scale, 0.01, 16.0),
        *(
            []
            if model.depth_kernel is None
            else range_problem("model.depth_kernel", model.depth_kernel, 1, 99)
        ),
        *_scale_problems(model),
        *range_problem("model.dropout", model.dropout, 0.0, 0.95),
        *range_problem("model.rate_factor", model.rate_factor, 1e-6, 100.0),
        *range_problem("model.freeze_epochs", model.freeze_epochs, 0, 100_000),
    ]


def _column_problems(model: ModelSettings) -> list[str]:
    if model.kind != "table" or model.columns:
        return []
    return ["model.columns: expected columns of the table to predict from, as in 'model.columns=[age,sex]'."]


def _scale_problems(model: ModelSettings) -> list[str]:
    """What only the networks that are built here can follow: other networks are cut when they are lifted."""
    if model.baseline in {"cnn", "resnet"}:
        return []
    problems = []
    if model.head != "pool":
        problems.append(f"model.head={model.head}: only the baselines cnn and resnet have a choice of heads.")
    if model.filter_scale > 1 or (model.filter_scale < 1 and model.kind == "slice"):
        problems.append(
            f"model.filter_scale={model.filter_scale:g}: model.baseline={model.baseline} can only be cut to "
            "fewer filters, and only when it is lifted; expected up to 1, with a volume model."
        )
    return problems


def depth_policy_problems(key: str, policy: object) -> list[str]:
    """What is wrong with a depth policy: a name, a list of one per stage, a rule, or choices by layer.

    >>> depth_policy_problems("depth_policy", {"default": "preserve", "block5*": {"stride": 2}})
    []
    >>> depth_policy_problems("depth_policy", ["preserve", "deep"])
    ['depth_policy: expected one of isotropic, preserve, slicewise, spacing; received deep.']
    """
    if isinstance(policy, dict) and policy and set(policy) <= {"kernel", "stride", "pool"}:
        wrong = {part: size for part, size in policy.items() if not _is_depth_size(size)}
        return [
            f"{key}.{part}: expected height or a number above 0; received {size}."
            for part, size in wrong.items()
        ]
    if isinstance(policy, dict | list) and policy:
        choices = policy.values() if isinstance(policy, dict) else policy
        return [problem for choice in choices for problem in depth_policy_problems(key, choice)]
    return choice_problem(key, policy, DEPTH_POLICIES)


def _is_depth_size(size: object) -> bool:
    return size == "height" or (isinstance(size, int) and not isinstance(size, bool) and size > 0)


STRATEGIES = ("single", "mirrored", "hosts")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
SPLIT_NAMES = ("train", "val", "test")


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that no run could follow.

    Raises:
        SettingsError: listing every problem at once.
    """
    refuse_problems(
        [
            *data_problems(settings.data),
            *split_problems(settings.splits),
            *shape_problems(settings.preprocess),
            *model_problems(settings.model),
            *_spacing_problems(settings),
            *_trainer_problems(settings),
        ]
    )


def audit_problems(settings: AuditSettings) -> list[str]:
    """One sentence for each thing wrong with the settings of an audit."""
    return [
        *data_problems(settings.data),
        *choice_problem("preprocess.prefer", settings.preprocess.prefer, ("sform", "qform")),
        *range_problem("thumbnails", settings.thumbnails, 0, 10_000),
        *range_problem("workers", settings.workers, 0, 1024),
    ]


def _spacing_problems(settings: TrainSettings) -> list[str]:
    if settings.model.depth_policy != "spacing" or settings.preprocess.spacing != "native":
        return []
    way_out = "Set it in mm, as in 'preprocess.spacing=[4,1,1]', or take model.depth_policy=preserve."
    return [f"model.depth_policy=spacing: expected mm; preprocess.spacing is native. {way_out}"]


def _logger_problems(logger: LoggerSettings) -> list[str]:
    if not logger.mlflow or importlib.util.find_spec("mlflow") is not None:
        return []
    return [f"logger=mlflow: expected the package mlflow, which is not installed. {install_extra('mlflow')}"]


def _trainer_problems(settings: TrainSettings) -> list[str]:
    trainer = settings.trainer
    return [
        *choice_problem("precision", settings.precision, PRECISIONS),
        *_logger_problems(settings.logger),
        *choice_problem("device", settings.device, ("auto", "cpu", "gpu")),
        *range_problem("devices.logical_cpus", settings.devices.logical_cpus, 0, 64),
        *_strategy_problems(settings),
        *choice_problem("trainer.balance", trainer.balance, ("none", "sample", "weights")),
        *choice_problem("trainer.monitor", trainer.monitor, ("auc", "loss", "balanced_accuracy", "accuracy")),
        *choice_problem("optimizer.schedule", settings.optimizer.schedule, ("cosine", "constant")),
        *range_problem("trainer.epochs", trainer.epochs, 1, 100_000),
        *range_problem("trainer.batch_size", trainer.batch_size, 1, 100_000),
        *range_problem("trainer.label_smoothing", trainer.label_smoothing, 0.0, 0.5),
        *choice_problem("trainer.loss", trainer.loss, ("cross_entropy", "focal")),
        *range_problem("trainer.focal_gamma", trainer.focal_gamma, 0.0, 10.0),
        *range_problem("trainer.accumulate", trainer.accumulate, 1, 10_000),
        *range_problem("trainer.ema", trainer.ema, 0.0, 0.99999),
        *range_problem("trainer.checkpoint_steps", trainer.checkpoint_steps, 0, 10**9),
    ]


def _strategy_problems(settings: TrainSettings) -> list[str]:
    problems = choice_problem("strategy", settings.strategy, STRATEGIES)
    if settings.strategy == "mirrored" and settings.trainer.accumulate > 1:
        problems.append("trainer.accumulate: expected 1 with strategy=mirrored; raise trainer.batch_size.")
    if settings.strategy != "mirrored" and settings.devices.logical_cpus:
        problems.append("devices.logical_cpus: expected 0 unless strategy=mirrored, which alone reads it.")
    if settings.strategy == "hosts" and settings.model.kind == "table":
        name = settings.model.name
        problems.append(f"strategy: expected single for model={name}, which one process fits at once.")
    if settings.strategy != "hosts" and settings.hosts != HostsSettings():
        problems.append("hosts: expected none of its keys unless strategy=hosts, which alone reads them.")
    return problems
