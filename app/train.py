"""`voxlift-train`: one model, one split, one seed; leaves a run folder that every other command can read."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from app.door.cli import run_command, to_settings
from app.files import write_json
from app.networks.pretrained import check_baseline, refuse_seen_subjects
from app.process.devices import check_backend
from app.process.failures import announce, told_in_sentences
from app.progress import console
from app.runs.folder import RunFolder
from app.runs.opening import create_run, refuse_used_folder
from app.settings import HostsSettings, SettingsError, TrainSettings, check_settings
from app.strategy.hosts.agreement import agree_on_precision, agree_on_subjects
from app.strategy.hosts.meeting import announce_run, in_turn, is_follower
from app.strategy.hosts.supervise import check_engine, supervise
from app.strategy.spreading import build_spread, do_once, prepare_devices
from app.training.inflation import (
    Inflation,
    borrow_slices,
    cost_of_slices,
    plan_inflation,
    slice_folder,
    trains_slices_first,
)
from app.training.resuming import (
    begin_again,
    is_complete,
    reopen_settings,
    reopen_subjects,
    resumes_elsewhere,
    saved_precision,
)

if TYPE_CHECKING:
    from app.networks.building import Networks
    from app.preflight.check import Preflight
    from app.process.precision import Precision
    from app.subjects.cohort import Cohort

log = logging.getLogger("voxlift")


def main() -> None:
    """The console script."""
    run_command("train", _start, is_supervised=True)


def _start(cfg: DictConfig) -> int:
    """A new training, or one that goes on."""
    if cfg.resume is None:
        settings = read_settings(cfg)
        return supervise(settings, settings.hosts) if settings.strategy == "hosts" else train(settings)
    overrides = [str(override) for override in HydraConfig.get().overrides.task]
    hosts = HostsSettings(**cfg.hosts)
    if resumes_elsewhere(cfg.resume, hosts, os.environ):
        return supervise(None, hosts, resumes=True)
    run, settings = reopen_settings(cfg.resume, overrides=overrides, epochs=cfg.trainer.epochs)
    if settings.strategy == "hosts":
        return supervise(settings, hosts, resumes=True)
    if hosts != HostsSettings():
        raise SettingsError(f"hosts: {run.path} is a run of one host; leave the keys of hosts out.")
    check_backend()
    return resume(run, settings)


def read_settings(cfg: DictConfig) -> TrainSettings:
    """The composed configuration as values, checked.

    Raises:
        SettingsError: listing every problem.
    """
    settings = to_settings(cfg, TrainSettings)
    check_settings(settings)
    check_baseline(settings.model)
    check_engine() if settings.strategy == "hosts" else check_backend()
    return settings


def train(settings: TrainSettings) -> int:
    """Train, score and report as the settings say.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError: the input is at fault; no folder is left.
    """
    from app.process.logs import logging_to_file
    from app.process.runtime import prepare_runtime
    from app.subjects.cohort import gather_cohort

    refuse_used_folder(settings.run_dir)
    if settings.model.kind == "table":
        from app.training.covariates import train_on_table

        return train_on_table(settings)
    with logging_to_file() as attach:
        with in_turn(settings):
            cohort = gather_cohort(settings)
        agree_on_subjects(settings, cohort)
        settings.data.classes = list(
            cohort.classes
        )  # saved with the run, so that later commands index the same way
        precision = prepare_runtime(
            precision=settings.precision,
            device=settings.device,
            deterministic=settings.deterministic,
            seed=settings.seed,
        )
        agree_on_precision(settings, precision.policy)
        refuse_seen_subjects(settings.model, cohort)
        prepare_devices(settings)
        parts = _build_parts(settings, cohort)
        found = _look_ahead(settings, cohort, parts)
        name = f"{settings.data.name}-{settings.model.name}-seed{settings.seed}"
        run = create_run(settings.run_dir, runs_folder=settings.runs_folder, name=name)
        announce_run(settings, run.path)
        attach(run.log)
        if found:
            write_json(run.preflight, {"trainings": [finding.as_json() for finding in found]})
        _train_parts(run, settings, cohort=cohort, parts=parts, precision=precision)
    return 0


def resume(run: RunFolder, settings: TrainSettings) -> int:
    """Go on with a training that was killed, to the end that it would have had; or for more epochs.

    Args:
        run: its folder.
        settings: its own, see `reopen_settings`.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, VolumeError, UserError: what stands in the way.
    """
    from app.process.logs import logging_to_file
    from app.process.runtime import prepare_runtime

    if is_complete(run, settings):
        console.print("This run is finished; a higher trainer.epochs would train it further.")
        console.print(f"Results in {run.path}", soft_wrap=True, highlight=False)
        return 0
    if settings.model.kind == "table":
        from app.training.covariates import train_on_table

        return train_on_table(settings, run)
    with logging_to_file() as attach:
        attach(run.log)
        log.info("Going on with %s", run.path)
        begin_again(run, settings)
        announce_run(settings, run.path)
        with in_turn(settings):
            cohort = reopen_subjects(run, settings)
        agree_on_subjects(settings, cohort)
        precision = prepare_runtime(
            precision=saved_precision(run, settings),
            device=settings.device,
            deterministic=settings.deterministic,
            seed=settings.seed,
        )
        agree_on_precision(settings, precision.policy)
        prepare_devices(settings)
        parts = _build_parts(settings, cohort)
        _train_parts(run, settings, cohort=cohort, parts=parts, precision=precision)
    return 0


def _build_parts(settings: TrainSettings, cohort: Cohort) -> Networks | Inflation:
    """What will be trained: networks, or slices first and what they are inflated to."""
    is_first = trains_slices_first(settings.model)
    return plan_inflation(settings, cohort) if is_first else _build(settings, cohort)


def _look_ahead(
    settings: TrainSettings, cohort: Cohort, parts: Networks | Inflation
) -> tuple[Preflight, ...]:
    """The preflight of every training that is to come."""
    from app.preflight.look import look_ahead  # Keras may be imported only now

    if isinstance(parts, Inflation):
        return look_ahead(settings, cohort, parts.slices, inflation=parts)
    return look_ahead(settings, cohort, parts)


def _train_parts(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    parts: Networks | Inflation,
    precision: Precision,
) -> None:
    """Train what is not trained yet, into the run's folder."""
    announce(settings.trainer, run)
    with told_in_sentences(run, settings.trainer):
        _describe(run, settings, cohort=cohort, precision=precision)
        if isinstance(parts, Inflation):
            parts = _train_slices(run, parts, cohort=cohort, precision=precision)
        _train_into(run, settings, cohort=cohort, networks=parts, is_last=True)


def _train_slices(run: RunFolder, inflation: Inflation, *, cohort: Cohort, precision: Precision) -> Networks:
    """Train the slice model unless that is done; the network that it is inflated to."""
    import keras

    first = slice_folder(run)
    if first.is_finished or borrow_slices(first, inflation.settings):
        inflation.take_weights(first)
    else:
        _describe(first, inflation.settings, cohort=cohort, precision=precision)
        _train_into(first, inflation.settings, cohort=cohort, networks=inflation.slices)
    keras.utils.set_random_seed(inflation.settings.seed)  # the same draws, whatever came before
    return inflation.inflate()


def _describe(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write down what is trained, on whom and on what, where that has not been done."""
    from app.runs.describing import describe_run

    log.info("Precision %s: %s", precision.policy, precision.reason)
    if run.splits.exists() or is_follower(settings):
        return
    describe_run(run, settings, cohort=cohort, precision=precision)


def _build(settings: TrainSettings, cohort: Cohort) -> Networks:
    from app.networks.building import build_networks

    networks = build_spread(settings, lambda: build_networks(settings.model, cohort))
    log.info("Model %s: %s parameters", settings.model.name, f"{networks.trained.count_params():,}")
    return networks


def _train_into(
    run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks, is_last: bool = False
) -> None:
    from app.training.network import train_network

    cost = train_network(run, settings, cohort=cohort, networks=networks)

    def finish() -> None:
        _finish(run, settings, cohort=cohort, networks=networks, cost=cost)

    do_once(finish, settings, name=f"{settings.model.name} is scored", is_last=is_last)


def _finish(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    networks: Networks,
    cost: dict[str, float],
) -> None:
    """Save, score and report a network that is trained."""
    from app.runs.page import write_run_page
    from app.scoring.cost import scoring_cost
    from app.scoring.judging import evaluate_run, show_metrics
    from app.training.network import save_model
    from models.folding import fold_normalisation

    save_model(networks.volume, run)
    scorer = fold_normalisation(networks.volume)
    metrics = evaluate_run(scorer, cohort, batch_size=settings.trainer.batch_size, run=run)
    scoring = scoring_cost(networks.volume, scorer, cohort, batch_size=settings.trainer.batch_size)
    metrics["cost"] = {**cost, **scoring, **cost_of_slices(run)}
    write_run_page(run, metrics, cohort, networks.volume)
    write_json(run.metrics, metrics)  # last: a folder with metrics is a finished run
    show_metrics(metrics, name=settings.model.name)
    console.print(f"Results in {run.path}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    from app.train import main as main_by_name  # a launcher hands the job on by its module's name

    main_by_name()
