"""Run the study of the architecture: slice models to inflate from, then every variant, then the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxlift.app.comparison.check import check_trainings
from voxlift.app.comparison.compose import build_model_overrides, compose_training
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import format_override, list_changes, refuse_unread_columns, remove_keys
from voxlift.app.progress import print_line
from voxlift.app.studies.architecture.points import BASE, ArchitectureFindings, Variant, build_variants
from voxlift.app.studies.architecture.report import report_architecture
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measurement_process import measure
from voxlift.app.studies.settings import read_values
from voxlift.app.studies.trainings import (
    plan_trainings,
    read_study_overrides,
    run_trainings,
    select_finished,
)
from voxlift.app.training.baseline import trained_source

SLICES = "slices"  # label of the slice models that kernels are inflated from
# Keys of the model that its fingerprint covers: they change the structure or the initial weights.
FINGERPRINTED = tuple(
    f"model.{key}"
    for key in (
        "baseline",
        "filters",
        "filter_scale",
        "head",
        "depth_kernel",
        "dropout",
        "depth_policy",
        "init",
    )
)


@dataclass(frozen=True)
class DistinctVariants:
    """The variants that can be built and are not the same training as another one.

    Attributes:
        variants: These variants.
        duplicates: For each duplicate, by label, the variant that it repeats.
        failures: A sentence for each variant that cannot be built.
    """

    variants: Sequence[Variant]
    duplicates: Mapping[str, Variant]
    failures: Sequence[str]


def study_architecture(settings: StudySettings, folder: StudyFolder) -> None:
    """Train every variant; write table, figures and page.

    Raises:
        SettingsError: An override is refused, or the base cannot be trained.
    """
    study = settings.study
    given = read_study_overrides(refused={"seed": "use study.seeds=[...]."})
    shared = [*given, f"trainer.epochs={study.epochs}"]
    base = compose_training([*shared, f"seed={study.seeds[0]}"])
    refuse_unread_columns(base.model)
    if base.model.kind != "volume":
        raise SettingsError(
            f"model={base.model.name}: expected a volume model, whose depth and inflation can be varied; "
            "for example model=volume3d."
        )
    check_trainings({base.model.name: base})
    variants = build_variants(read_values(study.vary, where="study.vary"), base, design=study.design)
    composed, failures = _compose_variants(variants, shared, seed=study.seeds[0], folder=folder)
    wanted = [variant for variant in variants if variant.label in composed]
    distinct = select_distinct(wanted, composed, base=base, folder=folder)
    failures += distinct.failures
    if BASE not in {variant.label for variant in distinct.variants}:
        raise SettingsError("\n".join(failures))
    sources = _train_slice_models(distinct.variants, shared, base=base, settings=settings, folder=folder)
    trials = []
    for seed in study.seeds:
        for variant in distinct.variants:
            source = []
            if sources is not None and variant.needs_slice_model(base):
                if seed not in sources:
                    failures.append(f"{variant.name}, seed {seed}: the training of its slice model failed.")
                    continue
                source = [format_override("model.baseline", str(sources[seed].run.path))]
            points = {variant.label: [*variant.overrides, *source]}
            own = remove_keys(shared, variant.changes)
            trials += plan_trainings(points, [seed], shared=own, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)
    found = ArchitectureFindings(base, variants, outcomes, distinct.duplicates, failures)
    report_architecture(settings, folder, found)


def _compose_variants(
    variants: Sequence[Variant], shared: Sequence[str], *, seed: int, folder: StudyFolder
) -> tuple[dict[str, TrainSettings], list[str]]:
    """Return the settings of every variant by label, and a sentence for each with wrong settings."""
    composed, failures = {}, []
    for variant in variants:
        own = remove_keys(shared, variant.changes)
        (trial,) = plan_trainings({variant.label: variant.overrides}, [seed], shared=own, folder=folder)
        try:
            composed[variant.label] = compose_training(trial.overrides)
        except SettingsError as error:
            failures.append(f"{variant.name}: {error}")
    return composed, failures


def select_distinct(
    variants: Sequence[Variant],
    settings: Mapping[str, TrainSettings],
    *,
    base: TrainSettings,
    folder: StudyFolder,
) -> DistinctVariants:
    """Build every variant once, in a child process, and leave out those that repeat another one.

    Args:
        variants: Variants, the base first, so that it is the one that is kept.
        settings: Settings of each variant's training, by label.
        base: Settings that were changed.
        folder: Folder of the study.
    """
    print_line("Building each network once, to find those that are the same")
    models = {label: asdict(one.model) for label, one in settings.items()}
    answer = measure("networks", base, {"kind": "networks", "models": models}, folder=folder)
    built: Mapping[str, Any] = answer["networks"]
    kept: list[Variant] = []
    duplicates, failures = {}, []
    for variant in variants:
        if problem := built[variant.label]["problem"]:
            failures.append(f"{variant.name}: {problem}")
            continue
        same = next((one for one in kept if is_duplicate(variant, one, settings, built, base)), None)
        if same is None:
            kept.append(variant)
        else:
            duplicates[variant.label] = same
    return DistinctVariants(kept, duplicates, failures)


def is_duplicate(
    one: Variant,
    other: Variant,
    settings: Mapping[str, TrainSettings],
    built: Mapping[str, Any],
    base: TrainSettings,
) -> bool:
    """Return whether two variants are the same network with the same initial weights, trained alike.

    Args:
        one: A variant.
        other: Another variant.
        settings: Settings of both trainings, by label.
        built: Answer of the measurement `networks`, by label.
        base: Settings that were changed.
    """
    changes = list_changes(settings[one.label], settings[other.label])
    if any(change.partition(":")[0] not in FINGERPRINTED for change in changes):
        return False
    is_same_start = one.needs_slice_model(base) == other.needs_slice_model(base)
    return is_same_start and bool(built[one.label] == built[other.label])


def _train_slice_models(
    variants: Sequence[Variant],
    shared: Sequence[str],
    *,
    base: TrainSettings,
    settings: StudySettings,
    folder: StudyFolder,
) -> dict[int, Trial] | None:
    """Train the slice model of each seed as the base is trained; return None where no variant needs one."""
    is_given = trained_source(base.model.baseline) is not None
    if is_given or not any(variant.needs_slice_model(base) for variant in variants):
        return None
    own = [*remove_keys(shared, {"model", "experiment"}), *build_model_overrides("slice2d")]
    own = remove_keys(own, {"model.init", "model.depth_policy", "model.depth_kernel"})
    trials = plan_trainings({SLICES: []}, settings.study.seeds, shared=own, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)
    return {trial.seed: trial for trial in select_finished(outcomes)}
