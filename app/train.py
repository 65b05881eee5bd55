"""`voxlift-train`: one model, one split, one seed; leaves a run folder that every other command can read."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from app.cli import run_command, to_settings
from app.devices import check_backend
from app.inflate import (
    cost_of_slices,
    plan_inflation,
    settle_statistics,
    slice_folder,
    trains_slices_first,
    tuning_optimizer,
)
from app.pretrained import check_baseline, refuse_seen_subjects
from app.progress import console
from app.runs import RunFolder, create_run, refuse_used_folder, save_settings, write_json
from app.settings import TrainSettings, check_settings

if TYPE_CHECKING:
    from app.cohort import Cohort
    from app.networks import Networks
    from app.runtime import Precision

log = logging.getLogger("voxlift")


def main() -> None:
    """The console script."""
    run_command("train", lambda cfg: train(read_settings(cfg)))


def read_settings(cfg: DictConfig) -> TrainSettings:
    """The composed configuration as values, checked.

    Raises:
        SettingsError: listing every problem.
    """
    settings = to_settings(cfg, TrainSettings)
    check_settings(settings)
    check_baseline(settings.model)
    check_backend()
    return settings


def train(settings: TrainSettings) -> int:
    """Train, score and report as the settings say.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError: the input is at fault; no folder is left.
    """
    from app.cohort import gather_cohort
    from app.runtime import logging_to_file, prepare_runtime

    refuse_used_folder(settings.run_dir)
    with logging_to_file() as attach:
        cohort = gather_cohort(settings)
        settings.data.classes = list(
            cohort.classes
        )  # saved with the run, so that later commands index the same way
        precision = prepare_runtime(
            precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed
        )
        refuse_seen_subjects(settings.model, cohort)
        from app.preflight.look import look_ahead  # Keras may be imported only now

        inflation = plan_inflation(settings, cohort) if trains_slices_first(settings.model) else None
        networks = inflation.slices if inflation else _build(settings, cohort)
        found = look_ahead(settings, cohort, networks, inflation=inflation)
        name = f"{settings.data.name}-{settings.model.name}-seed{settings.seed}"
        run = create_run(settings.run_dir, runs_folder=settings.runs_folder, name=name)
        attach(run.log)
        if found:
            write_json(run.preflight, {"trainings": [finding.as_json() for finding in found]})
        if inflation:
            slices = slice_folder(run)
            _train_into(
                slices, inflation.settings, cohort=cohort, networks=inflation.slices, precision=precision
            )
            networks = inflation.inflate()
        _train_into(run, settings, cohort=cohort, networks=networks, precision=precision)
    return 0


def _build(settings: TrainSettings, cohort: Cohort) -> Networks:
    from app.networks import build_networks

    networks = build_networks(settings.model, cohort)
    log.info("Model %s: %s parameters", settings.model.name, f"{networks.trained.count_params():,}")
    return networks


def _train_into(
    run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks, precision: Precision
) -> None:
    from app.cohort import write_cohort
    from app.pages import write_run_page
    from app.ranges import write_training_range
    from app.runtime import describe_environment
    from app.scoring import evaluate_run, scoring_cost, show_metrics

    log.info("Precision %s: %s", precision.policy, precision.reason)
    save_settings(settings, run)
    write_json(run.environment, describe_environment(precision))
    write_cohort(cohort, run)
    write_training_range(cohort, run)
    cost = _fit(run, settings, cohort=cohort, networks=networks)
    networks.volume.save(run.model)
    metrics = evaluate_run(networks.volume, cohort, batch_size=settings.trainer.batch_size, run=run)
    scoring = scoring_cost(networks.volume, cohort, batch_size=settings.trainer.batch_size)
    metrics["cost"] = {**cost, **scoring, **cost_of_slices(run)}
    write_run_page(run, metrics, cohort, networks.volume)
    write_json(run.metrics, metrics)  # last: a folder with metrics is a finished run
    show_metrics(metrics, name=settings.model.name)
    console.print(f"Results in {run.path}", soft_wrap=True, highlight=False)


def _fit(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks) -> dict[str, float]:
    """Train the network; what it cost."""
    from app.feeding import build_feed
    from app.runtime import peak_memory_bytes
    from app.scoring import validation_score
    from app.training.fit import compile_network, fit_network

    trainer = settings.trainer
    feed = build_feed(settings, cohort)
    compile_network(
        networks.trained,
        optimizer=tuning_optimizer(settings),
        trainer=trainer,
        classes=len(cohort.classes),
        steps_per_epoch=feed.steps_per_epoch,
        soft_labels=feed.soft_labels,
    )
    started = time.perf_counter()
    settle_statistics(networks.trained, feed.batches, settings.model)
    keep = fit_network(
        networks.trained,
        feed.batches,
        trainer=trainer,
        steps_per_epoch=feed.steps_per_epoch,
        score=validation_score(networks.volume, cohort, batch_size=trainer.batch_size),
        history=run.history,
        tensorboard=run.tensorboard if settings.logger.tensorboard else None,
    )
    seconds = time.perf_counter() - started
    return {
        "parameters": networks.trained.count_params(),
        "best_epoch": keep.best_epoch,
        "train_seconds": round(seconds, 2),
        "seconds_per_epoch": round(seconds / max(1, keep.epochs_run), 3),
        "peak_memory_bytes": peak_memory_bytes(),
    }


if __name__ == "__main__":
    main()
