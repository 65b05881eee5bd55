"""One training from its settings to a finished run folder; a resumed training takes the same steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort, find_subjects, prepare_subjects
from voxlift.app.data.columns import fit_joined
from voxlift.app.data.sources import AutoChoice, decide_grid
from voxlift.app.evaluation.scores import ScoresError
from voxlift.app.files import refuse_unwritable, write_json, write_rows
from voxlift.app.inference.ablation import ALL_INPUTS, summarise_ablation
from voxlift.app.inference.groups import evaluate_run_subgroups
from voxlift.app.progress import phase, print_line
from voxlift.app.report.terminal import print_ablation, print_split_metrics, print_subgroups
from voxlift.app.runs.cohort import reopen_cohort, write_run_setup
from voxlift.app.runs.configuration import is_complete, reopen_run, saved_precision
from voxlift.app.runs.folder import RunFolder, create_run, refuse_used_folder, save_trained
from voxlift.app.runs.results import prediction_rows, write_learning
from voxlift.app.runs.subjects import check_reported_columns
from voxlift.app.runtime.failures import build_resume_hint, build_training_hint, translate_failures
from voxlift.app.runtime.logs import MACHINE, logging_to_file
from voxlift.app.runtime.setup import Precision, import_user_modules, prepare_runtime
from voxlift.app.training.baseline import refuse_seen_subjects
from voxlift.app.training.input import TrainingInput
from voxlift.app.training.networks import InputSpec, input_spec
from voxlift.app.training.stages import Stage, build_stages, build_stages_early
from voxlift.app.training.strategy.distribute import on_one_process, prepare_devices
from voxlift.app.training.strategy.hosts import (
    agree_on_precision,
    agree_on_subjects,
    is_follower,
    process_zero_first,
    share_run_path,
)
from voxlift.app.training.without_network import WITHOUT_NETWORK, check_model

if TYPE_CHECKING:
    from voxlift.app.training.preflight.check import Preflight


log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class Session:
    """What the stages of a training share.

    Attributes:
        settings: Of the training.
        cohort: The subjects, their splits and their prepared volumes.
        precision: The precision that this process computes in.
        stages: What is fitted, in order; the last stage gives the model of the run.
        inputs: The training batches of each stage, opened when they are first asked for.
        choice: What `preprocess=auto` has decided, where it was asked for.
    """

    settings: TrainSettings
    cohort: Cohort
    precision: Precision
    stages: tuple[Stage, ...]
    inputs: tuple[TrainingInput, ...]
    choice: AutoChoice | None = None


def train(settings: TrainSettings, run: RunFolder | None = None) -> int:
    """Train, score and report one model.

    Args:
        settings: Checked by `check_training`; those of the run where one is resumed.
        run: The folder of a training to resume; None starts a new one.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError: The input is at fault; no new folder is left.
        UserError: The training was stopped, by lack of memory for example; it can be resumed.
    """
    if run is not None and is_complete(run, settings):
        print_line("This run is finished; a higher trainer.epochs trains it further.")
        print_line(f"Results in {run.path}")
        return 0
    with logging_to_file() as attach_log:
        if run is None:
            session = _start_session(settings)
            run = _create_run(session, _run_preflight(session))
            attach_log(run.log)
        else:
            attach_log(run.log)
            session = _resume_session(settings, run)
            reopen_run(run, settings)  # last: a run whose images are refused stays as it is
        path = share_run_path(settings, run.path)
        resume = build_resume_hint(path, settings.custom)
        with translate_failures(build_training_hint(settings.trainer), resume):
            # First: from then on the run can be resumed.
            _write_setup(session, session.settings, run, session.cohort)
            # The plan of a second stage reads the weights that the fit of the first one leaves.
            for stage, data in zip(session.stages, session.inputs, strict=True):
                _train_stage(session, stage, data, run)
    return 0


def _check_destination(settings: TrainSettings) -> None:
    refuse_used_folder(settings.run_dir)
    if settings.run_dir is None:
        refuse_unwritable(Path(settings.runs_folder) / "run", setting=f"runs_folder={settings.runs_folder}")


def _start_session(settings: TrainSettings) -> Session:
    """Check all that needs no image, then prepare the images."""
    with process_zero_first(settings):
        _check_destination(settings)
        choice = decide_grid(settings)
        settings = settings if choice is None else replace(settings, preprocess=choice.settings)
        manifest, splits = find_subjects(settings)
        check_model(settings, manifest)
        check_reported_columns(settings)
    precision = _prepare_process(settings, settings.precision)
    refuse_seen_subjects(settings.model, manifest.records, splits)
    stages = build_stages_early(settings, manifest, splits)
    with process_zero_first(settings):
        cohort = prepare_subjects(manifest, splits, settings=settings)
    return replace(_complete_session(settings, cohort, precision, stages), choice=choice)


def _resume_session(settings: TrainSettings, run: RunFolder) -> Session:
    with process_zero_first(settings):
        cohort = reopen_cohort(run, settings)
    precision = _prepare_process(settings, saved_precision(run, settings))
    return _complete_session(settings, cohort, precision, (), run)


def _complete_session(
    settings: TrainSettings,
    cohort: Cohort,
    precision: Precision,
    stages: tuple[Stage, ...],
    run: RunFolder | None = None,
) -> Session:
    """Compare the hosts, and build the networks that could not be built before the images were read."""
    agree_on_subjects(settings, cohort)
    agree_on_precision(settings, precision.policy)
    settings = _with_classes(settings, cohort)
    if cohort.columns is None:  # else those of a resumed run
        cohort = replace(cohort, columns=fit_joined(settings, cohort.records, cohort.splits))
    spec = input_spec(cohort)
    if not stages:
        prepare_devices(settings)
        stages = build_stages(settings, spec, run=run)
    elif _describe_spec(stages[-1].spec) != _describe_spec(spec):
        _forget_networks(settings, precision)
        stages = build_stages(settings, spec)
    stages = tuple(replace(stage, settings=_with_classes(stage.settings, cohort)) for stage in stages)
    inputs = tuple(TrainingInput(stage.settings, _choose_columns(stage, cohort)) for stage in stages)
    return Session(settings, cohort, precision, stages, inputs)


def _describe_spec(spec: InputSpec) -> tuple[Any, ...]:
    """Return what networks depend on that bad files may have changed."""
    return spec.shape, spec.head, spec.columns


def _choose_columns(stage: Stage, cohort: Cohort) -> Cohort:
    """Return the cohort as a stage takes it: without columns where its model reads the images alone."""
    return cohort if stage.settings.model.join_columns else replace(cohort, columns=None)


def _forget_networks(settings: TrainSettings, precision: Precision) -> None:
    """Reset layer names, random draws and the precision policy, to build networks for other channels."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(precision.policy)


def _with_classes(settings: TrainSettings, cohort: Cohort) -> TrainSettings:
    """Return settings that name the outputs, so that later commands order them in the same way."""
    return replace(settings, data=cohort.task.with_names(settings.data, cohort.classes))


def _prepare_process(settings: TrainSettings, precision: str) -> Precision:
    if not settings.model.has_network:
        return prepare_runtime(precision="float32", device="cpu", deterministic=False, seed=settings.seed)
    chosen = prepare_runtime(
        precision=precision,
        device=settings.device,
        deterministic=settings.deterministic,
        seed=settings.seed,
    )
    logging.getLogger(MACHINE).info("Precision %s: %s", chosen.policy, chosen.reason)
    import_user_modules(settings.custom)
    return chosen


def _run_preflight(session: Session) -> Sequence[Preflight]:
    if not session.settings.model.has_network:
        return ()
    from voxlift.app.training.preflight.check import print_budgets, run_preflight  # imports Keras

    with phase("Checking memory and speed"):
        reports = run_preflight(session.stages, session.inputs)
    if session.choice is not None and reports:
        grids = {budget: own.shape for budget, own in session.choice.others.items()}
        print_budgets(reports[-1], grids, session.settings)
    return reports


def _create_run(session: Session, reports: Sequence[Preflight]) -> RunFolder:
    settings = session.settings
    name = f"{settings.data.name}-{settings.model.name}-seed{settings.seed}"
    run = create_run(settings.run_dir, runs_folder=settings.runs_folder, name=name)
    if settings.model.builder is not None and not is_follower(settings):
        save_trained(session.stages[0].take_networks().volume, run.untrained)
    if reports:
        write_json(run.preflight, {"trainings": [report.as_json() for report in reports]})
    return run


def _train_stage(session: Session, stage: Stage, data: TrainingInput, run: RunFolder) -> None:
    """Fit, score and report one stage into its folder, unless that is done already."""
    folder = stage.open_folder(run)
    if stage.adopt_finished_run(folder):
        return
    _write_setup(session, stage.settings, folder, data.cohort)
    fitted = _fit(stage, data, folder)
    name = f"{stage.settings.model.name} is scored"
    with on_one_process(stage.settings, name=name, is_last=stage.is_last) as is_this_one:
        if is_this_one:
            finalize_run(folder, stage.settings, cohort=data.cohort, fitted=fitted)


def _write_setup(session: Session, settings: TrainSettings, folder: RunFolder, cohort: Cohort) -> None:
    """Write the settings, the machine and the splits, where that has not been done."""
    if not folder.splits.exists() and not is_follower(settings):
        write_run_setup(folder, settings, cohort=cohort, precision=session.precision)


def _fit(stage: Stage, data: TrainingInput, folder: RunFolder) -> FittedModel:
    if not stage.settings.model.has_network:
        return WITHOUT_NETWORK[stage.settings.model.kind].fit(stage.settings, data.cohort)
    from voxlift.app.training.fit import fit_networks  # imports Keras

    return fit_networks(folder, stage, data)


class FittedModel(Protocol):
    """A model that was fitted to the training subjects, whatever its kind."""

    @property
    def network(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The Keras model of volumes [B, D, H, W, C], for Grad-CAM; None for a model without one."""

    def save(self, run: RunFolder) -> None:
        """Write the model into the run folder."""

    def score(self, cohort: Cohort) -> Mapping[str, Any]:
        """Return the scores of each split that holds subjects."""

    def cost(self, cohort: Cohort) -> dict[str, float]:
        """Return what fitting and scoring cost: parameters, seconds, bytes, floating-point operations."""


def finalize_run(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, fitted: FittedModel) -> None:
    """Write the files that make a run finished, and print its metrics.

    Args:
        run: Its folder, with the files that were written before the fit.
        settings: Of the run.
        cohort: Whose volumes are scored.
        fitted: The model.
    """
    from voxlift.app.evaluation.clinical_use import evaluate_use
    from voxlift.app.evaluation.conformal import evaluate_sets
    from voxlift.app.inference.groups import evaluate_run_sites
    from voxlift.app.report.run_page import write_run_page  # Matplotlib: not before the first step

    fitted.save(run)
    with phase("Scoring the subjects of each split"):
        scores = fitted.score(cohort)
    write_rows(run.predictions, prediction_rows(scores, cohort.task))
    with phase("Metrics and their intervals"):
        metrics = cohort.task.evaluate(scores)
    metrics |= _evaluate_ablation(run, settings, cohort=cohort, fitted=fitted, scores=scores, metrics=metrics)
    metrics["cost"] = fitted.cost(cohort)
    metrics |= evaluate_sets(scores, coverage=settings.evaluation.coverage)
    decided = cohort.task.decide(scores["test" if "test" in scores else "val"], metrics)
    if use := evaluate_use(decided, prevalence=settings.evaluation.prevalence):
        metrics["use"] = use
    metrics |= evaluate_run_sites(run, settings, cohort=cohort, scores=scores, network=fitted.network)
    metrics |= evaluate_run_subgroups(run, settings, scores, metrics)
    learning = write_learning(run, settings, scores=scores, cost=metrics["cost"])
    with phase("Writing the page"):
        write_run_page(run, settings, cohort=cohort, scores=scores, metrics=metrics, network=fitted.network)
    write_json(run.metrics, metrics)  # last: a folder with metrics is a finished run
    print_split_metrics(metrics, name=settings.model.name)
    print_subgroups(metrics.get("subgroups", {}))
    print_ablation(metrics.get("ablation"))
    for sentence in learning:
        print_line(sentence)
    print_line(f"Results in {run.path}")


def _evaluate_ablation(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    fitted: FittedModel,
    scores: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the scores with the image or the table blanked; return their metrics, for a network of both."""
    if cohort.columns is None or fitted.network is None:
        return {}
    from voxlift.app.inference.ablation import score_ablations

    split, task = "test" if "test" in scores else "val", cohort.task
    batch_size = settings.trainer.batch_size
    blanked = score_ablations(fitted.network, cohort, split, batch_size=batch_size)
    write_rows(run.ablation, prediction_rows(blanked, task))
    fits = {name: [task.decide(one, metrics)] for name, one in {ALL_INPUTS: scores[split], **blanked}.items()}
    try:
        return {"ablation": summarise_ablation(fits, split=split)}
    except ScoresError as error:
        log.info("The ablation has no metrics: %s", error)
        return {}
