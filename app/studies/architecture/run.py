"""The study of the architecture: slice models to inflate from, then every variant, then the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxlift.app.comparison.compose import choose_model, compose_training
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import format_override, without_keys
from voxlift.app.studies.architecture.networks import line_up
from voxlift.app.studies.architecture.points import BASE, ArchitectureFindings, Variant, lay_out_variants
from voxlift.app.studies.architecture.report import report_architecture
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.space import read_values
from voxlift.app.studies.trainings import finished_trials, plan_trainings, run_trainings, study_overrides
from voxlift.app.training.pretrained import trained_source

SLICES = "slices"  # the label of the slice models that kernels are inflated from


def study_architecture(settings: StudySettings, folder: StudyFolder) -> None:
    """Train every variant; write table, figures and page.

    Raises:
        SettingsError: an override is refused, or the given settings themselves cannot be trained.
    """
    study = settings.study
    given = study_overrides(refused={"seed": "say study.seeds=[...]."})
    shared = [*given, f"trainer.epochs={study.epochs}"]
    base = compose_training([*shared, f"seed={study.seeds[0]}"])
    _refuse_slices(base)
    variants = lay_out_variants(read_values(study.vary, where="study.vary"), base, design=study.design)
    composed, refusals = _compose(variants, shared, seed=study.seeds[0], folder=folder)
    wanted = [variant for variant in variants if variant.label in composed]
    lineup = line_up(wanted, composed, base=base, folder=folder)
    if BASE not in {variant.label for variant in lineup.variants}:
        raise SettingsError("\n".join([*refusals, *lineup.refusals]))
    sources = _train_sources(lineup.variants, shared, base=base, settings=settings, folder=folder)
    trials, unsourced = _plan(lineup.variants, shared, sources, base=base, settings=settings, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder)
    told = [*refusals, *lineup.refusals, *unsourced]
    report_architecture(settings, folder, ArchitectureFindings(base, variants, outcomes, lineup.twins, told))


def _refuse_slices(base: TrainSettings) -> None:
    if base.model.kind != "volume":
        raise SettingsError(
            f"model={base.model.name}: expected a volume model, whose depth and inflation can be varied; "
            "say model=volume3d."
        )


def _compose(
    variants: Sequence[Variant], shared: Sequence[str], *, seed: int, folder: StudyFolder
) -> tuple[dict[str, TrainSettings], list[str]]:
    """The settings of every variant's training, and a sentence for each that has none."""
    composed, refusals = {}, []
    for variant in variants:
        own = without_keys(shared, variant.changes)
        (trial,) = plan_trainings({variant.label: variant.overrides}, [seed], shared=own, folder=folder)
        try:
            composed[variant.label] = compose_training(trial.overrides)
        except SettingsError as error:
            refusals.append(f"{variant.name}: {error}")
    return composed, refusals


def _train_sources(
    variants: Sequence[Variant],
    shared: Sequence[str],
    *,
    base: TrainSettings,
    settings: StudySettings,
    folder: StudyFolder,
) -> dict[int, Trial] | None:
    """The slice model of each seed, trained as the base is but on slices; None where none is needed."""
    is_given = trained_source(base.model.baseline) is not None
    if is_given or not any(variant.starts_trained(base) for variant in variants):
        return None
    own = [*without_keys(shared, {"model", "experiment"}), *choose_model("slice2d")]
    own = without_keys(own, {"model.init", "model.depth_policy", "model.depth_kernel"})
    trials = plan_trainings({SLICES: []}, settings.study.seeds, shared=own, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder)
    return {trial.seed: trial for trial in finished_trials(outcomes)}


def _plan(
    variants: Sequence[Variant],
    shared: Sequence[str],
    sources: Mapping[int, Trial] | None,
    *,
    base: TrainSettings,
    settings: StudySettings,
    folder: StudyFolder,
) -> tuple[list[Trial], list[str]]:
    """The trainings, and a sentence for each whose slice model came to no end."""
    trials, unsourced = [], []
    for seed in settings.study.seeds:
        for variant in variants:
            source = []
            if sources is not None and variant.starts_trained(base):
                if seed not in sources:
                    unsourced.append(f"{variant.name}, seed {seed}: the slice model to start from failed.")
                    continue
                source = [format_override("model.baseline", str(sources[seed].run.path))]
            own = without_keys(shared, variant.changes)
            points = {variant.label: [*variant.overrides, *source]}
            trials += plan_trainings(points, [seed], shared=own, folder=folder)
    return trials, unsourced
