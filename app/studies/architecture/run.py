"""The study of the architecture: slice models to inflate from, then every variant, then the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.comparison.outcomes import Outcome
from app.comparison.planning import check_trial, choose_model, compose_training
from app.comparison.trials import Trial
from app.pretrained import trained_source
from app.settings import SettingsError, TrainSettings
from app.settings.studies import StudySettings
from app.studies.architecture.points import BASE, Variant, lay_out_variants
from app.studies.folder import StudyFolder
from app.studies.overrides import format_override, without_keys
from app.studies.space import read_values
from app.studies.trainings import finished_trials, given_overrides, plan_trainings, run_trainings

SLICES = "slices"  # the label of the slice models that kernels are inflated from


@dataclass(frozen=True)
class ArchitectureFindings:
    """What was trained.

    Attributes:
        base: The settings that were changed.
        variants: All that were wanted, the base first.
        outcomes: What became of their trainings.
        refusals: A sentence for each variant that no training could follow.
    """

    base: TrainSettings
    variants: Sequence[Variant]
    outcomes: Sequence[Outcome]
    refusals: Sequence[str]


def study_architecture(settings: StudySettings, folder: StudyFolder) -> None:
    """Train every variant; write table, figures and page."""
    study = settings.study
    given = given_overrides(refused={"seed": "say study.seeds=[...]."})
    shared = [*given, f"trainer.epochs={study.epochs}"]
    base = compose_training(shared)
    _refuse_slices(base)
    variants = lay_out_variants(read_values(study.vary, where="study.vary"), base, design=study.design)
    needs = (
        any(variant.starts_trained(base) for variant in variants)
        and trained_source(base.model.baseline) is None
    )
    sources = _train_slices(shared, study.seeds, folder, settings) if needs else {}
    trials, refusals = _plan(variants, shared, sources, base=base, settings=settings, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder)
    from app.studies.architecture.report import report_architecture

    report_architecture(settings, folder, ArchitectureFindings(base, variants, outcomes, refusals))


def _refuse_slices(base: TrainSettings) -> None:
    if base.model.kind != "volume":
        raise SettingsError(
            f"model={base.model.name}: expected a volume model, whose depth and inflation can be varied; "
            "say model=volume3d."
        )


def _train_slices(
    shared: Sequence[str], seeds: Sequence[int], folder: StudyFolder, settings: StudySettings
) -> dict[int, Trial]:
    """The slice model of each seed, trained as the base is but on slices."""
    own = [*without_keys(shared, {"model", "experiment"}), *choose_model("slice2d")]
    own = without_keys(own, {"model.init", "model.depth_policy", "model.depth_kernel"})
    trials = plan_trainings({SLICES: []}, seeds, shared=own, folder=folder)
    outcomes = run_trainings(trials, folder, runs_folder=settings.runs_folder)
    return {trial.seed: trial for trial in finished_trials(outcomes)}


def _plan(
    variants: Sequence[Variant],
    shared: Sequence[str],
    sources: Mapping[int, Trial],
    *,
    base: TrainSettings,
    settings: StudySettings,
    folder: StudyFolder,
) -> tuple[list[Trial], list[str]]:
    """The trainings that can be composed, and a sentence for each variant that cannot."""
    trials, refusals = [], {}
    for seed in settings.study.seeds:
        for variant in variants:
            overrides = [*variant.overrides, *_source(variant, base, sources.get(seed))]
            own = without_keys(shared, variant.changes)
            (trial,) = plan_trainings({variant.label: overrides}, [seed], shared=own, folder=folder)
            try:
                check_trial(trial)
            except SettingsError as error:
                refusals[variant.label] = f"{variant.name}: {error}"
                continue
            trials.append(trial)
    if BASE in refusals or not trials:
        raise SettingsError("\n".join(refusals.values()))
    return trials, list(refusals.values())


def _source(variant: Variant, base: TrainSettings, slices: Trial | None) -> list[str]:
    if slices is None or not variant.starts_trained(base):
        return []
    return [format_override("model.baseline", str(slices.run.path))]
