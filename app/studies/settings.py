"""Complete and check a study's settings: its budget, its varied values and its search space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from voxlift.app.comparison.trial import find_comparison_problems
from voxlift.app.config import ModelSettings, SettingsError, find_choice_problems, find_range_problems
from voxlift.app.config.checks import find_verdict_problems
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.studies import (
    CONTESTANTS,
    STUDIES,
    ArchitectureStudy,
    BatchSizeStudy,
    ComplexityStudy,
    LearningCurveStudy,
    SampleSizeStudy,
    SearchStudy,
    ShortcutsStudy,
    Study,
)
from voxlift.app.errors import refuse_problems
from voxlift.app.runtime.cluster import find_cluster_problems
from voxlift.app.tasks.base import task_of

if TYPE_CHECKING:
    from voxlift.app.tasks.base import Task

SCALING = ("none", "auto", "sqrt", "linear")
EQUAL = ("epochs", "steps")
DESIGNS = ("one_at_a_time", "grid")
COSTS = ("flops", "parameters", "seconds_per_volume", "train_seconds", "peak_memory_bytes")
OPTIONAL = ("memory_gb", "prevalence")  # keys that may be null whatever the budget
RANGE_KEYS = {"low", "high", "log", "step"}

AnyStudy = TypeVar("AnyStudy", bound=Study)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; whole numbers where both ends are whole.

    Attributes:
        low: Lower end, included.
        high: Upper end, included.
        log: Whether values are drawn on a logarithmic scale.
        step: Distance between the values that may be drawn; None for any.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the range holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def contains(self, value: object) -> bool:
        """Return whether a value lies in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]

    def contains(self, value: object) -> bool:
        """Return whether a value is one of them."""
        return value in self.values


def resolve_study(settings: StudySettings, *, given: Sequence[str] = ()) -> StudySettings:
    """Return the settings with the budget's values in place of every null, all of them checked.

    Args:
        settings: As composed.
        given: Keys that the user set; `trainer.epochs` among them overrides the budget's epochs.

    Raises:
        SettingsError: All problems are listed.
    """
    study: Any = settings.study
    if not isinstance(study, ShortcutsStudy):
        refuse_without_network([settings.model])
    if type(study) not in STUDIES.values():
        raise SettingsError(f"study: expected one of {', '.join(STUDIES)}; for example study=batch_size.")
    refuse_problems(_foreign_key_problems(study, given))
    filled: Any = fill_budget(study)
    if "trainer.epochs" in given and getattr(study, "epochs", 0) is None:
        filled = replace(filled, epochs=settings.trainer.epochs)
    metric_problems = _metric_problems(filled, task_of(settings))
    refuse_problems([*_study_problems(filled), *metric_problems, *_comparison_problems(settings)])
    if isinstance(filled, SearchStudy):
        filled = replace(filled, metric=task_of(settings).choose_monitor(filled.metric))
    return replace(settings, study=filled)


def refuse_without_network(models: Iterable[ModelSettings]) -> None:
    """Raise an error if a model has no network, whose training a study could vary.

    Raises:
        SettingsError: Models have none.
    """
    names = [model.name for model in models if not model.has_network]
    if names:
        raise SettingsError(
            f"model={', '.join(names)}: expected a network, whose training a study varies. Use "
            "voxlift-compare for other models."
        )


def refuse_joined(models: Iterable[ModelSettings]) -> None:
    """Raise an error if a model takes columns of the table, which measurements of speed and memory leave out.

    Raises:
        SettingsError: Models do.
    """
    names = [model.name for model in models if model.join_columns]
    if names:
        raise SettingsError(
            f"model={', '.join(names)}: expected a model of images alone, whose speed and memory this study "
            "measures, such as model=volume3d or model=slice2d; columns add next to nothing to them."
        )


def fill_budget(study: AnyStudy) -> AnyStudy:
    """Return the study with its budget's value for every key that is null.

    Raises:
        SettingsError: The budget is unknown, or has a key that the study does not have.
    """
    refuse_problems(find_choice_problems("study.budget", study.budget, tuple(study.budgets)))
    values: dict[str, Any] = dict(study.budgets[study.budget])
    unknown = sorted(set(values) - {field.name for field in fields(study)})
    if unknown:
        raise SettingsError(f"study.budgets.{study.budget}: unknown key {', '.join(unknown)}.")
    return replace(study, **{key: value for key, value in values.items() if getattr(study, key) is None})


def read_values(vary: Mapping[str, Any], *, where: str) -> dict[str, tuple[Any, ...]]:
    """Return the values of every varied setting by its dotted key; null leaves a setting out.

    >>> read_values({"model": {"head": ["pool", "flatten"], "init": None}}, where="study.vary")
    {'model.head': ('pool', 'flatten')}

    Args:
        vary: Nested settings, each with a list of values.
        where: Key of `vary`, for messages.

    Raises:
        SettingsError: A setting has no list of values.
    """
    leaves = dict(_flatten(vary))
    refuse_problems(
        [
            f"{where}.{key}: expected a list of values; received {value}."
            for key, value in leaves.items()
            if not isinstance(value, list) or not value
        ]
    )
    return {key: tuple(value) for key, value in leaves.items()}


def read_space(space: Mapping[str, Any], *, where: str) -> dict[str, Range | Choices]:
    """Return the range or choices of every searched setting by its dotted key; null leaves a setting out.

    Args:
        space: Nested settings, each with a range or a list of choices.
        where: Key of `space`, for messages.

    Raises:
        SettingsError: All settings with neither a range nor a list of choices are listed.
    """
    problems: list[str] = []
    found: dict[str, Range | Choices] = {}
    for key, value in _flatten(space):
        if isinstance(value, list) and value:
            found[key] = Choices(tuple(value))
        elif problem := _space_problem(value):
            problems.append(f"{where}.{key}: {problem}")
        else:
            found[key] = Range(**value)
    refuse_problems(problems)
    return found


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; a mapping with the keys of a range is a value."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not set(value) & RANGE_KEYS:
            yield from _flatten(value, f"{name}.")
        elif value is not None:
            yield name, value


def _space_problem(value: object) -> str:
    expected = "expected a list of choices, or {low:,high:} with log: or step:"
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value):
        return f"{expected}; received {value}."
    ends = (value["low"], value["high"])
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        return f"{expected}, with two numbers; received {value}."
    if not ends[0] < ends[1]:
        return f"expected low below high; received {value}."
    if value.get("log") and (ends[0] <= 0 or value.get("step")):
        return f"expected a logarithmic range above 0 without a step; received {value}."
    return ""


def _foreign_key_problems(study: Study, given: Sequence[str]) -> list[str]:
    """Return a sentence for each key of another study: Hydra does not see those below an open key."""
    own = {field.name for field in fields(study)}
    keys = dict.fromkeys(key.split(".")[1] for key in given if key.startswith("study."))
    problems = []
    for key in keys:
        if key not in own:
            owner = next(
                (name for name, schema in STUDIES.items() if key in {field.name for field in fields(schema)}),
                None,
            )
            hint = f"; it is a key of study={owner}" if owner else ""
            problems.append(f"study.{key}: study={study.name} does not have this key{hint}.")
    return problems


def _study_problems(study: Study) -> list[str]:
    missing = [
        f"study.{field.name}: expected a value here or in study.budgets.{study.budget}."
        for field in fields(study)
        if getattr(study, field.name) is None and field.name not in OPTIONAL
    ]
    if missing:
        return missing
    checks: dict[type[Study], Callable[[Any], list[str]]] = {
        BatchSizeStudy: _batch_size_problems,
        ComplexityStudy: _complexity_problems,
        ArchitectureStudy: _architecture_problems,
        SearchStudy: _search_problems,
        SampleSizeStudy: _sample_size_problems,
        LearningCurveStudy: _learning_curve_problems,
        ShortcutsStudy: _shortcuts_problems,
    }
    return checks[type(study)](study)


def _batch_size_problems(study: BatchSizeStudy) -> list[str]:
    sizes, problems = study.batch_sizes or [], []
    if not sizes or _has_repeats(sizes) or min(sizes) < 1:
        problems.append(
            f"study.batch_sizes: expected different whole numbers from 1; received {list(sizes)}."
        )
    problems += _seed_problems("seeds", study.seeds or [])
    for rule in study.scaling:
        problems += find_choice_problems("study.scaling", rule, SCALING)
    for length in study.equal:
        problems += find_choice_problems("study.equal", length, EQUAL)
    problems += find_range_problems("study.epochs", study.epochs or 0, 1, 100_000)
    problems += find_range_problems("study.timed_steps", study.timed_steps or 0, 3, 100_000)
    problems += find_range_problems("study.accumulate", study.accumulate, 1, 10_000)
    problems += find_range_problems("study.noise_batches", study.noise_batches or 0, 3, 1000)
    problems += find_range_problems("study.largest", study.largest or 0, 1, 1_000_000)
    problems += find_range_problems("study.fit_seconds", study.fit_seconds, 1, 1e6)
    if study.memory_gb is not None:
        problems += find_range_problems("study.memory_gb", study.memory_gb, 0.001, 1e6)
    return problems


def _complexity_problems(study: ComplexityStudy) -> list[str]:
    scales = study.scales or []
    wrong = len(scales) < 2 or _has_repeats(scales) or min(scales) <= 0
    models = study.models
    return [
        *(["study.models: expected different names, at least one."] * (not models or _has_repeats(models))),
        *([f"study.scales: expected two or more different factors above 0; received {scales}."] * wrong),
        *find_range_problems("study.timed_steps", study.timed_steps or 0, 1, 100_000),
    ]


def _architecture_problems(study: ArchitectureStudy) -> list[str]:
    values = read_values(study.vary, where="study.vary")
    return [
        *([] if values else ["study.vary: expected at least one setting with a list of values."]),
        *find_choice_problems("study.design", study.design, DESIGNS),
        *find_choice_problems("study.cost", study.cost, COSTS),
        *find_range_problems("study.epochs", study.epochs or 0, 1, 100_000),
        *_seed_problems("seeds", study.seeds or []),
    ]


def _metric_problems(study: Any, task: Task) -> list[str]:  # noqa: ANN401 - of any study
    """Return a sentence where a study asks for a metric that the task has not."""
    if isinstance(study, ShortcutsStudy) and not task.is_nominal:
        return [
            (
                "study=shortcuts: expected task=classes, whose AUC it compares; received "
                f"task={task.name}. For one finding, use task=classes with its column as data.label_column; "
                "for grades or a number, make classes with data.label_bins and data.classes."
            )
        ]
    if not isinstance(study, SearchStudy):
        return []
    return find_choice_problems("study.metric", study.metric, ("auto", *task.monitors))


def _search_problems(study: SearchStudy) -> list[str]:
    space = read_space(study.space, where="study.space")
    return [
        *([] if space else ["study.space: expected at least one setting with a range or a list of choices."]),
        *find_range_problems("study.trials", study.trials or 0, 1, 1_000_000),
        *find_range_problems("study.epochs", study.epochs or 0, 1, 100_000),
        *find_range_problems("study.startup_trials", study.startup_trials, 0, 1_000_000),
        *find_range_problems("study.warmup_epochs", study.warmup_epochs, 0, 100_000),
        *([] if not study.confirm_seeds else _seed_problems("confirm_seeds", study.confirm_seeds)),
    ]


def _sample_size_problems(study: SampleSizeStudy) -> list[str]:
    problems = find_range_problems("study.correlation", study.correlation, 0.0, 0.99)
    problems += find_range_problems("study.resamples", study.resamples or 0, 100, 100_000)
    if study.prevalence is not None:
        problems += find_range_problems("study.prevalence", study.prevalence, 0.001, 0.999)
    if study.auc and (len(study.auc) != 2 or not all(0.5 <= auc < 1 for auc in study.auc)):
        problems.append(f"study.auc: expected two numbers from 0.5 to below 1; received {list(study.auc)}.")
    if study.pair and (len(study.pair) != 2 or _has_repeats(study.pair)):
        problems.append(f"study.pair: expected two different models; received {list(study.pair)}.")
    return problems


def _learning_curve_problems(study: LearningCurveStudy) -> list[str]:
    fractions, problems = study.fractions, []
    if len({*fractions, 1.0}) < 3 or _has_repeats(fractions) or not all(0 < one <= 1 for one in fractions):
        problems.append(
            "study.fractions: expected different numbers above 0 and up to 1, at least two of them below 1; "
            f"received {list(fractions)}."
        )
    if len(study.models) != 2 or _has_repeats(study.models):
        problems.append(f"study.models: expected two different names; received {list(study.models)}.")
    return [
        *problems,
        *find_choice_problems("study.equal", study.equal, EQUAL),
        *find_range_problems("study.epochs", study.epochs or 0, 1, 100_000),
        *find_range_problems("study.resamples", study.resamples or 0, 100, 100_000),
        *_seed_problems("seeds", study.seeds or []),
    ]


def _shortcuts_problems(study: ShortcutsStudy) -> list[str]:
    problems = []
    if not study.contestants or _has_repeats(study.contestants):
        problems.append(
            f"study.contestants: expected different names, at least one; received {list(study.contestants)}."
        )
    for name in study.contestants:
        problems += find_choice_problems("study.contestants", name, CONTESTANTS)
    return [
        *problems,
        *find_range_problems("study.permutations", study.permutations, 1, 1000),
        *find_range_problems("study.epochs", study.epochs or 0, 1, 100_000),
        *find_range_problems("study.resamples", study.resamples or 0, 100, 100_000),
        *_seed_problems("seeds", study.seeds or []),
    ]


def _comparison_problems(settings: StudySettings) -> list[str]:
    """Return a sentence where a study lacks the comparison that it reads, or is given one in vain."""
    problems = [*find_verdict_problems(settings.verdict), *find_cluster_problems(settings.cluster)]
    study = settings.study
    if not isinstance(study, SampleSizeStudy):
        if settings.run is not None:
            problems.append(f"run={settings.run}: only study=sample_size reads a finished comparison.")
    elif (settings.run is None) == (not study.auc):
        problems.append(
            "study=sample_size: expected either run=COMPARISON, the folder of a finished comparison, or "
            "planned values, for example 'study.auc=[0.80,0.85]' study.correlation=0.5 study.prevalence=0.3."
        )
    elif settings.run is not None:
        problems += find_comparison_problems(Path(settings.run).expanduser())
    return problems


def _seed_problems(key: str, seeds: Sequence[int]) -> list[str]:
    if seeds and not _has_repeats(seeds):
        return []
    return [f"study.{key}: expected different numbers, at least one; received {list(seeds)}."]


def _has_repeats(values: Sequence[object]) -> bool:
    return len(set(values)) < len(values)
