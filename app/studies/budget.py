"""From the composed configuration to a study whose every value is set and can be followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from voxlift.app.config import SettingsError, choice_problem, range_problem
from voxlift.app.config.commands import (
    STUDIES,
    ArchitectureStudy,
    BatchSizeStudy,
    ComplexityStudy,
    SearchStudy,
    Study,
    StudySettings,
)
from voxlift.app.studies.space import read_space, read_values

SCALING = ("none", "auto", "sqrt", "linear")
EQUAL = ("epochs", "steps")
DESIGNS = ("one_at_a_time", "grid")
COSTS = ("flops", "parameters", "seconds_per_volume", "train_seconds", "peak_memory_bytes")
METRICS = ("auc", "balanced_accuracy", "accuracy", "loss")

AnyStudy = TypeVar("AnyStudy", bound=Study)


def resolve_study(settings: StudySettings, *, given: Sequence[str] = ()) -> StudySettings:
    """The settings with the budget's values for what the user left open, all of them checked.

    Args:
        settings: as composed.
        given: keys that the user set: `trainer.epochs` among them wins over the budget's epochs.

    Raises:
        SettingsError: listing every problem.
    """
    study: Any = settings.study
    if type(study) not in STUDIES.values():
        raise SettingsError(f"study: expected one of {', '.join(STUDIES)}; say study=batch_size.")
    foreign = _foreign_keys(study, given)
    if foreign:
        raise SettingsError("\n".join(foreign))
    filled: Any = fill_budget(study)
    if "trainer.epochs" in given and getattr(study, "epochs", 0) is None:
        filled = replace(filled, epochs=settings.trainer.epochs)
    problems = _problems(filled)
    if problems:
        raise SettingsError("\n".join(problems))
    return replace(settings, study=filled)


def _foreign_keys(study: Study, given: Sequence[str]) -> list[str]:
    """A sentence for each key of another study: those under an open one (`study.space`) pass Hydra unseen."""
    own = {field.name for field in fields(study)}
    parts = dict.fromkeys(key.split(".")[1] for key in given if key.startswith("study."))
    return [
        f"study.{part}: study={study.name} does not read it{_owner_of(part)}."
        for part in parts
        if part not in own
    ]


def _owner_of(part: str) -> str:
    owners = [name for name, schema in STUDIES.items() if part in {field.name for field in fields(schema)}]
    return f"; it is a key of study={owners[0]}" if owners else ""


def fill_budget(study: AnyStudy) -> AnyStudy:
    """The study with its budget's value for every key that is null.

    Raises:
        SettingsError: an unknown budget, or a budget with a key that the study does not have.
    """
    problems = choice_problem("study.budget", study.budget, tuple(study.budgets))
    if problems:
        raise SettingsError(problems[0])
    values: dict[str, Any] = dict(study.budgets[study.budget])
    unknown = sorted(set(values) - {field.name for field in fields(study)})
    if unknown:
        raise SettingsError(f"study.budgets.{study.budget}: unknown key {', '.join(unknown)}.")
    return replace(study, **{key: value for key, value in values.items() if getattr(study, key) is None})


def _problems(study: Study) -> list[str]:
    missing = [
        f"study.{field.name}: neither set nor in study.budgets.{study.budget}."
        for field in fields(study)
        if getattr(study, field.name) is None and field.name != "memory_gb"
    ]
    if missing:
        return missing
    match study:
        case BatchSizeStudy():
            return _batch_size_problems(study)
        case ComplexityStudy():
            return _complexity_problems(study)
        case ArchitectureStudy():
            return _architecture_problems(study)
        case SearchStudy():
            return _search_problems(study)
    return []


def _batch_size_problems(study: BatchSizeStudy) -> list[str]:
    names = [("scaling", name, SCALING) for name in study.scaling] + [
        ("equal", name, EQUAL) for name in study.equal
    ]
    return [
        *_counts("batch_sizes", study.batch_sizes or []),
        *_seeds("seeds", study.seeds or []),
        *(problem for key, name, known in names for problem in choice_problem(f"study.{key}", name, known)),
        *range_problem("study.epochs", study.epochs or 0, 1, 100_000),
        *range_problem("study.timed_steps", study.timed_steps or 0, 3, 100_000),
        *range_problem("study.accumulate", study.accumulate, 1, 10_000),
        *range_problem("study.noise_batches", study.noise_batches or 0, 3, 1000),
        *range_problem("study.largest", study.largest or 0, 1, 1_000_000),
        *range_problem("study.fit_seconds", study.fit_seconds, 1, 1e6),
        *([] if study.memory_gb is None else range_problem("study.memory_gb", study.memory_gb, 0.001, 1e6)),
    ]


def _complexity_problems(study: ComplexityStudy) -> list[str]:
    scales = study.scales or []
    wrong = len(set(scales)) < len(scales) or len(scales) < 2 or min(scales) <= 0
    return [
        *(["study.models: expected at least one name, none twice."] if _repeats(study.models) else []),
        *([f"study.scales: expected two or more different factors above 0; received {scales}."] * wrong),
        *range_problem("study.timed_steps", study.timed_steps or 0, 1, 100_000),
    ]


def _architecture_problems(study: ArchitectureStudy) -> list[str]:
    values = read_values(study.vary, where="study.vary")
    return [
        *([] if values else ["study.vary: expected at least one setting with a list of values."]),
        *choice_problem("study.design", study.design, DESIGNS),
        *choice_problem("study.cost", study.cost, COSTS),
        *range_problem("study.epochs", study.epochs or 0, 1, 100_000),
        *_seeds("seeds", study.seeds or []),
    ]


def _search_problems(study: SearchStudy) -> list[str]:
    space = read_space(study.space, where="study.space")
    return [
        *([] if space else ["study.space: expected at least one setting with a range or a list of choices."]),
        *choice_problem("study.metric", study.metric, METRICS),
        *range_problem("study.trials", study.trials or 0, 1, 1_000_000),
        *range_problem("study.epochs", study.epochs or 0, 1, 100_000),
        *range_problem("study.startup_trials", study.startup_trials, 0, 1_000_000),
        *range_problem("study.warmup_epochs", study.warmup_epochs, 0, 100_000),
        *([] if not study.confirm_seeds else _seeds("confirm_seeds", study.confirm_seeds)),
    ]


def _counts(key: str, numbers: Sequence[int]) -> list[str]:
    if numbers and not _repeats(numbers) and min(numbers) >= 1:
        return []
    return [f"study.{key}: expected different whole numbers from 1; received {list(numbers)}."]


def _seeds(key: str, seeds: Sequence[int]) -> list[str]:
    if seeds and not _repeats(seeds):
        return []
    return [f"study.{key}: expected different numbers; received {list(seeds)}."]


def _repeats(values: Sequence[object]) -> bool:
    return not values or len(set(values)) < len(values)
