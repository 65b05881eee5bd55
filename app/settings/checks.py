"""The door's checks: every problem of a configuration at once, before anything is read or built."""

from __future__ import annotations

import importlib.util
from types import UnionType

from app.settings.commands import AuditSettings, TrainSettings
from app.settings.groups import DataSettings, LoggerSettings, ModelSettings, PreprocessSettings, SplitSettings

MODEL_KINDS = ("slice", "volume")
DATA_NAMES = ("phantom", "manifest", "medmnist3d")
STRATEGIES = ("single", "mirrored")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
SPLIT_NAMES = ("train", "val", "test")
INITS = ("centre", "mean", "acs", "random")
DEPTH_POLICIES = ("isotropic", "preserve", "slicewise", "spacing")


class SettingsError(ValueError):
    """The configuration is at fault: the message says what was expected, received, and the way out."""


def choice_problem(key: str, value: object, allowed: tuple[str, ...]) -> list[str]:
    """One sentence when `value` is not among `allowed`, else nothing.

    >>> choice_problem("precision", "half", ("auto", "float32"))
    ['precision: expected one of auto, float32; received half.']
    """
    if value in allowed:
        return []
    return [f"{key}: expected one of {', '.join(allowed)}; received {value}."]


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


def _logger_problems(logger: LoggerSettings) -> list[str]:
    if not logger.mlflow or importlib.util.find_spec("mlflow") is not None:
        return []
    way_out = "Install it with: pip install 'voxlift[mlflow]'."
    return [f"logger=mlflow: expected the package mlflow, which is not installed. {way_out}"]


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
    if settings.strategy == "hosts":
        return ["strategy: hosts is not there yet; single and mirrored are, for the devices of one host."]
    problems = choice_problem("strategy", settings.strategy, STRATEGIES)
    if settings.strategy == "mirrored" and settings.trainer.accumulate > 1:
        problems.append("trainer.accumulate: expected 1 with strategy=mirrored; raise trainer.batch_size.")
    if settings.strategy != "mirrored" and settings.devices.logical_cpus:
        problems.append("devices.logical_cpus: expected 0 unless strategy=mirrored, which alone reads it.")
    return problems
