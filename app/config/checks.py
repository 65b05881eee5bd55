"""Check settings: each function returns one sentence per problem, with what was expected and received."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from itertools import pairwise
from types import UnionType

from voxlift.app.config.commands import AuditSettings, PrepareSettings, TrainSettings
from voxlift.app.config.schema import (
    MODEL_KINDS,
    NOT_DECIDED,
    STAGES,
    DataSettings,
    EvaluationSettings,
    HostsSettings,
    ModelSettings,
    PageSettings,
    PreprocessSettings,
    SplitSettings,
    VerdictSettings,
)
from voxlift.app.errors import SettingsError, install_extra, refuse_problems
from voxlift.app.tasks.base import TASK_NAMES, task_of

MASK_USES = ("crop", "channel", "blank")
DATA_NAMES = ("phantom", "manifest", "medmnist3d")
SPLIT_NAMES = ("train", "val", "test")
INITS = ("centre", "mean", "acs", "random")
DEPTH_POLICIES = ("isotropic", "preserve", "slicewise", "spacing")
AGGREGATES = ("mean", "max", "topk", "attention", "gated_attention")
STRATEGIES = ("single", "mirrored", "hosts")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that no training could follow.

    Raises:
        SettingsError: All problems at once.
    """
    refuse_problems(
        [
            *find_data_problems(settings.data),
            *_find_task_problems(settings),
            *find_split_problems(settings.splits),
            *find_shape_problems(settings.preprocess),
            *find_auto_problems(settings.preprocess),
            *find_mask_problems(settings.preprocess, settings.data),
            *find_model_problems(settings.model),
            *_find_embedding_problems(settings),
            *_find_spacing_problems(settings),
            *_find_weights_problems(settings),
            *_find_trainer_problems(settings),
            *find_evaluation_problems(settings.evaluation),
            *find_report_problems(settings.report),
            *_find_strategy_problems(settings),
        ]
    )


def find_audit_problems(settings: AuditSettings) -> list[str]:
    """Return one sentence for each problem in the settings of an audit."""
    return [
        *find_data_problems(settings.data),
        *_find_label_problems(settings),
        *find_mask_problems(settings.preprocess, settings.data),
        *find_auto_problems(settings.preprocess),
        *find_choice_problems("preprocess.prefer", settings.preprocess.prefer, ("sform", "qform")),
        *find_evaluation_problems(settings.evaluation),
        *find_range_problems("thumbnails", settings.thumbnails, 0, 10_000),
        *find_range_problems("workers", settings.workers, 0, 1024),
    ]


def find_prepare_problems(settings: PrepareSettings) -> list[str]:
    """Return one sentence for each problem in the settings of a preparation, but those of its cluster."""
    return [
        *find_data_problems(settings.data),
        *_find_label_problems(settings),
        *find_shape_problems(settings.preprocess),
        *find_auto_problems(settings.preprocess),
        *find_mask_problems(settings.preprocess, settings.data),
        *find_range_problems("cache.workers", settings.cache.workers, 0, 1024),
    ]


def find_choice_problems(key: str, value: object, allowed: tuple[str, ...]) -> list[str]:
    """Return a sentence if `value` is not one of `allowed`.

    >>> find_choice_problems("precision", "half", ("auto", "float32"))
    ['precision: expected one of auto, float32; received half.']
    """
    if value in allowed:
        return []
    return [f"{key}: expected one of {', '.join(allowed)}; received {value}."]


def find_count_problems(key: str, value: int | None) -> list[str]:
    """Return a sentence if a count is given and below 1."""
    return [] if value is None or value >= 1 else [f"{key}: expected at least 1; received {value}."]


def find_range_problems(key: str, value: float | None, low: float, high: float) -> list[str]:
    """Return a sentence if `value` is given and outside [low, high]."""
    if value is None or low <= value <= high:
        return []
    return [f"{key}: expected {low:g} to {high:g}; received {value:g}."]


def find_data_problems(data: DataSettings) -> list[str]:
    """Return one sentence for each problem in the group `data`."""
    needs = {"phantom": "task", "manifest": "table", "medmnist3d": "npz"}
    problems = find_choice_problems("data.name", data.name, DATA_NAMES)
    needed = needs.get(data.name)
    if needed and getattr(data, needed) is None:
        problems.append(f"data.{needed}: data={data.name} needs it; set data.{needed}=...")
    return [
        *problems,
        *_find_unread_problems(data),
        *find_choice_problems("data.time_axis", data.time_axis, ("error", "channels", "depth", "first")),
        *find_choice_problems("data.on_bad_file", data.on_bad_file, ("stop", "skip")),
    ]


def _find_unread_problems(data: DataSettings) -> list[str]:
    """Return a sentence for each file of the user that would be ignored in favour of other data."""
    readers = {"table": "manifest", "root": "manifest", "npz": "medmnist3d"}
    return [
        f"data.{key}={value}: data={data.name} does not read it; add data={reader}."
        for key, reader in readers.items()
        if (value := getattr(data, key)) is not None and data.name in DATA_NAMES and data.name != reader
    ]


def _find_task_problems(settings: TrainSettings) -> list[str]:
    """Return one sentence for each setting that the task cannot use."""
    if settings.task.name not in TASK_NAMES:
        return find_choice_problems("task.name", settings.task.name, TASK_NAMES)
    return [*task_of(settings).find_problems(settings), *_find_phantom_problems(settings)]


def _find_label_problems(settings: AuditSettings | PrepareSettings) -> list[str]:
    """Return one sentence for each setting of the labels that the task cannot use."""
    if settings.task.name not in TASK_NAMES:
        return find_choice_problems("task.name", settings.task.name, TASK_NAMES)
    return [*task_of(settings).find_data_problems(settings.data), *_find_phantom_problems(settings)]


def _find_phantom_problems(settings: TrainSettings | AuditSettings | PrepareSettings) -> list[str]:
    """Return a sentence where the phantom's task has labels for another task, with the pair that works."""
    data, task = settings.data, settings.task.name
    if data.name != "phantom":
        return []
    from voxlift.data_pipelines.phantom.tasks import PHANTOM_TASKS

    if PHANTOM_TASKS.get(str(data.task), task) == task:
        return []
    fitting = [name for name, predicted in PHANTOM_TASKS.items() if predicted == task]
    problem = (
        f"data.task={data.task}: the phantom's labels are for task={PHANTOM_TASKS[str(data.task)]}; received "
        f"task={task}, for which there is data.task={' or '.join(fitting)}."
    )
    return [problem]


def find_split_problems(splits: SplitSettings) -> list[str]:
    """Return one sentence for each problem in the fractions or the folds."""
    problems = find_range_problems("splits.val", splits.val, 0.01, 0.9)
    problems += find_range_problems("splits.train_fraction", splits.train_fraction, 0.001, 1.0)
    problems += find_range_problems("splits.calibration", splits.calibration, 0.0, 0.5)
    problems += _find_fold_problems("outer_fold", splits.outer_folds, splits.outer_fold)
    problems += _find_site_problems(splits)
    if splits.leave_out is not None:
        return problems + find_range_problems("splits.fold", splits.fold, 0, 100_000)
    if splits.folds != 0:
        return problems + _find_fold_problems("fold", splits.folds, splits.fold)
    problems += find_range_problems("splits.test", splits.test, 0.0, 0.9)
    parts = [splits.val, splits.test, *([splits.calibration] if splits.calibration else [])]
    if sum(parts) >= 1:
        names = " + ".join(("val", "test", "calibration")[: len(parts)])
        received = " + ".join(f"{part:g}" for part in parts)
        problems.append(f"splits: expected {names} below 1; received {received}.")
    return problems


def _find_site_problems(splits: SplitSettings) -> list[str]:
    """Return a sentence for each kind of split that sites cannot be combined with."""
    problems = []
    if splits.leave_out is not None and splits.folds:
        problems.append(f"splits.leave_out={splits.leave_out}: every site is a fold; remove splits.folds.")
    if (splits.leave_out is not None or splits.by is not None) and splits.outer_folds:
        problems.append(
            "splits.outer_folds: nested folds are drawn by subject; remove splits.by and .leave_out."
        )
    return problems


def _find_fold_problems(name: str, folds: int, fold: int) -> list[str]:
    if folds == 0:
        return []
    if folds < 2:
        return [f"splits.{name}s: expected 0 (no folds) or at least 2; received {folds}."]
    return find_range_problems(f"splits.{name}", fold, 0, folds - 1)


def find_shape_problems(preprocess: PreprocessSettings) -> list[str]:
    """Return one sentence for each of shape and spacing that is not a triple [depth, height, width]."""
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


def find_auto_problems(preprocess: PreprocessSettings) -> list[str]:
    """Return one sentence for each problem with `preprocess=auto`."""
    problems = find_range_problems("preprocess.budget", preprocess.budget, 16, 512)
    plain = PreprocessSettings(name="auto")
    own = [one.name for one in fields(preprocess) if one.name not in ("name", *NOT_DECIDED)]
    changed = [name for name in own if getattr(preprocess, name) != getattr(plain, name)]
    if preprocess.name == "auto" and changed:
        keys = ", ".join(f"preprocess.{name}" for name in changed)
        problems.append(
            f"preprocess=auto decides {keys}: expected no value. Remove the key, or choose "
            "preprocess=ct, mri, mask or none."
        )
    return problems


def _is_triple(value: object, kind: type | UnionType) -> bool:
    items = value if isinstance(value, list) else []
    return len(items) == 3 and all(isinstance(item, kind) and item > 0 for item in items)  # type: ignore[operator]


def find_centre_problems(group: str, columns: list[str], space: str | None) -> list[str]:
    """Return one sentence for each problem with the columns of a centre.

    >>> find_centre_problems("data.", ["x", "y"], "RAS")
    ["data.centre_columns: expected three columns [x,y,z]; received ['x', 'y']."]
    """
    problems = find_choice_problems(f"{group}centre_space", space or "RAS", ("RAS", "LPS"))
    if columns and len(set(columns)) != 3:
        problems.append(f"{group}centre_columns: expected three columns [x,y,z]; received {columns}.")
    return problems


def find_mask_problems(preprocess: PreprocessSettings, data: DataSettings) -> list[str]:
    """Return one sentence for each problem with masks and centres."""
    centre = data.centre_columns
    problems = find_centre_problems("data.", centre, data.centre_space)
    if data.mask_column and centre:
        problems.append("data.mask_column, data.centre_columns: expected only one of them; received both.")
    uses = [preprocess.mask] if isinstance(preprocess.mask, str) else preprocess.mask
    if uses is None or uses == ["none"]:
        return problems
    if not isinstance(uses, list) or not uses or not set(uses) <= set(MASK_USES):
        names = ", ".join(MASK_USES)
        problems.append(f"preprocess.mask: expected none, or any of {names}; received {preprocess.mask}.")
    elif not data.mask_column and not centre:
        problems.append(
            f"preprocess.mask={preprocess.mask}: expected masks or points in the table; set data.mask_column "
            "or data.centre_columns."
        )
    elif centre and uses != ["crop"]:
        problems.append(f"preprocess.mask={preprocess.mask}: expected crop with data.centre_columns.")
    return problems


def find_model_problems(model: ModelSettings) -> list[str]:
    """Return one sentence for each problem in the group `model`."""
    problems = find_choice_problems("model.kind", model.kind, MODEL_KINDS)
    if model.reads_columns and not model.columns:
        problems.append(
            "model.columns: expected columns of the table to predict from, as in 'model.columns=[age,sex]'."
        )
    if model.join_columns and not model.has_network:
        problems.append(
            "model.join_columns=true: expected a network, as model=volume3d_columns; received "
            f"kind={model.kind}."
        )
    return [
        *problems,
        *find_choice_problems("model.axis", model.axis, ("depth", "height", "width", "all")),
        *find_choice_problems("model.slices", model.slices, ("all", "central", "foreground")),
        *find_choice_problems("model.aggregate", model.aggregate, AGGREGATES),
        *find_choice_problems("model.init", model.init, INITS),
        *find_depth_policy_problems("model.depth_policy", model.depth_policy),
        *find_choice_problems("model.head", model.head, ("pool", "flatten")),
        *find_range_problems("model.filter_scale", model.filter_scale, 0.01, 16.0),
        *find_range_problems("model.depth_kernel", model.depth_kernel, 1, 99),
        *_find_baseline_problems(model),
        *_find_builder_problems(model),
        *_find_frozen_problems(model),
        *find_range_problems("model.dropout", model.dropout, 0.0, 0.95),
        *find_range_problems("model.rate_factor", model.rate_factor, 1e-6, 100.0),
        *find_range_problems("model.freeze_epochs", model.freeze_epochs, 0, 100_000),
    ]


def _find_baseline_problems(model: ModelSettings) -> list[str]:
    """Return a sentence for each setting that the 2D network cannot follow."""
    if model.has_stages:
        return _find_filter_problems(model)
    name = "model.builder" if model.builder is not None else f"model.baseline={model.baseline}"
    problems = []
    if model.head != "pool":
        problems.append(f"model.head={model.head}: only the baselines cnn and resnet have a choice of heads.")
    if model.filter_scale > 1 or (model.filter_scale < 1 and model.kind == "slice"):
        problems.append(
            f"model.filter_scale={model.filter_scale:g}: the filters of {name} can "
            "only be reduced, and only when it is lifted; expected up to 1, with a volume model."
        )
    return problems


def _find_filter_problems(model: ModelSettings) -> list[str]:
    fewest, most = STAGES[model.baseline]
    if fewest <= len(model.filters) <= most and min(model.filters) >= 1:
        return []
    expected = f"expected {fewest} to {most} positive counts with model.baseline={model.baseline}"
    return [f"model.filters={list(model.filters)}: {expected}, one for each stage."]


def _find_builder_problems(model: ModelSettings) -> list[str]:
    builder = model.builder
    if builder is None:
        return []
    problems = []
    if not isinstance(builder, dict) or not isinstance(builder.get("_target_"), str):
        form = "'model.builder={_target_: module.function, argument: value}'"
        problems.append(f"model.builder: expected the form {form}; received {builder}.")
    if model.baseline != ModelSettings.baseline:
        problems.append(f"model.baseline={model.baseline}: model.builder builds the network; set only one.")
    return problems


def _find_frozen_problems(model: ModelSettings) -> list[str]:
    if not model.frozen:
        return []
    problems = []
    if model.kind != "slice" or model.aggregate != "gated_attention":
        problems.append(
            "model.frozen=true: expected a slice model with model.aggregate=gated_attention, which learns "
            f"from features; received model={model.name}, model.aggregate={model.aggregate}."
        )
    if model.freeze_epochs:
        problems.append(
            f"model.freeze_epochs={model.freeze_epochs}: expected 0 with model.frozen=true, which freezes "
            "the 2D network in all epochs."
        )
    return problems


def find_depth_policy_problems(key: str, policy: object) -> list[str]:
    """Return one sentence for each problem in a depth policy.

    Args:
        key: The setting, for the message.
        policy: A name, a list with one per stage, a rule (kernel, stride, pool), or choices by layer.

    >>> find_depth_policy_problems("depth_policy", {"default": "preserve", "block5*": {"stride": 2}})
    []
    >>> find_depth_policy_problems("depth_policy", ["preserve", "deep"])
    ['depth_policy: expected one of isotropic, preserve, slicewise, spacing; received deep.']
    """
    if isinstance(policy, dict) and policy and set(policy) <= {"kernel", "stride", "pool"}:
        wrong = {part: size for part, size in policy.items() if not _is_depth_size(size)}
        return [
            f"{key}.{part}: expected height or a whole number above 0; received {size}."
            for part, size in wrong.items()
        ]
    if isinstance(policy, dict | list) and policy:
        choices = policy.values() if isinstance(policy, dict) else policy
        return [problem for choice in choices for problem in find_depth_policy_problems(key, choice)]
    return find_choice_problems(key, policy, DEPTH_POLICIES)


def _is_depth_size(size: object) -> bool:
    return size == "height" or (isinstance(size, int) and not isinstance(size, bool) and size > 0)


def _find_embedding_problems(settings: TrainSettings) -> list[str]:
    if settings.model.kind != "embedding" or settings.data.embeddings is not None:
        return []
    need = f"data.embeddings: model={settings.model.name} needs a file of vectors by image or subject"
    return [f"{need}; set data.embeddings=FILE.csv, .npz or .h5."]


def _find_spacing_problems(settings: TrainSettings) -> list[str]:
    is_native = settings.preprocess.spacing == "native" and settings.preprocess.name != "auto"
    if settings.model.depth_policy != "spacing" or not is_native:
        return []
    fix = "Set it, as in 'preprocess.spacing=[4,1,1]', or use model.depth_policy=preserve."
    return [f"model.depth_policy=spacing: expected preprocess.spacing in mm; received native. {fix}"]


def _find_weights_problems(settings: TrainSettings) -> list[str]:
    """Return one sentence for each problem with trained weights, but those of their file."""
    model, preprocess = settings.model, settings.preprocess
    if not model.has_given_weights or not model.has_network:
        return []
    problems, key = [], f"model.weights={model.weights}"
    if model.has_preset:
        key = f"model.baseline={model.baseline}"
        if model.weights is not None:
            problems.append(f"model.weights={model.weights}: {key} has its own; remove the key.")
    if model.builder is not None or model.baseline in {"cnn", "resnet", "tutorial"}:
        name = "a function of yours" if model.builder is not None else f"model.baseline={model.baseline}"
        problems.append(
            f"{key}: expected a network of keras.applications, kimm or keras_hub, as in "
            f"model.baseline=ResNet50; received {name}. A trained network of your own is given as "
            "model.baseline=FILE.keras."
        )
    if preprocess.window_hu is None and preprocess.zscore == "none" and preprocess.name != "auto":
        problems.append(
            f"{key}: expected a known range of voxels, which becomes that of the "
            f"photographs; preprocess={preprocess.name} has none. Set 'preprocess.window_hu=[LOW,HIGH]' or "
            "preprocess.zscore=whole."
        )
    return problems


def _find_trainer_problems(settings: TrainSettings) -> list[str]:
    trainer, problems = settings.trainer, []
    if settings.logger.mlflow and importlib.util.find_spec("mlflow") is None:
        problems.append(
            f"logger=mlflow: expected the package mlflow, which is not installed. {install_extra('mlflow')}"
        )
    return [
        *problems,
        *find_choice_problems("precision", settings.precision, PRECISIONS),
        *find_choice_problems("device", settings.device, ("auto", "cpu", "gpu")),
        *find_choice_problems("trainer.balance", trainer.balance, ("none", "sample", "weights")),
        *find_choice_problems("optimizer.schedule", settings.optimizer.schedule, ("cosine", "constant")),
        *find_range_problems("trainer.epochs", trainer.epochs, 1, 100_000),
        *find_range_problems("trainer.batch_size", trainer.batch_size, 1, 100_000),
        *find_range_problems("trainer.label_smoothing", trainer.label_smoothing, 0.0, 0.5),
        *find_range_problems("trainer.focal_gamma", trainer.focal_gamma, 0.0, 10.0),
        *find_range_problems("trainer.accumulate", trainer.accumulate, 1, 10_000),
        *find_range_problems("trainer.ema", trainer.ema, 0.0, 0.99999),
        *find_range_problems("trainer.checkpoint_steps", trainer.checkpoint_steps, 0, 10**9),
    ]


def _find_strategy_problems(settings: TrainSettings) -> list[str]:
    strategy = settings.strategy
    problems = find_choice_problems("strategy", strategy, STRATEGIES)
    problems += find_range_problems("devices.logical_cpus", settings.devices.logical_cpus, 0, 64)
    if strategy == "mirrored" and settings.trainer.accumulate > 1:
        problems.append("trainer.accumulate: expected 1 with strategy=mirrored; raise trainer.batch_size.")
    if strategy != "mirrored" and settings.devices.logical_cpus:
        problems.append("devices.logical_cpus: expected 0; only strategy=mirrored uses it.")
    if strategy == "hosts" and not settings.model.has_network:
        name = settings.model.name
        problems.append(f"strategy: expected single for model={name}; one process fits it at once.")
    if strategy != "hosts" and settings.hosts != HostsSettings():
        problems.append("hosts: expected none of its keys; only strategy=hosts uses them.")
    return problems


def find_verdict_problems(verdict: VerdictSettings) -> list[str]:
    """Return a sentence if the margin is no positive number."""
    if verdict.margin is None:
        return []
    return find_range_problems("verdict.margin", verdict.margin, 1e-6, 1e9)


def find_evaluation_problems(evaluation: EvaluationSettings) -> list[str]:
    """Return one sentence for each problem in the settings of what is reported."""
    return [
        *(problem for request in evaluation.by for problem in _find_request_problems(request)),
        *find_range_problems("evaluation.quantiles", evaluation.quantiles, 2, 10),
        *find_range_problems("evaluation.min_subjects", evaluation.min_subjects, 2, 100_000),
        *find_range_problems("evaluation.recalibrate", evaluation.recalibrate, 0.0, 0.9),
        *find_choice_problems("evaluation.same_names", evaluation.same_names, ("refuse", "ignore")),
        *find_range_problems("evaluation.coverage", evaluation.coverage, 0.5, 0.99),
        *find_range_problems("evaluation.prevalence", evaluation.prevalence, 0.0001, 0.9999),
        *find_choice_problems(
            "evaluation.paired_within", evaluation.paired_within or "subject", ("subject",)
        ),
        *find_range_problems("evaluation.top_k", evaluation.top_k, 2, 1000),
    ]


def find_report_problems(report: PageSettings) -> list[str]:
    """Return a sentence if the number of cases on a page cannot be."""
    return find_range_problems("report.cases", report.cases, 0, 100)


def _find_request_problems(request: str) -> list[str]:
    """Return a sentence if an entry of `evaluation.by` is neither a column nor a column with rising edges."""
    try:
        split_request(request)
    except ValueError:
        expected = "a column, or a column with rising edges as in 'age:50,65'"
        return [f"evaluation.by: expected {expected}; received {request}."]
    return []


def split_request(request: str) -> tuple[str, tuple[float, ...]]:
    """Return the column of an entry of `evaluation.by`, and its edges.

    A text after a colon that holds no numbers belongs to the name of the column.

    Raises:
        ValueError: The edges do not rise, or there is no column.

    >>> split_request("age:50,65"), split_request("scanner: vendor")
    (('age', (50.0, 65.0)), ('scanner: vendor', ()))
    """
    column, _, rest = request.rpartition(":")
    try:
        edges = tuple(float(edge) for edge in rest.split(",")) if column else ()
    except ValueError:
        edges = ()
    if not request.strip() or any(not low < high for low, high in pairwise(edges)):
        raise ValueError(request)
    return (column.strip(), edges) if edges else (request.strip(), ())


def refuse_uneven_batches(batch_size: int, devices: int) -> None:
    """Pass when every device gets the same number of samples.

    Raises:
        SettingsError: With the nearest batch sizes.
    """
    rest = batch_size % devices
    if rest:
        lower = batch_size - rest
        nearest = f"{lower} or {lower + devices}" if lower else str(devices)
        raise SettingsError(
            f"trainer.batch_size={batch_size}: expected a multiple of {devices} devices; choose {nearest}."
        )
